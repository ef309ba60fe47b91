"""What `benchmarks/mine.py` makes of its measurements."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.common import markdown_table

BEGIN, END = "<!-- results of mine.py: rewritten by every full run -->", "<!-- end of results of mine.py -->"

RATIO, RECALL, PARTITION_SECONDS, MOST_MB = 1.2, 0.99, 60, 6000
"""Targets: of raylib's time to FAISS's, of neighbours found; CPU seconds of METIS and repair, memory of all of it."""

Measured = dict[str, Any]

_NEIGHBOURS = (
    *("examples", "search", "raylib s (CPU)", "FAISS s (CPU)", "ratio (min to max)", "in CPU", "recall"),
    *("lists visited", "peak MB"),
)
_PLANS = (
    *(
        "examples",
        "method",
        "hardness",
        "suspects per million (meeting one)",
        "similarity in clusters",
        "wanted",
        "excluded",
    ),
    *("partition and repair, CPU s", "assembling, CPU s", "peak MB"),
)
_STAGES = ("examples", "what", "s", "CPU s", "peak MB", "")


def table(record: Measured) -> list[str]:
    lines: list[str] = []
    for columns, rows_of in ((_NEIGHBOURS, neighbour_rows), (_PLANS, plan_rows), (_STAGES, stage_rows)):
        rows = [row for n, size in record["sizes"].items() for row in rows_of(f"{int(n):,}", size)]
        if rows:
            lines += [*markdown_table(columns, rows), ""]
    return [*lines, about(record)]


def neighbour_rows(examples: str, size: Measured) -> list[list[str]]:
    rows = []
    for method, sides in size.get("knn", {}).items():
        ours, theirs = sides["raylib"], sides["faiss"]
        wall = [_sum(a, "wall s") / _sum(b, "wall s") for a, b in zip(ours, theirs, strict=True)]
        cpu = [_sum(a, "cpu s") / _sum(b, "cpu s") for a, b in zip(ours, theirs, strict=True)]
        ratio, spread = statistics.median(wall), f" ({min(wall):.2f} to {max(wall):.2f})" if len(wall) > 1 else ""
        recall = min(run["recall"] for run in ours)
        cells = [_seconds(ours), _seconds(theirs), f"{ratio:.2f}×{spread}{_met(ratio <= RATIO)}"]
        cells += [f"{statistics.median(cpu):.2f}×", f"{recall:.4f} / {theirs[0]['recall']:.4f}"]
        visited = (f"{runs[0]['visited']} of {runs[0]['lists']:,}" for runs in (ours, theirs))
        cells.append(" / ".join(visited) if method == "ivf" else "–")
        rows.append([examples, method, *cells, f"{_memory(ours[0])} / {_memory(theirs[0])}"])
    return rows


def plan_rows(examples: str, size: Measured) -> list[list[str]]:
    plans = dict(size.get("plans", {}))
    if "split" in size:
        plans[f"metis, split above {size['split']['split_above']:,}"] = size["split"]
    rows = []
    for name, plan in plans.items():
        suspects = f"{plan['suspects'] * 1e6:.0f} ({plan['examples_with_suspects']:.1%})"
        cells = [f"{plan['hardness']:.3f}", suspects, f"{plan['cluster similarity']:.3f}"]
        cells += [f"{plan[f'cluster {what}']:.2f}" for what in ("wanted", "excluded")]
        cells += [_of(plan, "partition"), _of(plan, "assemble"), _memory(plan)]
        if name == "metis":
            cells[5] += _met(plan["cpu s"]["partition"] <= PARTITION_SECONDS)
        rows.append([examples, name, *cells])
    return rows


def stage_rows(examples: str, size: Measured) -> list[list[str]]:
    rows = []
    if "graph" in size:
        note = f"{size['graph']['edges of a node']:.1f} edges an example"
        rows.append([examples, "mutual graph", *_cost(size["graph"]), note])
    if "whole" in size:
        part = size["whole"]
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in part["stages"].items())
        planted, found, beyond = (f"{part[f'duplicates {what}']:,}" for what in ("planted", "found", "beyond"))
        seconds, cpu, memory = _cost(part)
        memory += _met(part["peak mb anonymous"] <= MOST_MB)
        note = f"{stages}; of {planted} planted duplicates {found} found, {beyond} beyond"
        rows.append([examples, "vectors to batches, metis", seconds, cpu, memory, note])
    return rows


def _cost(part: Measured) -> tuple[str, str, str]:
    return f"{_sum(part, 'wall s'):.1f}", f"{_sum(part, 'cpu s'):.1f}", _memory(part)


def about(record: Measured) -> str:
    machine, run = record["machine"], record["runs"][-1]
    begin, end = (run["load average"][when][0] for when in ("start", "end"))
    minutes = sum(part["minutes"] for part in record["runs"])
    versions = ", ".join(
        f"{name} {version}" for name, version in machine.items() if name not in ("processor", "cores", "python")
    )
    return (
        f"{run['date']}; {machine['cores']} cores, {machine['processor']}; Python {machine['python']}, {versions}; "
        f"{minutes:.1f} minutes in {len(record['runs'])} run(s); of the last, load average {begin} at the start, {end} "
        "at the end."
    )


def _sum(run: Measured, what: str) -> float:
    return sum(run[what].values())


def _seconds(runs: list[Measured]) -> str:
    wall, cpu = (statistics.median(_sum(run, what) for run in runs) for what in ("wall s", "cpu s"))
    return f"{wall:.1f} ({cpu:.1f})"


def _of(plan: Measured, stage: str) -> str:
    return f"{plan['cpu s'][stage]:.1f}" if stage in plan["cpu s"] else "–"


def _memory(run: Measured) -> str:
    """Of the process's own memory; with the files that it maps."""
    return f"{run['peak mb anonymous']:,} ({run['peak mb']:,})"


def _met(met: bool) -> str:
    return ", met" if met else ", missed"
