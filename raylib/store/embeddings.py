"""The embedding store: vectors on disk, addressed by what they are vectors of. Every job resumes from it.

    <root>/<fingerprint, 16 hex digits>/encoder.json     whose vectors these are; other .json files: see `remember`
    <root>/<fingerprint, 16 hex digits>/part-*.parquet   key, token count, vector bytes; one file per write

A part appears whole or not at all, and is never changed. Writers on many machines need no lock: two of them that
store the same content give it the same key, and the first part read wins. `large_binary` is the fastest ragged
layout that any Parquet reader can open.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import StoreError, UserError
from raylib.store.keys import KEY_BYTES
from raylib.store.vector_columns import embeddings_of, vector_column
from raylib.types import Embeddings

_PART_SUFFIX = ".parquet"


@dataclass(frozen=True)
class PartRows:
    """Where some of the asked keys lie. positions [n]: of the keys, among those that were asked for; rows [n]: of the
    part at `path`."""

    path: str
    positions: np.ndarray
    rows: np.ndarray

    def read(self) -> Embeddings:
        """Their vectors, in this order. Raises StoreError, naming the part, when it cannot be read."""
        part = _read_part(self.path)
        if len(self.rows) == len(part) and (self.rows == np.arange(len(part))).all():
            return part
        return part.take(self.rows)

    def token_counts(self) -> np.ndarray:
        """[n] int64, without reading the vectors. Raises StoreError."""
        return _read_table(self.path, ["tokens"]).column("tokens").to_numpy().astype(np.int64)[self.rows]

    def dim(self) -> int:
        """Of their vectors, without reading these. Raises StoreError."""
        metadata = _read_table(self.path, ["tokens"]).schema.metadata or {}
        if not metadata.get(b"dim", b"").isdigit():
            raise StoreError(f"{self.path} is no part of an embedding store (it names no dim). Delete the file.")
        return int(metadata[b"dim"])


class Shelf:
    """The vectors of one encoder. Cheap to pickle before its first read; each process reads its own index."""

    def __init__(self, root: str, fingerprint: str) -> None:
        self.root, self.fingerprint = root, fingerprint
        self.folder = storage.join(root, fingerprint[:16])
        self._index = _KeyIndex()
        self._parts: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": _KeyIndex(), "_parts": []}

    def describe(self, identity: Mapping[str, Any]) -> None:
        """Write encoder.json, for a person who wonders whose vectors these are; StoreError if it names another."""
        path = storage.join(self.folder, "encoder.json")
        if storage.exists(path):
            found = _described(path)
            if found != self.fingerprint:
                raise StoreError(
                    f"{path} belongs to encoder {found}, not {self.fingerprint}; use another --store folder"
                )
            return
        storage.make_folder(self.folder)
        text = json.dumps({"fingerprint": self.fingerprint, "identity": dict(identity)}, indent=1, default=str)
        storage.write_text(path, text + "\n")

    def remember(self, name: str, notes: Mapping[str, Any]) -> None:
        """Keep a JSON file `name` beside the vectors: what was learned about their encoder."""
        storage.make_folder(self.folder)
        storage.write_text(storage.join(self.folder, name), json.dumps(dict(notes), indent=1) + "\n")

    def recall(self, name: str) -> dict[str, Any]:
        """What `remember` kept; {} where there is nothing. Raises StoreError for a file that cannot be read."""
        path = storage.join(self.folder, name)
        if not storage.exists(path):
            return {}
        try:
            return dict(json.loads(storage.read_text(path)))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} cannot be read ({error}). Delete the file: it is written again.") from error

    def refresh(self) -> None:
        """Read the keys of parts that have appeared since the last call."""
        known = set(self._parts)
        for path in storage.list_files(self.folder, _PART_SUFFIX):
            if path not in known:
                self._index.add(_read_keys(path), len(self._parts))
                self._parts.append(path)

    def __len__(self) -> int:
        """Number of stored rows that were known at the last `refresh`."""
        return len(self._index)

    def contains(self, keys: Sequence[bytes]) -> np.ndarray:
        """[n] bool: which keys are stored, as of the last `refresh`."""
        return self._index.find(keys)[0] >= 0

    def stored(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of `keys` that `contains` knows."""
        return {key for key, there in zip(keys, self.contains(keys), strict=True) if there}

    def write(self, keys: Sequence[bytes], embeddings: Embeddings) -> str:
        """Store one vector (or token matrix) per key; gives the part's path. Raises UserError on a full disk."""
        if len(keys) != len(embeddings):
            raise ValueError(f"{len(keys)} keys for {len(embeddings)} contents")
        path = storage.join(self.folder, f"part-{uuid.uuid4().hex}{_PART_SUFFIX}")
        with storage.atomic_write(path) as stream:
            table = _to_table(keys, embeddings, self.fingerprint)
            pq.write_table(table, stream, compression="none", write_page_checksum=True)
        return path

    def write_batches(self, keys: Sequence[bytes], batches: Sequence[Embeddings]) -> None:
        """Store batches under their keys, all of one width in one part: of a model that puts the vectors of text and
        image side by side, contents with both are wider than the others."""
        first = 0
        wide: dict[int, tuple[list[bytes], list[Embeddings]]] = {}
        for batch in batches:
            chosen, parts = wide.setdefault(batch.dim, ([], []))
            chosen += keys[first : first + len(batch)]
            parts.append(batch)
            first += len(batch)
        for chosen, parts in wide.values():
            self.write(chosen, Embeddings.concatenate(parts))

    def derived(self, name: str) -> Shelf:
        """The shelf for what is made of these vectors, e.g. "pool3"; in the same store."""
        return Shelf(self.root, hashlib.sha256(f"{self.fingerprint}|{name}".encode()).hexdigest())

    def locate(self, keys: Sequence[bytes]) -> list[PartRows]:
        """Where `keys` lie, one entry per part, rows in rising order. Raises StoreError when a key is not stored."""
        part, row = self._index.find(keys)
        if (part < 0).any():
            self.refresh()
            part, row = self._index.find(keys)
        if (part < 0).any():
            raise StoreError(
                f"{int((part < 0).sum())} of {len(keys)} contents are not in {self.folder}; encode them first"
            )
        order = np.lexsort((row, part))
        groups = np.split(order, np.flatnonzero(np.diff(part[order])) + 1)
        return [PartRows(self._parts[part[group[0]]], group, row[group]) for group in groups if len(group)]

    def scan(self, keys: Sequence[bytes]) -> Iterator[tuple[np.ndarray, Embeddings]]:
        """The vectors of `keys`, part by part: pairs of (positions in `keys`, embeddings). One part is held at a time.

        Raises StoreError when a key is not stored, or when a part cannot be read: it is then named.
        """
        for found in self.locate(keys):
            yield found.positions, found.read()

    def token_counts(self, keys: Sequence[bytes]) -> np.ndarray:
        """[n] int64: vectors of each key, without reading them. See `scan` for errors."""
        counts = np.zeros(len(keys), dtype=np.int64)
        for found in self.locate(keys):
            counts[found.positions] = found.token_counts()
        return counts

    def dims(self, keys: Sequence[bytes]) -> np.ndarray:
        """[n] int64: dimensions of each key's vectors, without reading them. See `scan` for errors."""
        dims = np.zeros(len(keys), dtype=np.int64)
        for found in self.locate(keys):
            dims[found.positions] = found.dim()
        return dims

    def get(self, keys: Sequence[bytes]) -> Embeddings:
        """The vectors of `keys`, in that order; a key may repeat. See `scan` for errors; UserError for several dims."""
        if not keys:
            raise ValueError("no keys were asked for")
        pieces = list(self.scan(keys))
        dims = sorted({embeddings.dim for _, embeddings in pieces})
        if len(dims) > 1:
            raise UserError(
                f"contents that are compared have {' and '.join(map(str, dims))} dimensions; under --fusion concat "
                "those with text and image are twice as wide: take sum or mean"
            )
        order = np.concatenate([positions for positions, _ in pieces])
        inverse = np.empty(len(order), dtype=np.int64)
        inverse[order] = np.arange(len(order))
        return Embeddings.concatenate([embeddings for _, embeddings in pieces]).take(inverse)


