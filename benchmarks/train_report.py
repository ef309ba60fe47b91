"""What `benchmarks/train.py` makes of its measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.common import markdown_table

BEGIN, END = "<!-- results of train.py: rewritten by every full run -->", "<!-- end of results of train.py -->"

RATIO, FLAT, LOSS = 1.1, 1.1, 1e-4
"""Targets: of raylib's CPU time for a step to that of sentence-transformers with the same kind of gradient; of the
memory at the largest batch to that at the smallest; of the difference of losses."""

OURS, THEIRS = "raylib, gradient cache", "sentence-transformers, cached"
PEERS = {OURS: THEIRS, "raylib": "sentence-transformers"}

Measured = dict[str, Any]

_STEPS = (*("batch", "way", "step s (CPU)", "× in CPU (min to max)", "preparing, CPU s", "memory, MB", "Δ loss"),)
_RUNS = ("batches", "nDCG@5, by seed", "mean (min to max)", "last loss", "hardness", "suspects per million")


def table(record: Measured) -> list[str]:
    lines: list[str] = []
    if record.get("sizes"):
        rows = [row for size, ways in record["sizes"].items() for row in step_rows(int(size), ways)]
        lines += [*markdown_table(_STEPS, rows), "", memory(record["sizes"]), ""]
    if record.get("b3"):
        lines += [*markdown_table(_RUNS, run_rows(record["b3"])), "", about_runs(record["b3"]), ""]
    return [*lines, about(record)]


def step_rows(size: int, ways: Measured) -> list[list[str]]:
    rows = []
    for way, runs in ways.items():
        wall, cpu, preparing = (median(runs, name) for name in ("step wall s", "step cpu s", "prepare cpu s"))
        cells = [f"{wall:.2f} ({cpu:.2f})", "1×", f"{preparing:.2f}", f"{median(runs, 'grown mb'):,.0f}", "–"]
        if way in PEERS and PEERS[way] in ways:
            peer = ways[PEERS[way]]
            shares = ratios(runs, peer)
            ratio = statistics.median(shares)
            spread = f" ({min(shares):.2f} to {max(shares):.2f})" if len(shares) > 1 else ""
            cells[1] = f"{ratio:.2f}×{spread}{met(ratio <= RATIO)}"
            cells[4] = f"{loss_difference(runs, peer):.0e}"
        rows.append([f"{size:,}", way, *cells])
    return rows


def ratios(ours: Sequence[Measured], theirs: Sequence[Measured]) -> list[float]:
    """Of CPU time for a step, round by round."""
    return [a["step cpu s"] / b["step cpu s"] for a, b in zip(ours, theirs, strict=True)]


def loss_difference(ours: Sequence[Measured], theirs: Sequence[Measured]) -> float:
    """The largest between any two steps of one number; both sides began with the same weights."""
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a["losses"], b["losses"], strict=True)]
    return max(abs(a - b) for a, b in pairs)


def same_losses(record: Measured) -> bool:
    return all(
        loss_difference(ways[ours], ways[theirs]) <= LOSS
        for ways in record.get("sizes", {}).values()
        for ours, theirs in PEERS.items()
        if ours in ways and theirs in ways
    )


def memory(sizes: Measured) -> str:
    """How much more the largest batch takes than the smallest, by way."""
    told = []
    for way in dict.fromkeys(way for ways in sizes.values() for way in ways):
        held = {int(size): median(ways[way], "grown mb") for size, ways in sizes.items() if way in ways}
        small, large = min(held), max(held)
        if small < large:
            share = held[large] / held[small]
            verdict = met(share <= FLAT) if way == OURS else ""
            told.append(f"{way}: {share:.2f}× from {small:,} to {large:,}{verdict}")
    return "Memory: " + "; ".join(told) + "." if told else ""


def run_rows(b3: Measured) -> list[list[str]]:
    seeds = b3["seeds"].values()
    rows = [["(untrained)", *_scores([seed["random"]["untrained"] for seed in seeds]), "–", "–", "–"]]
    for name, plan, told in (("random", "random", "by chance"), ("b3", "metis", "B3")):
        runs = [seed[name] for seed in seeds]
        loss = statistics.mean(run["loss"] for run in runs)
        hardness = statistics.mean(seed["quality"][plan]["hardness"] for seed in seeds)
        suspects = 1e6 * statistics.mean(seed["quality"][plan]["suspects"] for seed in seeds)
        cells = _scores([run["score"] for run in runs])
        rows.append([told, *cells, f"{loss:.2f}", f"{hardness:.3f}", f"{suspects:,.0f}"])
    return rows


def _scores(found: list[float]) -> list[str]:
    spread = f" ({min(found):.3f} to {max(found):.3f})"
    return [", ".join(f"{score:.3f}" for score in found), f"{statistics.mean(found):.3f}{spread}"]


def about_runs(b3: Measured) -> str:
    seeds = b3["seeds"].values()
    differences = [seed["b3"]["score"] - seed["random"]["score"] for seed in seeds]
    return (
        f"{b3['steps']} steps of {b3['batch']} examples, clusters of {b3['cluster']}. B3 less by chance, seed by seed: "
        f"{', '.join(f'{d:+.3f}' for d in differences)}; mean {statistics.mean(differences):+.3f}."
    )


def about(record: Measured) -> str:
    machine, run = record["machine"], record["runs"][-1]
    begin, end = (run["load average"][when][0] for when in ("start", "end"))
    versions = ", ".join(
        f"{name} {version}" for name, version in machine.items() if name not in ("processor", "threads", "python")
    )
    minutes = sum(part["minutes"] for part in record["runs"])
    return (
        f"{run['date']}; {machine['threads']} thread(s), {machine['processor']}; Python {machine['python']}, "
        f"{versions}; {minutes:.1f} minutes in {len(record['runs'])} run(s); of the last, "
        f"load average {begin} at the start, {end} at the end."
    )


def median(runs: Sequence[Measured], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def met(is_met: bool) -> str:
    return ", met" if is_met else ", missed"
