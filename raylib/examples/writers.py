"""Mined negatives as training data, as trainers read it: JSONL of query, pos and negs, and MMEB's Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UserError
from raylib.examples.examples import Examples
from raylib.examples.places import ends_as_image
from raylib.examples.sides import Side

_CHUNK_ROWS = 10_000
_STRINGS = pa.list_(pa.string())
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("dataset", pa.string()),
        ("qry", pa.string()),
        ("qry_image_path", pa.string()),
        ("pos_text", pa.string()),
        ("pos_image_path", pa.string()),
        ("neg_text", _STRINGS),
        ("neg_image_path", _STRINGS),
        ("neg_scores", pa.list_(pa.float32())),
        ("neg_ranks", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True)
class Mined:
    """Negatives of n examples. offsets: int64 [n + 1]; documents int64, scores float32, ranks int64, all [offsets[n]]:
    numbers of documents, their similarity to the query, and their rank among all documents (as they were mined)."""

    offsets: np.ndarray
    documents: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray

    def check(self, examples: Examples) -> None:
        """Raises ValueError where the arrays do not fit each other or the examples."""
        total = len(self.documents)
        sizes = (len(self.offsets), len(self.scores), len(self.ranks))
        if sizes != (len(examples) + 1, total, total) or self.offsets[0] != 0 or self.offsets[-1] != total:
            raise ValueError(f"offsets, scores, ranks have {sizes} for {len(examples)} examples and {total} negatives")
        if np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets go down")
        if total and not 0 <= self.documents.min() <= self.documents.max() < len(examples.documents):
            raise ValueError(f"negatives are not among the {len(examples.documents)} documents")


def write_mined(path: str, examples: Examples, mined: Mined) -> None:
    """Write every example with its mined negatives to a .jsonl or .parquet file, whole or not at all.

    JSONL: query, pos, negs, id, dataset, neg_scores, neg_ranks; a content is its text or the path of its image, and
    {"text", "image"} where it has both, or is a text that would be taken for a path. Parquet: MMEB's columns. Both keep
    texts and paths as the data has them. Raises UserError for another suffix, and for an image without a name.
    """
    mined.check(examples)
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in writers:
        raise UserError(f"--output {path}: this kind of file is not written; expected {' or '.join(writers)}")
    for side in (examples.queries, examples.documents):
        _check_named(side)
    writers[suffix](path, examples, mined)


def _check_named(side: Side) -> None:
    """A content with an image is made of it; one that is not has no name to write."""
    for fields, rows in side.source.kinds().items():
        unnamed = next((row for row in rows if "image" in fields and not side.images[row]), None)
        if unnamed is not None:
            raise UserError(
                f"{side.source.id_of(unnamed)}: its image lies inside of a table and has no path to be written; give "
                "the folder of a data set as --data, whose images go by owner/name/split/doc_N.png"
            )


def _cell(side: Side, row: int) -> str | dict[str, str]:
    text, image = side.texts[row], side.images[row]
    if not text:
        return image
    if image:
        return {"text": text, "image": image}
    return {"text": text} if ends_as_image(text) else text


def _rows(examples: Examples, mined: Mined) -> Iterator[tuple[int, slice, list[int]]]:
    """(example, where its negatives are, their documents)."""
    for example in range(len(examples)):
        span = slice(int(mined.offsets[example]), int(mined.offsets[example + 1]))
        yield example, span, mined.documents[span].tolist()


def _write_jsonl(path: str, examples: Examples, mined: Mined) -> None:
    queries, documents = examples.queries, examples.documents
    with storage.atomic_write(path, "w") as stream:
        for example, span, negatives in _rows(examples, mined):
            row: dict[str, Any] = {
                "query": _cell(queries, examples.query[example]),
                "pos": _cell(documents, examples.positive[example]),
                "negs": [_cell(documents, negative) for negative in negatives],
                "id": examples.ids[example],
                "dataset": examples.datasets[examples.dataset[example]],
                "neg_scores": mined.scores[span].tolist(),
                "neg_ranks": mined.ranks[span].tolist(),
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(path: str, examples: Examples, mined: Mined) -> None:
    queries, documents = examples.queries, examples.documents
    rows: list[dict[str, Any]] = []
    with storage.atomic_write(path) as stream, pq.ParquetWriter(stream, _SCHEMA, compression="zstd") as writer:
        for example, span, negatives in _rows(examples, mined):
            query, positive = examples.query[example], examples.positive[example]
            rows.append(
                {
                    "id": examples.ids[example],
                    "dataset": examples.datasets[examples.dataset[example]],
                    "qry": queries.texts[query],
                    "qry_image_path": queries.images[query],
                    "pos_text": documents.texts[positive],
                    "pos_image_path": documents.images[positive],
                    "neg_text": [documents.texts[negative] for negative in negatives],
                    "neg_image_path": [documents.images[negative] for negative in negatives],
                    "neg_scores": mined.scores[span],
                    "neg_ranks": mined.ranks[span],
                }
            )
            if len(rows) == _CHUNK_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
