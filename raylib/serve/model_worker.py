"""A model where it runs: the two halves of the jobs' encode stage, for the contents of many requests at once."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np

from raylib.encode.task import context_of
from raylib.errors import UserError
from raylib.evaluate.batching import MAX_CONTENTS, MicroBatch
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import Encoded, is_out_of_memory, run_forward
from raylib.evaluate.plan import readable_fields
from raylib.evaluate.prepare import prepare
from raylib.models.protocol import Encoder
from raylib.serve.protocol import Asked, Content, WorkerDiedError
from raylib.types import Embeddings, EncodeContext, Role

logger = logging.getLogger(__name__)

CANNOT_READ = "the model cannot read this content"
FAILS = "the model fails on this content"
TOO_LARGE = "this content is too large for the memory of the model"


@dataclass
class Vectors:
    """What became of n contents. found: of those that are not in `reasons`, in order; None where there are none.

    tokens [n]: that each has, 0 where it has no vector; None for a model that does not count. reasons: row → why it has
    none. wait_seconds: for a turn of the model; the other seconds are without it.
    """

    found: Embeddings | None
    tokens: list[int] | None
    reasons: dict[int, str] = field(default_factory=dict)
    prepare_seconds: float = 0.0
    wait_seconds: float = 0.0
    forward_seconds: float = 0.0

    def by_row(self) -> dict[int, np.ndarray]:
        """Row → its vectors [tokens, dim]."""
        n = len(self.found) if self.found is not None else 0
        rows = (row for row in range(n + len(self.reasons)) if row not in self.reasons)
        return {row: self.found[place] for place, row in enumerate(rows)} if self.found is not None else {}


class _Given:
    """Contents of requests, as rows that `prepare` reads."""

    def __init__(self, contents: Sequence[Content]) -> None:
        self.name = "input"
        self.required: str | None = None
        self._contents = contents

    def rows(self, indices: Sequence[int], fields: Sequence[str] | None = None) -> list[dict[str, Any]]:
        return [{name: getattr(self._contents[i], name) for name in fields or ()} for i in indices]

    def id_of(self, row: int) -> str:
        return str(row)


class ModelWorker:
    """Safe for several threads: while one batch is in its forward, others are prepared.

    max_tokens: of one forward, padding included; a batch that comes out larger is cut. broken: whether the model fails
    on whatever it is given, as after an error of a GPU that only a new process is rid of.
    """

    def __init__(self, encoder: Encoder, max_tokens: int | None) -> None:
        self.encoder, self.max_tokens, self.broken = encoder, max_tokens, False
        self._turn = Lock()
        self._forwards: AbstractContextManager[Any] = BoundedSemaphore(encoder.side_by_side)
        self._contexts: dict[Role | None, EncodeContext] = {}

    def load(self) -> None:
        """Raises what is wrong with the model's files."""
        self.encoder.load()

    def encode(self, contents: Sequence[Content], asked: Asked) -> Vectors:
        """At most `MAX_CONTENTS` contents. What is wrong with one of them is told of that one alone. Raises
        WorkerDiedError where the model is broken."""
        assert len(contents) <= MAX_CONTENTS
        context = asked if isinstance(asked, EncodeContext) else self._own_context(asked)
        done = _Done()
        for fields, rows in _kinds(contents).items():
            try:
                names = readable_fields(self.encoder, Source("input", []), fields)
                if names != fields:
                    raise UserError(f"contents hold {' and '.join(fields)}; this model reads {names[0]} alone")
            except UserError as error:
                done.reasons.update(dict.fromkeys(rows, str(error)))
                continue
            self._encode_kind(contents, context, names, rows, done)
        return done.vectors(len(contents))

    def _own_context(self, role: Role | None) -> EncodeContext:
        if role not in self._contexts:
            self._contexts[role] = context_of(self.encoder, role)
        return self._contexts[role]

    def _encode_kind(
        self, contents: Sequence[Content], context: EncodeContext, names: tuple[str, ...], rows: list[int], done: _Done
    ) -> None:
        keys = [row.to_bytes(4) for row in rows]
        batch = MicroBatch(context, names, keys, [(0, row) for row in rows], self.max_tokens)
        try:
            start = time.perf_counter()
            prepared = prepare(self.encoder, batch, [_Given(contents)], self._turn)
            counts = self.encoder.token_counts(prepared.tensors) if prepared.tensors is not None else None
            ready = time.perf_counter()
            with self._forwards:
                begin = time.perf_counter()
                encoded = run_forward(self.encoder, prepared)
            done.prepare_seconds += ready - start
            done.wait_seconds += begin - ready
            done.forward_seconds += time.perf_counter() - begin
        except Exception as error:
            if len(rows) == 1:
                logger.error("%s: a content failed", self.encoder.spec.name, exc_info=error)
                if not self._works(context, names):
                    raise WorkerDiedError(f"{self.encoder.spec.name} fails on whatever it is given") from error
                done.reasons[rows[0]] = TOO_LARGE if is_out_of_memory(error) else FAILS
                return
            for row in rows:  # the others of the batch are not to suffer for one
                self._encode_kind(contents, context, names, [row], done)
            return
        self.broken = False
        if counts is not None:
            done.tokens.update(zip((int.from_bytes(key) for key in prepared.keys), counts.tolist(), strict=True))
        done.take(encoded)

    def _works(self, context: EncodeContext, names: tuple[str, ...]) -> bool:
        """Whether a harmless content of the same kind has a vector: then it was the content's fault."""
        batch = MicroBatch(context, names, [b"plain"], [(0, 0)], self.max_tokens)
        try:
            prepared = prepare(self.encoder, batch, [_Given([_plain(names)])], self._turn)
            with self._forwards:
                self.broken = run_forward(self.encoder, prepared).embeddings is None
        except Exception as error:
            logger.error("%s: a harmless content failed, too", self.encoder.spec.name, exc_info=error)
            self.broken = True
        return not self.broken


