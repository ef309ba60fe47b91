"""How many of the first ranks B3 leaves out, by what a data set asks (Thirukovalluru et al., 2025, arXiv 2505.11293).

Where many documents answer a query as well as its own does, as short answers to visual questions do, more of the first
ranks are false negatives.
"""

from __future__ import annotations

from collections.abc import Sequence

from raylib.errors import UnknownNameError, UserError
from raylib.tasks.mmeb_table import META_TASKS

SKIP_TOP = 30
"""Of retrieval and grounding, and of data sets that are none of MMEB's."""

_BY_META_TASK = {"VQA": 70, "classification": 0}
"""For classes B3 leaves out the gold one only; it is the positive, which is never joined to its own query."""


def skip_tops(names: Sequence[str], given: Sequence[str] = ()) -> dict[str, int]:
    """Data set → how many of the first ranks are left out, for each of `names`.

    given: "30" for all data sets, "DocVQA=70" for one, whatever the case of its letters; a name's own number holds
    before that of all. Where neither says it: 70 for MMEB's sets of visual questions, 0 for its sets of classes, else
    30. Raises UnknownNameError for a name that is none of `names`, and UserError for what is no number, is below 0, or
    says one thing twice.
    """
    of_all: int | None = None
    own: dict[str, int] = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        count = _number(text, number)
        if not equals:
            if of_all is not None:
                raise UserError(f"--skip-top says {of_all} and {count} for all data sets; expected one number")
            of_all = count
            continue
        for found in _named(name.strip(), names):
            if found in own:
                raise UserError(f"--skip-top says {own[found]} and {count} for {found}; expected one number")
            own[found] = count
    return {name: own.get(name, _usual(name) if of_all is None else of_all) for name in names}


def _number(text: str, number: str) -> int:
    try:
        count = int(number)
    except ValueError:
        count = -1
    if count < 0:
        raise UserError(f"--skip-top {text}: expected a whole number from 0, e.g. 30, or NAME=70 for one data set")
    return count


def _named(name: str, names: Sequence[str]) -> list[str]:
    """The names that are this one; those it is but for the case of letters where it is none of them."""
    found = [known for known in names if known == name]
    found = found or [known for known in names if known.lower() == name.lower()]
    if not found:
        raise UnknownNameError("data set", name, names, f"--skip-top takes those of the data: {', '.join(names)}.")
    return found


def _usual(name: str) -> int:
    return next((count for task, count in _BY_META_TASK.items() if _plain(name) in _SUBSETS[task]), SKIP_TOP)


def _plain(name: str) -> str:
    """MMEB's training sets are called like its evaluation sets but for "_", as in ImageNet_1K."""
    return name.lower().replace("_", "-")


_SUBSETS = {task: frozenset(map(_plain, subsets)) for task, subsets in META_TASKS.items()}
