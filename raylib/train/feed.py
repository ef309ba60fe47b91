"""Training contents as what a forward takes: read, decoded and preprocessed while the batch before it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np

from raylib.encode.task import context_of
from raylib.errors import BadContentsError, UserError
from raylib.evaluate.batching import MicroBatch
from raylib.evaluate.contents import Rows
from raylib.evaluate.plan import readable_fields
from raylib.evaluate.prepare import prepare
from raylib.examples.examples import Examples
from raylib.examples.sides import Side
from raylib.models.protocol import Encoder
from raylib.types import Role, Tensors

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Piece:
    """Contents of one forward. tensors: as `Encoder.preprocess` gives them. positions: int64, where these contents
    stand among those that were asked for."""

    tensors: Tensors
    positions: np.ndarray


class Feed(Protocol):
    """Where a step's contents come from."""

    def pieces(self, role: Role, numbers: np.ndarray) -> list[Piece]:
        """numbers: int64, of distinct queries or documents; every one of them is in one of the pieces."""
        ...


@dataclass
class ContentFeed:
    """Contents of examples, as they are encoded for evaluation.

    micro: most contents of a piece; None for all of a kind together. Texts of about one length share a piece, for each
    is padded to the longest of its piece. Raises BadContentsError, naming them, for contents that cannot be read.
    """

    encoder: Encoder
    examples: Examples
    micro: int | None = None

    def pieces(self, role: Role, numbers: np.ndarray) -> list[Piece]:
        found = []
        kind = self._kind_of_rows[role][numbers]
        for number in np.unique(kind).tolist():
            positions = np.flatnonzero(kind == number)
            fields = self._fields[role][number]
            step = self.micro or len(positions)
            if step < len(positions) and fields == ("text",):
                positions = positions[self._longest_first(role, numbers[positions])]
            for first in range(0, len(positions), step):
                part = positions[first : first + step]
                found.append(Piece(self._tensors(role, fields, numbers[part]), part))
        return found

    def _longest_first(self, role: Role, rows: np.ndarray) -> np.ndarray:
        """int64 order of these texts by their characters. They are read for it: the lengths of all of the data would
        take a pass over it on every worker."""
        texts = self._side(role).source.rows(rows.tolist(), ("text",))
        return np.argsort([-len(row["text"] or "") for row in texts], kind="stable")

    def _tensors(self, role: Role, fields: tuple[str, ...], rows: np.ndarray) -> Tensors:
        keys = [number.to_bytes(8, "big") for number in range(len(rows))]
        places = [(0, row) for row in rows.tolist()]
        sources: Sequence[Rows] = [self._side(role).source]
        prepared = prepare(self.encoder, MicroBatch(context_of(self.encoder, role), fields, keys, places), sources)
        if prepared.bad:
            raise BadContentsError(prepared.bad)
        assert prepared.tensors is not None, "what is not bad was prepared"
        return prepared.tensors

    def _side(self, role: Role) -> Side:
        return self.examples.queries if role == "query" else self.examples.documents

    @cached_property
    def _fields(self) -> dict[Role, list[tuple[str, ...]]]:
        """What is read of contents, by kind."""
        roles: tuple[Role, ...] = ("query", "document")
        return {
            role: [readable_fields(self.encoder, self._side(role).source, kind) for kind in self._kinds_of(role)]
            for role in roles
        }

    @cached_property
    def _kind_of_rows(self) -> dict[Role, np.ndarray]:
        found: dict[Role, np.ndarray] = {}
        roles: tuple[Role, ...] = ("query", "document")
        for role in roles:
            found[role] = np.zeros(len(self._side(role)), dtype=np.int64)
            for number, rows in enumerate(self._kinds_of(role).values()):
                found[role][np.asarray(rows, dtype=np.int64)] = number
        return found

    def _kinds_of(self, role: Role) -> dict[tuple[str, ...], Sequence[int]]:
        return self._side(role).source.kinds()

    def check(self) -> None:
        """Raises UserError where the model cannot read some contents."""
        try:
            _ = self._fields
        except UserError as error:
            raise UserError(f"{error}. Give a model that reads them, or leave these rows out of --data") from error

    def longest(self, role: Role, most: int = 64) -> Tensors:
        """The tensors of one content: of those with the most characters or pixels, the one with the most tokens."""
        source = self._side(role).source
        sizes = np.zeros(len(source), dtype=np.int64)
        if "text" in source.fields:
            sizes += np.asarray(source.text_lengths(), dtype=np.int64)
        if "image" in source.fields:
            sizes += np.asarray(source.pixels(), dtype=np.int64)
        picked = np.argsort(-sizes, kind="stable")[:most]
        alone = [
            self._tensors(role, self._fields[role][self._kind_of_rows[role][row]], picked[i : i + 1])
            for i, row in enumerate(picked.tolist())
        ]
        return max(alone, key=lambda tensors: sum(array.nbytes for array in tensors.values()))


def ahead(work: Callable[[Item], Result], items: Iterable[Item], most: int = 2) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in order, up to `most` of them under way in another thread while one is used."""
    items = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
        running: list[tuple[Item, Future[Result]]] = [(item, pool.submit(work, item)) for item in islice(items, most)]
        try:
            while running:
                item, future = running.pop(0)
                found = future.result()
                running += [(after, pool.submit(work, after)) for after in islice(items, 1)]
                yield item, found
        finally:
            for _, future in running:
                future.cancel()
