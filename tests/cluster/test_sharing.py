"""Jobs on one cluster take their shares of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.cluster.nodes import ray_nodes
from tests.cluster.test_driver_killed import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_JOB = """
import sys
from raylib.cluster.presence import present_jobs
from raylib.cluster.session import Workers, session

with session():
    for line in sys.stdin:
        print(Workers().resolve().count, Workers(3).resolve().count, present_jobs(), flush=True)
"""


class Job:
    def __init__(self, address: str) -> None:
        environment = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", _JOB], env=environment, **pipes)

    def ask(self) -> list[int]:
        """(workers of its share, workers where it asks for three, jobs that it sees)."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [int(word) for word in self.process.stdout.readline().split()]


def test_a_share_is_what_there_is_over_the_jobs_that_are_there():
    jobs: list[Job] = []
    with ray_nodes(head_cpus=5) as nodes:
        try:
            jobs.append(Job(nodes.address))
            assert jobs[0].ask() == [5, 3, 1]
            jobs.append(Job(nodes.address))
            assert jobs[1].ask() == [3, 3, 2]
            assert jobs[0].ask() == [3, 3, 2]
            jobs[1].process.kill()  # a job that says no goodbye
            jobs[1].process.wait()
            left = [0, 0, 0]
            for _ in range(200):
                time.sleep(0.1)
                left = jobs[0].ask()
                if left[2] == 1:
                    break
            assert left == [5, 3, 1]
        finally:
            for job in jobs:
                job.process.kill()
