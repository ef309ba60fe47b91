"""How long `raylib evaluate` takes against plain `mteb.evaluate`: same checkpoint, task, cores and batch size, one run.

    python benchmarks/evaluate.py [--quick] [--rounds 3] [--cores 2] [--output benchmarks/results/evaluate.json]

Every measurement is a fresh process with an empty embedding store, pinned to the same cores. The two sides of a case
run one right after the other, in an order that changes from round to round, and are compared pair by pair. What is
timed on either side is in evaluate_side.py; README.md says why that is fair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import processor, say  # noqa: E402
from benchmarks.evaluate_inputs import FULL, PAGE_PIXELS, QUERIES, QUICK, SIZES, Case, build_model, write_pages  # noqa: E402
from benchmarks.evaluate_report import SIDES, show, summary, write_into_readme  # noqa: E402
from raylib.evaluate.quiet import quiet_libraries  # noqa: E402

BATCH_SIZE = 32
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few pages, one round: does everything run?")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements per case")
    parser.add_argument("--cores", type=int, default=2, help="cores that either side may use")
    parser.add_argument(
        "--output", help="JSON; by default benchmarks/results and the README's table, or nowhere with --quick"
    )
    options = parser.parse_args()
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "evaluate.json"))
    with tempfile.TemporaryDirectory(prefix="raylib-benchmark-") as root:
        record = run(root, QUICK if options.quick else FULL, [] if options.quick else SIZES, options)
    show(record)
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if options.output is None:
            write_into_readme(record, REPOSITORY / "benchmarks" / "README.md")
        print(f"The numbers: {output}")
    differing = [case for case in record["cases"] if case["main_score_difference"] > 1e-4]
    return 1 if differing else 0


def run(root: str, cases: list[Case], sizes: list[Case], options: argparse.Namespace) -> dict[str, Any]:
    """Build everything, choose the plain side's number of processes, measure."""
    rounds = 1 if options.quick else options.rounds
    environment = {**os.environ, **SETTINGS, "RAYLIB_CACHE": f"{root}/cache", "HF_DATASETS_CACHE": f"{root}/datasets"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):  # torch's own default is one thread a core
        environment.pop(name, None)
    started = time.time()
    quiet_libraries()
    say(f"building pages of {PAGE_PIXELS[0]}×{PAGE_PIXELS[1]} pixels and checkpoints in {root}")
    folders = prepare([*cases, *sizes], root, environment, options.cores)
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(options.cores),
        "versions": versions(),
        "settings": settings(rounds),
        "cases": [],
    }
    num_proc = choose_num_proc(cases[0], folders, root, environment, options.cores)
    record["settings"]["num_proc of the plain side"] = num_proc
    pairs: dict[Case, list[dict[str, Any]]] = {case: [] for case in [*cases, *sizes]}
    for number in range(rounds):
        for case in [*cases, *(sizes if number == 0 else [])]:
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            job = job_of(case, folders, root, options.cores, num_proc["used"])
            pair = {side: measure(side, job, environment) for side in order}
            pairs[case].append(pair)
            ratio = pair["plain"]["work"] / pair["raylib"]["work"]
            say(f"round {number + 1}  {case.model.name}  {case.data}: {ratio:.2f}×, load {os.getloadavg()[0]:.1f}")
    record["cases"] = [summary(case, found) for case, found in pairs.items()]
    record["machine"]["load average at the end"] = [round(x, 2) for x in os.getloadavg()]
    record["minutes"] = round((time.time() - started) / 60, 1)
    return record


# Building.


def prepare(cases: list[Case], root: str, environment: dict[str, str], cores: int) -> dict[Case, str]:
    """Case → the folder of its checkpoint. Writes every data set, and has each read once: the Arrow copy that
    `datasets` makes of local files on first use is no one's work here."""
    with ProcessPoolExecutor(cores) as pool:
        distinct = {case.data: case for case in cases}.values()
        written = [pool.submit(write_pages, case.layout, case.pages, root) for case in distinct]
        folders = {case: build_model(case.model, root) for case in cases}
        for future in written:
            future.result()
    for case in distinct:
        measure("warm", job_of(case, folders, root, cores, None), environment)
    return folders


def job_of(case: Case, folders: dict[Case, str], root: str, cores: int, num_proc: int | None) -> dict[str, Any]:
    return {
        "model": folders[case],
        "loader": case.model.loader,
        "task": case.task,
        "data_root": f"{root}/data/{case.data}",
        "output_folder": f"{root}/results",
        "cores": cores,
        "batch_size": BATCH_SIZE,
        "num_proc": num_proc,
    }


def choose_num_proc(
    case: Case, folders: dict[Case, str], root: str, environment: dict[str, str], cores: int
) -> dict[str, Any]:
    """MTEB's num_proc at its best: none, or one process a core, whichever is faster on the first case."""
    seconds = {n: measure("plain", job_of(case, folders, root, cores, n), environment)["work"] for n in (None, cores)}
    used = min(seconds, key=lambda n: seconds[n])
    say(f"plain side: num_proc {used} is the faster of " + ", ".join(f"{n}: {s:.1f} s" for n, s in seconds.items()))
    return {"used": used, "seconds on the first case": {str(n): round(s, 2) for n, s in seconds.items()}}


def measure(side: str, job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """One process. Adds its whole wall time ("total"), which holds the interpreter's start and end too."""
    shutil.rmtree(job["output_folder"], ignore_errors=True)
    started = time.time()
    script = str(REPOSITORY / "benchmarks" / "evaluate_side.py")
    process = subprocess.run(
        [sys.executable, script, side, json.dumps(job)], env=environment, capture_output=True, text=True, check=False
    )
    total = time.time() - started
    lines = [line for line in process.stdout.splitlines() if line.startswith("MEASURED ")]
    if process.returncode != 0 or not lines:
        raise SystemExit(f"{side} on {job['task']} failed:\n{process.stdout[-3000:]}\n{process.stderr[-3000:]}")
    found = json.loads(lines[-1].removeprefix("MEASURED "))
    return {**found, "total": total, "load": os.getloadavg()[0]}


# What a reader needs to know of the run.


def machine(cores: int) -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores of the machine": os.cpu_count(),
        "cores used": cores,
        "system": platform.platform(),
        "load average at the start": [round(x, 2) for x in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    names = ("raylib-cluster", "mteb", "ray", "torch", "transformers", "colpali-engine", "datasets", "pillow", "numpy")
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def settings(rounds: int) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "batch size": BATCH_SIZE,
        "page": f"PNG, {PAGE_PIXELS[0]}×{PAGE_PIXELS[1]} pixels",
        "queries per language": QUERIES,
    }


if __name__ == "__main__":
    sys.exit(main())
