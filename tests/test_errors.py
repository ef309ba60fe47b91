"""Errors as a person reads them, and as they travel between processes."""

import pickle

import pytest

from raylib.errors import (
    BadContent,
    BadContentsError,
    ModelError,
    RaylibError,
    StoreError,
    UnknownNameError,
    UnsupportedOptionError,
    UserError,
    nearest_names,
)

KNOWN = ["ViDoRe(v1)", "ViDoRe(v2)", "MTEB(eng, v2)", "StdlibPages"]


def test_an_unknown_name_comes_with_the_nearest_ones():
    error = UnknownNameError("benchmark", "vidore(v2)", KNOWN, "See raylib list.")
    assert error.nearest[0] == "ViDoRe(v2)"
    assert str(error).startswith("unknown benchmark 'vidore(v2)'. Did you mean ViDoRe(v2) or ")
    assert str(error).endswith("See raylib list.")


def test_nothing_alike_means_no_guess():
    assert str(UnknownNameError("task", "zzzz", KNOWN)) == "unknown task 'zzzz'."


def test_near_names_ignore_case_and_find_parts_of_names():
    assert nearest_names("STDLIBPAGE", KNOWN) == ["StdlibPages"]
    assert nearest_names("eng", KNOWN) == ["MTEB(eng, v2)"]
    assert len(nearest_names("ViDoRe", [f"ViDoRe(v{i})" for i in range(9)])) == 3


def test_messages_and_fields_survive_pickling():
    unknown = UnknownNameError("model", "clpi", ["clip"], "Try list.")
    copy = pickle.loads(pickle.dumps(unknown))
    assert type(copy) is UnknownNameError and isinstance(copy, ValueError)
    assert (str(copy), copy.kind, copy.name, copy.nearest) == (str(unknown), "model", "clpi", ["clip"])
    bad = BadContentsError([BadContent("00", "T/test/default query", "q1", "the text is empty")])
    again = pickle.loads(pickle.dumps(bad))
    assert again.bad == bad.bad and str(again) == str(bad)


def test_bad_contents_name_the_first_five_and_count_the_rest():
    bad = [BadContent(f"{i:02x}", "T/test/default document", f"d{i}", "unreadable") for i in range(7)]
    text = str(BadContentsError(bad))
    assert text.startswith("7 contents could not be encoded (T/test/default document d0: unreadable; ")
    assert "d4: unreadable; and 2 more)" in text and "d5" not in text and "--allow-errors" in text


@pytest.mark.parametrize("kind", [UserError, UnsupportedOptionError, UnknownNameError])
def test_what_a_user_gave_is_a_value_error_too(kind):
    assert issubclass(kind, ValueError) and issubclass(kind, RaylibError)


@pytest.mark.parametrize("kind", [ModelError, StoreError, BadContentsError])
def test_what_failed_later_is_no_user_error(kind):
    assert issubclass(kind, RaylibError) and not issubclass(kind, UserError)
