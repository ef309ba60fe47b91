"""Vector files of every form, written by their libraries directly."""

from __future__ import annotations

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib.score.vectors import open_vectors

DENSE = ("npy", "npz", "npz without ids", "parquet list", "parquet fixed", "hdf5", "hdf5 one per id")
LATE = ("npy padded", "npz offsets", "parquet nested", "hdf5 offsets", "hdf5 one per id")


def id_file(folder, name, ids):
    (folder / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
    return str(folder / f"{name}.txt")


def write_dense(form, folder, name, ids, vectors):
    """vectors [n, dim] → (path, path of the ids or None)."""
    path = folder / name
    if form == "npy":
        np.save(f"{path}.npy", vectors)
        return f"{path}.npy", id_file(folder, name, ids)
    if form == "npz":
        np.savez(f"{path}.npz", ids=np.array(ids), vectors=vectors)
        return f"{path}.npz", None
    if form == "npz without ids":
        np.savez(f"{path}.npz", vectors=vectors)
        np.save(f"{path}-ids.npy", np.array(ids))
        return f"{path}.npz", f"{path}-ids.npy"
    if form.startswith("parquet"):
        kind = pa.from_numpy_dtype(vectors.dtype)
        lists = pa.list_(kind, vectors.shape[1]) if form.endswith("fixed") else pa.large_list(kind)
        table = pa.table({"id": ids, "vector": pa.array(list(vectors), lists)})
        pq.write_table(table, f"{path}.parquet", row_group_size=3)
        return f"{path}.parquet", None
    with h5py.File(f"{path}.h5", "w") as file:
        if form == "hdf5":
            file["ids"], file["vectors"] = ids, vectors
        else:
            for i, vector in zip(ids, vectors, strict=True):
                file[i] = vector
    return f"{path}.h5", None


def write_late(form, folder, name, ids, matrices):
    """matrices: [tokens, dim] each → (path, path of the ids or None)."""
    path = folder / name
    offsets = np.cumsum([0, *map(len, matrices)])
    if form == "npy padded":
        padded = np.zeros((len(matrices), max(map(len, matrices)), matrices[0].shape[1]), matrices[0].dtype)
        for i, matrix in enumerate(matrices):
            padded[i, : len(matrix)] = matrix
        np.save(f"{path}.npy", padded)
        return f"{path}.npy", id_file(folder, name, ids)
    if form == "npz offsets":
        np.savez(f"{path}.npz", ids=np.array(ids), vectors=np.concatenate(matrices), offsets=offsets)
        return f"{path}.npz", None
    if form == "parquet nested":
        kind = pa.list_(pa.list_(pa.from_numpy_dtype(matrices[0].dtype)))
        table = pa.table({"id": ids, "vector": pa.array([list(m) for m in matrices], kind)})
        pq.write_table(table, f"{path}.parquet", row_group_size=3)
        return f"{path}.parquet", None
    with h5py.File(f"{path}.hdf5", "w") as file:
        if form == "hdf5 offsets":
            file["ids"], file["vectors"], file["offsets"] = ids, np.concatenate(matrices), offsets
        else:
            for i, matrix in zip(ids, matrices, strict=True):
                file[i] = matrix
    return f"{path}.hdf5", None


def opened(path, ids_path=None, role="document", **told):
    return open_vectors(str(path), role, ids_path, **told)


def by_id(vectors):
    """id → [tokens, dim], of what a source gives block by block."""
    found = {}
    for positions, embeddings in vectors.blocks():
        for position, tokens in zip(positions.tolist(), embeddings, strict=True):
            for i, owner in zip(vectors.ids, vectors.owners.tolist(), strict=True):
                if owner == position:
                    assert i not in found
                    found[i] = np.array(tokens)
    return found
