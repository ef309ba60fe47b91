"""Where training runs: in this process, or on workers of a cluster (`raylib.cluster.train`)."""

from __future__ import annotations

from typing import Protocol

from raylib.evaluate.progress import Reporter
from raylib.timeline import Held, held_here
from raylib.train.assignment import Assignment, Trained


class TrainPlace(Protocol):
    processes: int
    """How many train together."""

    def held(self) -> Held:
        """By all processes, while they train."""
        ...

    def run(self, assignment: Assignment, reporter: Reporter) -> Trained:
        """To the last step; processes that die are started again. Raises what a process raises."""
        ...


class ThisProcess:
    """One process, and no other to start it again."""

    processes = 1

    def held(self) -> Held:
        import torch

        return held_here("cuda" if torch.cuda.is_available() else "cpu")

    def run(self, assignment: Assignment, reporter: Reporter) -> Trained:
        from raylib.train.team import Team
        from raylib.train.worker import work

        return work(assignment, Team(), reporter.say, reporter.warn)
