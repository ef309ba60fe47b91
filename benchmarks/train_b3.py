"""B3 batches against batches by chance on StdlibCards, as `make demo-train` does it: the command line, run by run.

Of each seed: a model is trained with other batches by chance in every epoch; a plan of B3 batches is mined with it; and
the same untrained weights are trained with that plan for as many steps. The seed is that of batches and of mining; the
weights that all runs begin with are the same.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import say

REPOSITORY = Path(__file__).resolve().parent.parent

TASK = "StdlibCardsT2I"
STEPS, BATCH, CLUSTER = 300, 64, 8
_SCORE = f"eval/{TASK}/ndcg_at_5"

Measured = dict[str, Any]


def compare(
    folder: Path, seeds: list[int], threads: int, *, steps: int = STEPS, batch: int = BATCH, limit: int | None = None
) -> Measured:
    """nDCG@5 of the untrained model and of both runs of every seed. folder: of the runs; what is complete there is not
    run again. limit: only so many examples."""
    cards = folder / "cards"
    if not cards.exists():
        _call("raylib.tasks.stdlib_cards", [str(cards)], threads)
    common = ["--data", str(cards), "--local", *(["--limit", str(limit)] if limit else [])]
    of_plan = ["--batch-size", str(batch), "--cluster-size", str(CLUSTER), "--duplicate-similarity", "0.9999"]
    of_plan += ["--suspect-above", "1"]  # of MaxSim that is not divided, most negatives have 0.95 of the positive's
    if limit:
        of_plan.append("--allow-duplicates")  # to a model of few steps all cards are one
    found: Measured = {"steps": steps, "batch": batch, "cluster": CLUSTER, "seeds": {}}
    for seed in seeds:
        runs = {name: folder / f"{name}-{seed}" for name in ("random", "b3")}
        plan = folder / f"b3-{seed}.parquet"
        settings = ["--config", str(REPOSITORY / "jobs" / "train.yaml"), *common, "--seed", str(seed)]
        settings += ["--max-steps", str(steps), "--eval-every", str(steps), "--warmup", str(min(50, steps))]
        _cli("train", [*settings, "--batch-size", str(batch), "--output-folder", str(runs["random"])], threads)
        teacher = ["--model", str(runs["random"] / "model"), "--output", str(plan), "--seed", str(seed)]
        _cli("mine", ["batches", *common, *teacher, *of_plan], threads)
        followed = ["--batch-plan", str(plan), "--batch-size", str(batch)]
        _cli("train", [*settings, *followed, "--output-folder", str(runs["b3"])], threads)
        of_seed = {name: read_run(run) for name, run in runs.items()}
        found["seeds"][str(seed)] = {**of_seed, "quality": _quality(plan)}
        say(f"seed {seed}: " + ", ".join(f"{name} {run['score']:.4f}" for name, run in of_seed.items()))
    return found


def read_run(folder: Path) -> Measured:
    """Of a run's own files: scores before the first step and after the last, the loss of the last lines, seconds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    scored = {line["step"]: line[_SCORE] for line in lines if _SCORE in line}
    losses = [line["loss"] for line in lines if "loss" in line]
    finished = json.loads((folder / "finished.json").read_text(encoding="utf-8"))
    return {
        "score": scored[finished["steps"]],
        "untrained": scored[0],
        "loss": statistics.mean(losses[-5:]),
        "seconds": round(finished["seconds"]),
    }


def _quality(plan: Path) -> Measured:
    """Of the plan and of batches by chance, as `raylib mine batches` tells it."""
    return json.loads(plan.with_suffix(".json").read_text(encoding="utf-8"))["quality"]


def _cli(command: str, arguments: list[str], threads: int) -> None:
    _call("raylib.cli", [command, *arguments], threads)


def _call(module: str, arguments: list[str], threads: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-5000:]}")
