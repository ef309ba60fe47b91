"""Loading a task's data, with an error that says what to do where it cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raylib.errors import RaylibError, UserError

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


@contextmanager
def loaded(task: AbsTask) -> Iterator[None]:
    """With the task's data in place, loaded unless it is. What goes wrong, in the block too, is a UserError that names
    the task."""
    try:
        if not task.data_loaded:
            task.load_data()
        yield
    except RaylibError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"the data of {task.metadata.name} cannot be loaded: {type(error).__name__}: {why}. "
            "Without network, give a local copy with --data-root DIR."
        ) from error
