"""One batch of rows, from images to states: the CPU half, the forward, what went wrong with which row."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from raylib.evaluate.batching import BatchRecord
from raylib.evaluate.contents import BadContentError, decode_image
from raylib.evaluate.encode import first_line, free_device_memory, is_out_of_memory
from raylib.extract.collate import PreparedRow
from raylib.extract.extractor import Extractor, States
from raylib.extract.rows import VqaRow
from raylib.store.representations import Representation


@dataclass(frozen=True)
class RowBatch:
    """Rows that share a forward. name: of its file while the part is unfinished; rows: with their number in the data
    set."""

    part: int
    name: str
    rows: list[VqaRow]


@dataclass
class PreparedBatch:
    """A batch after its CPU half. numbers: of the rows that are left, in the data set; failed: number → reason."""

    part: int
    name: str
    numbers: list[int]
    rows: list[PreparedRow]
    failed: dict[int, str] = field(default_factory=dict)


@dataclass
class BatchStates:
    """A batch after its forward. numbers [n]: the rows that have states; values: representation → float32 [n, width];
    spans [n, 5] int64: first image token, one past the last, position of the vision token, of the query token, and how
    many image tokens there are; device: where it ran; record: the batch in numbers; retries: processes that
    died over it before."""

    part: int
    name: str
    numbers: list[int]
    values: Mapping[Representation, np.ndarray]
    spans: np.ndarray
    answers: list[str]
    device: str = ""
    failed: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    record: BatchRecord = BatchRecord()  # noqa: RUF009, frozen
    retries: int = 0

    def dump(self, stream: IO[bytes]) -> None:
        """Write everything but the notes, as .npz."""
        about = {"numbers": self.numbers, "answers": self.answers, "device": self.device}
        about["failed"] = list(self.failed.items())
        arrays: dict[str, Any] = {name.path: states for name, states in self.values.items()}
        np.savez(stream, spans=self.spans, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, stream: IO[bytes], part: int, name: str) -> BatchStates:
        """What `dump` wrote. Raises ValueError, OSError or KeyError for anything else."""
        with np.load(stream) as found:
            arrays = {key: found[key] for key in found.files}
        about = json.loads(arrays.pop("about").tobytes())
        spans = arrays.pop("spans")
        values = {Representation.parse(path): states for path, states in arrays.items()}
        told = about["numbers"], values, spans, about["answers"], about["device"], dict(about["failed"])
        return cls(part, name, *told)

    @classmethod
    def of_failures(cls, batch: RowBatch | PreparedBatch, failed: dict[int, str]) -> BatchStates:
        """Of a batch without any states."""
        return cls(batch.part, batch.name, [], {}, np.zeros((0, 5), np.int64), [], failed=failed)


def joined(pieces: Sequence[BatchStates]) -> list[BatchStates]:
    """One of each batch, where batches were run in pieces of the same name."""
    by_name: dict[str, list[BatchStates]] = {}
    for piece in pieces:
        by_name.setdefault(piece.name, []).append(piece)
    return [found[0] if len(found) == 1 else _one_of(found) for found in by_name.values()]


def _one_of(pieces: Sequence[BatchStates]) -> BatchStates:
    full = [piece for piece in pieces if piece.numbers]
    return BatchStates(
        pieces[0].part,
        pieces[0].name,
        [number for piece in full for number in piece.numbers],
        {name: np.concatenate([piece.values[name] for piece in full]) for name in (full[0].values if full else ())},
        np.concatenate([piece.spans for piece in pieces]),
        [answer for piece in full for answer in piece.answers],
        next((piece.device for piece in full), ""),
        {number: why for piece in pieces for number, why in piece.failed.items()},
        list(dict.fromkeys(note for piece in pieces for note in piece.notes)),
        sum((piece.record for piece in pieces), BatchRecord()),
    )


def prepare_batch(extractor: Extractor, batch: RowBatch) -> PreparedBatch:
    """Read, decode and process each row alone; one that cannot be used is set aside with its reason."""
    prepared = PreparedBatch(batch.part, batch.name, [], [])
    for row in batch.rows:
        try:
            prepared.rows.append(prepare_row(extractor, row))
            prepared.numbers.append(row.number)
        except BadContentError as error:
            prepared.failed[row.number] = str(error)
    return prepared


def prepare_row(extractor: Extractor, row: VqaRow) -> PreparedRow:
    """Raises BadContentError for a row that cannot be used."""
    return extractor.prepare_named(row.question, row.mark, lambda: decode_image(row.image.read()))


def run_batch(extractor: Extractor, batch: PreparedBatch) -> BatchStates:
    """The forward of a batch, halved as often as memory asks. A row whose states are not finite, or that does not fit
    in memory alone, is set aside with its reason."""
    done = BatchStates.of_failures(batch, dict(batch.failed))
    done.device, start = extractor.device, time.perf_counter()
    numbered = list(zip(batch.numbers, batch.rows, strict=True))
    groups = [[numbered[i] for i in group] for group in extractor.together(batch.rows)]
    pieces = [piece for group in groups for piece in _halving(extractor, group, done)]
    kept: list[tuple[int, PreparedRow]] = []
    values: dict[Representation, list[np.ndarray]] = {}
    for rows, states in pieces:
        finite = _finite(states.values)
        for (number, row), answer, good in zip(rows, states.answers, finite, strict=True):
            if good:
                kept.append((number, row))
                done.answers.append(answer)
            else:
                done.failed[number] = "its states are NaN or infinite; try --dtype float32 or bfloat16"
        for name, array in states.values.items():
            values.setdefault(name, []).append(array[finite])
    done.numbers = [number for number, _ in kept]
    done.values = {name: np.concatenate(arrays) for name, arrays in values.items()}
    if kept:
        spans = [(*row.span.bounds, row.span.vision, row.span.query, len(row.span.image)) for _, row in kept]
        done.spans = np.array(spans, dtype=np.int64)
    tokens = sum(row.tokens for row in batch.rows)
    padded = sum(len(group) * max(row.tokens for _, row in group) for group in groups)
    done.record = BatchRecord(len(kept), len(done.failed), tokens, padded, seconds=time.perf_counter() - start)
    return done


def _halving(
    extractor: Extractor, rows: list[tuple[int, PreparedRow]], done: BatchStates
) -> list[tuple[list[tuple[int, PreparedRow]], States]]:
    """Rows with their states, in as many pieces as memory asks; what fits not even alone goes to `done.failed`."""
    try:
        return [(rows, extractor.forward([row for _, row in rows]))]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    free_device_memory()  # outside the handler, which holds the failed forward's tensors alive
    if len(rows) == 1:
        done.failed[rows[0][0]] = f"it does not fit in memory alone ({reason}); try --dtype bfloat16"
        return []
    half = len(rows) // 2
    done.notes.append(f"{extractor.spec.name}: out of memory with {len(rows)} rows, batch halved ({reason})")
    return _halving(extractor, rows[:half], done) + _halving(extractor, rows[half:], done)


def _finite(values: Mapping[Representation, np.ndarray]) -> np.ndarray:
    """bool [rows]: whether every number of a row's states is one."""
    return np.logical_and.reduce([np.isfinite(states).all(axis=1) for states in values.values()])
