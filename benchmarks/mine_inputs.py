"""What `benchmarks/mine.py` mines: clustered embeddings of low intrinsic dimension, as float32 `.npy` files.

A document is a sum of centres, one at each of several scales of communities, and a part of its own; its query is the
document and noise. All of it lies in a subspace of few dimensions, turned into the full space, as a trained model's
vectors do. Communities of one scale differ in size (log-normal), and each lies in one of the next scale, so that what a
document has around it does not depend on how many documents there are.

Two kinds of false negatives are planted, in disjoint pairs of documents with queries of their own: duplicates, whose
cosine is above the 0.99 at which mining takes documents for one, and near duplicates below it, which a plan cannot
know of.

Neighbourhoods overlap, so that neighbours are no answer to a question of communities alone: mutual edges are 54 an
example, of which a cluster of 32 holds a quarter at most.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

DIM = 384

_BLOCK = 65_536
"""Rows that are turned into the full space at a time."""


@dataclass(frozen=True)
class Shape:
    """Lengths are for documents of length about 1. dimensions: of the subspace. shared: length of what all have; sizes:
    mean members of a community, coarse to fine, weights: length of their centres; own: of what only one document has,
    query: of a query's noise. spread: of the logarithm of sizes. duplicates, near_duplicates: share of the documents
    that copy another, with their cosine."""

    dimensions: int = 32
    shared: float = 0.1
    sizes: tuple[int, ...] = (5000, 200)
    weights: tuple[float, ...] = (0.8, 0.6)
    own: float = 0.45
    query: float = 0.25
    spread: float = 0.1
    duplicates: float = 0.01
    duplicate_cosine: float = 0.997
    near_duplicates: float = 0.02
    near_duplicate_cosine: float = 0.97


def write_embeddings(folder: Path, n: int, shape: Shape, seed: int = 0) -> dict[str, Any]:
    """queries.npy and documents.npy [n, 384] float32, rows of length 1, document i is the positive of query i; and
    same.npy [n] int64, in which planted duplicates have one number. Gives what was written, for the record.

    Memory: 4 · n · dimensions bytes for each side, and a block of full rows.
    """
    rng = np.random.default_rng(seed)
    documents = _documents(rng, n, shape)
    same = np.arange(n)
    chosen = rng.permutation(n)
    planted = []
    for share, cosine in (
        (shape.duplicates, shape.duplicate_cosine),
        (shape.near_duplicates, shape.near_duplicate_cosine),
    ):
        count = int(share * n)
        of, copy, chosen = chosen[:count], chosen[count : 2 * count], chosen[2 * count :]
        documents[copy] = _unit(cosine * documents[of] + np.sqrt(1 - cosine**2) * _unit(_normal(rng, of, shape)))
        planted.append((of, copy))
    same[planted[0][1]] = planted[0][0]
    queries = _unit(documents + shape.query * _normal(rng, documents, shape))
    turned = np.linalg.qr(rng.standard_normal((DIM, shape.dimensions)))[0].T.astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("queries", queries), ("documents", documents)):
        out = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(n, DIM))
        for first in range(0, n, _BLOCK):
            out[first : first + _BLOCK] = rows[first : first + _BLOCK] @ turned
        out.flush()
    np.save(folder / "same.npy", same)
    return {"examples": n, "dim": DIM, "seed": seed, "planted duplicates": len(planted[0][0]), **asdict(shape)}


def _documents(rng: np.random.Generator, n: int, shape: Shape) -> np.ndarray:
    """[n, dimensions] float32, of length 1."""
    vectors = np.zeros((n, shape.dimensions), dtype=np.float32)
    vectors += shape.shared * _normal(rng, vectors[:1], shape)
    member, count = np.arange(n), n
    for size, weight in zip(shape.sizes[::-1], shape.weights[::-1], strict=True):
        above = max(2, n // size)
        share = rng.lognormal(0, shape.spread, above)
        member = rng.choice(above, size=count, p=share / share.sum())[member]
        vectors += weight * _normal(rng, np.zeros(above), shape)[member]
        count = above
    return _unit(vectors + shape.own * _normal(rng, vectors, shape))


def _normal(rng: np.random.Generator, like: np.ndarray, shape: Shape) -> np.ndarray:
    """[len(like), dimensions] float32, of length about 1."""
    rows = rng.standard_normal((len(like), shape.dimensions), dtype=np.float32)
    return rows / np.float32(np.sqrt(shape.dimensions))


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
