"""What a corpus begins with: the documents of tasks as `raylib evaluate` encoded them, or a folder of `raylib encode`.

Vectors come from where the jobs left them, under the same prompts; texts and images are read when somebody looks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.plan import Plan
from raylib.models.protocol import Encoder
from raylib.serve.protocol import Content
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings, EncodeContext, Role

Piece = tuple[np.ndarray, Embeddings]

_ROLES: tuple[Role, ...] = ("query", "document")


EncodeMissing = Callable[[Plan, Shelf], None]
"""Encodes what of a plan the shelf lacks, as far as it can."""


@dataclass(frozen=True)
class TaskChoice:
    """name: of a benchmark or task. languages, splits, data_root: as `raylib evaluate` takes them. allow_errors: how
    many documents may have no vectors; they are then left out."""

    name: str
    languages: Sequence[str] = ()
    splits: Sequence[str] = ()
    data_root: str | None = None
    allow_errors: int = 0


@dataclass(frozen=True)
class Base:
    """ids [n]: distinct. owners [n]: the content of each, several documents may share one. pieces: the vectors of all
    contents, each once. read: those of some contents, in order. show: texts and images of some rows, in order.

    contexts: how queries and documents are to be encoded so that they compare with these. notes: for whoever started
    this.
    """

    ids: list[str]
    owners: np.ndarray
    n_contents: int
    pieces: Callable[[], Iterator[Piece]]
    read: Callable[[Sequence[int]], Embeddings]
    show: Callable[[Sequence[int]], list[Content]]
    contexts: dict[Role, EncodeContext]
    notes: list[str] = field(default_factory=list)


def empty_base(encoder: Encoder) -> Base:
    """No document: all come from clients."""

    def nothing(asked: Sequence[int]) -> Any:
        raise IndexError(f"documents {list(asked)} of none")

    return Base([], np.zeros(0, dtype=np.int64), 0, lambda: iter(()), nothing, nothing, _own_contexts(encoder))


def _own_contexts(encoder: Encoder) -> dict[Role, EncodeContext]:
    """What the model does by itself, without a task."""
    from raylib.encode.task import context_of

    return {role: context_of(encoder, role) for role in _ROLES}


def encoded_folder(path: str, encoder: Encoder) -> Base:
    """The folder that `raylib encode --output` wrote. Raises UserError for vectors of another encoder, of queries, or
    that cannot be read."""
    from raylib.score.vectors import open_vectors
    from raylib.serve.encode_inputs import EncodedInputs
    from raylib.store.manifests import read_manifest
    from raylib.store.vector_files import ENCODE_JOB

    manifest = read_manifest(path, ENCODE_JOB)
    if manifest is None:
        raise UserError(f"--corpus {path} is no finished folder of `raylib encode`: it has no manifest of that job")
    if manifest["fingerprint"] != encoder.fingerprint:
        raise UserError(
            f"--corpus {path} holds vectors of {manifest['model']} as it was then, not of {encoder.spec.name} as it is "
            "here. Serve that model with the options of that run, or run `raylib encode` again with this one"
        )
    if manifest["role"] != "document":
        raise UserError(f"--corpus {path} holds vectors of queries; run `raylib encode` with --role document")
    found = open_vectors(path, "document")
    shown = EncodedInputs(manifest["options"], found.ids)
    contexts = _own_contexts(encoder)
    contexts["document"] = dataclasses.replace(contexts["document"], prompt=manifest["prompt"])

    def read(contents: Sequence[int]) -> Embeddings:
        wanted = np.unique(np.asarray(contents))
        parts: list[Embeddings] = []
        for positions, vectors in found.blocks():
            at = np.flatnonzero(np.isin(positions, wanted))
            if len(at):
                parts.append(vectors.take(at))
        return Embeddings.concatenate(parts).take(np.searchsorted(wanted, np.asarray(contents)))

    return Base(found.ids, found.owners, found.n_contents, found.blocks, read, shown.show, contexts)
