"""What jobs tell Prometheus, through Ray: every node exports it, and deploy/grafana-raylib.json draws it.

Compute fills plain records (`raylib.evaluate.batching.BatchRecord`); they become metrics here, one call a batch. The
process that receives results counts, and not the one that computed them: that of a worker which is killed, or given up
as its stage ends, would be lost before Ray's next report. GPU memory alone is told where it is used.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from raylib.evaluate.batching import BatchRecord
from raylib.logs import job_name

TAGS = ("raylib_job", "model", "stage")
"""Not "job": Prometheus has its own of that name, and would rename ours."""

COUNTERS = {
    "raylib_contents": "Contents encoded, rows extracted, examples trained on, queries searched, tasks scored.",
    "raylib_tokens": "Tokens of forwards, without padding, where the model tells.",
    "raylib_padded_tokens": "Tokens of forwards with padding: 1 - tokens / padded tokens is the share of padding.",
    "raylib_store_hits": "Contents that were not encoded, because the store had them.",
    "raylib_retries": "Times that work was done again because a process died over it.",
    "raylib_bucket_retries": "Requests of workers to buckets that were sent again, because a bucket was busy.",
    "raylib_errors": "Contents that could not be used, and tasks that failed.",
    "raylib_busy_seconds": "Seconds of forwards, searches and scoring, summed over processes.",
}
HISTOGRAMS = {"raylib_batch_fill": "How much of what its forward may hold a batch was: tokens if bounded, or contents."}
GAUGES = {"raylib_gpu_memory_bytes": "GPU memory that a worker process holds."}
METRICS = COUNTERS | HISTOGRAMS | GAUGES
"""Name → what it is. Ray puts ray_ before a name, and Prometheus _total after that of a counter."""

_FILLS = [tenths / 10 for tenths in range(1, 11)]
"""Ray takes the middle of its bucket for each value: sums, and with them means, are as exact as these are narrow."""


@functools.cache
def _metric(name: str) -> Any:
    if name in COUNTERS:
        return Counter(name, METRICS[name], TAGS)
    if name in HISTOGRAMS:
        return Histogram(name, METRICS[name], _FILLS, TAGS)
    return Gauge(name, METRICS[name], TAGS)


@dataclass(frozen=True)
class Meter:
    """Metrics of one stage of one model. It travels; job: as in the process that made it."""

    job: str
    model: str
    stage: str

    @classmethod
    def of(cls, model: str, stage: str) -> Meter:
        return cls(job_name(), model, stage)

    @property
    def tags(self) -> dict[str, str]:
        return dict(zip(TAGS, (self.job, self.model, self.stage), strict=True))

    @property
    def about(self) -> dict[str, str]:
        """For log lines."""
        return {"job": self.job, "model": self.model, "stage": self.stage}

    def count(self, **amounts: float) -> None:
        """By the name of a counter, without raylib_."""
        for name, amount in amounts.items():
            if amount > 0:
                _metric(f"raylib_{name}").inc(amount, self.tags)

    def batch(self, record: BatchRecord) -> None:
        """One batch that is done."""
        self.count(
            contents=record.contents,
            errors=record.bad,
            tokens=record.tokens,
            padded_tokens=record.padded,
            busy_seconds=record.seconds,
        )
        if record.fill is not None:
            _metric("raylib_batch_fill").observe(min(1.0, record.fill), self.tags)

    def gpu_memory(self) -> None:
        """Of this process; nothing where it uses no GPU."""
        import torch

        if torch.cuda.is_available() and torch.cuda.is_initialized():
            held = sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))
            _metric("raylib_gpu_memory_bytes").set(held, self.tags)


def count_reused(stage: str, model: str, n: int) -> None:
    """For `raylib.timeline.Timeline`."""
    Meter.of(model, stage).count(store_hits=n)
