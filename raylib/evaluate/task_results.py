"""What one model's run reads of earlier results and writes of its own: MTEB's file, the record, the details."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.model import SubsetKeys
from raylib.evaluate.results import read_records, result_folder, save_task_result, stored_result
from raylib.evaluate.score_task import Scored
from raylib.evaluate.task_data import LoadedTask
from raylib.metrics.details import (
    Details,
    contents_of,
    details_folder,
    join_details,
    kept_rankings,
    places,
    read_details,
    remove_details,
    without,
    write_details,
)
from raylib.models.protocol import Encoder

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

    from raylib.models.bridge import SearchModel


EXACT_MTEB = "exact-mteb"
"""The digest of a result of that mode. MTEB may draw on anything, so none is taken for known later."""

OLD_FILES = "mmeb"
"""The folder of files in the format of VLM2Vec's and B3's scripts."""


@dataclass(frozen=True)
class TaskResults:
    """fingerprint: of what makes the scores, the encoder or MTEB's own model. planned: task → keys of its contents.
    complete: every content has a vector; without some, a result is not taken for known later."""

    config: EvaluateConfig
    model: Encoder | SearchModel
    fingerprint: str
    meta: ModelMeta
    planned: dict[str, SubsetKeys]
    complete: bool
    untrained: bool

    @property
    def folder(self) -> str:
        return result_folder(self.config.output_folder, self.meta)

    def check_mode(self, loaded: LoadedTask) -> None:
        """Raises UserError where the result of the other mode lies: bits that were asked for are not lost by chance."""
        record = read_records(self.folder).get(loaded.name)
        if record is None or self.config.overwrite or (record.digest == EXACT_MTEB) == self.config.exact_mteb:
            return
        there = "with --exact-mteb" if record.digest == EXACT_MTEB else "without --exact-mteb"
        raise UserError(
            f"{self.folder} has a result of {loaded.name} that was made {there}; "
            "choose another --output-folder, or replace it with --overwrite"
        )

    def known(self, loaded: LoadedTask) -> tuple[TaskResult, dict[str, Any]] | None:
        """The result of an earlier run and its search quality, if it was made from the same data in the same way and
        has the details that are asked for."""
        digest = self._digest(loaded)
        if digest in ("", EXACT_MTEB) or kept_rankings(self._details_folder(loaded)) < self.config.keep_rankings:
            return None
        task: Any = loaded.task
        names = task.result_file_names() if hasattr(task, "result_file_names") else ()
        if not all(storage.exists(self._old_file(name)) for name in names):
            return None
        result = stored_result(self.config.output_folder, self.meta, loaded.name, digest)
        return None if result is None else (result, dict(read_records(self.folder)[loaded.name].quality))

    def save(self, loaded: LoadedTask, scored: Scored) -> dict[str, Any]:
        """Write a result and its details in place of those that are there; gives its search quality by
        "split/subset"."""
        partial = bool(self.config.languages or self.config.splits)
        quality = {f"{split}/{subset}": found for (split, subset), found in scored.quality.items()}
        folder = self._details_folder(loaded)
        before = read_details(folder) if partial and scored.details is not None and kept_rankings(folder) else None
        remove_details(folder)  # first: details of another result would mislead
        path = save_task_result(
            self.config.output_folder,
            scored.result,
            self.meta,
            official=loaded.official,
            limited=loaded.limited,
            digest=self._digest(loaded),
            fingerprint=self.fingerprint,
            untrained=self.untrained,
            partial=partial,
            encode_kwargs={"batch_size": self.config.contents, "show_progress_bar": False},
            quality=quality,
        )
        for name, text in scored.files.items():
            storage.write_text(self._old_file(name), text)
        if scored.details is not None:
            details = self._with_contents(loaded, scored.details)
            if before is not None:
                details = _joined(details, before, path)
            write_details(folder, details, self.config.keep_rankings)
        return quality

    def _digest(self, loaded: LoadedTask) -> str:
        """Empty where the result is not to be taken for known later."""
        if self.config.exact_mteb:
            return EXACT_MTEB
        planned = self.planned.get(loaded.name)
        if not planned or not self.complete:
            return ""
        return loaded.digest(self.model.fingerprint, planned, self.config.experiment())

    def _old_file(self, name: str) -> str:
        """In a folder of their own: MTEB takes every .json file of the result folder itself for a task's scores."""
        return storage.join(self.folder, OLD_FILES, name)

    def _details_folder(self, loaded: LoadedTask) -> str:
        return details_folder(self.folder, loaded.name)

    def _with_contents(self, loaded: LoadedTask, details: Details) -> Details:
        if not isinstance(self.model, Encoder) or loaded.name not in self.planned:
            return details
        planned = self.planned[loaded.name]
        sides = {(split, subset, role): side for (_, split, subset, role), side in planned.items()}
        about = {"store": self.config.store_folder, "fingerprint": self.model.fingerprint}
        about |= {"model": self.model.spec.name, "similarity": str(self.model.similarity)}
        return Details(details.rankings, details.queries, contents_of(sides, about))


def _joined(details: Details, before: Details, path: str) -> Details:
    """The details with those of the other splits and subsets that the result file holds."""
    scores = json.loads(storage.read_text(path))["scores"]
    held = {(split, entry["hf_subset"]) for split, entries in scores.items() for entry in entries}
    return join_details([details, without(before, places(details) | (places(before) - held))])
