"""What a log line is about: its job, its model, its stage and its shard; and such lines as JSON, one object each."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

ABOUT = ("job", "model", "stage", "shard")
"""What a line may be about, by name; also the names in JSON."""

_job = "raylib"
_about: ContextVar[dict[str, Any]] = ContextVar("about", default={})  # noqa: B039, never changed in place


def name_job(name: str) -> None:
    """Of this process. Processes of the job on a cluster are told it, too."""
    global _job
    _job = name


def job_name() -> str:
    """What this process's lines, and its metrics, are filed under."""
    return _job


@contextmanager
def about(**facts: Any) -> Iterator[None]:
    """Lines that this thread writes inside the block are about this: model, stage, shard."""
    token = _about.set({**_about.get(), **{name: value for name, value in facts.items() if value not in (None, "")}})
    try:
        yield
    finally:
        _about.reset(token)


def subject(name: str) -> str:
    """Which model, stage or shard this thread is at; "" outside of such a block."""
    return str(_about.get().get(name, ""))


def json_line(level: str, message: str, seconds: float | None = None, **facts: Any) -> str:
    """One JSON object: time (ISO 8601, UTC), level, job, what the thread is `about`, `facts`, message."""
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    first = {"time": when.isoformat(timespec="milliseconds"), "level": level, "job": _job}
    return json.dumps({**first, **_about.get(), **facts, "message": message}, ensure_ascii=False, default=str)


class JsonLines(logging.Formatter):
    """Records of Python's logging as `json_line` has them, with the logger's name and the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {name: getattr(record, name) for name in ABOUT if hasattr(record, name)}
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        level, message = record.levelname.lower(), record.getMessage()
        return json_line(level, message, record.created, logger=record.name, **facts)


def log_as_json() -> None:
    """Python's own logging, warnings and all, goes to stderr as JSON lines from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.captureWarnings(True)
