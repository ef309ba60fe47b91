"""A process of its own for everything that a runtime does: what goes wrong in it costs no more than its own cell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_TAIL = 300
"""Characters of what a process said last that go into the reason."""


def run_process(job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """What the job gave, or {"failed": reason} for one that crashed, was killed or did not end in time.

    The process and all that it started are gone when this returns. job: see `raylib.bench.process`.
    """
    with tempfile.TemporaryDirectory(prefix="raylib-bench-") as folder:
        told, said, gave = (Path(folder) / name for name in ("job.json", "output", "out.json"))
        told.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "raylib.bench.process", str(told), str(gave)]
        with said.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment(int(job["threads"]))},
                start_new_session=True,
            )
            try:
                status: int | None = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(process)
        if gave.is_file():
            return json.loads(gave.read_text(encoding="utf-8"))
        return {"failed": _reason(status, timeout_s, _tail(said))}


def environment(threads: int) -> dict[str, str]:
    """What must be set before a runtime is imported, for it reads that once. Waiting threads sleep: spinning ones cost
    CPU time that is counted, and take it from others."""
    n = str(threads)
    pools = ("OMP", "MKL", "OPENBLAS", "RAYON")
    return {
        **{f"{pool}_NUM_THREADS": n for pool in pools},
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # in the process itself, whose time and memory it then shows in
        "PYTHONFAULTHANDLER": "1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process's group: its children, too, and those that it has left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(status: int | None, timeout_s: float, tail: str) -> str:
    if status is None:
        return f"did not end within {timeout_s:g} s (--timeout){tail}"
    if status == -signal.SIGKILL:
        return f"was killed by the system, as where memory runs out{tail}"
    if status < 0:
        return f"crashed: signal {-status}, {signal.strsignal(-status)}{tail}"
    return f"ended with status {status} and gave nothing{tail}"


def _tail(output: Path) -> str:
    """What the process said last, in one line."""
    with output.open("rb") as stream:
        stream.seek(max(0, output.stat().st_size - 4 * _TAIL))
        words = " ".join(stream.read().decode("utf-8", "replace").split())
    return f"; it said: …{words[-_TAIL:]}" if len(words) > _TAIL else f"; it said: {words}" if words else ""