class _KeyIndex:
    """32-byte keys → (part, row), in arrays: 52 bytes a key, where a dict takes 250."""

    def __init__(self) -> None:
        self._pending: list[tuple[np.ndarray, int]] = []
        self._keys = np.zeros((0, KEY_BYTES // 8), dtype=np.uint64)
        self._part = np.zeros(0, dtype=np.int32)
        self._row = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        self._merge()
        return len(self._keys)

    def add(self, keys: np.ndarray, part: int) -> None:
        """keys [n, 4] uint64, in row order."""
        self._pending.append((keys, part))

    def _merge(self) -> None:
        if not self._pending:
            return
        keys = np.concatenate([self._keys, *(k for k, _ in self._pending)])
        part = np.concatenate([self._part, *(np.full(len(k), p, dtype=np.int32) for k, p in self._pending)])
        row = np.concatenate([self._row, *(np.arange(len(k)) for k, _ in self._pending)])
        order = np.argsort(keys[:, 0], kind="stable")
        self._keys, self._part, self._row = keys[order], part[order], row[order]
        self._pending = []

    def find(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """(part [n] int32, row [n] int64); part is -1 where the key is unknown."""
        self._merge()
        wanted = _as_words(keys)
        at = np.searchsorted(self._keys[:, 0], wanted[:, 0])
        part = np.full(len(wanted), -1, dtype=np.int32)
        row = np.zeros(len(wanted), dtype=np.int64)
        open_ = np.arange(len(wanted))
        while len(open_):  # once, but for keys that share their first eight bytes or are stored twice
            open_ = open_[at[open_] < len(self._keys)]
            open_ = open_[self._keys[at[open_], 0] == wanted[open_, 0]]
            same = (self._keys[at[open_]] == wanted[open_]).all(axis=1)
            hit = open_[same]
            part[hit], row[hit] = self._part[at[hit]], self._row[at[hit]]
            open_ = open_[~same]
            at[open_] += 1
        return part, row


def _as_words(keys: Sequence[bytes]) -> np.ndarray:
    """[n, 4] uint64 view of 32-byte keys."""
    return np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, KEY_BYTES // 8)


def _to_table(keys: Sequence[bytes], embeddings: Embeddings, fingerprint: str) -> pa.Table:
    """The columns of a part."""
    schema = pa.schema(
        [("key", pa.binary(KEY_BYTES)), ("tokens", pa.int32()), ("vector", pa.large_binary())],
        metadata={"dim": str(embeddings.dim), "dtype": embeddings.values.dtype.name, "fingerprint": fingerprint},
    )
    columns = [
        pa.array(list(keys), pa.binary(KEY_BYTES)),
        pa.array(embeddings.token_counts, pa.int32()),
        vector_column(embeddings),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _read_table(path: str, columns: list[str]) -> pa.Table:
    try:
        with storage.open_input(path) as source:
            return pq.read_table(source, columns=columns, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise StoreError(
            f"{path} cannot be read ({why}). Delete the file: its contents are then encoded again."
        ) from error


def _read_keys(path: str) -> np.ndarray:
    """[n, 4] uint64."""
    table = _read_table(path, ["key"])
    if "key" not in table.column_names or table.schema.field("key").type != pa.binary(KEY_BYTES):
        raise StoreError(f"{path} is no part of an embedding store (no column of 32-byte keys). Delete the file.")
    if table.column("key").null_count:
        raise StoreError(f"{path} is no part of an embedding store (rows without key). Delete the file.")
    return _as_words(table.column("key").to_pylist())


def _described(path: str) -> str | None:
    """The fingerprint that an encoder.json names."""
    try:
        return json.loads(storage.read_text(path))["fingerprint"]
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} cannot be read ({error}). Delete the file: it is written again.") from error


def _read_part(path: str) -> Embeddings:
    table = _read_table(path, ["tokens", "vector"])
    try:
        return embeddings_of(table)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise StoreError(f"{path} is no part of an embedding store ({error}). Delete the file.") from error
