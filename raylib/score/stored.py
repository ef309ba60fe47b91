"""Vectors in the store, found through the contents.parquet that `raylib evaluate` writes beside its results."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import StoreError, UserError
from raylib.score.vectors import Block, Vectors, check_ids
from raylib.store.embeddings import Shelf
from raylib.types import Role, named_similarity

_COLUMNS = ("split", "subset", "role", "id", "key")


def is_contents(path: str) -> bool:
    """Whether a Parquet file names contents of a store rather than holding vectors."""
    try:
        with storage.open_input(path) as source:
            names = pq.read_schema(source).names
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is no Parquet file: {' '.join(str(error).split())}") from error
    return "key" in names and "vector" not in names


def read_stored(path: str, role: Role, *, split: str | None, subset: str | None, store: str | None) -> Vectors:
    """One side of one subset, its vectors to be read from the store part by part.

    store: where the store is, if not where contents.parquet says. Raises UserError where split and subset do not name
    one set of contents, or the store does not hold them.
    """
    with storage.open_input(path) as source:
        table = pq.read_table(source)
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    missing = [name for name in _COLUMNS if name not in table.column_names]
    missing += [f"metadata {name}" for name in ("fingerprint", "store") if name not in metadata]
    if missing:
        raise UserError(f"{path} is no contents.parquet of `raylib evaluate`: without {', '.join(missing)}")
    table, split, subset = _chosen(path, table.filter(pc.field("role") == role), role, split, subset)
    ids, keys = table.column("id").to_pylist(), table.column("key").to_pylist()
    check_ids(path, role, ids, len(keys))
    distinct = sorted(set(keys))
    at = {key: i for i, key in enumerate(distinct)}
    root = store or metadata["store"]
    shelf = Shelf(root, metadata["fingerprint"])
    shelf.refresh()
    absent = int((~shelf.contains(distinct)).sum())
    if absent:
        raise UserError(
            f"{path}: {absent} of {len(distinct)} contents of role {role} are not in the store {root}; "
            "name the folder it is in now with --store, or run `raylib evaluate` again"
        )
    known = named_similarity(metadata.get("similarity", ""))
    dim, several = _first(shelf, distinct)

    def read() -> Iterator[Block]:
        try:
            yield from shelf.scan(distinct)
        except StoreError as error:
            raise UserError(str(error)) from error

    return Vectors(
        path,
        role,
        ids,
        dim,
        late=known == "maxsim" or (known is None and several),
        read=read,
        owners=np.array([at[key] for key in keys]),
        similarity=known,
        described={
            "form": "store",
            "store": root,
            "fingerprint": metadata["fingerprint"],
            "model": metadata.get("model", ""),
            "split": split,
            "subset": subset,
            "task": path.rstrip("/").split("/")[-2] if "/" in path else "",
        },
    )


def _first(shelf: Shelf, keys: list[bytes]) -> tuple[int, bool]:
    """(dim, whether it has several vectors) of the first content."""
    first = shelf.get(keys[:1])
    return first.dim, not first.is_dense


def _chosen(path: str, table: pa.Table, role: Role, split: str | None, subset: str | None) -> tuple[pa.Table, str, str]:
    """The rows of one split and subset, and their names."""
    pairs = sorted(set(zip(table.column("split").to_pylist(), table.column("subset").to_pylist(), strict=True)))
    fitting = [p for p in pairs if split in (None, p[0]) and subset in (None, p[1])]
    shown = ", ".join(f"--split {s} --subset {u}" for s, u in pairs)
    if not pairs:
        raise UserError(f"{path} names no contents of role {role}")
    if not fitting:
        raise UserError(f"{path} has no split {split or 'any'} with subset {subset or 'any'}; it has: {shown}")
    if len(fitting) > 1:
        raise UserError(f"{path} has {len(fitting)} sets of contents; choose one of: {shown}")
    (chosen,) = fitting
    return table.filter((pc.field("split") == chosen[0]) & (pc.field("subset") == chosen[1])), *chosen