def _plain(names: Sequence[str]) -> Content:
    image = None
    if "image" in names:
        from PIL import Image

        stream = io.BytesIO()
        Image.new("RGB", (64, 64), "white").save(stream, "PNG")
        image = stream.getvalue()
    return Content("a page" if "text" in names else None, image)


@dataclass
class _Done:
    """By row."""

    vectors_of: dict[int, np.ndarray] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    prepare_seconds: float = 0.0
    wait_seconds: float = 0.0
    forward_seconds: float = 0.0

    def take(self, encoded: Encoded) -> None:
        if encoded.embeddings is not None:
            self.vectors_of.update(zip((int.from_bytes(key) for key in encoded.keys), encoded.embeddings, strict=True))
        for bad in encoded.bad:
            reason = bad.reason
            if reason.startswith("preprocessing failed"):  # in the words of some library
                logger.warning("a content cannot be read: %s", reason)
                reason = CANNOT_READ
            self.reasons[int.from_bytes(bytes.fromhex(bad.key))] = reason

    def vectors(self, n: int) -> Vectors:
        rows = sorted(self.vectors_of)
        found = Embeddings.from_list([self.vectors_of[row] for row in rows]) if rows else None
        tokens = [self.tokens.get(row, 0) for row in range(n)] if self.tokens or not rows else None
        seconds = self.prepare_seconds, self.wait_seconds, self.forward_seconds
        return Vectors(found, tokens, self.reasons, *seconds)


def _kinds(contents: Sequence[Content]) -> dict[tuple[str, ...], list[int]]:
    """The fields that contents have → their rows."""
    found: dict[tuple[str, ...], list[int]] = {}
    for row, content in enumerate(contents):
        fields = tuple(name for name in ("text", "image") if getattr(content, name) is not None)
        found.setdefault(fields, []).append(row)
    return found
