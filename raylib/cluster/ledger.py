"""Which pieces of work begin and never end: their process died.

Ray tries a task again whose process is gone, and does not say over what. A try that only found its node gone counts for
Ray, too: a bound on tries would end a run that lost a machine. So tries are not bounded; what a process is about to do
is written here first, and what two processes did not survive is done in smaller pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from raylib.cluster.session import beside_the_job


class _Ledger:
    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, names: Sequence[str]) -> list[int]:
        """For each, how often it began and did not end."""
        before = [self._open[name] for name in names]
        self._open.update(names)
        return before

    def end(self, names: Sequence[str]) -> None:
        self._open.subtract(names)


class Ledger:
    """A handle that travels. It lives beside the job: it is lost with the job alone."""

    def __init__(self) -> None:
        actor: Any = ray.remote(_Ledger)
        self._actor: Any = actor.options(num_cpus=0, scheduling_strategy=beside_the_job()).remote()

    @contextmanager
    def attempt(self, name: str) -> Iterator[int]:
        """How many processes died inside this block before, of those that gave it this name. What is raised inside is
        no death."""
        (deaths,) = ray.get(self._actor.begin.remote([name]))
        try:
            yield deaths
        finally:
            ray.get(self._actor.end.remote([name]))

    def close(self) -> None:
        ray.kill(self._actor)
