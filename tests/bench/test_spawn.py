"""Processes that go wrong: each says why, costs nothing else, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from raylib.bench.place import ThisMachine
from raylib.bench.spawn import run_process


def job(runtime: str):
    told = {"kind": "prepare", "runtime": runtime, "spec": {"name": "toy"}, "tower": "text", "precision": "fp32"}
    return {**told, "threads": 3}


def test_threads_are_set_before_a_runtime_is_imported(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = ThisMachine().run(job("tests.bench.fakes:Idle"), 60)
    assert found["language"] == "toy"
    versions = found["machine"]["versions"]
    for pool in ("OMP", "MKL", "OPENBLAS", "RAYON"):
        assert versions[f"{pool}_NUM_THREADS"] == "3"
    assert versions["OMP_WAIT_POLICY"] == "PASSIVE"
    assert versions["TOKENIZERS_PARALLELISM"] == "false"
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["processor"]


def test_a_process_that_exits_says_what_it_said_last():
    found = run_process(job("tests.bench.fakes:Exits"), 60)
    assert found == {"failed": "ended with status 7 and gave nothing; it said: the library says farewell"}


def test_a_process_that_is_killed():
    assert run_process(job("tests.bench.fakes:Killed"), 60)["failed"].startswith(
        "was killed by the system, as where memory runs out"
    )


def test_a_panic_that_is_no_exception():
    assert run_process(job("tests.bench.fakes:Panics"), 60) == {"failed": "PanicError: capacity overflow"}


def test_a_process_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch):
    child = tmp_path / "child"
    monkeypatch.setenv("TESTS_BENCH_CHILD", str(child))
    start = time.monotonic()
    found = run_process(job("tests.bench.fakes:Hangs"), 6)
    assert found["failed"].startswith("did not end within 6 s (--timeout)")
    assert time.monotonic() - start < 60
    assert child.is_file(), "it hung before it came to its child"
    assert ended(int(child.read_text()))


def ended(pid: int) -> bool:
    """Within seconds: gone, or a zombie that nobody has asked for."""
    for _ in range(100):
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                os.kill(pid, 0)
                time.sleep(0.05)
                continue
        return True
    return False


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        ("tests.bench.fakes:NotInstalled", "it has no fp32; install toy"),
        ("no.such:Runtime", "no.such:Runtime cannot be imported here: No module named 'no'"),
        ("tests.bench.fakes:Path", "is no runtime; expected a class derived from"),
    ],
)
def test_what_cannot_be_run_here_is_a_hole(runtime, reason):
    assert reason in run_process(job(runtime), 60)["hole"]


def test_memory_is_the_processs_own():
    """Not the peak of the one that started it."""
    ballast = bytearray(600_000_000)
    ballast[::4096] = b"\1" * len(ballast[::4096])
    from raylib.bench.machine import peak_rss_mb

    assert peak_rss_mb() > 600
    del ballast
    import subprocess
    import sys

    code = "from raylib.bench.machine import *; print(peak_rss_mb(), rss_mb())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    peak, now = map(float, told)
    assert 1 < now <= peak < 300
