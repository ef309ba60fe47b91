"""How long ten tasks take `raylib evaluate` on two workers, against `mteb.evaluate` one after another.

    python benchmarks/tasks.py [--quick] [--rounds 2] [--cores 2] [--output benchmarks/results/tasks.json]

The same checkpoint, data, batch size and cores on both sides; every measurement is a fresh process with an empty store.
CPU seconds are those of the whole process tree, Ray's own processes and every start-up included.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import markdown_table, say, write_between  # noqa: E402
from benchmarks.evaluate import BATCH_SIZE, SETTINGS, machine, versions  # noqa: E402
from benchmarks.evaluate_inputs import TINY_CLIP, build_model  # noqa: E402
from benchmarks.tasks_inputs import PAGE_PIXELS, Case, cases, write_case  # noqa: E402

SIDES = ("plain", "raylib")
_BEGIN, _END = "<!-- results of tasks.py: rewritten by every full run -->", "<!-- end of results of tasks.py -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few small pages, one round: does everything run?")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of measurements per case")
    parser.add_argument("--cores", type=int, default=2, help="cores that either side may use")
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick")
    options = parser.parse_args()
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "tasks.json"))
    with tempfile.TemporaryDirectory(prefix="raylib-benchmark-") as root:
        record = run(root, options)
    print("\n".join(table(record)))
    if output is not None:
        Path(output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if options.output is None:
            write_into_readme(record, REPOSITORY / "benchmarks" / "README.md")
    return 1 if any(case["largest difference of a main score"] > 1e-3 for case in record["cases"]) else 0


def run(root: str, options: argparse.Namespace) -> dict[str, Any]:
    environment = {**os.environ, **SETTINGS, "RAYLIB_CACHE": f"{root}/cache", "HF_DATASETS_CACHE": f"{root}/datasets"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):
        environment.pop(name, None)
    started = time.time()
    size, rounds = ((96, 128), 1) if options.quick else (PAGE_PIXELS, options.rounds)
    model = build_model(TINY_CLIP, root)
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(options.cores),
        "versions": versions(),
        "settings": {"model": TINY_CLIP.name, "batch size": BATCH_SIZE, "page": f"PNG, {size[0]}×{size[1]} pixels"},
        "cases": [],
    }
    for case in cases(12, 400) if options.quick else cases(100, 1000):
        place = os.path.join(root, case.name.replace(" ", "-"))
        write_case(case, place, size)
        job = {
            "model": model,
            "loader": TINY_CLIP.loader,
            "case": dataclasses.asdict(case),
            "root": place,
            "output_folder": f"{place}/results",
            "cores": options.cores,
            "batch_size": BATCH_SIZE,
        }
        measure("warm", job, environment)
        pairs = []
        for number in range(rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            pairs.append({side: measure(side, job, environment) for side in order})
            say(f"{case.name}, round {number + 1}: {_ratio(pairs[-1], 'work'):.2f}×, load {os.getloadavg()[0]:.1f}")
        record["cases"].append(summary(case, pairs))
        shutil.rmtree(place)
    record["machine"]["load average at the end"] = [round(x, 2) for x in os.getloadavg()]
    record["minutes"] = round((time.time() - started) / 60, 1)
    return record


def measure(side: str, job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """One process. Adds its whole wall time, and the CPU time of all its processes."""
    shutil.rmtree(job["output_folder"], ignore_errors=True)
    script = str(REPOSITORY / "benchmarks" / "tasks_side.py")
    started = time.time()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, script, side, json.dumps(job)], env=environment, stdout=out, stderr=err, text=True
        )
        with CpuOfTree(process.pid) as cpu:
            process.wait()
        total = time.time() - started
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
    lines = [line for line in texts[0].splitlines() if line.startswith("MEASURED ")]
    if process.returncode != 0 or not lines:
        raise SystemExit(f"{side} failed:\n{texts[0][-3000:]}\n{texts[1][-3000:]}")
    found = json.loads(lines[-1].removeprefix("MEASURED "))
    return {**found, "total": total, "cpu": cpu.seconds, "load": os.getloadavg()[0]}


class CpuOfTree:
    """User and system seconds of a process and all its descendants, looked up five times a second: what a process uses
    after it was last seen is missed."""

    def __init__(self, pid: int) -> None:
        self._pid, self._found = pid, {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    @property
    def seconds(self) -> float:
        return sum(self._found.values())

    def _look(self) -> None:
        import psutil

        while not self._over.wait(0.2):
            try:
                root = psutil.Process(self._pid)
                for process in [root, *root.children(recursive=True)]:
                    times = process.cpu_times()
                    self._found[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue

    def __enter__(self) -> CpuOfTree:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        self._thread.join()


def _ratio(pair: dict[str, Any], name: str) -> float:
    return pair["plain"][name] / pair["raylib"][name]


def summary(case: Case, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, ratios pair by pair, the largest difference of a main score, and every measurement."""
    names = ("work", "startup", "total", "cpu")
    seconds = {n: {side: round(statistics.median(p[side][n] for p in pairs), 2) for side in SIDES} for n in names}
    ratios = {n: round(statistics.median(_ratio(p, n) for p in pairs), 2) for n in ("work", "total", "cpu")}
    for pair in pairs:
        if pair["plain"]["scores"].keys() != pair["raylib"]["scores"].keys():
            raise SystemExit("the two sides scored different things")
    differences = [abs(p["plain"]["scores"][n] - p["raylib"]["scores"][n]) for p in pairs for n in p["plain"]["scores"]]
    return {
        "case": case.name,
        "tasks": case.tasks,
        "pages": case.pages,
        "rows": case.rows,
        "seconds": seconds,
        "ratios": ratios,
        "largest difference of a main score": max(differences),
        "pairs": pairs,
    }


def table(record: dict[str, Any]) -> list[str]:
    """Markdown: one row per case, and where and when."""
    heads = ("10 tasks", "mteb s", "raylib s", "ratio", "start-up s", "ratio with start-up", "CPU s", "Δ main score")
    rows = []
    for case in record["cases"]:
        work, startup, cpu = (case["seconds"][name] for name in ("work", "startup", "cpu"))
        cells = [
            f"{case['case']} ({case['pages']} pages each), 5 others ({case['rows']:,} rows each)",
            f"{work['plain']:.1f}",
            f"{work['raylib']:.1f}",
            f"{case['ratios']['work']:.2f}×",
            f"{startup['plain']:.1f} / {startup['raylib']:.1f}",
            f"{case['ratios']['total']:.2f}×",
            f"{cpu['plain']:.1f} / {cpu['raylib']:.1f}",
            f"{case['largest difference of a main score']:.0e}",
        ]
        rows.append(cells)
    where, made = record["machine"], record["versions"]
    packages = ", ".join(f"{name} {made[name]}" for name in ("mteb", "ray", "torch"))
    load = f"{where['load average at the start'][0]} at the start, {where['load average at the end'][0]} at the end"
    about = f"{record['date']}; {where['cores used']} of {where['cores of the machine']} cores, {where['processor']}; "
    return [*markdown_table(heads, rows), "", f"{about}{packages}; {record['minutes']} minutes; load average {load}."]


def write_into_readme(record: dict[str, Any], path: Path) -> None:
    """Put the table between its marks in `path`. Raises ValueError where they are missing."""
    write_between(path, _BEGIN, _END, table(record))


if __name__ == "__main__":
    sys.exit(main())
