"""One model on one whole task, scored by MTEB: the unit that is handed out, here or on a cluster.

A task stays whole because some kinds draw from a random state that moves on from subset to subset; it is made fresh for
every model because that state moves on from model to model too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raylib.errors import BadContent
from raylib.evaluate.encode import EncodeReport
from raylib.evaluate.exact_run import ExactRunModel
from raylib.evaluate.model import StoreModel
from raylib.evaluate.task_data import LoadedTask
from raylib.metrics.details import Details, details_of, join_details

if TYPE_CHECKING:
    from mteb.results import TaskResult

    from raylib.models.bridge import SearchModel


@dataclass
class ScoreUnit:
    """All that scoring one task needs.

    model: an encoder's, of this unit's own, or one that MTEB runs by itself. keep_rankings: documents per query
    that are kept, 0 for none. place: smaller goes first; the models in the order in which they were encoded, the
    longest task of each first.
    """

    model: StoreModel | SearchModel | ExactRunModel
    task: LoadedTask
    batch_size: int
    keep_rankings: int = 0
    place: tuple[int, float] = (0, 0.0)

    @property
    def title(self) -> str:
        return f"{self.model_name}  {self.task.name}"

    @property
    def model_name(self) -> str:
        return (self.model.encoder.spec if isinstance(self.model, StoreModel) else self.model.spec).name


@dataclass
class Scored:
    """What came of a unit. details: of a retrieval task, without contents. quality: (split, subset) → what an
    approximate search says of itself. report, bad: of contents that were encoded while scoring. files: name → text of
    what the task has to be written besides, in the format of older tools."""

    result: TaskResult
    details: Details | None = None
    quality: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    report: EncodeReport = field(default_factory=EncodeReport)
    bad: dict[bytes, BadContent] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Scorer:
    """Scores units in this process. A model that MTEB runs by itself is loaded once for all its tasks in a row."""

    def __init__(self) -> None:
        self._loaded: tuple[str, Any] = ("", None)

    def __call__(self, unit: ScoreUnit) -> Scored:
        """Raises what MTEB, the model or the search raises."""
        import mteb

        start, cpu = time.perf_counter(), time.process_time()
        model = self._model(unit.model)
        task: Any = unit.task.fresh()
        parts: list[Details] = []
        if unit.keep_rankings and unit.task.ranks:
            _keep_rankings(task, unit.keep_rankings, parts)
        settings: Any = {"batch_size": unit.batch_size, "show_progress_bar": False}
        (result,) = mteb.evaluate(
            model, task, cache=None, co2_tracker=False, encode_kwargs=settings, show_progress_bar=False
        ).task_results
        scored = Scored(result, join_details(parts) if parts else None)
        if hasattr(task, "result_files"):
            scored.files = task.result_files()
        if isinstance(model, StoreModel):
            quality: Any = getattr(model, "quality", {})
            scored.quality = {(split, subset): found for (_, split, subset), found in quality.items()}
            scored.report, scored.bad = model.report, model.bad
        scored.seconds, scored.cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        return scored

    def _model(self, model: StoreModel | SearchModel | ExactRunModel) -> Any:
        if isinstance(model, StoreModel):
            return model
        if self._loaded[0] != model.fingerprint:
            self._loaded = (model.fingerprint, model.load())
        return self._loaded[1]


def _keep_rankings(task: Any, keep: int, parts: list[Details]) -> None:
    """Have a retrieval task put the ranking of every subset into `parts` when MTEB has scored it.

    `task_specific_scores` is where MTEB hands out the final rankings and the judgements they are scored by, whatever
    kind of model made them.
    """
    score = task.task_specific_scores

    def keep_and_score(scores: Any, qrels: Any, results: Any, *, hf_split: str, hf_subset: str) -> Any:
        run = _as_scored(results, task.skip_first_result)
        parts.append(details_of(hf_split, hf_subset, run, qrels, keep, unit_measures(task)))
        return score(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = keep_and_score


def _as_scored(results: Any, skip_first: bool) -> dict[str, dict[str, float]]:
    """Some tasks leave out each query's first result, by score and, of equal ones, as the model gave them."""
    if not skip_first:
        return results
    return {
        query: dict(sorted(found.items(), key=lambda item: item[1], reverse=True)[1:])
        for query, found in results.items()
    }


def unit_measures(task: Any) -> tuple[str, ...]:
    """The usual measures, and the task's main score where it is such a measure."""
    from raylib.errors import UserError
    from raylib.metrics.measures import DEFAULT_MEASURES, parse_measure

    main = task.metadata.main_score
    try:
        parse_measure(main)
    except UserError:
        return DEFAULT_MEASURES
    return DEFAULT_MEASURES if main in DEFAULT_MEASURES else (*DEFAULT_MEASURES, main)
