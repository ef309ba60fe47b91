"""Vectors as two columns of a table: `tokens`, how many rows of the values a content has, and `vector`, their bytes.

The table's metadata has dim and dtype. `large_binary` is the fastest ragged layout to write and to read.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raylib.types import Embeddings


def vector_column(embeddings: Embeddings) -> pa.LargeBinaryArray:
    """[n] large_binary, over the values' own memory."""
    values = np.ascontiguousarray(embeddings.values)
    offsets = embeddings.offsets * (embeddings.dim * values.itemsize)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.large_binary(), len(embeddings), buffers)


def embeddings_of(table: pa.Table) -> Embeddings:
    """Of the columns tokens and vector, over the table's own memory. No row is null.

    Raises KeyError, ValueError, TypeError or IndexError for a table that is not so.
    """
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    dim, dtype = int(meta["dim"]), np.dtype(meta["dtype"])
    offsets = np.zeros(len(table) + 1, dtype=np.int64)
    np.cumsum(table.column("tokens").to_numpy(), out=offsets[1:])
    if not len(table):
        return Embeddings(np.zeros((0, dim), dtype=dtype), offsets)
    vector = table.column("vector").combine_chunks()
    start, stop = vector.offset, vector.offset + len(vector)
    byte_offsets = np.frombuffer(vector.buffers()[1], dtype=np.int64)[start : stop + 1]
    values = np.frombuffer(vector.buffers()[2], dtype=dtype)[
        byte_offsets[0] // dtype.itemsize : byte_offsets[-1] // dtype.itemsize
    ]
    return Embeddings(values.reshape(-1, dim), offsets)
