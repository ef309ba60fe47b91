"""What a frozen backbone gives, encoded once and kept in the store; only the heads run at every step, with gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from raylib.encode.task import context_of
from raylib.encode.vectors import in_order
from raylib.errors import BadContentsError, StoreError
from raylib.evaluate.batching import DEFAULT_CONTENTS
from raylib.evaluate.encode import encode_locally
from raylib.evaluate.plan import Plan
from raylib.examples.examples import Examples
from raylib.models.loading import to_numpy
from raylib.models.protocol import Encoder
from raylib.models.token_vectors import TokenVectors
from raylib.models.torch_encoder import HeadedEncoder, TorchEncoder
from raylib.store.embeddings import Shelf
from raylib.train.feed import ROLES, Piece, cut_by_kind
from raylib.train.team import Team
from raylib.types import Batch, Embeddings, EncodeContext, Role, Tensors

_PARTS = ("text", "image")
_FEATURES, _COUNTS = "features.", "counts."


class BackboneEncoder(Encoder):
    """An encoder without its heads, of one part of contents, "text" or "image". Its vectors are [tokens, hidden]."""

    similarity = "maxsim"

    def __init__(self, encoder: HeadedEncoder, part: str) -> None:
        self.spec, self.family, self.encoder, self.part = encoder.spec, encoder.family, encoder, part
        self.modalities = frozenset({part})
        self.native_resolution = encoder.native_resolution

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self.encoder.backbone_identity, "features": self.part}

    def default_prompt(self, task: Any, role: Role | None) -> str | None:
        return self.encoder.default_prompt(task, role)

    def load(self) -> None:
        self.encoder.load()

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        return self.encoder.preprocess(batch, context)

    def token_counts(self, tensors: Tensors) -> np.ndarray | None:
        return self.encoder.token_counts(tensors)

    def forward(self, tensors: Tensors) -> Embeddings:
        with torch.inference_mode():
            found = self.encoder.features(tensors)[self.part]
            return Embeddings(to_numpy(found.values, self.encoder.dtype), found.offsets)


@dataclass
class FeatureFeed:
    """A `Feed` of features. store: the folder of the embedding store. micro: most contents of a piece; None for all of
    a kind together. `fill` comes first."""

    encoder: HeadedEncoder
    examples: Examples
    store: str
    micro: int | None = None
    _features: dict[str, Embeddings] = field(default_factory=dict)
    _rows: dict[tuple[str, Role], np.ndarray] = field(default_factory=dict)
    _files: ExitStack = field(default_factory=ExitStack)

    def fill(self, team: Team, say: Callable[[str], None]) -> None:
        """Called by every process: encode what is not in the store, each its share, and map all into memory.

        Raises BadContentsError, naming them, for contents that cannot be read."""
        self.encoder.load()
        self.encoder.trunk.eval()
        for part in _PARTS:
            plan = Plan(BackboneEncoder(self.encoder, part))
            keys = {role: self._plan(plan, role, part) for role in ROLES}
            distinct = plan.keys()
            if not distinct:
                continue
            shelf = Shelf(self.store, plan.encoder.fingerprint)
            self._encode(plan, shelf, team, say)
            at = {key: row for row, key in enumerate(distinct)}
            for role in ROLES:
                self._rows[part, role] = np.array([at.get(key, -1) for key in keys[role]], dtype=np.int64)
            dtype = np.dtype(np.float32 if self.encoder.dtype == "float32" else np.float16)
            self._features[part] = self._files.enter_context(in_order(shelf, distinct, dtype, None))

    def _plan(self, plan: Plan, role: Role, part: str) -> list[bytes]:
        """By content the key of its part, b"" where it has none."""
        side = self.examples.side(role)
        keys = [b""] * len(side)
        rows = [row for fields, found in side.source.kinds().items() if part in fields for row in found]
        if rows and part in self.encoder.modalities:
            rows.sort()
            planned = plan.add(side.source.take(rows), context_of(self.encoder, role))
            for row, key in zip(rows, planned, strict=True):
                keys[row] = key
        return keys

    def _encode(self, plan: Plan, shelf: Shelf, team: Team, say: Callable[[str], None]) -> None:
        shelf.refresh()
        # What is missing is looked up once: processes that start later would see what earlier ones have stored.
        stored = team.told(shelf.stored(plan.keys()) if team.rank == 0 else None)
        missing = len(plan.keys()) - len(stored)
        if missing:
            say(f"features of the backbone: {missing} contents to encode, {len(stored)} are in the store")
            shelf.describe(plan.encoder.identity)
            own = plan.batches(self.micro or DEFAULT_CONTENTS, stored)[team.rank :: team.size]
            report = encode_locally(plan.encoder, own, plan.sources, shelf)
            if report.bad:
                raise BadContentsError(report.bad)
            team.wait()
            shelf.refresh()
        lost = int((~shelf.contains(plan.keys())).sum())
        if lost:
            raise StoreError(
                f"{lost} contents that other processes encoded are not in {shelf.folder}. On a cluster of several "
                "machines put --store on a file system that all of them share, or on s3://"
            )

    def pieces(self, role: Role, numbers: np.ndarray) -> list[Piece]:
        """As `Feed`; tensors: features.PART [tokens, hidden] and counts.PART [contents]."""
        kinds = self.kind_of_rows(role)[numbers]
        return [Piece(self._tensors(role, kind, numbers[part]), part) for kind, part in cut_by_kind(kinds, self.micro)]

    def kind_of_rows(self, role: Role) -> np.ndarray:
        return self._kinds[role]

    @cached_property
    def _kinds(self) -> dict[Role, np.ndarray]:
        """By content which parts it has: a bit for each."""
        found: dict[Role, np.ndarray] = {}
        for role in ROLES:
            found[role] = np.zeros(len(self.examples.side(role)), dtype=np.int64)
            for bit, part in enumerate(_PARTS):
                if part in self._features:
                    found[role] |= (self._rows[part, role] >= 0).astype(np.int64) << bit
        return found

    def _tensors(self, role: Role, kind: int, numbers: np.ndarray) -> Tensors:
        tensors: Tensors = {}
        for bit, part in enumerate(_PARTS):
            if kind >> bit & 1:
                rows = self._features[part].take(self._rows[part, role][numbers])
                tensors |= {_FEATURES + part: rows.values, _COUNTS + part: rows.token_counts}
        return tensors


def are_features(tensors: Tensors) -> bool:
    return any(name.startswith(_FEATURES) for name in tensors)


def vectors_of_features(encoder: TorchEncoder, tensors: Tensors) -> TokenVectors:
    """The heads' vectors of what `FeatureFeed` gives."""
    assert isinstance(encoder, HeadedEncoder), "no feed of features without heads"
    return encoder.projected(
        {
            part: TokenVectors(
                torch.from_numpy(np.array(tensors[_FEATURES + part])).to(encoder.device), tensors[_COUNTS + part]
            )
            for part in _PARTS
            if _FEATURES + part in tensors
        }
    )


def tokens_of_features(tensors: Tensors) -> int:
    return int(sum(counts.sum() for name, counts in tensors.items() if name.startswith(_COUNTS)))
