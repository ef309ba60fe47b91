"""Progress a person can follow: bars on a terminal, plain lines elsewhere, problems only when quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from raylib.evaluate.encode import Progress

PLAIN_SECONDS = 5.0
"""Between two plain lines of one stage."""


class Reporter(Protocol):
    """Where a job says what it does."""

    def say(self, text: str) -> None:
        """One finished thing: a task's score, a model that starts."""
        ...

    def warn(self, text: str) -> None:
        """Something a person must know even when quiet."""
        ...

    def stage(self, title: str, total: int) -> AbstractContextManager[Progress]:
        """A stage over `total` contents; yields the function to call with each number done. May run in any thread."""
        ...


class QuietReporter:
    """Only warnings, on stderr."""

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Progress]:
        yield lambda n: None


class PlainReporter(QuietReporter):
    """Lines for logs: at most one every `PLAIN_SECONDS` per stage, and one at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Progress]:
        started = last = time.monotonic()
        done = 0

        def advance(n: int) -> None:
            nonlocal done, last
            done += n
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS and done < total:
                last = now
                self.say(progress_line(title, done, total, now - started))

        self.say(progress_line(title, 0, total, 0.0))
        yield advance
        self.say(progress_line(title, done, total, time.monotonic() - started))


def progress_line(title: str, done: int, total: int, seconds: float) -> str:
    """e.g. "encode openai/clip  120/360 contents (33 %)  24.0/s  0:10 left"."""
    share = 100 * done / total if total else 100.0
    line = f"{title}  {done}/{total} contents ({share:.0f} %)"
    if done and seconds > 0:
        line += f"  {done / seconds:.1f}/s"
        if done < total:
            line += f"  {_clock((total - done) * seconds / done)} left"
    return line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class BarReporter:
    """Bars on a terminal, one per running stage, under the finished lines."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=False),
            transient=True,
        )
        self._running = 0
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self._progress.console.print(text, style="yellow", markup=False, highlight=False)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Progress]:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._progress.start()
        task = self._progress.add_task(title, total=total, rate="starting")
        started = time.monotonic()

        def advance(n: int) -> None:
            done = self._progress.tasks[self._progress.task_ids.index(task)].completed + n
            rate = done / max(1e-9, time.monotonic() - started)
            self._progress.update(task, advance=n, rate=f"{rate:.1f}/s")

        try:
            yield advance
        finally:
            self._progress.remove_task(task)
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._progress.stop()


def reporter(quiet: bool) -> Reporter:
    """The reporter that fits where the output goes."""
    if quiet:
        return QuietReporter()
    return BarReporter() if sys.stdout.isatty() else PlainReporter()
