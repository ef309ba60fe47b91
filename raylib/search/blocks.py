"""Vectors as a search takes them: checked, normalised once for cosine, in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from raylib.errors import UserError
from raylib.search.canonical import normalise
from raylib.token_weights import COLUMNS
from raylib.types import Embeddings, Hybrid, Similarity, compares_vectors

BLOCK_BYTES = 64 * 2**20
"""Vectors of a block, counted as float32: about what a part of the store holds. The larger, the fewer candidates are
scored again: most come from the first blocks, when no score is known yet that they would have to beat."""

_NUMBERS = 2**18
"""What is turned to float64 at a time, 2 MiB: it stays in a core's cache."""

_LARGEST = 1e18
"""A norm beyond which inner products overflow float32."""


class BadVectorError(UserError):
    """A vector that cannot be compared. side: "query" or "document"; position: which of those that were given."""

    def __init__(self, side: str, position: int, reason: str, name: str | None = None) -> None:
        self.side, self.position, self.reason, self.name = side, position, reason, name
        super().__init__(f"{side} {position if name is None else name} {reason}")

    def __reduce__(self):
        return (BadVectorError, (self.side, self.position, self.reason, self.name))


@dataclass(frozen=True)
class Block:
    """Contents of one side, ready to be compared. contents_N: their positions among all that were given.

    vectors: float32 for dense ones, normalised for cosine; as stored for all others. longest: the largest norm of a
    row.
    """

    contents_N: np.ndarray  # noqa: N815
    vectors: Embeddings
    longest: float

    def __len__(self) -> int:
        return len(self.contents_N)

    def take(self, indices: np.ndarray) -> Block:
        return Block(self.contents_N[indices], self.vectors.take(indices), self.longest)

    def piece(self, first: int, last: int) -> Block:
        """Contents first:last, without a copy."""
        start, stop = self.vectors.offsets[first], self.vectors.offsets[last]
        vectors = Embeddings(self.vectors.values[start:stop], self.vectors.offsets[first : last + 1] - start)
        return Block(self.contents_N[first:last], vectors, self.longest)


def prepare(contents_N: np.ndarray, vectors: Embeddings, similarity: Similarity, side: str) -> Block:
    """A block of `vectors`. Raises BadVectorError for NaN, infinite or far too large numbers, for negative token
    weights and for a content without a vector; UserError for late-interaction vectors where the similarity compares
    one vector, and for rows that hold no token weights where it needs some."""
    if similarity in ("cosine", "dot") and len(vectors.values) != len(vectors):
        raise UserError(
            f"{len(vectors)} {side} contents have {len(vectors.values)} vectors, expected one vector per content for "
            f"{similarity}; late-interaction vectors are compared by maxsim"
        )
    if (vectors.token_counts == 0).any():
        raise BadVectorError(side, int(contents_N[int((vectors.token_counts == 0).argmax())]), "has no vector at all")
    if similarity == "cosine":
        unit_ND = np.empty(vectors.values.shape, dtype=np.float32)
        with np.errstate(invalid="ignore"):
            for rows in _slices(vectors.values):
                unit_ND[rows] = normalise(vectors.values[rows])
                if not np.isfinite(np.add.reduce(unit_ND[rows], axis=None)):
                    _refuse(contents_N, vectors, side, np.inf)
        return Block(contents_N, Embeddings(unit_ND, vectors.offsets), 1.000001)
    with np.errstate(invalid="ignore"):
        longest = _longest(vectors.values)
    if not longest < _LARGEST:
        _refuse(contents_N, vectors, side, _LARGEST)
    if not compares_vectors(similarity):
        _check_token_weights(contents_N, vectors, similarity, side)
    if similarity == "dot":
        vectors = vectors.astype(np.float32)
    return Block(contents_N, vectors, longest)


def _check_token_weights(contents_N: np.ndarray, vectors: Embeddings, similarity: Similarity, side: str) -> None:
    """Of finite rows. A hybrid content has a vector of its own and one of a token at least."""
    kind, expected = ("hybrid", f"more than {COLUMNS}") if isinstance(similarity, Hybrid) else ("sparse", f"{COLUMNS}")
    if vectors.dim < COLUMNS or (vectors.dim > COLUMNS) != (kind == "hybrid"):
        raise UserError(
            f"{side} contents have rows of {vectors.dim} numbers; {kind} scores need {expected}, as BGE-M3 gives them "
            f"with --mode {kind}"
        )
    if kind == "hybrid" and (vectors.token_counts < 2).any():
        raise BadVectorError(side, int(contents_N[int(vectors.token_counts.argmin())]), "has no vector of a token")
    negative = np.flatnonzero(vectors.values[:, -COLUMNS:].min(axis=1) < 0)
    if len(negative):
        owner = int(np.searchsorted(vectors.offsets, negative[0], side="right")) - 1
        raise BadVectorError(side, int(contents_N[owner]), "has a negative token weight; encode it again")


