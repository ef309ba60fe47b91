"""One thread that does together what is asked while it is busy: searches that wait become one product."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from raylib.errors import OverloadedError

Asked = TypeVar("Asked")


class Coalescer(Generic[Asked]):
    """work: takes what waits, at most `most` at a time, and gives an answer or an exception for each.

    Nobody waits for others to come: what is asked of an idle thread is done at once.
    """

    def __init__(self, name: str, work: Callable[[Sequence[Asked]], Sequence[Any]], most: int, queue: int) -> None:
        self._name, self._work, self._most, self._queue = name, work, most, queue
        self._waiting: deque[tuple[Asked, Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, asked: Asked) -> Future[Any]:
        """Raises OverloadedError where too much waits already, or the thread has ended."""
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise OverloadedError(f"{self._name} is closed")
            if len(self._waiting) >= self._queue:
                raise OverloadedError(f"{self._queue} requests wait for {self._name}; ask again later")
            self._waiting.append((asked, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Ends when all that was asked is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            wanted = [(asked, future) for asked, future in taken if future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _answer(self, wanted: Sequence[tuple[Asked, Future[Any]]]) -> None:
        try:
            answers = self._work([asked for asked, _ in wanted])
        except Exception as error:
            answers = [error] * len(wanted)
        for (_, future), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
