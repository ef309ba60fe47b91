"""One measured process of `benchmarks/tasks.py`: ten tasks, by raylib or by plain MTEB one after another.

    python tasks_side.py plain|raylib|warm '{"model": …, "case": …, "root": …, "cores": …, …}'

Prints one JSON line: seconds of start-up and work, and the main score of every task, split and subset. "startup" is
imports and, on raylib's side, Ray's start and what the encode stage waits for before its first batch. The processes
that score import MTEB too: they start when the encode stage is over, and that is work.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

PROCESS_START = time.time()


def plain_side(job: dict[str, Any]) -> dict[str, Any]:
    """`mteb.evaluate` over the tasks, `cores` torch threads in its one process."""
    import mteb
    import torch

    from benchmarks.evaluate_side import _mteb_model

    torch.set_num_threads(job["cores"])
    tasks = _tasks(job)
    model = _mteb_model(job)
    started = time.time()
    settings: Any = {"batch_size": job["batch_size"], "show_progress_bar": False}
    results = mteb.evaluate(
        model, tasks, cache=None, co2_tracker=False, encode_kwargs=settings, show_progress_bar=False
    ).task_results
    return {"startup": started - PROCESS_START, "work": time.time() - started, "scores": _main_scores(results)}


def raylib_side(job: dict[str, Any]) -> dict[str, Any]:
    """The evaluate job on a Ray of this machine, `cores` workers of one thread each."""
    import torch

    from raylib.cluster.evaluate import RayBackend
    from raylib.cluster.session import session
    from raylib.evaluate.config import EvaluateConfig
    from raylib.evaluate.job import EvaluateJob
    from raylib.evaluate.progress import QuietReporter

    torch.set_num_threads(job["cores"])
    tasks = _tasks(job)
    with session():
        connected = time.time()
        config = EvaluateConfig(
            [job["model"]],
            tasks=[task.metadata.name for task in tasks],
            output_folder=job["output_folder"],
            batch_size=job["batch_size"],
            workers=job["cores"],
            quiet=True,
        )
        run = EvaluateJob(config, RayBackend.of(config), QuietReporter())
        outcome = run.run(run.prepare(tasks))
        done = time.time()
    (summary,) = outcome.summaries
    if not outcome.ok:
        raise SystemExit(f"the job failed: {summary}")
    timings = summary.timings
    return {
        "startup": connected - PROCESS_START + timings["startup"],
        "work": done - connected - timings["startup"],
        "timings": timings,
        "scores": _main_scores(outcome.task_results[job["model"]]),
    }


def warm(job: dict[str, Any]) -> dict[str, Any]:
    """Read the tasks once, so that the Arrow copies that `datasets` makes of local files are there."""
    for task in _tasks(job):
        task.load_data()
    return {}


def _tasks(job: dict[str, Any]) -> list[Any]:
    from benchmarks.tasks_inputs import Case, load_tasks
    from raylib.evaluate.quiet import quiet_libraries

    quiet_libraries()
    return load_tasks(Case(**job["case"]), job["root"])


def _main_scores(results: list[Any]) -> dict[str, float]:
    return {
        f"{result.task_name}/{split}/{entry['hf_subset']}": float(entry["main_score"])
        for result in results
        for split, entries in result.scores.items()
        for entry in entries
    }


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["cores"]])
    measured = {"plain": plain_side, "raylib": raylib_side, "warm": warm}[sys.argv[1]](settings)
    print("MEASURED " + json.dumps(measured), flush=True)
