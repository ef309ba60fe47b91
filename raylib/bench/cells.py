"""Which cells a run has: the workloads of a tower, the same for every runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raylib.bench.config import BenchConfig
from raylib.bench.records import Cell


@dataclass(frozen=True)
class Workload:
    """What of a cell all runtimes share. See `Cell`."""

    threads: int
    batch: int
    tokens: int | None
    clients: int = 1
    load: float | None = None

    def cell(self, model: str, tower: str, runtime: str, precision: str) -> Cell:
        return Cell(model, tower, runtime, precision, self.threads, self.batch, self.tokens, self.clients, self.load)

    @property
    def words(self) -> str:
        """For a line of progress."""
        told = [f"batch {self.batch}"]
        told += [f"{self.tokens} tokens"] if self.tokens is not None else []
        told += [f"{self.clients} clients"] if self.clients > 1 else []
        told += [f"load {self.load:g}"] if self.load is not None else []
        return ", ".join([*told, f"{self.threads} thread" + ("s" if self.threads > 1 else "")])


def workloads(config: BenchConfig, tower: str) -> list[Workload]:
    """Closed loops by batch and length first; then clients at the same time and calls that arrive by chance, both with
    one content a call. Images have no length. In the order in which they are measured, each once."""
    lengths: Sequence[int | None] = config.numbers("sequence_lengths", int) if tower == "text" else [None]
    clients, loads = config.numbers("concurrency", int), config.numbers("load", float)
    found = []
    for threads in config.numbers("threads", int):
        found += [Workload(threads, batch, n) for n in lengths for batch in config.numbers("batch_sizes", int)]
        one = [Workload(threads, 1, n) for n in lengths]
        found += [replace(w, clients=n) for w in one for n in clients]
        found += [replace(w, load=share) for w in one for share in loads]
    return list(dict.fromkeys(found))
