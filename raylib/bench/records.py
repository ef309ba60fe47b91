"""What is measured, and what it gave: the rows that tables, figures and reports are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["measured", "hole", "refused", "failed"]
"""hole: the runtime cannot run it; refused: its vectors are not PyTorch's; failed: it crashed, hung or ran out of
memory."""


@dataclass(frozen=True)
class Cell:
    """One process of each round.

    batch: contents of a call. tokens: of each text, special ones among them; None for images. clients: that call at the
    same time, each as soon as its call before has ended. load: calls arrive by chance (Poisson) instead, at this share
    of the calls per second that one client had.
    """

    model: str
    tower: str
    runtime: str
    precision: str
    threads: int
    batch: int
    tokens: int | None
    clients: int = 1
    load: float | None = None


@dataclass
class Parity:
    """Against PyTorch in float32: the lowest cosine and the largest difference of a component, over all batches."""

    cosine: float
    difference: float
    contents: int


@dataclass
class Round:
    """Latencies in milliseconds of wall time per call; p99 from 1,000 calls on. tensor_in: the same for calls behind
    the tokenizer or image processor. queueing is within the latency where calls arrive by chance. errors: calls that
    failed, which are in no other number. observed: what the process saw of what it was asked for, such as the threads
    that PyTorch has and the tokens of its texts."""

    started: str
    load_s: float
    first_call_s: float
    warm_up: int
    calls: int
    seconds: float
    latency_ms: dict[str, float | None]
    cpu_ms_per_call: float
    contents_per_s: float
    peak_rss_mb: float
    loaded_rss_mb: float
    gpu_mb: float | None
    load_average: float
    errors: int = 0
    tensor_in: dict[str, float | None] | None = None
    observed: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """Of one cell. machine: node type, processor, GPU, versions of what computes. protocol: what else decides what was
    measured, so that a run with other settings does not take it for its own."""

    cell: Cell
    status: Status
    reason: str | None = None
    language: str = "python"
    disk_bytes: int | None = None
    dim: int | None = None
    parity: Parity | None = None
    ndcg_at_5: float | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