def _longest(values: np.ndarray) -> float:
    """Largest norm of a row; NaN where a number is."""
    found = [0.0]
    for rows in _slices(values):
        part = values[rows].astype(np.float64)
        found.append(float(np.sqrt(np.einsum("td,td->t", part, part).max())))
    return float(np.max(found))


def _slices(values: np.ndarray) -> Iterator[slice]:
    step = max(1, _NUMBERS // max(1, values.shape[1]))
    return (slice(start, start + step) for start in range(0, len(values), step))


def _refuse(contents_N: np.ndarray, vectors: Embeddings, side: str, largest: float) -> None:
    """Raise BadVectorError for the first vector that is not finite, or as long as `largest`."""
    finite = np.isfinite(vectors.values).all(axis=1)
    wide = vectors.values.astype(np.float64)
    usable = finite & (np.einsum("td,td->t", wide, wide) < largest**2)
    row = int(np.flatnonzero(~usable)[0])
    owner = int(np.searchsorted(vectors.offsets, row, side="right")) - 1
    reason = (
        "is too long a vector for float32 scores" if bool(np.asarray(finite)[row]) else "has NaN or infinite numbers"
    )
    raise BadVectorError(side, int(contents_N[owner]), f"{reason}; encode it again, or leave it out")


def blocks(
    pieces: Iterable[tuple[np.ndarray, Embeddings]],
    similarity: Similarity,
    limit: int | None = None,
    side: str = "document",
) -> Iterator[Block]:
    """(positions, vectors) of any size → blocks of about `limit` bytes (`BLOCK_BYTES`), small pieces put together and
    large ones cut; one content may be larger. At most about three blocks are in memory at a time."""
    limit = BLOCK_BYTES if limit is None else limit
    held: list[tuple[np.ndarray, Embeddings]] = []
    size = 0
    for contents, vectors in pieces:
        if size and size + 4 * vectors.values.size > limit:
            yield _joined(held, similarity, side)
            held, size = [], 0
        for first, last in _cuts(vectors, limit):
            part = _between(vectors, first, last)
            if last == len(vectors) and size + 4 * part.values.size <= limit:
                held.append((contents[first:last], part))
                size += 4 * part.values.size
            else:
                yield prepare(contents[first:last], part, similarity, side)
    if held:
        yield _joined(held, similarity, side)


def check_dims(queries: int, documents: int) -> None:
    """Raises UserError where the vectors of queries and documents have different dims."""
    if queries != documents:
        raise UserError(
            f"queries have {queries} dimensions, documents {documents}; encode both with one model"
            + fusion_advice({queries, documents})
        )


def fusion_advice(dims: set[int]) -> str:
    """What may have made some vectors twice as wide as others."""
    if len(dims) == 2 and max(dims) == 2 * min(dims):
        return " (under --fusion concat contents with text and image are twice as wide: take sum or mean)"
    return ""


def _joined(held: list[tuple[np.ndarray, Embeddings]], similarity: Similarity, side: str) -> Block:
    dims = {vectors.dim for _, vectors in held}
    if len(dims) > 1:
        found = " and ".join(map(str, sorted(dims)))
        many = "queries" if side == "query" else "documents"
        raise UserError(f"{many} have {found} dimensions; encode all with one model{fusion_advice(dims)}")
    if len(held) == 1:
        return prepare(*held[0], similarity, side)
    if len({vectors.values.dtype for _, vectors in held}) > 1:
        held = [(contents, vectors.astype(np.float32)) for contents, vectors in held]
    contents = np.concatenate([contents for contents, _ in held])
    return prepare(contents, Embeddings.concatenate(vectors for _, vectors in held), similarity, side)


def _cuts(vectors: Embeddings, limit: int) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of whole contents of at most `limit` bytes as float32, or one content that has more."""
    rows = max(1, limit // (4 * max(1, vectors.dim)))
    first = 0
    while first < len(vectors):
        end = int(np.searchsorted(vectors.offsets, vectors.offsets[first] + rows, side="right")) - 1
        yield first, max(first + 1, end)
        first = max(first + 1, end)


def _between(vectors: Embeddings, first: int, last: int) -> Embeddings:
    if first == 0 and last == len(vectors):
        return vectors
    start, stop = vectors.offsets[first], vectors.offsets[last]
    return Embeddings(vectors.values[start:stop], vectors.offsets[first : last + 1] - start)
