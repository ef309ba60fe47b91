"""How a run grows with its workers: encode with models that sleep, so that the cores of this machine do not matter.

    python benchmarks/scaling.py [--quick] [--rounds 2] [--output benchmarks/results/scaling.json]

Then, from what a page costs the parts that all workers share, where 64 GPUs would wait. README.md has the protocol.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
os.environ["PYTHONPATH"] = str(REPOSITORY)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from benchmarks.common import processor, publish, say  # noqa: E402
from benchmarks.scaling_report import table  # noqa: E402
from benchmarks.scaling_side import measure_costs, run_stage  # noqa: E402
from benchmarks.scaling_toys import LOG, SECONDS  # noqa: E402

BEGIN, END = "<!-- results of scaling.py: rewritten by every full run -->", "<!-- end of results of scaling.py -->"
WORKERS = (1, 2, 4)
WANTED = 0.95
"""Efficiency of the largest number of workers."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few contents, one round: does everything run?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--contents", type=int, default=4800)
    parser.add_argument("--seconds", type=float, default=0.02, help="that a content takes")
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.contents = 1, 640
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "scaling.json"))
    record = run(options)
    publish(record, table(record), output, (BEGIN, END), recorded=options.output is None)
    most = max(WORKERS)
    ok = all(row["efficiency"] >= WANTED for row in record["rows"] if row["workers"] == most)
    return 0 if ok or options.quick else 1


def run(options: argparse.Namespace) -> dict[str, Any]:
    import ray

    started, load = time.time(), [round(x, 2) for x in os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="rb", dir="/tmp") as folder:
        os.environ |= {SECONDS: repr(options.seconds), LOG: str(Path(folder) / "forwards")}
        ray.init(
            address="local",
            num_cpus=2 * max(WORKERS),
            include_dashboard=False,
            object_store_memory=2**30,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        try:
            rows = measure(options, folder)
            say("what a page costs")
            costs = measure_costs(folder, quick=options.quick)
        finally:
            ray.shutdown()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "ray": ray.__version__,
        "contents": options.contents,
        "seconds a content": options.seconds,
        "rounds": options.rounds,
        "minutes": round((time.time() - started) / 60, 1),
        "load average": {"start": load, "end": [round(x, 2) for x in os.getloadavg()]},
        "rows": rows,
        "costs": costs,
    }


def measure(options: argparse.Namespace, folder: str) -> list[dict[str, Any]]:
    """Every stage with every number of workers, by turns, in an order that alternates by round."""
    cases = [(stage, n) for stage in ("Ray Data", "pool") for n in WORKERS]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in cases}
    for number in range(options.rounds):
        for stage, n in cases if number % 2 == 0 else cases[::-1]:
            found[stage, n].append(run_stage(stage, n, options.contents, folder))
            seconds, rate = found[stage, n][-1]
            say(f"{stage}, {n} workers: {seconds:.1f} s, {rate:.1f} contents a second")
    rows = []
    for stage, n in cases:
        seconds, rate = (statistics.median(column) for column in zip(*found[stage, n], strict=True))
        ratios = [more[1] / (n * one[1]) for one, more in zip(found[stage, 1], found[stage, n], strict=True)]
        rows.append(
            {
                "stage": stage,
                "workers": n,
                "seconds": round(seconds, 2),
                "contents a second": round(rate, 2),
                "most possible": round(n / options.seconds, 2),
                "efficiency": round(statistics.median(ratios), 3),
                "efficiency min to max": [round(min(ratios), 3), round(max(ratios), 3)],
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
