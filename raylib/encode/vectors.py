"""Vectors out of the store, in the order of their contents, through a file that no other program sees."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from raylib.errors import ModelError, UserError
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings


@contextmanager
def in_order(shelf: Shelf, keys: Sequence[bytes], dtype: np.dtype, folder: str | None) -> Iterator[Embeddings]:
    """The vectors of `keys`, in that order; a key may repeat. values [tokens, dim] of `dtype` lie in a temporary file
    in `folder` (by default the system's), mapped into memory and gone with this process: each part of the store is read
    once, however the contents are spread over parts.

    Raises UserError on a full disk, and where a number is too large for `dtype`.
    """
    counts = shelf.token_counts(keys)
    offsets = np.zeros(len(keys) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    dim = shelf.get(keys[:1]).dim
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file.fileno(), int(offsets[-1]) * dim * dtype.itemsize, folder)
        values = np.memmap(file, dtype=dtype, mode="r+", shape=(int(offsets[-1]), dim))
        for positions, found in shelf.scan(keys):
            if found.dim != dim:
                raise ModelError(f"the store holds vectors of {dim} and of {found.dim} dimensions for one model")
            starts = offsets[positions] - found.offsets[:-1]
            rows = np.repeat(starts, counts[positions]) + np.arange(len(found.values))
            with np.errstate(over="ignore"):
                cast = found.values.astype(dtype, copy=False)
            if not np.isfinite(cast).all():
                raise UserError(f"a number is too large for {dtype}; leave out --output-dtype {dtype}")
            values[rows] = cast
        yield Embeddings(values, offsets)


def _reserve(descriptor: int, size: int, folder: str | None) -> None:
    """Claim the space: a mapped file that cannot grow would end the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.truncate(descriptor, size)
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise UserError(
            f"no room for {size / 2**20:.0f} MiB of vectors in {where}: {error.strerror or error}"
        ) from error
