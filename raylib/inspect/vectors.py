"""The vectors behind a ranking, out of the store, and where on a page they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylib import storage
from raylib.errors import RaylibError
from raylib.inspect.choose import QueryId
from raylib.inspect.heat import Match, match
from raylib.inspect.results import spec_of
from raylib.models.protocol import Encoder
from raylib.models.registry import resolve
from raylib.store.embeddings import Shelf
from raylib.types import Batch, Embeddings, Role


class NoHeatMapError(Exception):
    """There can be no heat maps; the message says why, for the page."""


class Patches:
    """Where a late-interaction model's vectors are on a page, and what those of a query say. Needs no weights."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._grids: dict[tuple[tuple[int, int], str | None], np.ndarray | None] = {}

    def grid(self, size: tuple[int, int], text: str | None) -> np.ndarray | None:
        """[rows, columns] int64, which vector is the patch there, of a page of this size with this text beside it;
        None where the model has no patches. Raises NoHeatMapError where it cannot be found out."""
        if (size, text) not in self._grids:
            from PIL import Image

            batch: Batch = {"image": [Image.new("RGB", size)], **({} if text is None else {"text": [text]})}
            try:
                (found,) = self.encoder.token_grid(batch)
            except RaylibError as error:
                raise NoHeatMapError(str(error)) from error
            self._grids[size, text] = None if found is None else found.tokens
        return self._grids[size, text]

    def words(self, text: str | None, n_vectors: int) -> list[str]:
        """What the token of each vector of a query says, or its number where that is not known."""
        return self.tokens(text, n_vectors) or [str(i + 1) for i in range(n_vectors)]

    def tokens(self, text: str | None, n_vectors: int) -> list[str] | None:
        """What the token of each vector of a query says; None where that is not known."""
        found = self.encoder.token_texts({"text": [text]})[0] if text else None
        return found if found is not None and len(found) == n_vectors else None

    def match(self, query_TD: np.ndarray, page_TD: np.ndarray, size: tuple[int, int], text: str | None) -> Match | str:
        """A reason where the model has no patches, or the stored vectors are not those of this page's patches."""
        tokens = self.grid(size, text)
        if tokens is None:
            return "this model does not say where its vectors are on a page"
        if tokens.max() >= len(page_TD):
            return f"the page has {len(page_TD)} vectors, its patches go up to {int(tokens.max()) + 1}"
        return match(query_TD, page_TD, tokens)


class StoredVectors:
    """The late-interaction vectors of one run. contents: the details' table of keys."""

    def __init__(self, contents: pa.Table, encoder: Encoder, shelf: Shelf) -> None:
        self.contents, self.shelf, self.patches = contents, shelf, Patches(encoder)
        self._sides: dict[tuple[str, str, Role], pa.Table] = {}

    def keys(self, query: QueryId, role: Role, ids: Sequence[str]) -> dict[str, bytes]:
        """Id → key of what the run encoded of a subset; an id that it did not encode is left out."""
        rows = self._side(query.split, query.subset, role)
        rows = rows.filter(pc.field("id").isin(list(ids)))
        return dict(zip(rows.column("id").to_pylist(), rows.column("key").to_pylist(), strict=True))

    def _side(self, split: str, subset: str, role: Role) -> pa.Table:
        if (split, subset, role) not in self._sides:
            table = self.contents
            for name, value in {"split": split, "subset": subset, "role": role}.items():
                table = table.filter(pc.field(name) == value)
            self._sides[split, subset, role] = table
        return self._sides[split, subset, role]

    def read(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Key → vectors [tokens, dim]. Raises NoHeatMapError where the store lacks one or cannot be read."""
        distinct = sorted(set(keys))
        if not distinct:
            return {}
        try:
            found: Embeddings = self.shelf.get(distinct)
        except RaylibError as error:
            raise NoHeatMapError(str(error)) from error
        return dict(zip(distinct, found, strict=True))


def open_vectors(contents: pa.Table | None, settings: dict[str, Any], results: str) -> StoredVectors:
    """The vectors of a run. settings: see `run_settings`. Raises NoHeatMapError, with the reason."""
    if contents is None:
        raise NoHeatMapError("this model searches by itself, or its details have no contents.parquet")
    meta = {key.decode(): value.decode() for key, value in (contents.schema.metadata or {}).items()}
    missing = [name for name in ("store", "fingerprint", "similarity") if not meta.get(name)]
    if missing:
        raise NoHeatMapError(f"contents.parquet does not say {', '.join(missing)}")
    reason = why_no_heat_map(meta["similarity"])
    if reason:
        raise NoHeatMapError(reason)
    return StoredVectors(contents, _encoder(settings, meta), _shelf(meta, results))


def why_no_heat_map(similarity: str) -> str | None:
    """Why a model that compares contents so has no heat maps; None for one of late interaction."""
    if similarity in ("cosine", "dot"):
        return "a dense model has one vector for a whole page"
    if similarity != "maxsim":
        return f"scores by {similarity.partition(':')[0]} are not those of vectors alone"
    return None


def _shelf(meta: dict[str, str], results: str) -> Shelf:
    """Where the run said, or beside the results: a folder that moved takes its store along."""
    tried = [Shelf(root, meta["fingerprint"]) for root in (meta["store"], storage.join(results, "store"))]
    for shelf in tried:
        if storage.list_files(shelf.folder, ".parquet"):
            return shelf
    raise NoHeatMapError(f"the embedding store is gone: there are no vectors in {tried[0].folder}")


def _encoder(settings: dict[str, Any], meta: dict[str, str]) -> Encoder:
    try:
        encoder = resolve(spec_of(settings, meta.get("model", "")))
        if not isinstance(encoder, Encoder):
            raise NoHeatMapError("this model searches by itself")
        if encoder.fingerprint != meta["fingerprint"]:
            raise NoHeatMapError(
                f"{encoder.spec.name} is not here as it was in the run: its weights or options have changed"
            )
    except RaylibError as error:
        raise NoHeatMapError(str(error)) from error
    return encoder
