"""What the benchmarks share: the machine they ran on, memory of a process, tables of results in README.md."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent / "README.md"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if os.path.exists("/proc/cpuinfo") else ""
    names = (line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(names, platform.processor())


def forget_peak_memory() -> int:
    """Start the peak of this process anew; gives the bytes that are in use. Linux only."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def peak_memory() -> int:
    """Bytes, since the process started or the peak was forgotten. (getrusage begins with that of the parent.)"""
    return _memory("VmHWM")


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def write_between(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what stands between two marks. Raises ValueError where the marks are missing."""
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        raise ValueError(f"{path} has no place for the results; expected a line {begin!r} and a line {end!r}")
    body = "\n".join([begin, "", *lines, "", end])
    path.write_text(before + body + rest.partition(end)[2], encoding="utf-8")


def publish(
    record: dict[str, Any], lines: Sequence[str], output: str | None, marks: tuple[str, str], *, recorded: bool
) -> None:
    """Print a benchmark's table; write its numbers to `output`, if anywhere, and where they are `recorded` the table
    into README.md."""
    print("\n".join(lines))
    if output is None:
        return
    Path(output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if recorded:
        write_between(README, *marks, lines)
    print(f"The numbers: {output}")
