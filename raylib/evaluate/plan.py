"""What must be encoded: every distinct content of the tasks, once, in batches that are the same wherever they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.batching import (
    BatchLimits,
    Limits,
    MicroBatch,
    cut,
    limits_for,
    sample_by_length,
    tokens_by_length,
)
from raylib.evaluate.contents import Source
from raylib.evaluate.prepare import prepare
from raylib.models.protocol import Encoder
from raylib.store.keys import content_key
from raylib.types import EncodeContext

_SORT_WINDOW = 64
"""Batches whose contents are sorted by length together: longer evens out more padding, shorter keeps the order of
the data, and with it the locality of reading."""

_PIXELS_PER_CHARACTER = 200
"""About four characters are a token of text, and 28 × 28 pixels are one of a page."""

_SAMPLED_TEXTS = 64
_SAMPLED_IMAGES = 8
"""Contents of one context that are prepared to learn how long the others are."""


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
        kinds = [(readable_fields(self.encoder, source, fields), rows) for fields, rows in source.kinds().items()]
        at = len(self.sources)
        self.sources.append(source)
        fingerprint = self.encoder.fingerprint
        keys = [b""] * len(source)
        for names, rows in kinds:
            group = self._groups.setdefault((context, names), {})
            digests = source.digests(names)
            for row in rows:
                keys[row] = content_key(fingerprint, context.role, context.prompt, digests[row])
                group.setdefault(keys[row], (at, row))
        self.n_requested += len(keys)
        return keys

    def keys(self) -> list[bytes]:
        """The distinct keys, in the order in which they were planned."""
        return [key for group in self._groups.values() for key in group]

    def batches(self, limits: Limits | int, stored: Set[bytes] = frozenset()) -> list[MicroBatch]:
        """Within `limits` (or at most so many contents), of one context each, similar lengths together, without the
        stored ones. Raises UserError for a bound on tokens where the encoder cannot count them."""
        bounds = BatchLimits(limits) if isinstance(limits, int) else limits
        batches = []
        for (context, names), group in self._groups.items():
            keys = list(group)
            limit = limits_for(bounds, names)
            lengths = self._lengths(list(group.values()), names)
            tokens = lengths if limit.tokens is None else self._estimated_tokens(context, names, group, lengths)
            window = limit.contents * _SORT_WINDOW
            for start in range(0, len(keys), window):
                order = start + np.argsort(-lengths[start : start + window], kind="stable")
                for piece in cut(np.maximum.accumulate(tokens[order][::-1])[::-1], limit):
                    chosen = [keys[i] for i in order[piece] if keys[i] not in stored]
                    if chosen:
                        rows = [group[key] for key in chosen]
                        batches.append(MicroBatch(context, names, chosen, rows, limit.tokens, limit.contents))
        return batches

    def samples(self, stored: set[bytes] | frozenset[bytes] = frozenset()) -> dict[tuple[str, ...], list[MicroBatch]]:
        """By the fields that are read, where some such content is not stored: the longest texts, or images from all
        over the plan, to try a forward on. What is stored counts as well: a run that continues finds the limits, and
        with them cuts the batches, of an undisturbed one."""
        missing = {names for (_, names), group in self._groups.items() if not stored.issuperset(group)}
        found: dict[tuple[str, ...], list[MicroBatch]] = {}
        for (context, names), group in self._groups.items():
            if names in missing:
                keys = list(group)
                picked = sample_by_length(self._lengths(list(group.values()), names), _SAMPLED_IMAGES)
                picked = picked if "image" in names else picked[-1:]
                single = [MicroBatch(context, names, [keys[i]], [group[keys[i]]]) for i in picked]
                found.setdefault(names, []).extend(single)
        return found

    def _estimated_tokens(
        self,
        context: EncodeContext,
        names: tuple[str, ...],
        group: Mapping[bytes, tuple[int, int]],
        lengths: np.ndarray,
    ) -> np.ndarray:
        """[n] int64, from what the encoder's CPU half makes of a sample."""
        keys = list(group)
        counted: dict[int, int] = {}
        for i in sample_by_length(lengths, _SAMPLED_IMAGES if "image" in names else _SAMPLED_TEXTS):
            single = MicroBatch(context, names, [keys[i]], [group[keys[i]]])
            tensors = prepare(self.encoder, single, self.sources).tensors
            if tensors is None:  # a content that cannot be used; the encode stage reports it
                continue
            counts = self.encoder.token_counts(tensors)
            if counts is None:
                raise UserError(
                    f"--max-batch-tokens: {self.encoder.spec.name} does not tell how many tokens "
                    f"{' and '.join(names)} have; bound its batches by --batch-size"
                )
            counted[i] = int(counts[0])
        if not counted:
            return np.ones(len(keys), dtype=np.int64)
        return tokens_by_length(lengths, list(counted), np.array(list(counted.values())))

    def _lengths(self, rows: Sequence[tuple[int, int]], names: tuple[str, ...]) -> np.ndarray:
        """[n] what orders contents by length: characters of the text and, where the encoder's pages keep their size,
        pixels, at what they come to in characters; 0 where neither says anything, and the order then stays."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        sources = {at for at, _ in rows}
        if "text" in names:
            by_source = {at: self.sources[at].text_lengths() for at in sources}
            lengths += [by_source[at][row] for at, row in rows]
        if "image" in names and self.encoder.native_resolution:
            by_source = {at: self.sources[at].pixels() for at in sources}
            lengths += [by_source[at][row] // _PIXELS_PER_CHARACTER for at, row in rows]
        return lengths


def readable_fields(encoder: Encoder, source: Source, fields: Sequence[str] | None = None) -> tuple[str, ...]:
    """Which of `fields`, by default all of `source`, this encoder reads. Raises UserError when it can read none, or
    would have to fuse text and image and cannot."""
    fields = source.fields if fields is None else fields
    known = encoder.modalities or {"text", "image"}  # a bridged model may not say
    wanted = fields if encoder.fields is None else encoder.fields
    names = tuple(f for f in wanted if f in fields and (f not in ("text", "image") or f in known))
    if not names or not known.intersection(names):
        raise UserError(modality_mismatch(encoder.spec.name, sorted(encoder.modalities), fields))
    if encoder.fields is not None and "text" in names and "image" in names and not encoder.fuses:
        raise UserError(f"contents hold text and image together; {encoder.spec.name} reads one of them at a time")
    return names


def modality_mismatch(model: str, modalities: Sequence[str], fields: Sequence[str]) -> str:
    have = [f for f in fields if f in ("text", "image")]
    return f"contents are {' and '.join(have)}; {model} reads {' and '.join(modalities)} only"
