"""The plan: every distinct content once, in batches that do not depend on what is stored."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image

from raylib.errors import UserError
from raylib.evaluate import plan as module
from raylib.evaluate.contents import Source
from raylib.evaluate.plan import Plan, readable_fields
from raylib.store.keys import content_key, field_digest
from raylib.types import EncodeContext
from tests.evaluate.made import Letters

QUERY, DOCUMENT = EncodeContext("query"), EncodeContext("document")


def texts(*values, name="T/test/default document", **columns):
    data = datasets.Dataset.from_dict({"text": list(values), **columns})
    return Source(name, [f"d{i}" for i in range(len(values))], data)


def images(*values, **columns):
    cells = datasets.Dataset.from_dict({"image": list(values)})
    data = datasets.Dataset.from_dict(columns) if columns else None
    return Source("T/test/default document", [f"d{i}" for i in range(len(values))], data, cells)


def png(size):
    stream = io.BytesIO()
    Image.new("RGB", size, (*size, 0)).save(stream, "PNG")  # a colour of its own
    return stream.getvalue()


def read(plan, batch):
    """The texts of a batch, through the places it names."""
    return [plan.sources[at].rows([row])[0]["text"] for at, row in batch.rows]


@pytest.mark.parametrize(("native", "rows"), [(False, [0, 1, 2, 3]), (True, [2, 0, 3, 1])])
def test_pages_that_keep_their_size_are_sorted_by_it(native, rows):
    encoder = Letters()
    encoder.native_resolution = native
    plan = Plan(encoder)
    sizes = [(40, 50), (20, 10), (90, 80), (30, 30)]
    cells = [{"bytes": png(size), "path": None} for size in sizes]
    plan.add(images(*cells, {"bytes": b"broken", "path": None}), DOCUMENT)
    assert [row for batch in plan.batches(5) for _, row in batch.rows] == [*rows, 4]


def test_equal_contents_get_one_key_and_are_planned_once():
    plan = Plan(Letters())
    first = plan.add(texts("a", "b", "a"), DOCUMENT)
    second = plan.add(texts("b", "c", name="U/test/default document"), DOCUMENT)

    assert first[0] == first[2] and first[1] == second[0]
    assert plan.keys() == [first[0], first[1], second[1]], "in the order in which they were planned"
    assert plan.n_requested == 5
    (batch,) = plan.batches(8)
    assert batch.rows == [(0, 0), (0, 1), (1, 1)] and read(plan, batch) == ["a", "b", "c"] and len(batch) == 3


def test_keys_are_those_of_the_fields_that_the_encoder_reads():
    encoder = Letters()
    (key,) = Plan(encoder).add(texts("a", title=["never read"]), EncodeContext("document", "passage: "))
    assert key == content_key(encoder.fingerprint, "document", "passage: ", {"text": field_digest("a")})


@pytest.mark.parametrize("other", [QUERY, EncodeContext("document", "prompt"), EncodeContext(None)])
def test_role_and_prompt_make_other_contents_and_other_batches(other):
    plan = Plan(Letters())
    assert plan.add(texts("a"), DOCUMENT) != plan.add(texts("a"), other)
    assert [batch.context for batch in plan.batches(8)] == [DOCUMENT, other]


def test_what_a_task_is_told_besides_does_not_divide_contents():
    plan = Plan(Letters())
    one = plan.add(texts("a"), EncodeContext("document", task="one"))
    assert plan.add(texts("a"), EncodeContext("document", task="two")) == one
    assert len(plan.batches(8)) == 1


def test_batches_hold_similar_lengths_longest_first():
    plan = Plan(Letters())
    plan.add(texts("aa", "a", "aaaa", "a b", "aaaaa", "b"), DOCUMENT)
    assert [read(plan, batch) for batch in plan.batches(2)] == [["aaaaa", "aaaa"], ["a b", "aa"], ["a", "b"]]


def test_lengths_are_sorted_within_a_window_only(monkeypatch):
    monkeypatch.setattr(module, "_SORT_WINDOW", 2)
    plan = Plan(Letters())
    plan.add(texts("a", "aa", "aaaa", "b", "aaa"), DOCUMENT)
    assert [read(plan, batch) for batch in plan.batches(2)] == [["aaaa", "aa"], ["a", "b"], ["aaa"]]


def test_images_keep_their_order():
    plan = Plan(Letters())
    plan.add(images(b"longest", b"x", b"long"), DOCUMENT)
    assert [batch.rows for batch in plan.batches(2)] == [[(0, 0), (0, 1)], [(0, 2)]]
    assert plan.batches(2)[0].fields == ("image",)


def test_a_run_that_continues_forms_the_batches_of_an_undisturbed_one():
    """Whatever is stored, a content is only ever encoded beside contents of its own batch, in the same order."""
    plan = Plan(Letters())
    words = [f"{'a' * int(n)} {i}" for i, n in enumerate(np.random.default_rng(0).integers(1, 30, 300))]
    keys = plan.add(texts(*words), DOCUMENT)
    whole = plan.batches(7)
    assert sorted(len(b) for b in whole)[:2] == [6, 7] and sum(map(len, whole)) == 300
    stored = set(np.random.default_rng(1).permutation(np.array(keys, dtype=object))[:170])

    rest = plan.batches(7, stored)

    left_out = [[k for k in batch.keys if k not in stored] for batch in whole]
    assert [batch.keys for batch in rest] == [keys for keys in left_out if keys]
    assert all(len(batch.keys) == len(batch.rows) for batch in rest)
    assert plan.batches(7, set(keys)) == []


def test_one_more_source_adds_only_what_is_new():
    plan = Plan(Letters())
    first = plan.add(texts("a", "b"), DOCUMENT)
    second = plan.add(texts("b", "c"), DOCUMENT)
    (batch,) = plan.batches(8, set(first))
    assert batch.keys == [second[1]] and read(plan, batch) == ["c"]


@pytest.mark.parametrize(
    ("encoder", "source", "message"),
    [
        (Letters(modalities=["text"]), images(b"1"), "contents are image; made/letters reads text only"),
        (Letters(modalities=["image"]), texts("a"), "contents are text; made/letters reads image only"),
        (Letters(), images(b"1", text=["a"]), "contents hold text and image together; made/letters reads one of them"),
    ],
    ids=["images", "text", "both"],
)
def test_contents_that_a_model_cannot_read_are_refused(encoder, source, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Plan(encoder).add(source, DOCUMENT)


@pytest.mark.parametrize(
    ("modalities", "fuses", "fields"),
    [(["text", "image"], True, ("text", "image")), (["text"], False, ("text",)), (["image"], False, ("image",))],
)
def test_of_text_and_image_together_a_model_reads_what_it_can(modalities, fuses, fields):
    assert readable_fields(Letters(modalities=modalities, fuses=fuses), images(b"1", text=["a"])) == fields


class Everything(Letters):
    """Reads every column, as a bridged MTEB model does."""

    fields = None


def test_a_model_that_reads_every_column_leaves_modalities_that_it_lacks():
    both = images(b"1", text=["a"], body=["a"])
    assert readable_fields(Everything(), both) == ("text", "body", "image")
    assert readable_fields(Everything(modalities=["text"]), both) == ("text", "body")
    assert readable_fields(Everything(modalities=[]), both) == ("text", "body", "image"), "it does not say"
    with pytest.raises(UserError, match="contents are image; made/letters reads text only"):
        readable_fields(Everything(modalities=["text"]), images(b"1"))


def test_rows_of_mixed_kinds_have_the_keys_and_batches_of_what_they_hold():
    """A text, an image and both, in one source: as if each were in a source of its kind."""
    source = images(None, b"1", b"1", None, text=["a", "", "a", "bb"])
    source.present = [("text",), ("image",), ("text", "image"), ("text",)]
    plan = Plan(Letters(fuses=True))
    keys = plan.add(source, DOCUMENT)

    apart = Plan(Letters(fuses=True))
    assert [keys[0], keys[3]] == apart.add(texts("a", "bb"), DOCUMENT)
    assert keys[1:2] == apart.add(images(b"1"), DOCUMENT) and keys[2:3] == apart.add(images(b"1", text=["a"]), DOCUMENT)
    found = {batch.fields: [row for _, row in batch.rows] for batch in plan.batches(8)}
    assert found == {("text",): [3, 0], ("image",): [1], ("text", "image"): [2]} and plan.n_requested == 4
    piece = source.piece(1, 3)
    assert piece.kinds() == {("image",): [0], ("text", "image"): [1]}
    with pytest.raises(UserError, match="contents hold text and image together"):
        Plan(Letters()).add(source, DOCUMENT)
