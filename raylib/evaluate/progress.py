"""Progress a person can follow: bars on a terminal, plain lines elsewhere, problems only when quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from raylib.evaluate.encode import Progress, no_progress
from raylib.logs import LogFormat, json_line

PLAIN_SECONDS = 5.0
"""Between two plain lines of one stage."""

_SHORTEST_SECONDS = 0.5


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
        yield no_progress


class PlainReporter(QuietReporter):
    """Lines for logs: at most one every `PLAIN_SECONDS` per stage, and one at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Progress]:
        pace = _Pace()
        last = time.monotonic()

        def tell() -> None:
            line = progress_line(title, pace.done, total, pace.rate, pace.bad)
            self._advanced(line, done=pace.done, total=total, bad=pace.bad, per_second=pace.rate)

        def advance(n: int, bad: int = 0) -> None:
            nonlocal last
            pace.add(n, bad)
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS and pace.done < total:
                last = now
                tell()

        tell()
        yield advance
        tell()

    def _advanced(self, line: str, **numbers: Any) -> None:
        """numbers: those in the line."""
        self.say(line)


class _Pace:
    """Contents done and their rate, counted from the first that arrive: until then workers start and models load, and
    a rate that held this time would promise hours."""

    def __init__(self) -> None:
        self.done = self.bad = 0
        self._first: tuple[float, int] | None = None
        self._last = 0.0

    def add(self, n: int, bad: int) -> None:
        self.done += n
        self.bad += bad
        self._last = time.monotonic()
        self._first = self._first or (self._last, self.done)

    @property
    def rate(self) -> float | None:
        """Contents a second, or None while too little time has passed to tell."""
        if self._first is None or self._last - self._first[0] < _SHORTEST_SECONDS:
            return None
        return (self.done - self._first[1]) / (self._last - self._first[0])


def progress_line(title: str, done: int, total: int, rate: float | None, bad: int = 0) -> str:
    """e.g. "encode openai/clip  120/360 contents (33 %)  24.0/s  0:10 left"; rate in contents a second; bad: how many
    of those done could not be used."""
    share = 100 * done / total if total else 100.0
    line = f"{title}  {done}/{total} contents ({share:.0f} %)" + (f", {bad} bad" if bad else "")
    if rate:
        line += f"  {rate:.1f}/s"
        if done < total:
            line += f"  {_clock((total - done) / rate)} left"
    return line


def quality_line(quality: Mapping[str, Mapping[str, Any]]) -> str:
    """What an approximate search says of itself, after a score: "; recall_at_100 0.987, 32 of 512 bytes a document", of
    the worst subset. "" for an exact search."""
    found = list(quality.values())
    names = dict.fromkeys(name for one in found for name in one if name.startswith("recall"))
    told = [f"{name} {min(one[name] for one in found if name in one):.4g}" for name in names]
    sizes = [(one["bytes_per_document"], one["bytes_per_document_float32"]) for one in found if one.keys() >= _SIZES]
    if sizes:
        told.append("{:.0f} of {:.0f} bytes a document".format(*max(sizes)))
    return f"; {', '.join(told)}" if told else ""


_SIZES = {"bytes_per_document", "bytes_per_document_float32"}


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
        pace = _Pace()

        def advance(n: int, bad: int = 0) -> None:
            pace.add(n, bad)
            told = [f"{pace.rate:.1f}/s"] if pace.rate else []
            told += [f"{pace.bad} bad"] if pace.bad else []
            self._progress.update(task, advance=n, rate="  ".join(told))

        try:
            yield advance
        finally:
            self._progress.remove_task(task)
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._progress.stop()


class JsonReporter(PlainReporter):
    """The lines of a plain reporter as JSON objects; those of a stage have its numbers, too. quiet: only warnings."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        self._quiet = quiet

    def say(self, text: str) -> None:
        self._put("info", text)

    def warn(self, text: str) -> None:
        with self._lock:
            print(json_line("warning", text), file=sys.stderr, flush=True)

    def _advanced(self, line: str, **numbers: Any) -> None:
        self._put("info", line, **numbers)

    def _put(self, level: str, text: str, **facts: Any) -> None:
        if not self._quiet:
            with self._lock:
                print(json_line(level, text, **facts), flush=True)


def reporter(quiet: bool, log_format: LogFormat = "text") -> Reporter:
    """The reporter that fits where the output goes."""
    if log_format == "json":
        return JsonReporter(quiet)
    if quiet:
        return QuietReporter()
    return BarReporter() if sys.stdout.isatty() else PlainReporter()
