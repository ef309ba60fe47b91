"""B3 batches at 10k, 100k and a million examples: neighbours against FAISS alone, and how hard the batches of each
method are, in how much time and memory.

    python benchmarks/mine.py [--quick] [--cores 2] [--rounds 3] [--output benchmarks/results/mine.json]
    python benchmarks/mine.py --sizes 100000 --parts plans --methods growth,growth-swaps --folder DIR

Every measurement is a fresh process (mine_side.py), pinned to the same cores, over the same files. What --sizes,
--parts and --methods leave out stays in the output as it was. README.md says what is compared with what.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import processor, publish, say  # noqa: E402
from benchmarks.mine_inputs import Shape, write_embeddings  # noqa: E402
from benchmarks.mine_report import BEGIN, END, table  # noqa: E402

SIZES = (10_000, 100_000, 1_000_000)
METHODS = (
    *("random", "sequential", "balanced-kmeans"),
    *("metis", "metis-swaps", "growth", "growth-swaps", "signed-growth"),
)
PARTS = ("knn", "plans", "split", "whole")

_MOST_EXACT, _LEAST_LISTS = 100_000, 100_000
"""Sizes up to which neighbours are compared exactly, and from which in an inverted file."""

_FAISS_LISTS = 4
"""Lists for the square root of the number of documents, as FAISS advises; raylib takes fewer, as it compares blocks."""

_MOST_QUERIES = 10_000
"""Queries that are compared with all documents, where there are more: the others would cost the same each."""

_MANY = 1_000_000
"""From so many examples neighbours are measured in one round: each takes minutes."""

_PIECES = 8
"""Into about so many the graph is split where that is measured."""

Measured = dict[str, Any]


def main() -> int:
    options = arguments()
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "mine.json"))
    record: Measured = {"sizes": {}, "runs": []}
    if output is not None and options.partial and os.path.exists(output):
        record = json.loads(Path(output).read_text(encoding="utf-8"))
    started, load = time.time(), [round(x, 2) for x in os.getloadavg()]
    for n in options.sizes:
        with _folder_for(n, options.folder) as folder:
            part = Bench(folder, n, options, record["sizes"].setdefault(str(n), {}))
            part.run()
    record["sizes"] = dict(sorted(record["sizes"].items(), key=lambda item: int(item[0])))
    record["machine"] = machine(options.cores)
    record["runs"].append(
        {
            "date": time.strftime("%Y-%m-%d"),
            **{name: getattr(options, name) for name in ("sizes", "parts", "methods")},
            "minutes": round((time.time() - started) / 60, 1),
            "load average": {"start": load, "end": [round(x, 2) for x in os.getloadavg()]},
        }
    )
    publish(record, table(record), output, (BEGIN, END), recorded=options.output is None)
    plans = [plan for size in record["sizes"].values() for plan in size.get("plans", {}).items()]
    return 1 if any(plan["duplicates"] for name, plan in plans if name not in ("random", "sequential")) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few examples: does everything run?")
    parser.add_argument("--sizes", help="examples, with commas between them")
    parser.add_argument("--parts", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--methods", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--rounds", type=int, default=3, help="of the two sides of the search, below a million")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", help="where vectors, rankings and graphs stay for a further run; 5 GB a million")
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick")
    options = parser.parse_args()
    options.partial = any((options.sizes, options.parts, options.methods))
    options.sizes = [int(n) for n in options.sizes.split(",")] if options.sizes else [2000] if options.quick else SIZES
    for name, known in (("parts", PARTS), ("methods", METHODS)):
        asked = getattr(options, name).split(",") if getattr(options, name) else list(known)
        if unknown := set(asked) - set(known):
            parser.error(f"--{name} has {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
        setattr(options, name, asked)
    if options.quick:
        options.rounds = 1
    return options


@contextlib.contextmanager
def _folder_for(n: int, root: str | None) -> Any:
    if root is not None:
        yield Path(root) / str(n)
        return
    made = Path(tempfile.mkdtemp(prefix="raylib-benchmark-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


class Bench:
    """One size. record: what is measured goes there, under the names of the parts."""

    def __init__(self, folder: Path, n: int, options: argparse.Namespace, record: Measured) -> None:
        self.folder, self.n, self.options, self.record = folder, n, options, record
        self.batch = 1024 if n >= 10_000 else 256

    def run(self) -> None:
        parts = self.options.parts
        self._write()
        if "knn" in parts:
            self.record["knn"] = self._knn()
        if "plans" in parts or "split" in parts:
            self._rank()
        if "plans" in parts:
            plans = self.record.setdefault("plans", {})
            for method in self.options.methods:
                plans[method] = self.measure("plan", method, method=method)
        if "split" in parts:
            most = self.n // _PIECES
            self.record["split"] = {"split_above": most, **self.measure("plan", "split", method="metis", split=most)}
        if "whole" in parts:
            self.record["whole"] = self.measure("whole", "vectors to batches")

    def _write(self) -> None:
        done = self.folder / "inputs.json"
        if not done.exists():
            say(f"writing {self.n:,} queries and documents to {self.folder}")
            about = write_embeddings(self.folder, self.n, Shape())
            self.measure("truth", "exact neighbours of the sampled queries")
            done.write_text(json.dumps(about), encoding="utf-8")
        self.record["inputs"] = json.loads(done.read_text(encoding="utf-8"))

    def _knn(self) -> Measured:
        """Both sides by turns, in an order that alternates by round."""
        methods = ["exact"] * (self.n <= _MOST_EXACT) + ["ivf"] * (self.n >= _LEAST_LISTS)
        found: Measured = {}
        for method in methods:
            rounds: dict[str, list[Measured]] = {"raylib": [], "faiss": []}
            most = _MOST_QUERIES if method == "exact" else self.n
            settings = {"method": method, "most": most, "lists": int(_FAISS_LISTS * self.n**0.5)}
            for number in range(self.options.rounds if self.n < _MANY else 1):
                for side in ("raylib", "faiss") if number % 2 == 0 else ("faiss", "raylib"):
                    keep = side == "raylib" and number == 0 and most >= self.n
                    rounds[side].append(self.measure(side, f"{method}, {side}", keep=keep, **settings))
            found[method] = rounds
        return found

    def _rank(self) -> None:
        """The ranking and the graph that plans share, where this run or one before has not left them."""
        if not (self.folder / "ranking.npy").exists():
            method = "ivf" if self.n >= _LEAST_LISTS else "exact"
            self.measure("raylib", f"{method}, raylib", method=method, keep=True, most=self.n)
        if not (self.folder / "indices.npy").exists() or "graph" not in self.record:
            self.record["graph"] = self.measure("graph", "graph")

    def measure(self, job: str, name: str, **settings: Any) -> Measured:
        """One process. "peak mb anonymous": of its own memory, without the files that it maps, which the system may
        take back at any time; looked at from outside, because a call into C keeps the process from looking."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.options.cores), "PYTHONPATH": str(REPOSITORY)}
        environment.pop("OPENBLAS_CORETYPE", None)
        settings |= {"folder": str(self.folder), "cores": self.options.cores, "batch": self.batch}
        command = [sys.executable, str(REPOSITORY / "benchmarks" / "mine_side.py"), job, json.dumps(settings)]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            anonymous = 0
            while process.poll() is None:
                anonymous = max(anonymous, _anonymous_bytes(process.pid))
                time.sleep(0.05)
            said.seek(0)
            text = said.read()
        lines = [line for line in text.splitlines() if line.startswith("MEASURED ")]
        if process.returncode != 0 or not lines:
            raise SystemExit(f"{name} failed:\n{text[-5000:]}")
        measured = json.loads(lines[-1].removeprefix("MEASURED ")) | {"peak mb anonymous": round(anonymous / 1e6)}
        measured = {key: round(value, 7) if isinstance(value, float) else value for key, value in measured.items()}
        seconds = sum(measured.get("wall s", {}).values())
        say(f"{self.n:,}: {name}: {seconds:.1f} s, {sum(measured.get('cpu s', {}).values()):.1f} CPU s")
        return measured


def _anonymous_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        return int(text.partition("RssAnon:")[2].split()[0]) * 1024
    return 0


def machine(cores: int) -> Measured:
    names = ("faiss-gpu", "faiss-cpu", "numpy", "pymetis", "scipy", "torch")
    versions = {}
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            versions[name] = version(name)
    return {"processor": processor(), "cores": cores, "python": platform.python_version(), **versions}


if __name__ == "__main__":
    sys.exit(main())
