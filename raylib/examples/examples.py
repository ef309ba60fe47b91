"""Training data as examples: which query goes with which document, and what both are, once each."""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.examples.batch_plan import ids_digest
from raylib.examples.forms import Row, parse_name, parse_row
from raylib.examples.options import DataOptions
from raylib.examples.places import Places
from raylib.examples.readers import RawRow, read_rows
from raylib.examples.sides import Side, SideBuilder
from raylib.types import Role

_SHOWN = 5


@dataclass
class Examples:
    """n examples: a query and one positive each.

    ids [n]: distinct. datasets: the distinct names; dataset: int64 [n], each example's number among them. queries,
    documents: the distinct contents, as they are named (see `Side`). query, positive: int64 [n], each example's
    content among them. negatives: the given ones, int64 numbers of documents; offsets: int64 [n + 1], example i has
    negatives[offsets[i]:offsets[i + 1]]. repeated: int64, the examples whose query and positive an earlier one has.
    notes: what a person should know about the data.
    """

    ids: list[str]
    datasets: list[str]
    dataset: np.ndarray
    queries: Side
    documents: Side
    query: np.ndarray
    positive: np.ndarray
    negatives: np.ndarray
    offsets: np.ndarray
    repeated: np.ndarray
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def side(self, role: Role) -> Side:
        return self.queries if role == "query" else self.documents

    def digest(self) -> bytes:
        """32 bytes that tell these examples from others: their ids, data sets and numbers, and what contents are
        named. Images are not read."""
        digest = hashlib.sha256(json.dumps(self.datasets).encode())
        named = [column for side in (self.queries, self.documents) for column in (side.texts, side.images)]
        for column in (self.ids, *named):
            digest.update(ids_digest(column).encode())
        for numbers in (self.dataset, self.query, self.positive, self.negatives, self.offsets):
            digest.update(numbers.tobytes())
        return digest.digest()

    def given_negatives(self, example: int) -> np.ndarray:
        """int64: the documents that the data gives as negatives of an example."""
        return self.negatives[self.offsets[example] : self.offsets[example + 1]]

    def unified(self) -> Examples:
        """The same, with contents that look the same to a model taken for one, whatever the data calls them, as a page
        of a table under each of its questions. Every image is read once."""
        query, document = (_first_equal(side.digests()) for side in (self.queries, self.documents))
        return replace(
            self, query=query[self.query], positive=document[self.positive], negatives=document[self.negatives]
        )

    def without(self, left_out_queries: np.ndarray, left_out_documents: np.ndarray) -> Kept:
        """The examples whose query and positive are not left out, their negatives that are not either, and the contents
        that these have. Both arguments: bool, of each content."""
        chosen = np.flatnonzero(~(left_out_queries[self.query] | left_out_documents[self.positive]))
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        place = np.searchsorted(chosen, owner)
        stays = np.isin(owner, chosen) & ~left_out_documents[self.negatives]
        counts = np.bincount(place[stays], minlength=len(chosen))
        queries, query = np.unique(self.query[chosen], return_inverse=True)
        documents, number = np.unique(
            np.concatenate([self.positive[chosen], self.negatives[stays]]), return_inverse=True
        )
        kept = Examples(
            [self.ids[i] for i in chosen.tolist()],
            self.datasets,
            self.dataset[chosen],
            self.queries.take(queries),
            self.documents.take(documents),
            query.ravel(),
            number.ravel()[: len(chosen)],
            number.ravel()[len(chosen) :],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.flatnonzero(np.isin(chosen, self.repeated)),
            self.notes,
        )
        return Kept(kept, chosen, queries, documents)


class Kept(NamedTuple):
    """Some of the examples, and which of all examples, queries and documents those are, int64, ascending."""

    examples: Examples
    chosen: np.ndarray
    queries: np.ndarray
    documents: np.ndarray


def read_examples(
    data: str | Sequence[str] = (),
    *,
    root: str = ".",
    data_root: str | None = None,
    hub_name: str | None = None,
    split: str | None = None,
    group_by: str = "dataset",
    limit: int | None = None,
) -> Examples:
    """Read training data; see `readers.read_rows` for files and folders, and `forms` for rows.

    root: the folder, or the .zip, that image paths start from. data_root: where local copies of data sets are, for
    `owner/name/split/doc_N.png` and hub_name; `root` where None. group_by: the field that names an example's data set;
    rows without it go by their file, folder or config. A row's field `id` names its example, else its place does.
    A row of several positives is one example for each. limit: only so many rows.

    Raises UserError, naming the first bad rows, where any row cannot be used; for no rows, for two of one id, and for a
    field to group by that no row has, unless it is "dataset".
    """
    paths = [data] if isinstance(data, str) else list(data)
    if not paths and hub_name is None:
        raise UserError("there is no training data: name files with --data, or a data set with --hub-name")
    places = Places.of(root, data_root)
    collected = _Collected(places)
    for row in itertools.islice(read_rows(paths, places, hub_name=hub_name, split=split), limit):
        collected.add(row, group_by)
    what = ", ".join([*paths, *([hub_name] if hub_name else [])])
    found = collected.finish(what)
    if group_by != "dataset" and not collected.has_groups:
        raise UserError(
            f"no row of {what} has the field {group_by}, which --group-by names; leave it out to go by file"
        )
    return found


