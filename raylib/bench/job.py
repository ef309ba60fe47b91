"""The bench job: models → what can run them → parity → rounds of cells → files, tables, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from raylib import storage
from raylib.bench.book import Book
from raylib.bench.config import BenchConfig
from raylib.bench.model_run import ModelRun
from raylib.bench.place import Node, Place
from raylib.bench.records import Result
from raylib.bench.report import write_report
from raylib.bench.result_files import read_results
from raylib.errors import UserError
from raylib.evaluate.progress import Reporter
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.prices import read_prices


@dataclass
class Outcome:
    """What a job did. results: of the cells of this run, not those that were in the folder before. folder: where all
    are."""

    folder: str
    results: list[Result]

    @property
    def ok(self) -> bool:
        """Something was measured, and no cell failed or was refused. A hole is no failure: it is known beforehand."""
        statuses = {result.status for result in self.results}
        return "measured" in statuses and not statuses & {"failed", "refused"}


class BenchJob:
    """See the module. `run`, once."""

    def __init__(self, config: BenchConfig, place: Place, reporter: Reporter) -> None:
        self.config, self.place, self.reporter = config, place, reporter

    def run(self) -> Outcome:
        """Measure what is not measured yet, and write everything. Raises UserError for names and options that cannot be
        right, before anything is measured."""
        config = self.config
        prices = read_prices(config.price_table)
        models = [(spec, tower) for spec in config.specs() for tower in self._towers(spec)]
        storage.make_folder(config.output_folder)
        book = Book(config.output_folder)
        nodes = self.place.nodes()

        def on_node(node: Node) -> list[Result]:
            runs = (ModelRun(config, spec, tower, node, book, self.reporter) for spec, tower in models)
            return [result for run in runs for result in run.run()]

        found = [result for of_node in _side_by_side(on_node, nodes) for result in of_node]
        write_report(book.results, config.output_folder, csv=config.csv, prices=prices)
        return Outcome(config.output_folder, found)

    def _towers(self, spec: ModelSpec) -> Sequence[str]:
        """Those that are asked for, else those that the model has."""
        encoder = resolve(spec)
        if not isinstance(encoder, Encoder):
            raise UserError(f"{spec.name} searches by itself and has no vectors; give a model that encodes")
        return self.config.towers or sorted(encoder.modalities, reverse=True)


def _side_by_side(on_node: Callable[[Node], list[Result]], nodes: Sequence[Node]) -> list[list[Result]]:
    """A single node is waited for in this thread, which an interrupt reaches: it ends the process under way."""
    if len(nodes) == 1:
        return [on_node(nodes[0])]
    pool = ThreadPoolExecutor(len(nodes))
    try:
        return list(pool.map(on_node, nodes))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def summarise(config: BenchConfig) -> Outcome:
    """What `raylib bench --summary-only` does: everything but the measuring, from the results in the output folder.
    Raises UserError where there are none."""
    prices = read_prices(config.price_table)
    results = read_results(config.output_folder)
    if not results:
        raise UserError(f"{config.output_folder} holds no results of `raylib bench`; measure something first")
    write_report(results, config.output_folder, csv=config.csv, prices=prices)
    return Outcome(config.output_folder, results)
