"""What a number format costs in quality: nDCG@5 of a retrieval task, by the same code as `raylib evaluate --local`."""

from __future__ import annotations

import statistics
import tempfile
from typing import Any

from raylib.errors import ModelError
from raylib.evaluate.backend import LocalBackend
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.job import EvaluateJob
from raylib.evaluate.progress import QuietReporter
from raylib.models.protocol import ModelSpec


def ndcg_at_5(spec: ModelSpec, task: str, store: str) -> float:
    """The mean over the tasks, splits and languages of a task or benchmark. store: where vectors are kept between runs.
    Raises UserError for a task that is not known, ModelError where it is not scored or has no such measure."""
    from raylib.tasks.selection import list_benchmarks, select_tasks

    is_benchmark = any(task in (row.name, *row.aliases) for row in list_benchmarks(task))
    asked: dict[str, Any] = {"benchmarks": [task]} if is_benchmark else {"tasks": [task]}
    options = spec.settings()
    model = options.pop("name")
    with tempfile.TemporaryDirectory(prefix="raylib-bench-quality-") as folder:
        config = EvaluateConfig(
            model=[model], **asked, **options, local=True, output_folder=folder, store=store, keep_rankings=0
        )
        job = EvaluateJob(config, LocalBackend(), QuietReporter())
        outcome = job.run(job.prepare(select_tasks(config.benchmarks, config.tasks, None, None)))
    if not outcome.ok:
        failed = [one["error"] for s in outcome.summaries for one in s.tasks_failed]
        reasons = [*outcome.load_failures.values(), *failed, *(s.error for s in outcome.summaries if s.error)]
        raise ModelError(f"{spec.name} is not scored on {task}: {'; '.join(reasons)}")
    results = [result for of_model in outcome.task_results.values() for result in of_model]
    rows = [row for result in results for of_split in result.scores.values() for row in of_split]
    found = [float(row["ndcg_at_5"]) for row in rows if row.get("ndcg_at_5") is not None]
    if not found:
        raise ModelError(f"{task} has no nDCG@5; --quality-task takes retrieval tasks")
    return statistics.fmean(found)