def examples_of(options: DataOptions) -> Examples:
    """As `read_examples`, of what a job's flags name."""
    return read_examples(**{field.name: getattr(options, field.name) for field in fields(DataOptions)})


@dataclass
class _Collected:
    places: Places
    ids: list[str] = field(default_factory=list)
    datasets: dict[str, int] = field(default_factory=dict)
    dataset: array = field(default_factory=lambda: array("q"))
    queries: SideBuilder = field(default_factory=lambda: SideBuilder("queries"))
    documents: SideBuilder = field(default_factory=lambda: SideBuilder("documents"))
    query: array = field(default_factory=lambda: array("q"))
    positive: array = field(default_factory=lambda: array("q"))
    negatives: array = field(default_factory=lambda: array("q"))
    offsets: array = field(default_factory=lambda: array("q", [0]))
    bad: list[str] = field(default_factory=list)
    n_bad: int = 0
    own_negatives: int = 0
    has_groups: bool = False

    def add(self, raw: RawRow, group_by: str) -> None:
        try:
            if raw.values is None:
                raise BadContentError(raw.error)
            row = parse_row(raw.values, self.places)
            name, group = parse_name(raw.values, "id"), parse_name(raw.values, group_by)
        except BadContentError as error:
            self.n_bad += 1
            if self.n_bad <= _SHOWN:
                self.bad.append(f"{raw.where}: {error}")
            return
        self.has_groups |= group != ""
        self._add(row, raw.where, name or raw.where, group or raw.dataset)

    def _add(self, row: Row, where: str, name: str, dataset: str) -> None:
        query = self.queries.add(row.query, f"{where}, query")
        positives = [self.documents.add(cell, f"{where}, positive") for cell in row.positives]
        negatives = [self.documents.add(cell, f"{where}, negative") for cell in row.negatives]
        own = set(positives)
        kept = [number for number in negatives if number not in own]
        self.own_negatives += len(negatives) - len(kept)
        for number, positive in enumerate(positives, 1):
            self.ids.append(name if number == 1 else f"{name}#positive={number}")
            self.dataset.append(self.datasets.setdefault(dataset, len(self.datasets)))
            self.query.append(query)
            self.positive.append(positive)
            self.negatives.extend(kept)
            self.offsets.append(len(self.negatives))

    def finish(self, what: str) -> Examples:
        if self.n_bad:
            more = f"; and {self.n_bad - _SHOWN} more" if self.n_bad > _SHOWN else ""
            raise UserError(f"{self.n_bad} rows of {what} cannot be used ({'; '.join(self.bad)}{more})")
        if not self.ids:
            raise UserError(f"{what} has no rows; expected training data")
        if len(set(self.ids)) < len(self.ids):
            twice = [name for name, count in Counter(self.ids).items() if count > 1]
            shown = ", ".join(twice[:_SHOWN])
            raise UserError(f"{len(twice)} ids name two or more examples of {what}: {shown}; expected one id each")
        query, positive = _int64(self.query), _int64(self.positive)
        repeated = _repeated(query, positive)
        return Examples(
            self.ids,
            list(self.datasets),
            _int64(self.dataset),
            self.queries.finish(self.places.tables),
            self.documents.finish(self.places.tables),
            query,
            positive,
            _int64(self.negatives),
            _int64(self.offsets),
            repeated,
            self._notes(repeated),
        )

    def _notes(self, repeated: np.ndarray) -> list[str]:
        notes = []
        if len(repeated):
            shown = ", ".join(self.ids[i] for i in repeated[:_SHOWN].tolist())
            more = ", …" if len(repeated) > _SHOWN else ""
            notes.append(f"{len(repeated)} examples have the query and the positive of an earlier one: {shown}{more}")
        if self.own_negatives:
            notes.append(f"{self.own_negatives} given negatives are a positive of their own row; they are left out")
        return notes


def _first_equal(digests: Sequence[bytes]) -> np.ndarray:
    """int64 [m]: for each the first one that is equal."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, row) for row, digest in enumerate(digests)], dtype=np.int64)


def _int64(numbers: array) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def _repeated(query: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """int64: the rows whose pair an earlier row has, ascending."""
    first = np.unique(np.stack([query, positive], axis=1), axis=0, return_index=True)[1]
    again = np.ones(len(query), bool)
    again[first] = False
    return np.flatnonzero(again)
