"""Pages of a PDF that a client sent, drawn in a process of its own: what crashes, hangs or fills the memory there takes
no server with it.

The process reads the PDF from its standard input and writes to its output: per page the length of a PNG, 8 bytes in
little endian, and the PNG; or the length 0 and a reason, and nothing more.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from threading import BoundedSemaphore
from typing import IO

from raylib.errors import OverloadedError, UserError

_LENGTH = struct.Struct("<Q")

_AT_A_TIME = 2
"""PDFs that are drawn; others wait."""

_turns = BoundedSemaphore(_AT_A_TIME)


@dataclass(frozen=True)
class PdfLimits:
    """page_pixels: of one page; pixels: of all together; bytes: of all PNGs together. seconds: to draw all, and to wait
    for others that are drawn."""

    pages: int
    page_pixels: int
    pixels: int
    bytes: int
    seconds: float
    memory_bytes: int


def draw_pages(data: bytes, dpi: int, limits: PdfLimits) -> list[bytes]:
    """Every page as PNG: the pixels that `raylib encode` gives a model. Raises UserError for a PDF that is none, is
    encrypted, damaged, has no pages, or goes beyond a limit; OverloadedError where too many others are drawn."""
    with _turn(limits.seconds):
        return _parsed(_draw(data, dpi, limits))


@contextmanager
def _turn(seconds: float) -> Iterator[None]:
    if not _turns.acquire(timeout=seconds):
        raise OverloadedError("too many PDFs are drawn at this time; send it again later", seconds)
    try:
        yield
    finally:
        _turns.release()


def _draw(data: bytes, dpi: int, limits: PdfLimits) -> bytes:
    """What the process writes."""
    command = [sys.executable, "-m", "raylib.serve.pdf_process", json.dumps([dpi, *astuple(limits)])]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        return child.communicate(data, timeout=limits.seconds)[0]
    except subprocess.TimeoutExpired:
        raise UserError(f"the PDF takes longer than {limits.seconds:g} s to draw. Split it, or simplify it") from None
    finally:
        child.kill()
        child.communicate()


def _parsed(stream: bytes) -> list[bytes]:
    pages, at = [], 0
    while at + _LENGTH.size <= len(stream):
        (length,) = _LENGTH.unpack_from(stream, at)
        at += _LENGTH.size
        if length == 0 and at < len(stream):
            raise UserError(f"the PDF cannot be used: {stream[at:].decode(errors='replace')}")
        if length == 0:
            return pages  # the end
        pages.append(stream[at : at + length])
        at += length
    raise UserError("the PDF cannot be used: drawing it failed. Print it to a new PDF, or send its pages as images")


def main(told: str, source: IO[bytes], out: IO[bytes]) -> None:
    """In the process."""
    dpi, *bounds = json.loads(told)
    limits = PdfLimits(*bounds)
    _bound_memory(limits)
    from raylib.evaluate.contents import BadContentError

    try:
        for page in _drawn(source.read(), dpi, limits):
            out.write(_LENGTH.pack(len(page)) + page)
        out.write(_LENGTH.pack(0))
    except BadContentError as error:
        out.write(_LENGTH.pack(0) + str(error).encode())
    except MemoryError:
        out.write(_LENGTH.pack(0) + b"it takes too much memory to draw")
    out.flush()


def _drawn(data: bytes, dpi: int, limits: PdfLimits) -> Iterator[bytes]:
    import io

    from raylib.encode.pdf import count_pages, draw_page, page_pixels
    from raylib.evaluate.contents import BadContentError

    n = count_pages(data)
    if n > limits.pages:
        raise BadContentError(f"it has {n} pages, at most {limits.pages} are taken; split it")
    sizes = [page_pixels("pdf", data, page, dpi) for page in range(n)]
    if max(sizes) > limits.page_pixels:
        number = sizes.index(max(sizes)) + 1
        raise BadContentError(f"page {number} would have {max(sizes)} pixels, at most {limits.page_pixels} are drawn")
    if sum(sizes) > limits.pixels:
        raise BadContentError(f"its pages would have {sum(sizes)} pixels, at most {limits.pixels} are drawn; split it")
    left = limits.bytes
    for page in range(n):
        stream = io.BytesIO()
        draw_page("pdf", data, page, dpi).save(stream, "PNG", compress_level=1)
        left -= len(stream.getvalue())
        if left < 0:
            raise BadContentError(f"its first {page + 1} pages have more than {limits.bytes} bytes as PNG; split it")
        yield stream.getvalue()


def _bound_memory(limits: PdfLimits) -> None:
    try:
        import resource
    except ImportError:  # a system without it
        return
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    seconds = int(limits.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
