"""One model and tower on one node: what can run it, whether it gives PyTorch's vectors, then the rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raylib.bench.book import Book
from raylib.bench.cells import Workload, workloads
from raylib.bench.config import BenchConfig
from raylib.bench.inputs import SEED
from raylib.bench.place import Node
from raylib.bench.records import Cell, Parity, Result, Round, Status
from raylib.evaluate.progress import Reporter
from raylib.models.protocol import ModelSpec


@dataclass(frozen=True)
class Variant:
    """What is compared with each other."""

    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


@dataclass
class Standing:
    """What is known of a variant before it is timed."""

    machine: dict[str, Any]
    language: str = "python"
    parity: Parity | None = None
    ndcg_at_5: float | None = None
    max_tokens: int | None = None


class ModelRun:
    """`run`, once. Each step is a process of its own on the node, and one that fails costs the cells that need it."""

    def __init__(
        self, config: BenchConfig, spec: ModelSpec, tower: str, node: Node, book: Book, reporter: Reporter
    ) -> None:
        self.config, self.spec, self.tower = config, spec, tower
        self.node, self.book, self.reporter = node, book, reporter
        self.variants = [Variant(runtime, p) for runtime in config.runtimes for p in config.precision]
        self.workloads = workloads(config, tower)
        self.results: dict[tuple[Variant, Workload], Result] = {}

    def run(self) -> list[Result]:
        """Of all cells, in the order of runtimes, precisions and workloads."""
        lengths = sorted({w.tokens for w in self.workloads if w.tokens is not None})
        reference = self._ask("reference", Variant("torch", "fp32"), 1, lengths=lengths)
        if "folder" not in reference:
            status: Status = "hole" if "hole" in reference else "failed"
            for variant in self.variants:
                self._close(variant, self.workloads, status, reference[status], "python")
        else:
            for variant in self.variants:
                self._admit(variant, reference)
            self._rounds(reference)
        return [self.results[v, w] for v in self.variants for w in self.workloads]

    def _ask(self, kind: str, variant: Variant, threads: int, **more: Any) -> dict[str, Any]:
        """What a process gives, or {"failed": reason}. See `raylib.bench.process`."""
        job = {
            "kind": kind,
            "runtime": variant.runtime,
            "spec": self.spec.settings(),
            "tower": self.tower,
            "precision": variant.precision,
            "threads": threads,
            **more,
        }
        return self.node.run(job, self.config.timeout)

    # Before anything is timed.

    def _admit(self, variant: Variant, reference: Mapping[str, Any]) -> None:
        """Begin or go on with the results of a variant's cells: those that it cannot have are closed here."""
        live: list[Workload] = []
        standing: Standing | None = None
        for threads in dict.fromkeys(w.threads for w in self.workloads):
            mine = [w for w in self.workloads if w.threads == threads]
            prepared = self._ask("prepare", variant, threads)
            language = prepared.get("language", "python")
            if "machine" not in prepared:
                status: Status = "hole" if "hole" in prepared else "failed"
                self._close(variant, mine, status, prepared[status], language)
                continue
            limit = prepared["max_tokens"]
            holes: dict[int | None, str] = {
                **{n: f"it cuts texts at {limit} tokens" for w in mine if (n := w.tokens or 0) > (limit or n)},
                **{int(n): why for n, why in reference["holes"].items()},
            }
            too_long = [w for w in mine if w.tokens in holes]
            for tokens in dict.fromkeys(w.tokens for w in too_long):
                same = [w for w in too_long if w.tokens == tokens]
                self._close(variant, same, "hole", holes[tokens], language)
            live += [w for w in mine if w not in too_long]
            machine = {"node_type": self.node.type, **prepared["machine"]}
            standing = standing or Standing(machine, language, max_tokens=limit)
        if standing is None or not live:
            return
        protocol = {**self.config.protocol(), "fingerprint": reference["fingerprint"]}
        known = self._known(variant, live, standing, protocol)
        failure = self._check(variant, live[0].threads, standing, reference, known, len(live))
        if failure is not None:
            self._close(variant, live, *failure, standing.language, standing)
            return
        for w in live:
            begun = known.get(w) or Result(self._cell(variant, w), "measured", protocol=protocol)
            begun.language, begun.machine, begun.parity = standing.language, standing.machine, standing.parity
            begun.ndcg_at_5 = standing.ndcg_at_5
            self.results[variant, w] = begun
        self.book.put(*(known[w] for w in live if w in known))

    def _known(
        self, variant: Variant, live: list[Workload], standing: Standing, protocol: Mapping[str, Any]
    ) -> dict[Workload, Result]:
        if self.config.overwrite:
            return {}
        found = {w: self.book.known(self._cell(variant, w), standing.machine, protocol) for w in live}
        return {w: result for w, result in found.items() if result is not None}

    def _check(
        self,
        variant: Variant,
        threads: int,
        standing: Standing,
        reference: Mapping[str, Any],
        known: Mapping[Workload, Result],
        cells: int,
    ) -> tuple[Status, str] | None:
        """Parity and quality, unless they are known of every cell. Gives why the variant is not timed."""
        one = next(iter(known.values()), None)
        if one is not None and len(known) == cells:
            standing.parity, standing.ndcg_at_5 = one.parity, one.ndcg_at_5
        if standing.parity is None:
            gate = self._ask("gate", variant, threads, folder=reference["folder"], max_tokens=standing.max_tokens)
            if "failed" in gate:
                return "failed", gate["failed"]
            standing.parity = Parity(**gate["parity"])
            if gate["refused"] is not None:
                return "refused", gate["refused"]
            self.reporter.say(f"{self._name(variant)}: lowest cosine with PyTorch {standing.parity.cosine:.7f}")
        task = self.config.quality_task
        if task is not None and standing.ndcg_at_5 is None:
            quality = self._ask("quality", variant, threads, task=task)
            if "failed" in quality:
                self.reporter.warn(f"{self._name(variant)}: no nDCG@5 on {task}: {quality['failed']}")
            standing.ndcg_at_5 = quality.get("ndcg_at_5")
        return None

    def _close(
        self,
        variant: Variant,
        cells: list[Workload],
        status: Status,
        reason: str,
        language: str,
        standing: Standing | None = None,
    ) -> None:
        """These cells are not timed."""
        standing = standing or Standing({"node_type": self.node.type}, language)
        for w in cells:
            self.results[variant, w] = Result(
                self._cell(variant, w),
                status,
                reason,
                language=standing.language,
                parity=standing.parity,
                machine=standing.machine,
            )
        self.book.put(*(self.results[variant, w] for w in cells))
        tell = self.reporter.say if status == "hole" else self.reporter.warn
        tell(f"{self._name(variant)}, {len(cells)} cell{'s' if len(cells) > 1 else ''}: {status}: {reason}")

    # The rounds.

    def _rounds(self, reference: Mapping[str, Any]) -> None:
        """Runtimes take turns at every workload, another one first in every round: what else the machine does, and how
        warm it is, then falls on all of them."""
        for round_ in range(self.config.rounds):
            first = round_ % len(self.variants)
            for w in self.workloads:
                for variant in [*self.variants[first:], *self.variants[:first]]:
                    result = self.results[variant, w]
                    if result.status == "measured" and len(result.rounds) <= round_:
                        self._measure(variant, w, result, round_, reference["folder"])

    def _measure(self, variant: Variant, w: Workload, result: Result, round_: int, folder: str) -> None:
        found = self._ask(
            "measure",
            variant,
            w.threads,
            folder=folder,
            batch=w.batch,
            tokens=w.tokens,
            clients=w.clients,
            load=w.load,
            duration_s=self.config.duration,
            seed=SEED + round_,
        )
        name = f"{self._name(variant)}, {w.words} ({round_ + 1}/{self.config.rounds})"
        if "failed" in found:
            result.status, result.reason = "failed", found["failed"]
            self.reporter.warn(f"{name}: failed: {found['failed']}")
        else:
            one = Round(**found["round"])
            result.rounds.append(one)
            result.dim, result.disk_bytes = found["dim"], found["disk_bytes"]
            errors = f", {one.errors} calls failed" if one.errors else ""
            self.reporter.say(f"{name}: p50 {one.latency_ms['p50']:.4g} ms, {one.contents_per_s:.4g}/s{errors}")
        self.book.put(result)

    def _cell(self, variant: Variant, w: Workload) -> Cell:
        return w.cell(self.spec.name, self.tower, variant.runtime, variant.precision)

    def _name(self, variant: Variant) -> str:
        on = f" on {self.node.type}" if self.node.type else ""
        return f"{self.spec.name} {self.tower}{on}: {variant}"
