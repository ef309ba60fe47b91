"""A teacher's vectors of training data: encoded once, kept in the store, and compared from there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from raylib import storage
from raylib.encode.planned import Planned, resolve_encoder
from raylib.encode.vectors import in_order
from raylib.errors import BadContent, ModelError, UserError
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport
from raylib.evaluate.progress import Reporter
from raylib.examples.examples import Examples
from raylib.mine.common_config import MineConfig
from raylib.mine.comparison import Comparison, DenseComparison
from raylib.mine.place import MinePlace
from raylib.mine.vectors import Vectors
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf
from raylib.types import Role, compares_vectors


@dataclass
class Teacher:
    """The contents of examples under the keys of one encoder.

    query_keys, document_keys: of each distinct query and document of `examples`. counts: contents, distinct, stored
    before, encoded, failed; of all that was planned. report: of what `encode` did.
    """

    config: MineConfig
    place: MinePlace
    examples: Examples
    planned: Planned
    shelf: Shelf
    query_keys: list[bytes]
    document_keys: list[bytes]
    counts: dict[str, int] = field(default_factory=dict)
    report: EncodeReport = field(default_factory=EncodeReport)

    @classmethod
    def of(cls, config: MineConfig, place: MinePlace, examples: Examples) -> Teacher:
        """Plans the contents; encodes nothing. Raises UserError for a model that does not read them, or whose vectors
        cannot be mined with."""
        encoder = resolve_encoder(config.spec)
        _check_searchable(encoder, config)
        sides: dict[Role, Source] = {"query": examples.queries.source, "document": examples.documents.source}
        planned = Planned.of_sides(encoder, sides)
        _check_readable(planned)
        shelf = Shelf(config.store_folder, encoder.fingerprint)
        keys: Any = planned.keys  # none is missing: all can be read
        n = len(examples.queries)
        return cls(config, place, examples, planned, shelf, keys[:n], keys[n:], planned.counts(shelf))

    @property
    def name(self) -> str:
        return self.planned.encoder.spec.name

    @property
    def fingerprint(self) -> str:
        return self.planned.encoder.fingerprint

    def encode(self, reporter: Reporter) -> list[BadContent]:
        """Encode what the store lacks; gives what could not be encoded."""
        for note in self.planned.unread:
            reporter.warn(note)
        limits = self.config.limits
        report = self.report = self.planned.encode(self.shelf, self.counts, self.place.encode, limits, reporter)
        bad = self.planned.bad_contents()
        self.counts |= {"encoded": report.encoded, "failed": len(bad)}
        return bad

    def without_bad(self) -> Teacher:
        """The same of the examples whose query and positive were encoded. Raises UserError where none is left."""
        bad = self.planned.bad
        kept = self.examples.without(
            *(np.array([key in bad for key in keys], dtype=bool) for keys in (self.query_keys, self.document_keys))
        )
        if not len(kept.examples):
            raise UserError("no example is left: every one has a query or a positive that cannot be encoded")
        return replace(
            self,
            examples=kept.examples,
            query_keys=[self.query_keys[i] for i in kept.queries.tolist()],
            document_keys=[self.document_keys[i] for i in kept.documents.tolist()],
        )

    @contextmanager
    def compared(self) -> Iterator[Comparison]:
        """Queries (of each example) against the distinct documents; while the block lasts. Vectors lie in temporary
        files, mapped into memory."""
        if self.planned.encoder.similarity == "maxsim":
            yield self._late()
            return
        with ExitStack() as stack:
            queries = self._vectors("query", self.query_keys, stack)
            documents = self._vectors("document", self.document_keys, stack)
            config = self.config
            yield DenseComparison(
                queries.take(self.examples.query),
                documents,
                config.search,
                config.recall,
                config.seed,
                self.place.find,
            )

    def _late(self) -> Comparison:
        from raylib.mine.late import LateComparison

        config = self.config
        of_examples = [self.query_keys[i] for i in self.examples.query.tolist()]
        # Of the mean vectors: MaxSim itself is computed exactly.
        find = partial(self.place.find, method=config.search, recall=config.recall, seed=config.seed)
        return LateComparison(
            self.shelf, of_examples, self.document_keys, self.place.search, config.candidates, find, self._aside
        )

    @property
    def _aside(self) -> str | None:
        """Where temporary files lie, of the vectors' size: beside the output where that is a disk here."""
        output = self.config.output_file
        return None if storage.is_remote(output) else os.path.dirname(os.path.abspath(output))

    def _vectors(self, name: Role, keys: list[bytes], stack: ExitStack) -> Vectors:
        similarity = self.planned.encoder.similarity
        dtype = self.shelf.get(keys[:1]).values.dtype
        found = stack.enter_context(in_order(self.shelf, keys, dtype, self._aside))
        if not found.is_dense:
            raise ModelError(f"{self.name} compares by {similarity} and gave several vectors for a content")
        return Vectors(found.values, name, similarity == "cosine", shelf=self.shelf, keys=keys)


def _check_searchable(encoder: Encoder, config: MineConfig) -> None:
    name, similarity = encoder.spec.name, encoder.similarity
    if not compares_vectors(similarity):
        raise UserError(
            f"{name} compares by {similarity}, which has no vectors to find neighbours by; give a dense or a "
            "late-interaction teacher, or another --mode"
        )
    if config.candidates is not None and similarity != "maxsim":
        raise UserError(
            f"--candidates is for late-interaction teachers, and {name} compares by {similarity}; leave it out, or "
            "choose --search ivf"
        )
    if config.search == "ivf" and config.candidates is None and similarity == "maxsim":
        raise UserError(
            f"--search ivf is for dense vectors, and {name} is a late-interaction teacher; give --candidates N, which "
            "are then found so by their mean vectors, or leave it out"
        )


def _check_readable(planned: Planned) -> None:
    """Before hours are spent. Raises UserError where the model cannot be given some of the contents."""
    if not planned.unreadable:
        return
    first, why = next(iter(planned.unreadable.items()))
    raise UserError(
        f"{len(planned.unreadable)} of {len(planned.keys)} contents, {planned.contents.ids[first]} first: {why}. Give "
        "a teacher that reads them, or leave these rows out of --data"
    )
