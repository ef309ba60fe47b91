"""Keys: what must tell two contents apart, and what must not."""

import hashlib

import pytest

from raylib.store.keys import KEY_BYTES, content_key, field_digest

TEXT, IMAGE = field_digest("a page"), field_digest(b"png")
PLAIN = ("f" * 64, "document", "", {"text": TEXT, "image": IMAGE})


def test_a_key_is_32_bytes_and_the_same_everywhere():
    """Written down, so that a change of the rule, which would orphan every store, is seen."""
    assert len(content_key(*PLAIN)) == KEY_BYTES == 32
    parts = [b"f" * 64, b"document", b"", b"image", IMAGE, b"text", TEXT]
    by_hand = hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()
    assert content_key(*PLAIN) == by_hand


def test_the_order_of_fields_does_not_matter():
    assert content_key("f" * 64, "document", "", {"image": IMAGE, "text": TEXT}) == content_key(*PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        ("e" * 64, "document", "", {"text": TEXT, "image": IMAGE}),
        ("f" * 64, "query", "", {"text": TEXT, "image": IMAGE}),
        ("f" * 64, None, "", {"text": TEXT, "image": IMAGE}),
        ("f" * 64, "document", "passage: ", {"text": TEXT, "image": IMAGE}),
        ("f" * 64, "document", "", {"text": TEXT}),
        ("f" * 64, "document", "", {"text": IMAGE, "image": TEXT}),
        ("f" * 64, "document", "", {"body": TEXT, "image": IMAGE}),
        ("f" * 64, "document", "", {"text": TEXT, "image": field_digest(b"png2")}),
    ],
    ids=["encoder", "role", "no role", "prompt", "missing field", "swapped fields", "field name", "field value"],
)
def test_everything_that_decides_a_vector_changes_the_key(other):
    assert content_key(*other) != content_key(*PLAIN)


def test_text_does_not_slip_from_one_part_into_the_next():
    assert content_key("f", "query", "ab", {}) != content_key("f", "querya", "b", {})
    assert content_key("f", None, "query", {}) != content_key("f", "query", "", {})


def test_values_of_different_types_never_equal_each_other():
    same_looking = ["1", b"1", 1, 1.5, None, "null", b"null", ["1"], {"1": 1}, "", b"", True]
    assert len({field_digest(value) for value in same_looking}) == len(same_looking)


def test_equal_values_have_one_digest():
    assert field_digest({"b": 1, "a": [1, 2]}) == field_digest({"a": [1, 2], "b": 1})
    assert field_digest("é") == hashlib.sha256(b"s" + "é".encode()).digest()
    assert field_digest("é") != field_digest("e\u0301"), "texts are compared as they are"


def test_half_of_a_surrogate_pair_has_a_key():
    assert field_digest("\ud800") != field_digest("\ud801")
    assert content_key("f", "query", "\ud800", {}) != content_key("f", "query", "\ud801", {})
