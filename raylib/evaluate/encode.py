"""The encode stage as plain functions: the CPU half (`raylib.evaluate.prepare`), the forward, the store.

`encode_locally` runs them in this process; `raylib.cluster.encode` runs the same ones as a Ray Data pipeline.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np

from raylib.errors import BadContent, ModelError, RefusedContentsError
from raylib.evaluate.batching import BatchRecord, MicroBatch, padded_tokens, within_tokens
from raylib.evaluate.contents import Rows
from raylib.evaluate.prepare import Prepared, prepare
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf
from raylib.timeline import Held, held_here
from raylib.types import Embeddings, Tensors

Item = TypeVar("Item")
Result = TypeVar("Result")

FLUSH_SECONDS = 5.0
"""The local run writes what it has at least this often, so that a kill costs no more."""

_MAX_PREPARE_THREADS = 4
"""Each holds a batch of decoded images: 370 MB for 32 pages of A4 at 200 dpi."""


@dataclass
class Encoded:
    """A batch after its forward. notes: what a person should hear once, e.g. that a batch was halved; record: the
    batch in numbers."""

    keys: list[bytes]
    embeddings: Embeddings | None
    bad: list[BadContent] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    record: BatchRecord = BatchRecord()  # noqa: RUF009, frozen


@dataclass
class EncodeReport:
    """What one encode stage did. Seconds are wall time; cpu_seconds are summed over the processes that encode. tokens,
    padded_tokens: without and with padding, as far as the encoder tells. retries: how often work was done again because
    a process died over it. repeated: requests to buckets that other processes than the job's sent again. held: by all
    of its processes together."""

    encoded: int = 0
    bad: list[BadContent] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    startup_seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    retries: int = 0
    repeated: int = 0
    held: Held = Held()  # noqa: RUF009, frozen

    @classmethod
    def of(cls, encoded: Encoded, cpu_seconds: float = 0.0) -> EncodeReport:
        """Of one batch."""
        report = cls(len(encoded.keys), encoded.bad, encoded.notes, cpu_seconds=cpu_seconds)
        report.tokens, report.padded_tokens = encoded.record.tokens, encoded.record.padded
        return report

    def add(self, part: EncodeReport) -> None:
        self.encoded += part.encoded
        self.bad += part.bad
        self.notes += [note for note in part.notes if note not in self.notes]
        self.seconds += part.seconds
        self.startup_seconds += part.startup_seconds
        self.cpu_seconds += part.cpu_seconds
        self.tokens += part.tokens
        self.padded_tokens += part.padded_tokens
        self.retries += part.retries
        self.repeated += part.repeated
        self.held = max(self.held, part.held, key=lambda held: held.workers)


class Progress(Protocol):
    """Told the number of contents that were just finished, and how many of them could not be used."""

    def __call__(self, n: int, bad: int = 0, /) -> None: ...


def no_progress(n: int, bad: int = 0) -> None:
    """A `Progress` that nobody follows."""


def run_forward(encoder: Encoder, prepared: Prepared) -> Encoded:
    """The forward of one prepared batch, cut to the tokens it may hold and halved as often as memory asks.

    Contents that the encoder refuses are set aside with their reasons.

    Raises ModelError for NaN or Inf, for a number of vectors other than the number of contents, and when a single
    content does not fit in memory.
    """
    if prepared.tensors is None:
        return Encoded([], None, prepared.bad, record=BatchRecord(bad=len(prepared.bad)))
    notes: list[str] = []
    start, counts = time.perf_counter(), encoder.token_counts(prepared.tensors)
    pieces = within_tokens(prepared.tensors, counts, prepared.max_tokens)
    parts, reasons = _forward_pieces(encoder, pieces, notes)
    keys = [key for row, key in enumerate(prepared.keys) if row not in reasons]
    refused = [BadContent(prepared.keys[row].hex(), *prepared.names[row], why) for row, why in sorted(reasons.items())]
    bad = prepared.bad + refused
    tokens = 0 if counts is None else int(counts.sum())
    padded, seconds = padded_tokens(counts, pieces), time.perf_counter() - start
    record = BatchRecord(len(keys), len(bad), tokens, padded, _fill(prepared, padded, len(pieces)), seconds)
    if not parts:
        assert not keys, "what is not refused has a vector"
        return Encoded([], None, bad, notes, record)
    embeddings = Embeddings.concatenate(parts)
    if len(embeddings) != len(keys):
        raise ModelError(f"{encoder.spec.name} gave {len(embeddings)} embeddings for {len(keys)} contents")
    if not np.isfinite(embeddings.values).all():
        rows = np.flatnonzero(~np.isfinite(embeddings.values).all(axis=1))
        owners = np.unique(np.searchsorted(embeddings.offsets, rows, side="right") - 1)
        raise ModelError(
            f"{encoder.spec.name} gave NaN or infinite embeddings for {len(owners)} of {len(embeddings)} contents of a "
            "batch; nothing of that batch was stored. Try --dtype float32 or bfloat16, or check the weights."
        )
    if (embeddings.token_counts == 0).any():
        raise ModelError(f"{encoder.spec.name} gave a content no vector at all; expected at least one token each")
    return Encoded(keys, embeddings, bad, notes, record)


def _fill(prepared: Prepared, padded: int, pieces: int) -> float | None:
    """How much of what its forwards may hold a batch was: of their tokens where these are bounded and known."""
    if prepared.max_tokens is not None and padded:
        return padded / (pieces * prepared.max_tokens)
    return None if prepared.max_contents is None else len(prepared.keys) / prepared.max_contents


def _forward_pieces(
    encoder: Encoder, pieces: Sequence[Tensors], notes: list[str]
) -> tuple[list[Embeddings], dict[int, str]]:
    """The vectors, in order, and by row why there are none."""
    parts: list[Embeddings] = []
    reasons: dict[int, str] = {}
    first = 0
    for piece in pieces:
        n = len(next(iter(piece.values())))
        found, why = _forward_halving(encoder, piece, n, notes)
        parts += found
        reasons |= {first + row: reason for row, reason in why.items()}
        first += n
    return parts, reasons


def _forward_halving(
    encoder: Encoder, tensors: Tensors, n: int, notes: list[str]
) -> tuple[list[Embeddings], dict[int, str]]:
    """The vectors, in order, and by row why there are none."""
    try:
        return [encoder.forward(tensors)], {}
    except RefusedContentsError as refused:
        return [] if refused.rest is None else [refused.rest], refused.reasons
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if n == 1:
            raise ModelError(
                f"{encoder.spec.name}: one content alone does not fit in memory ({first_line(error)}). "
                "Use a smaller --max-pixels, --dtype bfloat16, or a larger device."
            ) from error
        reason = first_line(error)
    free_device_memory()  # outside the handler, which holds the failed forward's tensors alive
    half = n // 2
    notes.append(f"{encoder.spec.name}: out of memory with {n} contents, batch halved to {n - half} ({reason})")
    first, why = _forward_halving(encoder, {k: v[:half] for k, v in tensors.items()}, half, notes)
    second, too = _forward_halving(encoder, {k: v[half:] for k, v in tensors.items()}, n - half, notes)
    return first + second, why | {half + row: reason for row, reason in too.items()}


def run_forwards(encoder: Encoder, batches: Iterable[Prepared]) -> Iterator[Encoded]:
    """`run_forward` of each batch in order, as many side by side as the encoder allows. Where one fails, those after it
    that were under way are given before its exception is raised."""
    if encoder.side_by_side == 1:
        yield from (run_forward(encoder, prepared) for prepared in batches)
        return
    with ThreadPoolExecutor(encoder.side_by_side, thread_name_prefix="forward") as pool:
        running: deque[Future[Encoded]] = deque()
        try:
            for prepared in batches:
                running.append(pool.submit(run_forward, encoder, prepared))
                if len(running) >= encoder.side_by_side:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except Exception:
            yield from (future.result() for future in running if future.exception() is None)
            raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that host or device memory ran out, in any of the ways torch and numpy say it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a table."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def free_device_memory() -> None:
    """Give back what an abandoned forward held on a GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def encode_locally(
    encoder: Encoder,
    batches: Sequence[MicroBatch],
    sources: Sequence[Rows],
    shelf: Shelf,
    progress: Progress = no_progress,
) -> EncodeReport:
    """Encode `batches` in this process and store them: the reference for every faster way.

    Other threads prepare the next batches while this one runs the forward: they read and decode side by side.
    """
    report = EncodeReport()
    start = time.perf_counter()
    encoder.load()
    report.startup_seconds = time.perf_counter() - start
    start, cpu = time.perf_counter(), time.process_time()
    buffer = WriteBuffer(shelf)
    try:
        turn = Lock()
        prepared = prepare_ahead(lambda batch: prepare(encoder, batch, sources, turn), batches)
        for encoded in run_forwards(encoder, prepared):
            buffer.add(encoded)
            report.add(EncodeReport.of(encoded))
            progress(len(encoded.keys) + len(encoded.bad), len(encoded.bad))
    finally:  # what was encoded before a failure is kept
        buffer.flush()
    report.seconds = time.perf_counter() - start
    report.cpu_seconds = time.process_time() - cpu
    report.held = held_here(str(getattr(encoder, "device", "cpu")))
    return report


def prepare_ahead(prepare: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`prepare` of every item in order, by other threads while the caller uses what came before."""
    import torch

    threads = min(torch.get_num_threads(), _MAX_PREPARE_THREADS)
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        upcoming: deque[Future[Result]] = deque()
        for item in items:
            upcoming.append(pool.submit(prepare, item))
            if len(upcoming) > threads:
                yield upcoming.popleft().result()
        while upcoming:
            yield upcoming.popleft().result()


class WriteBuffer:
    """Collects encoded batches into parts that are worth a file, and writes one at least every `FLUSH_SECONDS`."""

    def __init__(self, shelf: Shelf, max_bytes: int = 64 * 2**20) -> None:
        self._shelf, self._max_bytes = shelf, max_bytes
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._parts: list[Embeddings] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, encoded: Encoded) -> None:
        if encoded.embeddings is None:
            return
        self._keys += encoded.keys
        self._parts.append(encoded.embeddings)
        self._bytes += encoded.embeddings.values.nbytes
        if self._bytes >= self._max_bytes or time.monotonic() - self._since >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._keys:
            self._shelf.write_batches(self._keys, self._parts)
        self._clear()
