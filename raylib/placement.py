"""Where a job runs: flags that every job on the cluster has, and how lists in flags are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from raylib.buckets import check_url
from raylib.errors import UserError
from raylib.logs import LogFormat


@dataclass
class Placement:
    """Workers and what each of them holds."""

    workers: int | None = None
    """Most actors that hold the model. By default one per GPU, or per CPU on a cluster without GPUs, of its share: jobs
    on one cluster share it alike."""

    min_workers: int = 1
    """Fewest actors while there is work."""

    gpus_per_worker: float | None = None
    """GPUs of one actor; a fraction shares a GPU, two or more hold one model together. 1 by default where the cluster
    has GPUs, else 0."""

    cpus_per_worker: int = 1
    """CPUs, and torch threads, of one actor."""

    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """A Ray cluster to join. By default RAY_ADDRESS, or Ray is started on this machine."""

    local: bool = False
    """Run in this process, without Ray."""

    price_table: str | None = field(default=None, metadata={"metavar": "FILE"})
    """YAML of node types and their USD per hour, for what the run costs. By default raylib's table of public prices."""

    log_format: LogFormat = field(default="text", metadata={"metavar": "text|json"})
    """json: every line one JSON object, of the job and of its workers, with job, model, stage and shard."""

    def check_placement(self) -> None:
        """Raises UserError for numbers that cannot be, and for URLs with credentials in them in any setting."""
        for value in vars(self).values():
            for text in value if isinstance(value, list) else [value]:
                check_url(str(text))
        at_least_one(self, ("workers", "min_workers", "cpus_per_worker"))
        if self.log_format not in get_args(LogFormat):
            raise UserError(f"--log-format is {self.log_format!r}; expected text or json")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise UserError(f"--gpus-per-worker is {self.gpus_per_worker}; expected 0 or more")
        if self.local and self.address:
            raise UserError("--local runs without Ray and --address names a cluster; leave one of them out")


def usable_cpus() -> int:
    """Of this machine, by this process; all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def at_least_one(settings: Any, names: Sequence[str]) -> None:
    """Raises UserError for a setting that is set and below 1."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; expected at least 1")


def name_list(value: Any) -> list[str]:
    """The names in a flag: a list of texts, or one, split at commas outside parentheses ("ViDoRe(v1),MTEB(eng, v2)" is
    two names)."""
    items = [value] if isinstance(value, str) else list(value or [])
    return [part.strip() for item in items for part in _split(str(item)) if part.strip()]


def _split(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]
