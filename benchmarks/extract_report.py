"""What `benchmarks/extract.py` makes of its measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.common import markdown_table

BEGIN, END = "<!-- results of extract.py: rewritten by every full run -->", "<!-- end of results of extract.py -->"

TOLERANCE = 1e-4
"""Largest difference of a number from the other side's, as a share of the largest number of its representation."""

_COLUMNS = ("model", "rows", "new tokens", "way", "rows/s", "× (min to max)", "CPU s", "× in CPU", "Δ", "answers ≠")


def summary(
    name: str,
    wall: Sequence[float],
    cpu: Sequence[float],
    first_wall: Sequence[float],
    first_cpu: Sequence[float],
    rows: int,
) -> dict[str, Any]:
    """One way's numbers; ratios are of the same round, times of the first way over those of this one."""
    ratios = [theirs / ours for theirs, ours in zip(first_wall, wall, strict=True)]
    of_cpu = [theirs / ours for theirs, ours in zip(first_cpu, cpu, strict=True)]
    return {
        "way": name,
        "rows per second": round(rows / statistics.median(wall), 2),
        "wall s": [round(seconds, 3) for seconds in wall],
        "cpu s": [round(seconds, 3) for seconds in cpu],
        "ratio": round(statistics.median(ratios), 2),
        "ratio min to max": [round(min(ratios), 2), round(max(ratios), 2)],
        "cpu ratio": round(statistics.median(of_cpu), 2),
        "cpu ratio min to max": [round(min(of_cpu), 2), round(max(of_cpu), 2)],
    }


def table(record: dict[str, Any]) -> list[str]:
    rows = []
    for case in record["cases"]:
        for i, way in enumerate(case["ways"]):
            low, high = way["ratio min to max"]
            spread = f"{way['ratio']:.2f}× ({low:.2f} to {high:.2f})" if i else "1×"
            model = f"{case['model']} ({case['parameters'] / 1e6:.1f} M)"
            about = [model, f"{case['rows']} {case['lengths']}", str(case["new tokens"] or "–")]
            agree = [
                f"{case['largest difference']:.0e}",
                str(case["answers that differ"] if case["new tokens"] else "–"),
            ]
            cells = [way["way"], f"{way['rows per second']:.1f}", spread, f"{statistics.median(way['cpu s']):.2f}"]
            cells += [f"{way['cpu ratio']:.2f}×" if i else "1×", *(agree if i == 0 else ["", ""])]
            rows.append([*(about if i == 0 else ["", "", ""]), *cells])
    begin, end = (record["load average"][when][0] for when in ("start", "end"))
    note = (
        f"{record['date']}; {record['device']}, {record['dtype']}, {record['threads']} torch thread(s) on "
        f"{record['cores']} cores; torch {record['torch']}, transformers {record['transformers']}; {record['rounds']} "
        f"rounds, {record['minutes']} minutes; load average {begin} at the start, {end} at the end."
    )
    return [*markdown_table(_COLUMNS, rows), "", note]
