"""The documents of a corpus in memory: searched exactly, and grown without building anything anew.

The base lies in blocks as `raylib evaluate` searches it; what is added goes into blocks of its own, which are joined
as they become many. A search sees one `Snapshot`, which never changes: a change makes another one, which shares the
blocks.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.search.blocks import BLOCK_BYTES, Block, prepare
from raylib.search.engine import Ranked, Search, content_ranks, documents_of
from raylib.search.naming import Names, named_by_id
from raylib.search.topk import tie_ranks
from raylib.serve.corpus_filters import Columns
from raylib.serve.protocol import Hit, Metadata
from raylib.types import Embeddings, Similarity

_FEW_DEAD = 4096
"""Documents that were replaced or taken out whose places are kept."""


@dataclass(frozen=True)
class Snapshot:
    """A corpus at one time. Rows are documents, in the order in which they came; contents are what has vectors.

    ids, metadata: of rows, and of later ones. live_N, ranks_N, owners_N [n_rows]: whether it is still there, its tie
    rank and its content. order_N: rows by id. blocks: of every content that a live row has, and of no other.
    """

    similarity: Similarity
    ids: list[str]
    metadata: list[Metadata]
    columns: Columns
    live_N: np.ndarray  # noqa: N815
    ranks_N: np.ndarray  # noqa: N815
    owners_N: np.ndarray  # noqa: N815
    order_N: np.ndarray  # noqa: N815
    n_contents: int
    blocks: tuple[Block, ...]

    @cached_property
    def sorted_rows(self) -> np.ndarray:
        """Live rows by id."""
        return self.order_N[self.live_N[self.order_N]]

    @cached_property
    def _ranks_of_live(self) -> np.ndarray:
        return content_ranks(self.owners_N[self.live_N], self.ranks_N[self.live_N], self.n_contents)

    def search(self, queries: Embeddings, k: int, filters: Mapping[str, Any] | None = None) -> list[list[Hit]]:
        """Per query the k best, ties by id, descending: what `raylib evaluate` finds over the same documents. Raises
        UserError for filters, dims and vectors that cannot be right."""
        chosen_N = self.live_N
        if filters:
            chosen_N = chosen_N & self.columns.fitting(filters, len(chosen_N))
        if not len(queries) or not chosen_N.any():
            return [[] for _ in range(len(queries))]
        ranks_C = self._ranks_of_live
        if filters:
            ranks_C = content_ranks(self.owners_N[chosen_N], self.ranks_N[chosen_N], self.n_contents)
        running = Search(queries, self.similarity, k, ranks_C)
        for block in self.blocks:
            running.add(block)
        rows_QK, scores_QK = self._rows_of(running.found(), chosen_N, k)
        return [
            [Hit(self.ids[row], score, self.metadata[row]) for row, score in zip(*found, strict=True) if row >= 0]
            for found in zip(rows_QK.tolist(), scores_QK.tolist(), strict=True)
        ]

    def _rows_of(self, ranked: Ranked, chosen_N: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Contents → documents. Only documents of what was found are looked at: a sort of all takes longer than many
        a search."""
        found_C = np.zeros(self.n_contents, dtype=bool)
        found_C[ranked.contents_QK[ranked.contents_QK >= 0]] = True
        rows = np.flatnonzero(chosen_N & found_C[self.owners_N])
        places_QK, scores_QK = documents_of(ranked, self.owners_N[rows], self.ranks_N[rows], k)
        return np.where(places_QK >= 0, rows[places_QK], -1), scores_QK


