"""Tiny checkpoints, and a node that is this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from raylib.bench.process import run_job
from tests.models.conftest import tiny as tiny


class InProcess:
    """A place and its node: runs what a process would, and keeps the jobs that it was given. What is raised fails the
    job, as there."""

    def __init__(self, node_type: str | None = None) -> None:
        self.type = node_type
        self.jobs: list[dict[str, Any]] = []
        self.timeouts: set[float] = set()

    def nodes(self):
        return [self]

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        self.jobs.append(dict(job))
        self.timeouts.add(timeout_s)
        try:
            return run_job(job)
        except BaseException as error:  # the toys panic
            return {"failed": f"{type(error).__name__}: {error}"}

    def kinds(self) -> list[str]:
        return [job["kind"] for job in self.jobs]


@pytest.fixture
def node(tmp_path, monkeypatch):
    """With a cache of its own; torch's threads are what they were when the test ends."""
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    yield InProcess()
    torch.set_num_threads(before)
