"""A teacher's vectors of training data: encoded once, kept in the store, and compared from there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raylib.encode.planned import Planned, resolve_encoder
from raylib.encode.vectors import in_order
from raylib.errors import BadContent, UserError
from raylib.evaluate.progress import Reporter
from raylib.examples.examples import Examples
from raylib.mine.comparison import Comparison, DenseComparison
from raylib.mine.config import MineConfig
from raylib.mine.place import MinePlace
from raylib.mine.vectors import Vectors
from raylib.store.embeddings import Shelf
from raylib.types import compares_vectors


@dataclass
class Teacher:
    """The contents of examples under the keys of one encoder. counts: contents, distinct, stored before, encoded,
    failed."""

    config: MineConfig
    place: MinePlace
    examples: Examples
    planned: Planned
    shelf: Shelf
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: MineConfig, place: MinePlace, examples: Examples) -> Teacher:
        """Plans the contents; encodes nothing. Raises UserError for a model that does not read them, or whose vectors
        cannot be mined with."""
        encoder = resolve_encoder(config.spec)
        if not compares_vectors(encoder.similarity):
            raise UserError(
                f"{encoder.spec.name} compares by {encoder.similarity}, which has no vectors to find neighbours by; "
                "give a dense or a late-interaction teacher, or another --mode"
            )
        if config.candidates is not None and encoder.similarity != "maxsim":
            raise UserError(
                f"--candidates is for late-interaction teachers, and {encoder.spec.name} compares by "
                f"{encoder.similarity}; leave it out, or choose --search ivf"
            )
        sides = {"query": examples.queries.source, "document": examples.documents.source}
        planned = Planned.of_sides(encoder, sides)  # pyright: ignore[reportArgumentType]
        shelf = Shelf(config.store_folder, encoder.fingerprint)
        teacher = cls(config, place, examples, planned, shelf)
        stored = planned.stored(shelf)
        teacher.counts = {
            "contents": len(planned.keys),
            "distinct": len(planned.plan.keys()),
            "stored": len(stored),
        }
        return teacher

    @property
    def name(self) -> str:
        return self.planned.encoder.spec.name

    @property
    def fingerprint(self) -> str:
        return self.planned.encoder.fingerprint

    @property
    def keys(self) -> tuple[list[bytes], list[bytes]]:
        """(of each distinct query, of each distinct document)."""
        keys: Any = self.planned.keys  # a model that cannot be given some of them was refused
        n = len(self.examples.queries)
        return keys[:n], keys[n:]

    def encode(self, reporter: Reporter) -> list[BadContent]:
        """Encode what the store lacks; gives what could not be encoded."""
        missing = self.counts["distinct"] - self.counts["stored"]
        if not missing:
            reporter.say(f"{self.name}: all {self.counts['distinct']} contents are in the store")
        else:
            stored = f", {self.counts['stored']} of {self.counts['distinct']} are in the store"
            reporter.say(f"{self.name}: encoding {missing} contents{stored if self.counts['stored'] else ''}")
            self._encode(missing, reporter)
        bad = self.planned.bad_contents()
        self.counts.setdefault("encoded", 0)
        self.counts["failed"] = len(bad)
        return bad

    def _encode(self, missing: int, reporter: Reporter) -> None:
        place, planned = self.place.encode, self.planned
        limits: Any = self.config.limits
        if limits is None:
            limits = planned.found_limits(self.shelf, place.find_limits)
        with reporter.stage(f"encode {self.name}", missing) as progress:
            report = planned.encode_missing(self.shelf, place.stage_with(progress), limits)
        for told in report.notes:
            reporter.warn(told)
        self.counts["encoded"] = report.encoded

    def without_bad(self) -> tuple[Teacher, np.ndarray]:
        """(the same of the examples that can be compared; which they are, int64). Raises UserError where none is
        left."""
        bad = self.planned.bad
        queries, documents = (np.array([key in bad for key in side], dtype=bool) for side in self.keys)
        examples, chosen = self.examples.without(queries, documents)
        if not len(examples):
            raise UserError("no example is left: every one has a query or a positive that cannot be encoded")
        kept = Teacher.of(self.config, self.place, examples)
        kept.counts = self.counts
        return kept, chosen

    @contextmanager
    def compared(self) -> Iterator[Comparison]:
        """Queries (of each example) against the distinct documents; while the block lasts. Vectors lie in temporary
        files, mapped into memory."""
        config, encoder = self.config, self.planned.encoder
        query_keys, document_keys = self.keys
        if encoder.similarity == "maxsim":
            from raylib.mine.late import LateComparison

            of_examples = [query_keys[i] for i in self.examples.query.tolist()]
            yield LateComparison(
                self.shelf, of_examples, document_keys, self.place.search, config.candidates, self.place.find
            )
            return
        aside = os.path.dirname(os.path.abspath(config.output_file))
        with ExitStack() as stack:
            sides = []
            for name, keys in (("query", query_keys), ("document", document_keys)):
                dtype = self.shelf.get(keys[:1]).values.dtype
                found = stack.enter_context(in_order(self.shelf, keys, dtype, aside))
                if not found.is_dense:
                    raise UserError(f"{self.name} compares by {encoder.similarity} and gave several vectors a content")
                unit = encoder.similarity == "cosine"
                sides.append(Vectors(found.values, name, unit, shelf=self.shelf, keys=keys))
            queries, documents = sides
            yield DenseComparison(
                queries.take(self.examples.query),
                documents,
                config.search,
                config.recall,
                config.seed,
                self.place.find,
            )
