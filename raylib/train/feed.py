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
from raylib.models.protocol import Encoder
from raylib.types import Role, Tensors

ROLES: tuple[Role, ...] = ("query", "document")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Piece:
    """Contents of one forward. tensors: as `Encoder.preprocess` gives them. positions: int64, where these contents
    stand among those that were asked for."""

    tensors: Tensors
    positions: np.ndarray


class Feed(Protocol):
    """Where a step's contents come from. micro: most contents of a piece; None for all of a kind together."""

    micro: int | None

    def pieces(self, role: Role, numbers: np.ndarray) -> list[Piece]:
        """numbers: int64, of distinct queries or documents; every one of them is in one of the pieces."""
        ...

    def kind_of_rows(self, role: Role) -> np.ndarray:
        """int64, of every query or document: a piece has those of one kind, which take the same way through the
        model."""
        ...


@dataclass
class ContentFeed:
    """Contents of examples, as they are encoded for evaluation.

    micro: most contents of a piece; None for all of a kind together. Pieces hold texts of about one length: the shorter
    ones are padded to the longest. Raises BadContentsError, naming them, for contents that cannot be read.
    """

    encoder: Encoder
    examples: Examples
    micro: int | None = None

    def pieces(self, role: Role, numbers: np.ndarray) -> list[Piece]:
        lengths = self._characters[role][numbers]
        return [
            Piece(self._tensors(role, self._fields[role][kind], numbers[part]), part)
            for kind, part in cut_by_kind(self.kind_of_rows(role)[numbers], self.micro, lengths)
        ]

    def kind_of_rows(self, role: Role) -> np.ndarray:
        return self._kind_of_rows[role]

    def _tensors(self, role: Role, fields: tuple[str, ...], rows: np.ndarray) -> Tensors:
        keys = [number.to_bytes(8, "big") for number in range(len(rows))]
        places = [(0, row) for row in rows.tolist()]
        sources: Sequence[Rows] = [self.examples.side(role).source]
        prepared = prepare(self.encoder, MicroBatch(context_of(self.encoder, role), fields, keys, places), sources)
        if prepared.bad:
            raise BadContentsError(prepared.bad)
        assert prepared.tensors is not None, "what is not bad was prepared"
        return prepared.tensors

    @cached_property
    def _fields(self) -> dict[Role, list[tuple[str, ...]]]:
        """What is read of contents, by kind."""
        found: dict[Role, list[tuple[str, ...]]] = {}
        for role in ROLES:
            source = self.examples.side(role).source
            found[role] = [readable_fields(self.encoder, source, kind) for kind in source.kinds()]
        return found

    @cached_property
    def _characters(self) -> dict[Role, np.ndarray]:
        """Of each content's text, int64."""
        return {
            role: np.array([len(text) for text in self.examples.side(role).texts], dtype=np.int64) for role in ROLES
        }

    @cached_property
    def _kind_of_rows(self) -> dict[Role, np.ndarray]:
        found: dict[Role, np.ndarray] = {}
        for role in ROLES:
            found[role] = np.zeros(len(self.examples.side(role)), dtype=np.int64)
            for number, rows in enumerate(self.examples.side(role).source.kinds().values()):
                found[role][np.asarray(rows, dtype=np.int64)] = number
        return found

    def check(self) -> None:
        """Raises UserError where the model cannot read some contents."""
        try:
            _ = self._fields
        except UserError as error:
            raise UserError(f"{error}. Give a model that reads them, or leave these rows out of --data") from error

    def longest(self, role: Role, most: int = 64) -> Tensors:
        """The tensors of one content: of those with the most characters or pixels, the one with the most tokens."""
        source = self.examples.side(role).source
        sizes = self._characters[role]
        if "image" in source.fields:
            sizes = sizes + np.asarray(source.pixels(), dtype=np.int64)
        picked = np.argsort(-sizes, kind="stable")[:most]
        alone = [
            self._tensors(role, self._fields[role][self._kind_of_rows[role][row]], picked[i : i + 1])
            for i, row in enumerate(picked.tolist())
        ]
        return max(alone, key=lambda tensors: sum(array.nbytes for array in tensors.values()))


def cut_by_kind(
    kinds: np.ndarray, micro: int | None, lengths: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(kind, positions of up to `micro` contents of it), kind after kind; micro None for all of one. kinds: int64 [n];
    lengths [n]: where a kind is cut, contents of about one length come together."""
    for kind in np.unique(kinds).tolist():
        positions = np.flatnonzero(kinds == kind)
        step = micro or len(positions)
        if lengths is not None and step < len(positions):
            positions = positions[np.argsort(lengths[positions], kind="stable")]
        for first in range(0, len(positions), step):
            yield kind, positions[first : first + step]


def levelled(feed: Feed, role: Role, numbers: Sequence[np.ndarray], rank: int) -> list[Piece]:
    """The pieces of process `rank`, as many of each kind and in the same order as every other process has. numbers: of
    every process. What is missing is filled with pieces of one content of another process: its position is behind the
    process's own, and nothing is to come of it."""
    kinds, own = feed.kind_of_rows(role), numbers[rank]
    everything = np.concatenate([*numbers])
    found: list[Piece] = []
    behind = len(own)
    for kind in np.unique(kinds[everything]).tolist():
        positions = np.flatnonzero(kinds[own] == kind)
        pieces = feed.pieces(role, own[positions]) if len(positions) else []
        found += [Piece(piece.tensors, positions[piece.positions]) for piece in pieces]
        most = max(int((kinds[part] == kind).sum()) for part in numbers)
        missing = -(-most // (feed.micro or most)) - len(pieces)
        if missing:
            (any_one,) = feed.pieces(role, everything[kinds[everything] == kind][:1])
            found += [Piece(any_one.tensors, np.array([behind + n])) for n in range(missing)]
            behind += missing
    return found


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