class Index:
    """The changing corpus; `now` is what a search takes. One thread at a time changes it."""

    def __init__(
        self, similarity: Similarity, ids: Sequence[str], owners: np.ndarray, blocks: Iterable[Block], n_contents: int
    ) -> None:
        """The base: ids [n], owners [n] the content of each, blocks of all contents."""
        self._n_base, self._base_contents = len(ids), n_contents
        self._ids, self._metadata = list(ids), [_NOTHING] * len(ids)
        self._row = {name: row for row, name in enumerate(ids)}
        self._base, self._grown = list(blocks), list[Block]()
        ranks = tie_ranks(self._ids)
        self.now = Snapshot(
            similarity,
            self._ids,
            self._metadata,
            Columns(self._metadata),
            live_N=np.ones(len(ids), dtype=bool),
            ranks_N=ranks,
            owners_N=np.asarray(owners, dtype=np.int64),
            order_N=np.argsort(ranks),
            n_contents=n_contents,
            blocks=tuple(self._base),
        )

    def __len__(self) -> int:
        return len(self._row)

    def row(self, name: str) -> int | None:
        """The row of a document that is there; below `n_base` it is one of the base."""
        return self._row.get(name)

    @property
    def n_base(self) -> int:
        return self._n_base

    @property
    def dim(self) -> int | None:
        """None while there is no document."""
        blocks = self.now.blocks
        return blocks[0].vectors.dim if blocks else None

    def check(self, ids: Sequence[str], vectors: Embeddings) -> Block:
        """Vectors ready to be added under these ids. Raises UserError, naming the id, where they cannot be compared."""
        if self.dim not in (None, vectors.dim):
            raise UserError(f"the vectors have {vectors.dim} dimensions, those of the corpus {self.dim}; use its model")
        with named_by_id(Names((), np.zeros(0)), Names(ids, np.arange(len(ids)))):
            return prepare(np.arange(len(ids)), vectors, self.now.similarity, "document")

    def add(self, ids: Sequence[str], metadata: Sequence[Metadata], block: Block) -> None:
        """Put documents in, in place of those of the same ids. block: from `check`; ids are distinct."""
        before = self.now
        live_N = before.live_N.copy()
        live_N[[row for name in ids if (row := self._row.pop(name, None)) is not None]] = False
        first, n = len(live_N), len(ids)
        new = np.arange(first, first + n)
        at = [bisect.bisect_left(before.order_N, name, key=self._ids.__getitem__) for name in ids]
        by_id = sorted(range(n), key=lambda i: (at[i], ids[i]))
        order_N = np.insert(before.order_N, [at[i] for i in by_id], new[by_id])
        ranks_N = np.empty(len(order_N), dtype=np.int64)
        ranks_N[order_N] = np.arange(len(order_N))
        self._ids += ids
        self._metadata += metadata
        self._row.update(zip(ids, new.tolist(), strict=True))
        self._grown.append(replace(block, contents_N=before.n_contents + block.contents_N))
        self._publish(
            live_N=np.concatenate([live_N, np.ones(n, dtype=bool)]),
            ranks_N=ranks_N,
            owners_N=np.concatenate([before.owners_N, before.n_contents + np.arange(n)]),
            order_N=order_N,
            n_contents=before.n_contents + n,
        )

    def delete(self, ids: Iterable[str]) -> None:
        """Take documents out; ids that are not there change nothing."""
        live_N = self.now.live_N.copy()
        live_N[[row for name in ids if (row := self._row.pop(name, None)) is not None]] = False
        self._publish(live_N=live_N)

    def _publish(self, **changed: Any) -> None:
        """The next snapshot, its blocks without contents that no document has any more."""
        after = replace(self.now, **changed)
        alive_C = np.zeros(after.n_contents, dtype=bool)
        alive_C[after.owners_N[after.live_N]] = True
        self._base = _without_dead(self._base, alive_C)
        self._grown = _joined(_without_dead(self._grown, alive_C))
        self.now = replace(after, blocks=(*self._base, *self._grown))
        dead = int((~after.live_N[self._n_base :]).sum())
        if dead > _FEW_DEAD and dead > len(after.live_N) - self._n_base - dead:
            self._renumber()

    def _renumber(self) -> None:
        """Give up the places of added documents that are gone."""
        before, n_base = self.now, self._n_base
        kept = np.concatenate([np.arange(n_base), n_base + np.flatnonzero(before.live_N[n_base:])])
        n_added = len(kept) - n_base
        place_C = np.full(before.n_contents, -1, dtype=np.int64)
        place_C[: self._base_contents] = np.arange(self._base_contents)
        place_C[before.owners_N[kept[n_base:]]] = self._base_contents + np.arange(n_added)
        self._grown = [replace(block, contents_N=place_C[block.contents_N]) for block in self._grown]
        self._ids, self._metadata = [self._ids[i] for i in kept], [self._metadata[i] for i in kept]
        live_N = before.live_N[kept]
        self._row = {self._ids[row]: row for row in np.flatnonzero(live_N).tolist()}
        ranks_N = tie_ranks(self._ids)
        self.now = replace(
            before,
            ids=self._ids,
            metadata=self._metadata,
            columns=Columns(self._metadata),
            live_N=live_N,
            ranks_N=ranks_N,
            owners_N=place_C[before.owners_N[kept]],
            order_N=np.argsort(ranks_N),
            n_contents=self._base_contents + n_added,
            blocks=(*self._base, *self._grown),
        )


_NOTHING: Metadata = {}


def _without_dead(blocks: list[Block], alive_C: np.ndarray) -> list[Block]:
    """A search copies what it leaves out of a block: here that is done once."""
    kept = []
    for block in blocks:
        alive = alive_C[block.contents_N]
        if alive.all():
            kept.append(block)
        elif alive.any():
            kept.append(block.take(np.flatnonzero(alive)))
    return kept


def _joined(blocks: list[Block]) -> list[Block]:
    """A block at the end takes in the one before it while that is less than twice as large: a document is copied a
    number of times that grows with the logarithm of the corpus, and so does the number of blocks."""
    blocks = list(blocks)
    while len(blocks) > 1:
        last, other = blocks[-1].vectors.values, blocks[-2].vectors.values
        if other.nbytes >= 2 * last.nbytes or other.nbytes + last.nbytes > BLOCK_BYTES:
            break
        blocks[-2:] = [_join(blocks[-2], blocks[-1])]
    return blocks


def _join(left: Block, right: Block) -> Block:
    parts = [left.vectors, right.vectors]
    if parts[0].values.dtype != parts[1].values.dtype:
        parts = [part.astype(np.float32) for part in parts]
    contents = np.concatenate([left.contents_N, right.contents_N])
    return Block(contents, Embeddings.concatenate(parts), max(left.longest, right.longest))
