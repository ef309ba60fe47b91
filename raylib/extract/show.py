"""`raylib inspect`: what files of hidden states hold, for a person, and whether a probe can use them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raylib.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from raylib.extract.check_states import Measured
    from raylib.store.hidden_states import HiddenStates

_FEW = 5
_NUMBERS = ("norm", "mean", "std", "min", "max", "NaN", "Inf")


@dataclass
class InspectStatesConfig:
    """Show what files of hidden states hold, and what is wrong with them.

    It reads what raylib extract writes, and HDF5 files of the scripts that it replaces. Exit status 1: there are
    vectors that are missing, not finite, all zeros, or of different widths.
    """

    path: str = field(metadata={"positional": True})
    """A file, the folder of a run, or folder/prefix where files of several runs lie in a folder."""

    detailed: bool = field(default=False, metadata={"aliases": ("-d",)})
    """Also each vector's shape, norm, mean, spread and extremes, and where the tokens were."""

    all: bool = field(default=False, metadata={"aliases": ("-a",)})
    """Every row; by default the first five."""

    sample: str | None = field(default=None, metadata={"metavar": "ID"})
    """One row, whole, by its question_id."""

    def __post_init__(self) -> None:
        if self.sample is not None and (self.detailed or self.all):
            raise UserError("--sample shows one row whole; leave out --detailed and --all")


def run_inspect_states(config: InspectStatesConfig) -> int:
    """Gives the exit status: 0, or 1 where something is wrong with the vectors. Raises UserError for files that cannot
    be read."""
    from raylib.extract.check_states import measure, problems
    from raylib.store.hidden_states import open_states
    from raylib.terminal import console

    terminal = console()
    states = open_states(config.path)
    if config.sample is not None:
        return _show_row(terminal, states, config.sample)
    _show_parts(terminal, states)
    measured = [measure(states, representation) for representation in states.representations]
    _show_representations(terminal, measured, len(states))
    rows = range(len(states)) if config.all else range(min(_FEW, len(states)))
    _show_rows(terminal, states, rows, with_positions=config.detailed)
    if config.detailed:
        _show_vectors(terminal, measured, rows)
    found = problems(measured) if len(states) else ["there are no rows"]
    _show_problems(terminal, found)
    return 1 if found else 0


def _show_parts(terminal: Console, states: HiddenStates) -> None:
    for part in states.parts:
        _say(terminal, f"{part.path}  {part.form}, {len(part.question_ids)} rows, {len(part.failed)} failed")
    _table(
        terminal,
        ["attribute", "value"],
        [
            [name, value if isinstance(value, str) else json.dumps(value)]
            for name, value in sorted(states.about.items())
        ],
    )
    if states.failed:
        _say(terminal, "\nrows without hidden states")
        _table(terminal, ["question_id", "reason"], states.failed[:_FEW])
        if len(states.failed) > _FEW:
            _say(terminal, f"and {len(states.failed) - _FEW} more")


def _show_representations(terminal: Console, measured: Sequence[Measured], n: int) -> None:
    rows = []
    for one in measured:
        there = sum(shape is not None for shape in one.shapes)
        overall = one.overall()
        rows.append(
            [
                one.representation.path,
                str(there) if there == n else f"{there} of {n}",
                ", ".join(one.widths()),
                ", ".join(one.dtypes),
                *(f"{overall[name]:.4g}" for name in _NUMBERS[:5]),
                *(f"{one.values[name][one.values[name] > 0].sum():.0f}" for name in _NUMBERS[5:]),
            ]
        )
    _say(terminal, f"\n{n} rows")
    _table(
        terminal, ["representation", "rows", "shape", "dtype", "norm", "mean", "std", "min", "max", "NaN", "Inf"], rows
    )


def _show_rows(terminal: Console, states: HiddenStates, rows: Sequence[int], *, with_positions: bool) -> None:
    texts = {name: states.texts(name) for name in states.text_names}
    positions = states.positions() if with_positions else {}
    heads = ["question_id", *texts, *positions]
    lines = [
        [
            states.question_ids[at],
            *(_cut(values[at]) for values in texts.values()),
            *(_position(values[at].tolist()) for values in positions.values()),
        ]
        for at in rows
    ]
    _say(terminal, "" if len(rows) == len(states) else f"\nthe first {len(rows)} rows; --all shows every one")
    _table(terminal, heads, lines)


def _show_vectors(terminal: Console, measured: Sequence[Measured], rows: Iterable[int]) -> None:
    lines = [[one.question_ids[at], *_vector_words(one, at)] for at in rows for one in measured]
    _say(terminal, "")
    _table(terminal, ["question_id", "representation", "shape", *_NUMBERS], lines)


def _show_row(terminal: Console, states: HiddenStates, question_id: str) -> int:
    """One row, whole. Gives the exit status."""
    from raylib.extract.check_states import measure_row, problems

    row = states.row(question_id)
    _say(terminal, f"{row.path}\nquestion_id  {row.question_id}")
    for name, text in row.texts.items():
        _say(terminal, f"{name}  {text}")
    for name, value in row.positions.items():
        _say(terminal, f"{name}  {_position(value)}")
    measured = measure_row(row, states.representations)
    lines = []
    for one in measured:
        vector = row.states.get(one.representation)
        first = [] if vector is None else vector.reshape(-1)[:4].tolist()
        lines.append([*_vector_words(one, 0), ", ".join(one.dtypes), " ".join(f"{value:.4g}" for value in first)])
    _say(terminal, "")
    _table(terminal, ["representation", "shape", *_NUMBERS, "dtype", "first values"], lines)
    found = problems(measured)
    _show_problems(terminal, found)
    return 1 if found else 0


def _show_problems(terminal: Console, found: Sequence[str]) -> None:
    _say(terminal, f"\n{len(found)} problem{'s' if len(found) > 1 else ''}:" if found else "\nno problems")
    for problem in found:
        _say(terminal, f"  {problem}")


# Words.


def _say(terminal: Console, text: str) -> None:
    terminal.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(terminal: Console, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Texts are the user's: nothing in them is markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    terminal.print(table)


def _cut(text: str, most: int = 60) -> str:
    """One line, of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _position(value: Any) -> str:
    """5, or 5:261 for the tokens from the fifth to before the 261st."""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)


def _vector_words(one: Measured, at: int) -> list[str]:
    """Name, shape and numbers of one row's vector."""
    from raylib.extract.check_states import shape_words

    shape = one.shapes[at]
    if shape is None:
        return [one.representation.path, "none", *[""] * len(_NUMBERS)]
    return [one.representation.path, shape_words(shape), *(f"{one.values[name][at]:.4g}" for name in _NUMBERS)]
