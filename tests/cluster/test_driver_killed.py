"""`raylib evaluate` is killed half way and started again, with a Ray of its own each time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import raylib
from tests.cluster import watched_toys
from tests.evaluate.compare import flatten

pytestmark = pytest.mark.cluster

TASK = "Vidore2ESGReportsRetrieval"
CONTENTS = 40 + 4 * 12
BATCH_SIZE = 4
WORKERS = 2
ROOT = Path(__file__).parents[2]


@pytest.fixture
def ray_folder():
    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(output: Path, data_root: str, ray_folder: str) -> subprocess.Popen[str]:
    flags = {
        "--model": "tests.cluster.watched_toys:slow",
        "--tasks": TASK,
        "--data-root": data_root,
        "--output-folder": str(output),
        "--batch-size": BATCH_SIZE,
        "--workers": WORKERS,
    }
    command = [sys.executable, "-m", "raylib.cli", "evaluate", *(str(part) for pair in flags.items() for part in pair)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)


def processes_of(ray_folder: str) -> list[str]:
    """Command lines of the processes that name this Ray's folder in their arguments or environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if ray_folder.encode() in command + environment:
                found.append(command.replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


def scores_in(output: Path) -> dict[str, Any]:
    (path,) = (p for p in output.rglob(f"{TASK}.json"))
    return flatten(json.loads(path.read_text())["scores"])


def test_the_same_command_continues(watched, vidore, tmp_path, ray_folder):
    watched_toys.forget("slow")
    output = tmp_path / "killed"

    first = start(output, vidore, ray_folder)
    try:
        wait_until(
            lambda: len(list(output.rglob("part-*.parquet"))) >= 4 or first.poll() is not None, 240, "four parts"
        )
        assert first.poll() is None, first.communicate()[0]
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    wait_until(lambda: processes_of(ray_folder) == [], 120, "the end of the killed driver's Ray")
    before = len(watched_toys.forwards("slow"))
    assert 0 < before < CONTENTS and not list(output.rglob(f"{TASK}.json"))

    second = start(output, vidore, ray_folder)
    printed = second.communicate(timeout=280)[0]

    assert second.returncode == 0, printed
    wait_until(lambda: processes_of(ray_folder) == [], 60, "the end of the second driver's Ray")
    (summary,) = (json.loads(path.read_text()) for path in (output / "runs").glob("*.json"))
    contents = summary["contents"]
    assert contents["reused"] > 0 and contents["reused"] + contents["encoded"] == contents["planned"] == CONTENTS
    encoded_again = len(watched_toys.forwards("slow")) - CONTENTS
    assert encoded_again <= WORKERS * BATCH_SIZE, "more than what was in flight"

    raylib.evaluate(
        "tests.toys:dense", tasks=[TASK], data_root=vidore, output_folder=str(tmp_path / "calm"), local=True, quiet=True
    )
    assert repr(scores_in(output)) == repr(scores_in(tmp_path / "calm"))
