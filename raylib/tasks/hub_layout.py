"""Writes a retrieval data set to a folder the way the hub holds one: README.md with `configs:`, and Parquet files.

`datasets.load_dataset(folder, config, split=...)`, and so every MTEB task, reads such a folder. Pages are PNG bytes
in the structure that `datasets` calls an Image feature.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The Arrow form of a `datasets.Image`."""

ROWS_PER_GROUP = 100
"""Rows per Parquet row group: what `datasets` writes for images, so that a reader never holds many pages at once."""


class HubFolder:
    """One data set being written: `add` each config, then `finish`, which writes the README and makes it readable.

    A config holds one split here: the file is `<config>/<split>.parquet`.
    """

    def __init__(self, folder: str, split: str = "test") -> None:
        self.folder, self.split = folder, split
        self.configs: list[str] = []

    def add(self, config: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write one config. The column `image` holds PNG bytes, `score` ints, all others strings or ids as given."""
        table = pa.table({name: _column(name, values) for name, values in columns.items()})
        features = {name: _feature(table.schema.field(name).type) for name in table.column_names}
        metadata = {"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)}
        path = storage.join(self.folder, config, f"{self.split}.parquet")
        with storage.atomic_write(path) as stream:
            pq.write_table(table.replace_schema_metadata(metadata), stream, row_group_size=ROWS_PER_GROUP)
        self.configs.append(config)

    def finish(self, about: str) -> None:
        """Write README.md, last: a folder with a README is complete. about: Markdown for the person who opens it."""
        listed = "".join(_config_entry(config, self.split) for config in self.configs)
        storage.write_text(storage.join(self.folder, "README.md"), f"---\nconfigs:\n{listed}---\n\n{about.strip()}\n")


def is_complete(folder: str) -> bool:
    """Whether `HubFolder.finish` was reached in this folder."""
    return storage.exists(storage.join(folder, "README.md"))


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    if name == "image":
        return pa.array([{"bytes": value, "path": None} for value in values], type=IMAGE_TYPE)
    if name == "score":
        return pa.array(values, type=pa.int64())
    return pa.array(values)


def _feature(arrow_type: pa.DataType) -> dict[str, str]:
    """The description that `datasets` keeps of a column, which makes it decode images."""
    if arrow_type == IMAGE_TYPE:
        return {"_type": "Image"}
    return {"_type": "Value", "dtype": str(arrow_type)}


def _config_entry(config: str, split: str) -> str:
    return f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {config}/{split}.parquet\n"


def retrieval_columns(
    queries: Iterable[tuple[str, str]], relevant: Iterable[tuple[str, str, int]]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """(query id, text) pairs and (query id, page id, grade) triples → the columns of `queries` and of `qrels`."""
    ids, texts = zip(*queries, strict=True)
    query_ids, page_ids, grades = zip(*relevant, strict=True)
    return (
        {"query-id": list(ids), "query": list(texts)},
        {"query-id": list(query_ids), "corpus-id": list(page_ids), "score": list(grades)},
    )
