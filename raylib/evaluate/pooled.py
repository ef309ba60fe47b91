"""Late-interaction documents with fewer tokens, on a shelf of their own: pooled once, whichever run asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from raylib.search.compress import pool_tokens
from raylib.store.embeddings import PartRows, Shelf

_PART_BYTES = 64 * 2**20


def pooled_shelf(shelf: Shelf, factor: int) -> Shelf:
    """Where documents of `shelf` lie with one token in `factor`; the shelf itself for 1. Their keys are the same."""
    return shelf.derived(f"pool{factor}") if factor > 1 else shelf


def pool_missing(shelf: Shelf, keys: Sequence[bytes], factor: int) -> None:
    """Pool and store what of `keys` is not on the shelf of this factor. Raises StoreError as `Shelf.scan` does."""
    missing = not_pooled(shelf, keys, factor)
    if missing:
        describe_pooled(shelf, factor)
        pool_rows(shelf, shelf.locate(missing), missing, factor)


def not_pooled(shelf: Shelf, keys: Sequence[bytes], factor: int) -> list[bytes]:
    pooled = pooled_shelf(shelf, factor)
    pooled.refresh()
    there = pooled.contains(keys)
    return [key for key, found in zip(keys, there, strict=True) if not found]


def describe_pooled(shelf: Shelf, factor: int) -> None:
    pooled_shelf(shelf, factor).describe({"derived from": shelf.fingerprint, "token pooling": factor})


def pool_rows(shelf: Shelf, parts: Iterable[PartRows], keys: Sequence[bytes], factor: int) -> None:
    """Pool and store what `parts` point at, a bounded piece at a time: what a worker does. keys: what their positions
    count."""
    pooled = pooled_shelf(shelf, factor)
    for part in parts:
        vectors = part.read()
        cuts = np.flatnonzero(np.diff(vectors.offsets[1:] * vectors.dim * vectors.values.itemsize // _PART_BYTES)) + 1
        for at in np.split(np.arange(len(vectors)), cuts):
            pooled.write([keys[i] for i in part.positions[at].tolist()], pool_tokens(vectors.take(at), factor))
