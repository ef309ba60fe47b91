"""`raylib serve` against a plain FastAPI handler around the same model; and what it does at twice the load it can bear.

    python benchmarks/serve.py            # a quarter of an hour; rewrites the table in README.md
    python benchmarks/serve.py --quick    # does everything run?

The protocol is in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import markdown_table, processor, publish, say

_MARKS = ("<!-- results of serve.py: rewritten by every full run -->", "<!-- end of results of serve.py -->")
_RESULT = Path(__file__).parent / "results" / "serve.json"
_ROOT = Path(__file__).resolve().parents[1]
_PORT = 18480
CLIENTS = (1, 8, 32, 128)
LAYERS, WIDTH = 12, 128

SIDES = ("plain, threads", "plain, loop", "raylib, --local", "raylib on Ray")
_OVERLOAD_FLAGS = ("--max-queue", "512", "--max-inputs", "64")


def command(side: str, model: str, more: Sequence[str] = ()) -> list[str]:
    if side.startswith("plain"):
        return [sys.executable, "-m", "benchmarks.serve_plain", model, str(_PORT), side.removeprefix("plain, ")]
    found = [sys.executable, "-m", "raylib.cli", "serve", "--model", model, "--port", str(_PORT)]
    found += ["--cpus-per-replica", "1", *more]
    return [*found, "--local"] if side.endswith("--local") else found


@contextmanager
def server(side: str, model: str, more: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Ready; one torch thread in every process."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "false",
    }
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command(side, model, more), env=environment, stdout=nowhere, stderr=nowhere)
    try:
        _wait_until_ready(process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the server is not ready after two minutes")


def clients(n: int, seconds: float, *more: str) -> dict[str, Any]:
    found = [sys.executable, str(Path(__file__).parent / "serve_client.py"), str(_PORT), str(n)]
    done = subprocess.run([*found, "--seconds", str(seconds), *more], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class Memory(threading.Thread):
    """Samples the resident bytes of a process and all below it, once a second. Shared pages count in each process."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.bytes: list[int] = []
        self._process, self._over = psutil.Process(pid), threading.Event()

    def run(self) -> None:
        while not self._over.wait(1.0):
            total = 0
            for one in [self._process, *self._process.children(recursive=True)]:
                try:
                    total += one.memory_info().rss
                except psutil.Error:
                    continue
            self.bytes.append(total)

    def stop(self) -> list[int]:
        self._over.set()
        self.join()
        return self.bytes


def overload(model: str, bears: float, seconds: float) -> dict[str, Any]:
    """Requests at twice the rate that it bears. Memory is compared between the second and the last quarter."""
    with server("raylib on Ray", model, _OVERLOAD_FLAGS) as process:
        clients(32, min(5.0, seconds))
        memory = Memory(process.pid)
        memory.start()
        found = clients(0, seconds, "--rate", str(2 * bears), "--warm", "0")
        held = memory.stop()
        after = clients(8, min(5.0, seconds))
    quarter = max(1, len(held) // 4)
    early, late = statistics.median(held[quarter : 2 * quarter] or held), statistics.median(held[-quarter:])
    return {
        "asked for, requests/s": 2 * bears,
        "seconds": seconds,
        **found,
        "memory MB": {"second quarter": early / 2**20, "last quarter": late / 2**20, "ratio": late / early},
        "samples MB": [round(one / 2**20) for one in held],
        "afterwards, 8 clients": after,
    }


def measure(model: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Every side, round by round, so that what else the machine does meets all of them."""
    found = []
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            with server(side, model):
                for n in CLIENTS:
                    one = {"side": side, "round": number, **clients(n, seconds)}
                    say(f"{side}, {n} clients: {one['requests/s']:.0f} requests/s, {one['ms']}")
                    found.append(one)
    return found


def cases(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the rounds; the ratio is to the better of the plain sides in the same round."""
    found = []
    for n in CLIENTS:
        plain: dict[int, float] = {}
        for one in measured:
            if one["clients"] == n and one["side"].startswith("plain"):
                plain[one["round"]] = max(plain.get(one["round"], 0.0), one["requests/s"])
        for side in SIDES:
            mine = [one for one in measured if one["clients"] == n and one["side"] == side]
            ratios = [one["requests/s"] / plain[one["round"]] for one in mine]
            found.append(
                {
                    "clients": n,
                    "side": side,
                    "requests/s": statistics.median(one["requests/s"] for one in mine),
                    "ratio": statistics.median(ratios),
                    "ratio min to max": [min(ratios), max(ratios)],
                    "ms": {name: statistics.median(one["ms"][name] for one in mine) for name in ("p50", "p95", "p99")},
                }
            )
    return found


def table(record: dict[str, Any]) -> list[str]:
    rows = []
    for case in record["cases"]:
        low, high = case["ratio min to max"]
        ratio = f"{case['ratio']:.2f}× ({low:.2f} to {high:.2f})"
        shares = [f"{case['ms'][name]:.0f}" for name in ("p50", "p95", "p99")]
        rows.append([str(case["clients"]), case["side"], f"{case['requests/s']:.0f}", ratio, *shares])
    names = ("clients", "server", "requests/s", "of the better plain one", "p50 ms", "p95 ms", "p99 ms")
    over, load = record["overload"], record["load average"]
    answers = ", ".join(f"{count:,} × {status}" for status, count in sorted(over["statuses"].items()))
    memory = over["memory MB"]
    return [
        *markdown_table(names, rows),
        "",
        f"At twice the load that it bears, {over['asked for, requests/s']:.0f} requests/s for {over['seconds']:.0f} s: "
        f"{answers}; p99 of what was answered {over['ms'].get('p99', 0):.0f} ms; memory of all its processes "
        f"{memory['second quarter']:,.0f} MB in the second quarter, {memory['last quarter']:,.0f} MB in the last.",
        "",
        f"{record['date']}; {record['cores']} cores for servers and clients, {record['processor']}; "
        f"{record['rounds']} rounds of {record['seconds']:.0f} s, {record['minutes']} minutes; load average "
        f"{load['start'][0]} at the start, {load['end'][0]} at the end.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", default=None)
    asked = parser.parse_args()
    rounds, seconds, over_seconds = (1, 2.0, 6.0) if asked.quick else (2, 8.0, 60.0)
    start, load = time.perf_counter(), os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        from benchmarks.train_inputs import build_model

        model = os.path.join(folder, "bert")
        build_model(Path(model), LAYERS, WIDTH)
        found = cases(measure(model, rounds, seconds))
        bears = next(one["requests/s"] for one in found if one["clients"] == 128 and one["side"] == SIDES[-1])
        say(f"twice {bears:.0f} requests/s")
        over = overload(model, bears, over_seconds)
    record = {
        "cases": found,
        "overload": over,
        "model": {"layers": LAYERS, "width": WIDTH},
        "rounds": rounds,
        "seconds": seconds,
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "load average": {"start": load, "end": os.getloadavg()},
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }
    output = asked.output or (None if asked.quick else str(_RESULT))
    publish(record, table(record), output, _MARKS, recorded=not asked.quick)


if __name__ == "__main__":
    main()
