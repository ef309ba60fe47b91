"""One thing that a runtime does, in a fresh process: `python -m raylib.bench.process JOB.json OUT.json`.

JOB.json: {"kind", "runtime", "spec" (the options of a ModelSpec), "tower", "precision", "threads", and what the kind
takes}. OUT.json is what the kind gives, or {"failed": reason}; none is written by a process that crashes. Nothing heavy
is imported here, so that a cell's process holds its own runtime alone.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raylib import storage
from raylib.bench.protocol import Target
from raylib.errors import RaylibError, UserError
from raylib.models.protocol import ModelSpec

_LONGEST = 500


def main(arguments: list[str]) -> int:
    """Exit status: 0 where OUT.json has what was asked for, 1 where it has the reason why not."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        found, status = run_job(job), 0
    except BaseException as error:  # a Rust panic is no Exception, nor is SystemExit
        traceback.print_exc()
        words = " ".join(str(error).split())[:_LONGEST]
        found = {"failed": words if isinstance(error, RaylibError) else f"{type(error).__name__}: {words}"}
        status = 1
    storage.write_text(arguments[1], json.dumps(found))
    return status


def run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the job's kind gives, by the function of that name below."""
    return KINDS[job["kind"]](job, target_of(job))


def target_of(job: Mapping[str, Any]) -> Target:
    cache = Path(storage.cache_folder()) / "bench"
    return Target(ModelSpec(**job["spec"]), job["tower"], job["precision"], job["threads"], cache)


def reference(job: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """lengths: tokens of texts. Gives what `make_reference` does."""
    from raylib.bench.reference import make_reference

    return make_reference(target, job["lengths"])


def prepare(job: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Why the runtime cannot run it, or, with all it needs written into the cache, what the machine and it are."""
    from raylib.bench.machine import machine_facts
    from raylib.bench.runtimes.table import load_runtime

    try:
        runtime = load_runtime(job["runtime"])
    except UserError as error:
        return {"hole": str(error)}
    reason = runtime.hole(target)
    if reason is not None:
        return {"hole": reason, "language": runtime.language}
    runtime.build(target)
    return {
        "language": runtime.language,
        "machine": machine_facts(target.spec.device or "cpu", runtime.versions()),
        "max_tokens": runtime.max_tokens(target) if target.tower == "text" else None,
    }


def gate(job: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """folder: of the reference; max_tokens: of texts. Gives the parity, and a reason where it is not to be timed."""
    from raylib.bench.gate import parity_of, refusal
    from raylib.bench.runtimes.table import load_runtime

    runner = load_runtime(job["runtime"]).load(target)
    parity, length = parity_of(runner, job["folder"], target.tower, job["max_tokens"])
    return {"parity": asdict(parity), "refused": refusal(parity, length, target.precision)}


def quality(job: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """task. Gives ndcg_at_5, None for a runtime that raylib evaluate does not have."""
    from raylib.bench.quality import ndcg_at_5
    from raylib.bench.runtimes.table import load_runtime

    spec = load_runtime(job["runtime"]).encoder_spec(target)
    return {"ndcg_at_5": None if spec is None else ndcg_at_5(spec, job["task"], str(target.cache / "quality"))}


def measure(job: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """folder, batch, tokens, clients, load, duration_s, seed. Gives a round, the width of vectors and bytes on disk."""
    from raylib.bench.timing import measure_round

    return measure_round(job, target)


KINDS: dict[str, Callable[[Mapping[str, Any], Target], dict[str, Any]]] = {
    "reference": reference,
    "prepare": prepare,
    "gate": gate,
    "quality": quality,
    "measure": measure,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
