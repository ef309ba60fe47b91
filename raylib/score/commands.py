"""`raylib score` and `raylib compare` on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylib.score.config import CompareConfig, ScoreConfig
from raylib.terminal import console

if TYPE_CHECKING:
    from raylib.score.job import Outcome


def run_score(config: ScoreConfig) -> int:
    """Score, write the files, show the means."""
    from rich.table import Table

    from raylib.score.job import score

    outcome = score(config)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure")
    table.add_column("mean", justify="right")
    for name, value in outcome.means.items():
        table.add_row(name, f"{value:.5f}")
    terminal = console()
    terminal.print(_what(outcome), markup=False, highlight=False)
    terminal.print(table)
    for note in outcome.notes:
        terminal.print(f"note: {note}", markup=False, highlight=False)
    terminal.print(f"wrote {config.output_folder}", markup=False, highlight=False)
    return 0


def _what(outcome: Outcome) -> str:
    """What was scored and how, in a line."""
    counts, search = outcome.counts, outcome.search
    parts = [f"{counts['queries_scored']} of {counts['queries']} queries scored"]
    if search:
        parts += [f"{counts['documents']} documents", f"{search['similarity']}, top {search['top_k']}"]
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in search["quality"].items()]
    return " · ".join(parts)


def run_compare(config: CompareConfig) -> int:
    """Compare, write the files that were asked for, show the tables."""
    from rich.table import Table
    from rich.text import Text

    from raylib.score.compare import changed_rows, compare, explanation, task_rows

    comparison = compare(config)
    terminal = console()
    terminal.print(f"A: {comparison.a}\nB: {comparison.b}", markup=False, highlight=False)
    shown = [task_rows(comparison), *([changed_rows(comparison)] if comparison.changed else [])]
    for heads, rows in shown:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for position, head in enumerate(heads):
            left = position == 0 or head == "query"
            table.add_column(
                head,
                justify="left" if left else "right",
                overflow="fold",
                no_wrap=not left,
                min_width=4 if position else 12,
            )
        for row in rows:
            table.add_row(*map(Text, row))
        terminal.print()
        terminal.print(table)
    terminal.print()
    if not comparison.changed and config.changed:
        terminal.print("no query changed", highlight=False)
    terminal.print(explanation(comparison), markup=False, highlight=False)
    for note in comparison.notes:
        terminal.print(f"note: {note}", markup=False, highlight=False)
    for path in config.output:
        terminal.print(f"wrote {path}", markup=False, highlight=False)
    return 0
