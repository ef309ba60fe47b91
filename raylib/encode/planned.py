"""Contents under one model: a key for each, what is bad about the rest, and the encoding of what the store lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raylib.encode.gather import Contents, Group
from raylib.encode.task import context_of
from raylib.errors import BadContent, UserError
from raylib.evaluate.batching import BatchLimits, Limits
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport, Progress
from raylib.evaluate.plan import Plan, readable_fields
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.store.embeddings import Shelf
from raylib.types import Role

if TYPE_CHECKING:
    from raylib.evaluate.auto_batch import LimitsFinder
    from raylib.evaluate.model import EncodeStage
    from raylib.evaluate.progress import Reporter


def resolve_encoder(spec: ModelSpec) -> Encoder:
    """Raises UserError for a model that has no vectors, besides what `resolve` raises."""
    encoder = resolve(spec)
    if not isinstance(encoder, Encoder):
        raise UserError(f"{spec.name} searches by itself and has no vectors; give a model that encodes")
    return encoder


@dataclass
class Planned:
    """keys [n]: of every content in input order; None for one that this model cannot be given. unreadable: position →
    why the model cannot read that content, by what kind of content it is. unread: notes of fields that are left out."""

    encoder: Encoder
    contents: Contents
    plan: Plan
    prompt: str = ""
    keys: list[bytes | None] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    bad: dict[bytes, str] = field(default_factory=dict)
    """Key → why it could not be encoded, as far as that is known."""

    @classmethod
    def of(cls, encoder: Encoder, contents: Contents, role: Role) -> Planned:
        planned = cls._empty(encoder, contents)
        planned.prompt = context_of(encoder, role).prompt
        for group in contents.groups:
            planned._add(group, role)
        return planned

    @classmethod
    def of_sides(cls, encoder: Encoder, sides: Mapping[Role, Source]) -> Planned:
        """Every row of these sources, one source after the other. Of a source that this model cannot read whole, no row
        has a key."""
        contents = Contents(files=[source.name for source in sides.values()])
        for number, source in enumerate(sides.values()):
            first = len(contents.ids)
            contents.ids += source.ids
            contents.sources += [number] * len(source)
            contents.groups.append(Group(source, range(first, len(contents.ids))))
        planned = cls._empty(encoder, contents)
        for role, group in zip(sides, contents.groups, strict=True):
            planned._add(group, role)
        return planned

    @classmethod
    def _empty(cls, encoder: Encoder, contents: Contents) -> Planned:
        return cls(encoder, contents, Plan(encoder), keys=[None] * len(contents.ids))

    def _add(self, group: Group, role: Role) -> None:
        encoder, source, positions = self.encoder, group.source, group.positions
        refused = len(self.unreadable)
        for fields, rows in source.kinds().items():
            try:
                read = readable_fields(encoder, source, fields)
            except UserError as error:
                self.unreadable.update(dict.fromkeys((positions[row] for row in rows), str(error)))
                continue
            left_out = [name for name in fields if name not in read]
            if left_out:
                self.unread.append(f"{encoder.spec.asked} does not read the {left_out[0]} beside {len(rows)} contents")
        if len(self.unreadable) > refused:
            return
        for position, key in zip(positions, self.plan.add(source, context_of(encoder, role)), strict=True):
            self.keys[position] = key

    def bad_contents(self) -> list[BadContent]:
        """Every content without a vector, in input order."""
        found = []
        for position, (name, key) in enumerate(zip(self.contents.ids, self.keys, strict=True)):
            why = self.contents.errors.get(position) or self.unreadable.get(position)
            if why is None and key is not None:
                why = self.bad.get(key)
            if why is not None:
                found.append(BadContent(key.hex() if key else "", self.contents.source_of(position), name, why))
        return found

    def good_positions(self) -> list[int]:
        return [i for i, key in enumerate(self.keys) if key is not None and key not in self.bad]

    def stored(self, shelf: Shelf) -> set[bytes]:
        """The planned keys that are on the shelf."""
        shelf.refresh()
        return shelf.stored(self.plan.keys())

    def counts(self, shelf: Shelf) -> dict[str, int]:
        """contents, distinct ones, and how many of these are on the shelf ("stored")."""
        return {"contents": len(self.keys), "distinct": len(self.plan.keys()), "stored": len(self.stored(shelf))}

    def encode(
        self, shelf: Shelf, counts: Mapping[str, int], place: Place, limits: Limits | None, reporter: Reporter
    ) -> EncodeReport:
        """Encode what the shelf lacks, and tell how far it is. counts: as `counts` gave them. limits: None where they
        are to be found by trying. Contents that turn out to be bad are then in `bad`."""
        name, missing = self.encoder.spec.asked, counts["distinct"] - counts["stored"]
        if not missing:
            reporter.say(f"{name}: all {counts['distinct']} contents are in the store")
            return EncodeReport()
        note = f", {counts['stored']} of {counts['distinct']} are in the store" if counts["stored"] else ""
        reporter.say(f"{name}: encoding {missing} contents{note}")
        found: Any = self.found_limits(shelf, place.find_limits) if limits is None else limits
        with reporter.stage(f"encode {name}", missing) as progress:
            report = self.encode_missing(shelf, place.stage_with(progress), found)
        for told in report.notes:
            reporter.warn(told)
        return report

    def encode_missing(self, shelf: Shelf, stage: EncodeStage, limits: Limits) -> EncodeReport:
        """Encode what the shelf lacks; contents that turn out to be bad are then in `bad`."""
        report = EncodeReport()
        batches = self.plan.batches(limits, self.stored(shelf))
        if batches:
            shelf.describe(self.encoder.identity)
            report = stage(self.encoder, batches, self.plan.sources, shelf)
            self.bad.update({bytes.fromhex(content.key): content.reason for content in report.bad})
            shelf.refresh()
        return report

    def found_limits(self, shelf: Shelf, find: LimitsFinder) -> Mapping[tuple[str, ...], BatchLimits]:
        """What --batch-size auto finds for what the shelf lacks."""
        samples = self.plan.samples(self.stored(shelf))
        if not samples:
            return {}
        shelf.describe(self.encoder.identity)
        return find(self.encoder, samples, self.plan.sources, shelf)


@dataclass(frozen=True)
class Place:
    """Where contents are encoded: here, or on a cluster."""

    stage_with: Callable[[Progress], EncodeStage]
    find_limits: LimitsFinder


def this_process() -> Place:
    import functools

    from raylib.evaluate.auto_batch import auto_limits
    from raylib.evaluate.encode import encode_locally

    def stage_with(progress: Progress) -> Any:
        return functools.partial(encode_locally, progress=progress)

    return Place(stage_with, auto_limits)
