"""What the measurements of `benchmarks/evaluate.py` say: medians, ratios pair by pair, tables for screen and README."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import markdown_table, write_between
from benchmarks.evaluate_inputs import Case

SIDES = ("plain", "raylib")
_BEGIN, _END = "<!-- results of evaluate.py: rewritten by every full run -->", "<!-- end of results -->"
_COLUMNS = (
    "model",
    "languages",
    "pages",
    "mteb s",
    "raylib s",
    "ratio (min to max)",
    "target",
    "CPU s",
    "start-up s",
    "ratio with start-up",
    "Δ main score",
)


def summary(case: Case, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, ratios pair by pair, the largest difference of scores, and every measurement."""

    def median(side: str, name: str) -> float:
        return round(statistics.median(pair[side][name] for pair in pairs), 2)

    def ratios(name: str) -> dict[str, float]:
        values = [pair["plain"][name] / pair["raylib"][name] for pair in pairs]
        return {
            "median": round(statistics.median(values), 2),
            "min": round(min(values), 2),
            "max": round(max(values), 2),
        }

    def difference(names: Callable[[str], bool]) -> float:
        """Infinite where one side has a score that the other has not."""
        sides = [(pair["plain"]["scores"], pair["raylib"]["scores"]) for pair in pairs]
        return max(
            abs(a.get(n, math.inf) - b.get(n, math.inf)) for a, b in sides for n in a.keys() | b.keys() if names(n)
        )

    return {
        "model": case.model.name,
        "note": case.model.note,
        "task": case.task,
        "languages": 4 if case.layout == "v2" else 1,
        "pages": case.pages,
        "rounds": len(pairs),
        "target": case.target,
        "work seconds": {side: median(side, "work") for side in SIDES},
        "work ratio": ratios("work"),
        "cpu seconds": {side: median(side, "cpu") for side in SIDES},
        "startup seconds": {side: median(side, "startup") for side in SIDES},
        "total seconds": {side: median(side, "total") for side in SIDES},
        "total ratio": ratios("total"),
        "main_score_difference": difference(lambda name: name.endswith("/main_score")),
        "largest_metric_difference": difference(lambda name: True),
        "pairs": [{side: _without_detail(pair[side]) for side in SIDES} for pair in pairs],
    }


def _without_detail(measured: dict[str, Any]) -> dict[str, Any]:
    """A measurement with its main scores only: every nAUC of every language would be most of the file."""
    kept = {name: value for name, value in measured["scores"].items() if name.endswith("/main_score")}
    return {**measured, "scores": kept}


def rows(record: dict[str, Any]) -> list[list[str]]:
    """One row of `_COLUMNS` per case."""
    found = []
    for case in record["cases"]:
        work, cpu, startup = (case[f"{name} seconds"] for name in ("work", "cpu", "startup"))
        ratio, target = case["work ratio"], case["target"]
        spread = f" ({ratio['min']:.2f} to {ratio['max']:.2f})" if case["rounds"] > 1 else " (one pair)"
        verdict = "" if target is None else f"{target:g}× {'met' if ratio['median'] >= target else 'missed'}"
        found.append(
            [
                case["model"],
                str(case["languages"]),
                f"{case['pages']:,}",
                f"{work['plain']:.1f}",
                f"{work['raylib']:.1f}",
                f"{ratio['median']:.2f}×{spread}",
                verdict,
                f"{cpu['plain']:.1f} / {cpu['raylib']:.1f}",
                f"{startup['plain']:.1f} / {startup['raylib']:.1f}",
                f"{case['total ratio']['median']:.2f}×",
                f"{case['main_score_difference']:.0e}" if case["main_score_difference"] else "0",
            ]
        )
    return found


def about(record: dict[str, Any]) -> str:
    """Where and when, in one line."""
    machine, settings = record["machine"], record["settings"]
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("mteb", "ray", "torch", "transformers"))
    return (
        f"{record['date']}; {machine['cores used']} of {machine['cores of the machine']} cores, "
        f"{machine['processor']}; Python {record['versions']['python']}, {versions}; {settings['rounds']} rounds, "
        f"{record['minutes']} minutes; load average {machine['load average at the start'][0]} at the start, "
        f"{machine['load average at the end'][0]} at the end; "
        f"num_proc of the plain side: {settings['num_proc of the plain side']['used']}."
    )


def show(record: dict[str, Any]) -> None:
    """The table on screen."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="mteb.evaluate / raylib evaluate (medians)", title_justify="left", box=None)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for row in rows(record):
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 160)
    console.print(table)
    print(about(record))


def write_into_readme(record: dict[str, Any], path: Path) -> None:
    """Put table and circumstances between the marks in `path`. Raises ValueError where the marks are missing."""
    write_between(path, _BEGIN, _END, [*markdown_table(_COLUMNS, rows(record)), "", about(record)])
