"""What a job did when, what it held meanwhile, and about what that costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from raylib.logs import about
from raylib.placement import usable_cpus
from raylib.prices import read_prices

UNKNOWN = "unknown"


@dataclass(frozen=True)
class NodeKind:
    """Nodes that are alike. names: the type as the node says it, first of all its label; a price table has one of them.
    gpus, cpus: of one node."""

    names: tuple[str, ...]
    nodes: int
    gpus: float
    cpus: float

    def priced(self, prices: Mapping[str, float]) -> str | None:
        """The name under which the table has it."""
        return next((name for name in self.names if name in prices), None)


@dataclass(frozen=True)
class Held:
    """Of all workers together. nodes: those of the cluster while they worked."""

    workers: int = 0
    gpus: float = 0.0
    cpus: float = 0.0
    nodes: tuple[NodeKind, ...] = ()


def held_here(device: str = "cpu") -> Held:
    """This process, which may use every CPU of the machine."""
    return Held(1, float(device.startswith("cuda")), float(usable_cpus()))


class Worked(Protocol):
    """A report of some processes. retries: how often one died over its work."""

    held: Held
    retries: int


@dataclass
class Stage:
    """start: seconds of the epoch. held, retries: set by whoever runs it, as it becomes known."""

    name: str
    start: float
    seconds: float = 0.0
    held: Held = Held()
    retries: int = 0

    def take(self, report: Worked) -> None:
        """What its processes say of themselves."""
        self.held, self.retries = report.held, report.retries

    def usd(self, prices: Mapping[str, float]) -> tuple[float | None, str]:
        """(about what it cost, at which prices): the share of nodes that its workers held, for as long as it took. Of
        stages on GPUs nodes with GPUs, by the GPU; of others nodes without, where there are any, by the CPU."""
        held = self.held
        kinds = [kind for kind in held.nodes if (kind.gpus if held.gpus else kind.cpus) > 0]
        if not held.gpus:
            kinds = [kind for kind in kinds if not kind.gpus] or kinds
        unknown = [kind.names[0] if kind.names else UNKNOWN for kind in kinds if kind.priced(prices) is None]
        if unknown or not kinds:
            return None, f"node type {', '.join(dict.fromkeys(unknown)) or UNKNOWN}"
        named = [(str(kind.priced(prices)), kind) for kind in kinds]
        hourly = sum(prices[name] * kind.nodes for name, kind in named)
        there = sum((kind.gpus if held.gpus else kind.cpus) * kind.nodes for kind in kinds)
        share = (held.gpus or held.cpus) / there
        at = ", ".join(dict.fromkeys(f"{name} at ${prices[name]:g} an hour" for name, _ in named))
        return hourly * share * self.seconds / 3600, at


@dataclass
class Timeline:
    """Of one job, or of one model in it. prices: node type → USD an hour, by default raylib's own table. on_reuse: told
    of contents that a store had already: (stage, model, how many)."""

    model: str = ""
    prices: Mapping[str, float] = field(default_factory=read_prices)
    on_reuse: Callable[[str, str, int], None] | None = None
    stages: list[Stage] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def of(self, model: str) -> Timeline:
        """An empty one for a model, with the same prices."""
        return Timeline(model, self.prices, self.on_reuse)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A stage as long as the block; lines that are written in it are about it. It counts where it fails, too."""
        stage, start = self.add(name), time.perf_counter()
        try:
            with about(stage=name, model=self.model):
                yield stage
        finally:
            stage.seconds = time.perf_counter() - start

    def add(self, name: str) -> Stage:
        """A stage that begins now, and whose seconds are said later."""
        stage = Stage(name, time.time())
        with self._lock:
            self.stages.append(stage)
        return stage

    def reused(self, stage: str, n: int) -> None:
        """So many contents were in the store."""
        if n and self.on_reuse is not None:
            self.on_reuse(stage, self.model, n)

    @property
    def retries(self) -> int:
        return sum(stage.retries for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """For a summary: the stages, and gpu_seconds, cpu_seconds, retries, usd (None where no price is
        known) and price, at what or why not."""
        usd, price = self._cost()
        return {
            "stages": [
                {
                    "name": stage.name,
                    "start": datetime.fromtimestamp(stage.start, UTC).isoformat(timespec="milliseconds"),
                    "seconds": round(stage.seconds, 3),
                    "workers": stage.held.workers,
                    "gpus": round(stage.held.gpus, 3),
                    "cpus": round(stage.held.cpus, 3),
                    "retries": stage.retries,
                }
                for stage in self.stages
            ],
            "gpu_seconds": round(sum(stage.held.gpus * stage.seconds for stage in self.stages), 3),
            "cpu_seconds": round(sum(stage.held.cpus * stage.seconds for stage in self.stages), 3),
            "retries": self.retries,
            "usd": None if usd is None else round(usd, 6),
            "price": price,
        }

    def line(self) -> str:
        """In one line for a person: "encode 41 s on 8 GPUs, 0.09 GPU-hours, about $0.27 (g6e.4xlarge at $3.0042 an
        hour)"; "" where nothing was held."""
        working = [stage for stage in self.stages if stage.held.workers]
        if not working:
            return ""
        told = [f"{stage.name} {_seconds(stage.seconds)} on {_on(stage.held)}" for stage in working]
        hours = sum(stage.held.gpus * stage.seconds for stage in working) / 3600
        if hours:
            told.append(f"{hours:.2g} GPU-hours")
        usd, price = self._cost()
        told.append(f"no price for {price}" if usd is None else f"about ${_dollars(usd)} ({price})")
        if self.retries:
            told.append(f"{self.retries} {'retry' if self.retries == 1 else 'retries'}")
        return ", ".join(told)

    def _cost(self) -> tuple[float | None, str]:
        costs = [stage.usd(self.prices) for stage in self.stages if stage.held.workers]
        missing = list(dict.fromkeys(price for usd, price in costs if usd is None))
        if missing:
            return None, "; ".join(missing)
        return sum(usd or 0.0 for usd, _ in costs), "; ".join(dict.fromkeys(price for _, price in costs))


def _on(held: Held) -> str:
    many, what = (held.gpus, "GPU") if held.gpus else (held.cpus, "CPU")
    return f"{many:g} {what}{'' if many == 1 else 's'}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _dollars(usd: float) -> str:
    """Cents, and two digits of what is less than one."""
    return f"{usd:.2f}" if usd >= 0.01 else f"{usd:.2g}"
