"""What a run of `raylib bench` leaves for people and for programs, made of its results and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raylib import storage
from raylib.bench.exports import write_csv, write_parquet
from raylib.bench.figures import load_figure, throughput_figure
from raylib.bench.markdown import render_markdown
from raylib.bench.page import render_html
from raylib.bench.records import Result
from raylib.bench.result_files import write_results
from raylib.bench.table import build_rows
from raylib.figures import save

PARQUET, MARKDOWN, HTML = "bench.parquet", "bench.md", "bench.html"
THROUGHPUT, LOAD = "bench.png", "bench-load.png"
_SHOWS = {THROUGHPUT: "Throughput against latency, a line per runtime and precision", LOAD: "Latency under load"}


def write_report(
    results: Sequence[Result], folder: str, *, csv: str | None, prices: Mapping[str, float] | None
) -> None:
    """Write the result files, bench.parquet, bench.png, bench-load.png where calls arrived by chance, bench.md, and
    last bench.html.

    csv: where the table in the columns of the replaced harness goes; None for nowhere. prices: node type → USD per
    hour; None for tables without prices. Raises UserError where nothing can be written.
    """
    write_results(folder, results)
    rows = build_rows(results, prices)
    write_parquet(storage.join(folder, PARQUET), rows, prices or {})
    if csv is not None:
        write_csv(csv, rows)
    drawn = {THROUGHPUT: throughput_figure(rows), LOAD: load_figure(rows)}
    images = {name: save(figure, "png") for name, figure in drawn.items() if figure is not None}
    for name in drawn:
        path = storage.join(folder, name)
        if name in images:
            with storage.atomic_write(path) as stream:
                stream.write(images[name])
        else:
            storage.remove(path)  # of an earlier report on other results
    storage.write_text(storage.join(folder, MARKDOWN), render_markdown(rows, images))
    storage.write_text(
        storage.join(folder, HTML), render_html(rows, {_SHOWS[name]: png for name, png in images.items()})
    )
