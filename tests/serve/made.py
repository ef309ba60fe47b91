"""Encoders for the tests of serving."""

from __future__ import annotations

from raylib.types import EncodeContext
from tests.evaluate.made import Letters


class Prompted(Letters):
    """Asks for a prompt that names the task and the language."""

    def context(self, task, role, *, split=None, subset=None):
        name = "nothing" if task is None else task.name
        return EncodeContext(role, f"query of {name} in {subset}: " if role == "query" else "", task)


def prompted() -> Prompted:
    return Prompted("tests.serve.made:prompted")
