"""Summary lines → questions; all expected values are written by hand."""

import pytest

from raylib.tasks.page_queries import holds_name, query_of, summary_of


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the length. It is cheap.", "Return the length"),
        ("Return the\n    length of a line\n\nMore text.", "Return the length of a line"),
        ("Read e.g. a file or a socket.", "Read e.g. a file or a socket"),
        (">>> len([])\n0", ""),
        ("Options\n=======\ntext", ""),
        ("Talks to the server (see RFC 1). Then stops.", "Talks to the server (see RFC 1)"),
    ],
)
def test_summary_is_the_first_sentence_of_prose(docstring, expected):
    assert summary_of(docstring) == expected


@pytest.mark.parametrize(
    ("summary", "name", "expected"),
    [
        ("Return the middle value of numeric data", "median", "How do I get the middle value of numeric data?"),
        ("Returns a list of all open files", "files_of", "How do I get a list of all open files?"),
        ("Return True if the path is a socket", "is_sock", "How do I know if the path is a socket?"),
        ("Convert a string into a number of days", "parse", "How do I convert a string into a number of days?"),
        ("Splits the line at every blank", "cut", "How do I split the line at every blank?"),
        ("A queue that hands out smallest first", "Heap", "Is there a queue that hands out smallest first?"),
        ("A queue is a list with two ends", "Deque", "A queue is a list with two ends"),
        ("Called when the other side hangs up", "on_close", "Called when the other side hangs up"),
        ("Open the 'file' (or socket) for the caller's use", "grab", "How do I open the file for the caller's use?"),
        ("grab(path) -> open the file at this path", "grab", "How do I open the file at this path?"),
        ("grab -- open the file at this path", "grab", "How do I open the file at this path?"),
    ],
)
def test_questions(summary, name, expected):
    assert query_of(summary, name) == expected


@pytest.mark.parametrize(
    ("summary", "name"),
    [
        ("Close the file", "close_now"),  # too short
        ("Sort the list of names in place", "sort"),  # names what it describes
        ("Sorts the list of all names in place", "sort"),  # also as a verb form
        ("Return x[i:j] as a list of numbers", "cut"),  # code
        ("Return the value of some_setting as a number", "setting"),  # an identifier
        ("Return a StatsProfile made of all the numbers", "profile_of"),  # an identifier
        ("This is slow but it is effective", "clear"),  # says nothing
        ("word " * 41, "x"),  # too long
        ("", "x"),
    ],
)
def test_what_gives_no_question(summary, name):
    assert query_of(summary, name) == ""


def test_a_name_inside_another_word_is_not_the_name():
    assert not holds_name("Assorted things", "sort")
    assert holds_name("it Sorted them", "sort")
