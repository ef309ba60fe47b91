"""One vector for a late-interaction content: the mean of its tokens, kept on a shelf of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from raylib.encode.vectors import in_order
from raylib.mine.vectors import Vectors
from raylib.search.blocks import BadVectorError, Block, blocks
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings, Role

_MEANS_BYTES = 64 * 2**20
"""Means that are written at a time."""


def mean_vectors(shelf: Shelf, keys: Sequence[bytes], role: Role, folder: str | None = None) -> Vectors:
    """[n, dim] float32: the mean of the tokens of every content, of length 1, in the order of `keys`; in a temporary
    file in `folder` (None: the system's) that is mapped into memory. They lie on a shelf of their own, under the same
    keys; what is missing there is computed from `shelf`, 64 MiB of tokens at a time.

    Raises UserError, naming `role` and position, for a content that has no mean: without tokens, with numbers that are
    not finite, or with tokens that add up to zero; and on a full disk.
    """
    means = shelf.derived("mean")
    means.refresh()
    missing: dict[bytes, int] = {}
    for position in np.flatnonzero(~means.contains(keys)).tolist():
        missing.setdefault(keys[position], position)
    if missing:
        means.describe({"derived from": shelf.fingerprint, "tokens": "their mean, of length 1"})
        positions = np.fromiter(missing.values(), dtype=np.int64)
        _store_means(means, ((positions[at], found) for at, found in shelf.scan(list(missing))), keys, role)
    with in_order(means, keys, np.dtype(np.float32), folder) as vectors:
        return Vectors(vectors.dense(), role, shelf=means, keys=keys)


def _store_means(
    means: Shelf, pieces: Iterator[tuple[np.ndarray, Embeddings]], keys: Sequence[bytes], role: Role
) -> None:
    held: list[tuple[np.ndarray, np.ndarray]] = []

    def write() -> None:
        positions = np.concatenate([some for some, _ in held])
        vectors = np.concatenate([some for _, some in held])
        means.write([keys[n] for n in positions.tolist()], Embeddings.from_dense(vectors))
        held.clear()

    for block in blocks(pieces, "maxsim", side=role):
        held.append((block.contents_N, _means(block, role)))
        if sum(vectors.nbytes for _, vectors in held) >= _MEANS_BYTES:
            write()
    if held:
        write()


def _means(block: Block, role: Role) -> np.ndarray:
    sums = np.add.reduceat(block.vectors.values, block.vectors.offsets[:-1], axis=0, dtype=np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)  # a mean and its sum have one direction
    if not lengths.all():
        position = int(block.contents_N[int((lengths[:, 0] == 0).argmax())])
        raise BadVectorError(role, position, "has tokens that add up to zero, so their mean has no direction")
    return (sums / lengths).astype(np.float32)
