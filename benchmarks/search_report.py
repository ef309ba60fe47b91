"""The measurements of `benchmarks/search.py` as tables, on screen and in the README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common import markdown_table, write_between

_BEGIN, _END = "<!-- results of search.py: rewritten by every full run -->", "<!-- end of results of search.py -->"

_DENSE = ("dense, best 100", "s", "CPU s", "peak MB", "largest score difference", "places that differ")
_LATE = ("late interaction, best 10", "s", "CPU s", "recall@10", "bytes a document", "of float32")


def dense_rows(record: dict[str, Any]) -> list[list[str]]:
    rows = []
    for row in record["dense"]:
        differ = f"{row['places_that_differ']:,}" if row is not record["dense"][0] else "–"
        difference = f"{row['largest_score_difference']:.0e}" if row is not record["dense"][0] else "–"
        rows.append([row["name"], f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", _mb(row), difference, differ])
    index = record["index"]
    for name, suffix in (("built and searched", ""), ("searched again", "_again")):
        recall = f"recall@100 {index['quality']['recall_at_100']:.3f}"
        seconds, cpu = index["seconds" + suffix], index["cpu" + suffix]
        rows.append([f"{index['name']}, {name}", f"{seconds:.1f}", f"{cpu:.1f}", _mb(index), recall, "–"])
    return rows


def _mb(row: dict[str, Any]) -> str:
    return f"{row['peak_mb']:,.0f}"


def late_rows(record: dict[str, Any]) -> list[list[str]]:
    rows = []
    whole = next(row["quality"]["bytes_per_document_float32"] for row in record["late"] if row["quality"])
    for row in record["late"]:
        quality = row["quality"] or {"recall_at_10": 1.0, "bytes_per_document": whole}
        kept = quality["bytes_per_document"]
        seconds, cpu = row.get("seconds_again", row["seconds"]), row.get("cpu_again", row["cpu"])
        share = f"{kept / whole:.1%}"
        rows.append(
            [row["name"], f"{seconds:.1f}", f"{cpu:.1f}", f"{quality['recall_at_10']:.3f}", f"{kept:,.0f}", share]
        )
    return rows


def about(record: dict[str, Any]) -> str:
    sizes, load = record["sizes"], record["load average"]
    return (
        f"{record['date']}; {sizes['queries']:,} queries, {sizes['documents']:,} × {sizes['dim']:,} dense documents; "
        f"{min(100, sizes['queries'])} queries, {sizes['pages']:,} pages; {sizes['cores']} cores; {record['minutes']} "
        f"minutes; load average {load['start'][0]} at the start, {load['end'][0]} at the end."
    )


def show(record: dict[str, Any]) -> None:
    for names, rows in ((_DENSE, dense_rows(record)), (_LATE, late_rows(record))):
        widths = [max(len(row[i]) for row in [list(names), *rows]) for i in range(len(names))]
        for row in [list(names), *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print()
    print(about(record))


def write_into_readme(record: dict[str, Any], path: Path) -> None:
    """Put tables and circumstances between the marks in `path`. Raises ValueError where the marks are missing."""
    lines: list[str] = []
    for names, rows in ((_DENSE, dense_rows(record)), (_LATE, late_rows(record))):
        lines += [*markdown_table(names, rows), ""]
    write_between(path, _BEGIN, _END, [*lines, about(record)])
