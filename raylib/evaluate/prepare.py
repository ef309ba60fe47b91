"""The CPU half of encoding one batch: read, decode, preprocess. What cannot be used is set aside with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from raylib.errors import BadContent, ModelError
from raylib.evaluate.batching import MicroBatch
from raylib.evaluate.contents import BadContentError, Rows, decode_row
from raylib.models.protocol import Encoder
from raylib.types import Batch, Tensors


@dataclass
class Prepared:
    """A batch after its CPU half: tensors with one row per key, or None when no content of it could be used.

    names: per key its source and its id there, for messages."""

    keys: list[bytes]
    tensors: Tensors | None
    bad: list[BadContent] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)
    max_tokens: int | None = None
    max_contents: int | None = None


def prepare(
    encoder: Encoder, batch: MicroBatch, sources: Sequence[Rows], turn: AbstractContextManager[Any] | None = None
) -> Prepared:
    """Read, decode and preprocess one batch. A content that cannot be used is set aside with its reason.

    turn: held while the encoder preprocesses, where several threads prepare: tokenizers are for one thread at a time.
    """
    rows, keys, names, bad = [], [], [], []
    for key, place, raw in zip(batch.keys, batch.rows, _read(batch, sources), strict=True):
        try:
            rows.append(decode_row(raw, sources[place[0]].required))
            keys.append(key)
            names.append((sources[place[0]].name, sources[place[0]].id_of(place[1])))
        except BadContentError as error:
            bad.append(_bad(key, place, sources, str(error)))
    if not rows:
        return Prepared([], None, bad)
    try:
        with turn or nullcontext():
            tensors = encoder.preprocess(_columns(rows), batch.context)
        return Prepared(keys, tensors, bad, names, batch.max_tokens, batch.max_contents)
    except Exception as error:
        if len(rows) == 1:
            named = dict(zip(batch.keys, batch.rows, strict=True))[keys[0]]
            reason = f"preprocessing failed: {type(error).__name__}: {error}"
            return Prepared([], None, [*bad, _bad(keys[0], named, sources, reason)])
        return _prepare_one_by_one(encoder, batch, sources, turn, keys, bad, error)


def _read(batch: MicroBatch, sources: Sequence[Rows]) -> list[dict]:
    """The raw rows of a batch, in its order, with one read per source."""
    raw: list[dict] = [{} for _ in batch.rows]
    for at in {at for at, _ in batch.rows}:
        mine = [i for i, place in enumerate(batch.rows) if place[0] == at]
        for i, row in zip(mine, sources[at].rows([batch.rows[i][1] for i in mine], batch.fields), strict=True):
            raw[i] = row
    return raw


def _prepare_one_by_one(
    encoder: Encoder,
    batch: MicroBatch,
    sources: Sequence[Rows],
    turn: AbstractContextManager[Any] | None,
    keys: list[bytes],
    bad: list[BadContent],
    first: Exception,
) -> Prepared:
    """Find the contents that make preprocessing fail, and prepare the rest. If all do, the fault is the model's."""
    place = dict(zip(batch.keys, batch.rows, strict=True))
    singles = {key: prepare(encoder, replace(batch, keys=[key], rows=[place[key]]), sources, turn) for key in keys}
    good = [key for key in keys if singles[key].tensors is not None]
    if not good or len(good) == len(keys):
        raise ModelError(
            f"{encoder.spec.name}: preprocessing failed for a batch of {len(keys)}: {type(first).__name__}: {first}"
        ) from first
    rest = prepare(encoder, replace(batch, keys=good, rows=[place[key] for key in good]), sources, turn)
    failed = [b for key in keys if key not in set(good) for b in singles[key].bad]
    every = bad + failed + rest.bad
    return Prepared(rest.keys, rest.tensors, every, rest.names, batch.max_tokens, batch.max_contents)


def _bad(key: bytes, place: tuple[int, int], sources: Sequence[Rows], reason: str) -> BadContent:
    source = sources[place[0]]
    return BadContent(key.hex(), source.name, source.id_of(place[1]), reason)


def bad_content(single: MicroBatch, sources: Sequence[Rows], reason: str) -> BadContent:
    """The content of a batch of one."""
    return _bad(single.keys[0], single.rows[0], sources, reason)


def _columns(rows: list[dict]) -> Batch:
    """Rows → MTEB's BatchedInput. Only the fields that every row has."""
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: [row[name] for row in rows] for name in shared}
