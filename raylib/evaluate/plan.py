"""What must be encoded: every distinct content of the tasks, once, in batches that are the same wherever they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.contents import Source
from raylib.models.protocol import Encoder
from raylib.store.keys import content_key
from raylib.types import EncodeContext

_SORT_WINDOW = 64
"""Batches whose contents are sorted by length together: longer evens out more padding, shorter keeps the order of
the data, and with it the locality of reading."""


@dataclass(frozen=True)
class MicroBatch:
    """Contents that share one forward. keys [n]; rows [n]: (index of the source, row in it); fields: what is read."""

    context: EncodeContext
    fields: tuple[str, ...]
    keys: list[bytes]
    rows: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class Plan:
    """The distinct contents of many sources for one encoder.

    The batches are cut over the whole plan before the stored ones are left out, so a run that continues after a kill
    forms the same batches, and with them the same bits, as an undisturbed one.
    """

    encoder: Encoder
    sources: list[Source] = field(default_factory=list)
    _groups: dict[tuple[EncodeContext, tuple[str, ...]], dict[bytes, tuple[int, int]]] = field(default_factory=dict)
    n_requested: int = 0

    def add(self, source: Source, context: EncodeContext) -> list[bytes]:
        """Plan every row of `source`; gives one key per row. Equal contents give equal keys and are planned once."""
        names = readable_fields(self.encoder, source)
        at = len(self.sources)
        self.sources.append(source)
        group = self._groups.setdefault((context, names), {})
        fingerprint = self.encoder.fingerprint
        keys = [content_key(fingerprint, context.role, context.prompt, digests) for digests in source.digests(names)]
        for row, key in enumerate(keys):
            group.setdefault(key, (at, row))
        self.n_requested += len(keys)
        return keys

    def keys(self) -> list[bytes]:
        """The distinct keys, in the order in which they were planned."""
        return [key for group in self._groups.values() for key in group]

    def batches(self, batch_size: int, stored: set[bytes] | frozenset[bytes] = frozenset()) -> list[MicroBatch]:
        """At most `batch_size` contents of one context each, similar lengths together, without the stored ones."""
        batches = []
        for (context, names), group in self._groups.items():
            keys = list(group)
            lengths = self._lengths(list(group.values()), names)
            window = batch_size * _SORT_WINDOW
            for start in range(0, len(keys), window):
                order = start + np.argsort(-lengths[start : start + window], kind="stable")
                for first in range(0, len(order), batch_size):
                    chosen = [keys[i] for i in order[first : first + batch_size] if keys[i] not in stored]
                    if chosen:
                        batches.append(MicroBatch(context, names, chosen, [group[key] for key in chosen]))
        return batches

    def _lengths(self, rows: Sequence[tuple[int, int]], names: tuple[str, ...]) -> np.ndarray:
        """[n] characters of text; 0 for contents without text, which then keep their order."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        if "text" in names:
            by_source = {at: self.sources[at].text_lengths() for at in {source for source, _ in rows}}
            lengths[:] = [by_source[at][row] for at, row in rows]
        return lengths


def readable_fields(encoder: Encoder, source: Source) -> tuple[str, ...]:
    """The columns of `source` that this encoder reads. Raises UserError when it can read none, or would have to fuse
    text and image and cannot."""
    known = encoder.modalities or {"text", "image"}  # a bridged model may not say
    wanted = source.fields if encoder.fields is None else encoder.fields
    names = tuple(f for f in wanted if f in source.fields and (f not in ("text", "image") or f in known))
    if not names or not known.intersection(names):
        raise UserError(modality_mismatch(encoder.spec.name, sorted(encoder.modalities), source))
    if encoder.fields is not None and "text" in names and "image" in names and not encoder.fuses:
        raise UserError(f"contents hold text and image together; {encoder.spec.name} reads one of them at a time")
    return names


def modality_mismatch(model: str, modalities: Sequence[str], source: Source) -> str:
    have = [f for f in source.fields if f in ("text", "image")]
    return f"contents are {' and '.join(have)}; {model} reads {' and '.join(modalities)} only"
