"""One round of one cell, in the process that is that: load, first call, warm-up, the calls that count."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from raylib.bench.inputs import photos
from raylib.bench.machine import gpu_used_mb, peak_rss_mb, rss_mb
from raylib.bench.measure import WARM_UP, Timed, Until, arrivals, closed_loop, open_loop, settle, warm_up
from raylib.bench.protocol import Runner, Target
from raylib.bench.records import Round
from raylib.bench.reference import texts_file
from raylib.bench.runtimes.table import load_runtime
from raylib.types import Batch, Tensors

_PHOTOS = 8
"""Different ones; batches take them in turn."""
_BATCHES = 64
"""Different ones, where there are so many."""
_CAPACITY_SHARE = 0.25
"""Of the duration, for how much one client gets through, before calls arrive at a share of that."""
_TENSOR_SHARE = 0.25
"""Of the duration, for the same calls behind the tokenizer or image processor."""


def measure_round(job: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """job: see `raylib.bench.process.measure`. Raises ModelError for a runtime that gives no vectors."""
    started, load_average, device = datetime.now(UTC), os.getloadavg()[0], target.spec.device or "cpu"
    batches, gpu_before = make_batches(job), gpu_used_mb(device)
    begin = time.perf_counter()
    runner = load_runtime(job["runtime"]).load(target)
    load_s = time.perf_counter() - begin
    loaded_rss = rss_mb()
    first_call_s, dim = warm_up(runner.embed, batches, job["batch"])
    settle()
    observed = {"batch": len(next(iter(batches[0].values()))), **_observed(job, runner, batches)}
    timed, more = _timed(job, runner, batches)
    gpu_after = gpu_used_mb(device)
    found = Round(
        started=started.isoformat(timespec="seconds"),
        load_s=load_s,
        first_call_s=first_call_s,
        warm_up=WARM_UP,
        calls=len(timed.latencies_ns),
        seconds=timed.wall_ns / 1e9,
        latency_ms=timed.percentiles(),
        cpu_ms_per_call=timed.cpu_ns / 1e6 / (len(timed.latencies_ns) + len(timed.errors)),
        contents_per_s=len(timed.latencies_ns) * job["batch"] / (timed.wall_ns / 1e9),
        peak_rss_mb=peak_rss_mb(),
        loaded_rss_mb=loaded_rss,
        gpu_mb=None if gpu_before is None or gpu_after is None else gpu_after - gpu_before,
        load_average=load_average,
        errors=len(timed.errors),
        tensor_in=_tensor_in(job, runner, batches),
        observed={**observed, **more},
    )
    return {"round": asdict(found), "dim": dim, "disk_bytes": runner.disk_bytes}


def make_batches(job: Mapping[str, Any]) -> list[Batch]:
    """Batches of `job["batch"]` contents. Texts are those of the reference's folder."""
    if job["tokens"] is None:
        contents: list[Any] = list(photos(_PHOTOS))
        column = "image"
    else:
        contents = json.loads(Path(job["folder"], texts_file(job["tokens"])).read_text(encoding="utf-8"))
        column = "text"
    n, size = len(contents), job["batch"]
    return [{column: [contents[(i * size + j) % n] for j in range(size)]} for i in range(min(_BATCHES, n))]


def _timed(job: Mapping[str, Any], runner: Runner, batches: list[Batch]) -> tuple[Timed, dict[str, Any]]:
    """The calls that count, and what is to be known of them besides."""
    until = Until.of(job["duration_s"], job["batch"])
    if job["load"] is None:
        return closed_loop(runner.embed, batches, until, job["clients"]), {}
    alone = closed_loop(runner.embed, batches, Until.of(job["duration_s"] * _CAPACITY_SHARE, job["batch"]))
    capacity = len(alone.latencies_ns) / (alone.wall_ns / 1e9)
    offered = capacity * job["load"]
    timed = open_loop(runner.embed, batches, arrivals(offered, until, job["seed"]))
    return timed, {"capacity_per_s": capacity, "offered_per_s": offered, "seed": job["seed"]}


def _tensor_in(job: Mapping[str, Any], runner: Runner, batches: list[Batch]) -> dict[str, float | None] | None:
    """Latencies of one client behind the tokenizer or image processor; None where a runtime cannot be entered there."""
    if job["clients"] > 1 or job["load"] is not None:
        return None
    prepared = [tensors for tensors in map(runner.prepare, batches[:4]) if tensors is not None]
    if not prepared:
        return None
    runner.run(prepared[0])
    timed = closed_loop(runner.run, prepared, Until.of(job["duration_s"] * _TENSOR_SHARE, job["batch"]))
    return {
        **timed.percentiles(),
        "calls": len(timed.latencies_ns),
        "cpu_ms_per_call": timed.cpu_ns / 1e6 / len(timed.latencies_ns),
    }


def _observed(job: Mapping[str, Any], runner: Runner, batches: list[Batch]) -> dict[str, Any]:
    """Of threads and tokens what this process sees: of PyTorch, of the environment, of what the tokenizer gives."""
    torch = sys.modules.get("torch")
    found: dict[str, Any] = {"omp_num_threads": os.environ.get("OMP_NUM_THREADS")}
    if torch is not None:
        found["torch_threads"] = torch.get_num_threads()
    tensors = runner.prepare(batches[0]) if job["tokens"] is not None else None
    return found | ({} if tensors is None else _tokens(tensors))


def _tokens(tensors: Tensors) -> dict[str, Any]:
    """padded: tokens that the model computes of each text; tokens: those of them that are no padding, from the fewest
    to the most, where a mask tells."""
    found: dict[str, Any] = {}
    if "input_ids" in tensors:
        found["padded"] = int(np.shape(tensors["input_ids"])[1])
    if "attention_mask" in tensors:
        real = np.asarray(tensors["attention_mask"]).sum(axis=1)
        found["tokens"] = [int(real.min()), int(real.max())]
    return found
