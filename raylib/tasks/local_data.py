"""Makes an MTEB task read a local copy of its data set instead of the hub's.

A copy is a folder laid out as on the hub: README.md with `configs:`, and Parquet files. That is all a task's own
`load_data` needs, so ViDoRe v1, v2, v3 and v3.1 and every other data set load through MTEB's own code. The `datasets`
library keeps an Arrow copy under its own cache; `versioned_view` sees to it that an edited file is read again.
A result on local data is nobody's official one: ask `is_official`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from raylib import storage
from raylib.copies import local_copy
from raylib.errors import UserError
from raylib.tasks.cache import versioned_view

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

_MARK = "_raylib_local_folder"


def redirect(task: AbsTask, data_root: str) -> AbsTask:
    """The same task object, reading DIR/<org>/<repo> or DIR/<repo> from now on; other instances keep the hub.

    `task.unload_data()` undoes it, as MTEB then restores the class's metadata: redirect again for another run. Raises
    UserError where neither folder exists or the one found is no data set.
    """
    hub_path = type(task).metadata.dataset["path"]  # the class's: redirecting twice is the same as once
    local = _local_folder(task, hub_path, data_root)
    _check_layout(task, local)
    dataset = {**task.metadata.dataset, "path": versioned_view(local)}
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
    setattr(task, _MARK, local)
    return task


def is_official(task: AbsTask) -> bool:
    """False for a task that was redirected: its data may differ from what its revision says, whatever it holds now."""
    return getattr(task, _MARK, None) is None


def local_folder(task: AbsTask) -> str | None:
    """The folder that the task was redirected to; None for a task that reads the hub."""
    return getattr(task, _MARK, None)


def mark_local(task: AbsTask, folder: str) -> None:
    """Note that the task reads `folder`: for tasks that read local copies by themselves."""
    setattr(task, _MARK, folder)


def find_copy(hub_path: str, root: str) -> tuple[str | None, list[str]]:
    """(the folder below `root` with a copy of a data set of the hub, None where there is none; where it may be, by its
    whole name or without its owner). One in a bucket is copied to this node."""
    tried = [os.path.join(root, hub_path), os.path.join(root, hub_path.rpartition("/")[2])]
    if storage.is_remote(root):
        found = next((url for url in tried if storage.find_files(url)), None)
        return (None if found is None else local_copy(found)), tried
    return next(filter(os.path.isdir, tried), None), tried


def _local_folder(task: AbsTask, hub_path: str, data_root: str) -> str:
    root = data_root if storage.is_remote(data_root) else os.path.abspath(os.path.expanduser(data_root))
    folder, tried = find_copy(hub_path, root)
    if folder is not None:
        return folder
    raise UserError(
        f"no local copy of {hub_path}, which {task.metadata.name} reads: there is neither {tried[0]} nor {tried[1]}. "
        f"Copy the data set to one of them (hf download {hub_path} --repo-type dataset --local-dir {tried[0]}), "
        "or leave --data-root out."
    )


def _check_layout(task: AbsTask, folder: str) -> None:
    """A folder without any data file would make `datasets` fail with a message about something else."""
    suffixes = (".parquet", ".jsonl", ".json", ".csv", ".arrow", ".tsv", ".gz", ".zst")
    for _, _, names in os.walk(folder):
        if any(name.endswith(suffixes) for name in names):
            return
    raise UserError(
        f"{folder} holds no data file ({', '.join(suffixes)}) for {task.metadata.name}. "
        "Expected the files of the data set as on the hub: README.md and Parquet."
    )
