"""One measured process of `benchmarks/evaluate.py`: one model on one task, by raylib or by plain MTEB.

    python evaluate_side.py plain|raylib|warm '{"model": …, "loader": …, "task": …, "data_root": …, …}'

Prints one JSON line: seconds of each phase, CPU seconds of the work, and every score. What a side imports sooner or
later is imported before the clock of its work starts. "work" is what a person waits for once processes are up and
weights are loaded: it holds the reading of the data set, all encoding, search, metrics, and raylib's plan, store,
results and leaderboard. "startup" is the rest of the process but for the interpreter's own start and end.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from typing import Any

PROCESS_START = time.time()


def plain_side(job: dict[str, Any]) -> dict[str, Any]:
    """`mteb.evaluate` with MTEB's own wrapper for this checkpoint, `cores` torch threads in its one process."""
    torch, mteb = _imported("torch", "mteb", "sentence_transformers", "transformers.models.clip.modeling_clip")[:2]
    torch.set_num_threads(job["cores"])
    task = _task(job)
    model = _mteb_model(job)
    started, cpu = time.time(), time.process_time()
    (result,) = mteb.evaluate(
        model,
        task,
        cache=None,
        co2_tracker=False,
        encode_kwargs={"batch_size": job["batch_size"], "show_progress_bar": False},
        show_progress_bar=False,
        num_proc=job["num_proc"],
    ).task_results
    work, cpu = time.time() - started, time.process_time() - cpu
    return {"startup": started - PROCESS_START, "work": work, "cpu": cpu, "scores": _scores(result)}


def raylib_side(job: dict[str, Any]) -> dict[str, Any]:
    """`raylib.evaluate` on a Ray of this machine, `cores` workers of one thread each.

    Its start-up is the import of libraries, Ray's, and what the encode stage waits for before its first batch: worker
    processes, their imports, weights. CPU seconds are those of this process and of the workers while they encode, not
    those of Ray's own processes.
    """
    torch, *_ = _imported("torch", "mteb", "sentence_transformers", "ray.data", "raylib.cluster.evaluate")
    _imported("raylib.evaluate.job", "raylib.evaluate.report")
    from raylib import api
    from raylib.cluster.session import session

    torch.set_num_threads(job["cores"])
    _task(job)
    with session():
        connected, cpu = time.time(), time.process_time()
        outcome = api.evaluate(
            [job["model"]],
            tasks=[job["task"]],
            data_root=job["data_root"],
            output_folder=job["output_folder"],
            batch_size=job["batch_size"],
            workers=job["cores"],
            quiet=True,
        )
        done, cpu = time.time(), time.process_time() - cpu
    (summary,) = outcome.summaries
    if not outcome.ok:
        raise SystemExit(f"raylib.evaluate failed: {summary}")
    timings = summary.timings
    return {
        "startup": connected - PROCESS_START + timings["startup"],
        "work": done - connected - timings["startup"],
        "cpu": cpu + timings["encode_cpu"],
        "scores": _scores(outcome.task_results[job["model"]][0]),
        "timings": timings,
        "contents": summary.contents,
    }


def warm(job: dict[str, Any]) -> dict[str, Any]:
    """Read the task once, as either side will, so that the copies `datasets` makes of local files are there."""
    for num_proc in (None, job["cores"]):
        task = _task(job)
        task.load_data(num_proc=num_proc)
        task.unload_data()
    return {}


def _imported(*names: str) -> list[Any]:
    return [importlib.import_module(name) for name in names]


def _task(job: dict[str, Any]) -> Any:
    import mteb

    from raylib.evaluate.quiet import quiet_libraries
    from raylib.tasks.local_data import redirect

    quiet_libraries()
    return redirect(mteb.get_task(job["task"]), job["data_root"])


def _mteb_model(job: dict[str, Any]) -> Any:
    """The checkpoint in a local folder through the wrapper that MTEB registers for models of its kind, in float32."""
    import mteb

    meta = mteb.get_model_meta(job["loader"])
    local = {"name": job["model"], "revision": None, "extra_requirements_groups": None, "loader_kwargs": {}}
    model: Any = meta.model_copy(deep=True, update=local).load_model(device="cpu")
    model.mteb_model_meta = meta.model_copy(update={"name": "benchmark/local", "revision": "1"})
    if "colpali" in job["loader"]:
        _mark_prefix(model.processor)
    return model


def _mark_prefix(processor: Any) -> None:
    """Mark texts as prefix, as raylib does for PaliGemma. Unmarked, transformers 5 attends causally in a batch with
    padding and both ways in one without: the scores of the two sides would then differ for no reason of speed."""
    import torch

    process_texts = processor.process_texts

    def marked(texts: list[str]) -> Any:
        inputs = process_texts(texts)
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        return inputs

    processor.process_texts = marked


def _scores(result: Any) -> dict[str, float]:
    """split/subset/metric → value, of every metric that is a number and has a value."""
    return {
        f"{split}/{entry['hf_subset']}/{name}": float(value)
        for split, entries in result.scores.items()
        for entry in entries
        for name, value in entry.items()
        if isinstance(value, int | float) and not math.isnan(value)
    }


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["cores"]])
    measured = {"plain": plain_side, "raylib": raylib_side, "warm": warm}[sys.argv[1]](settings)
    print("MEASURED " + json.dumps(measured), flush=True)
