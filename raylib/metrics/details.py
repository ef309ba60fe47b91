"""What a score is made of, kept beside it: a retrieval task's rankings, measures per query and contents' keys.

    <result folder>/details/<Task>/rankings.parquet   split, subset, query_id, rank, document_id, score, relevance
    <result folder>/details/<Task>/queries.parquet    split, subset, query_id, n_relevant, one column per measure
    <result folder>/details/<Task>/contents.parquet   split, subset, role, id, key; metadata: store, fingerprint, model,
                                                      similarity; absent for a model that has no vectors

rankings.parquet is written last, so that where it is the others are. MTEB's readers take only .json files of the result
folder itself and do not see any of this.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UserError
from raylib.metrics.measures import DEFAULT_MEASURES, per_query

if TYPE_CHECKING:
    from raylib.metrics.qrels import Qrels
    from raylib.metrics.runs import Run

FOLDER = "details"
KEY_BYTES = 32

_PART = [("split", pa.string()), ("subset", pa.string())]
RANKINGS = pa.schema(
    [
        *_PART,
        ("query_id", pa.string()),
        ("rank", pa.int32()),
        ("document_id", pa.string()),
        ("score", pa.float32()),
        ("relevance", pa.int32()),
    ]
)
"""rank counts from 1; relevance is the judged grade, null for a document that is not judged."""

CONTENTS = pa.schema([*_PART, ("role", pa.string()), ("id", pa.string()), ("key", pa.binary(KEY_BYTES))])
"""role: "query" or "document". key: the content's name in the embedding store."""

_FILES = ("contents", "queries", "rankings")


@dataclass
class Details:
    """The tables of one task, all its splits and subsets. contents is None for a model without vectors."""

    rankings: pa.Table
    queries: pa.Table
    contents: pa.Table | None = None


def details_folder(result_folder: str, task_name: str) -> str:
    return storage.join(result_folder, FOLDER, task_name)


def details_of(
    split: str, subset: str, run: Run, qrels: Qrels, keep: int, measures: Sequence[str] = DEFAULT_MEASURES
) -> Details:
    """The details of one subset, without contents. keep: documents per query, the best; ties go to the greater id, as
    in MTEB's metrics. Measures are those of the whole ranking."""
    ranked: dict[str, list] = {name: [] for name in RANKINGS.names[2:]}
    for query_id, scores in run.items():
        judged = qrels.get(query_id, {})
        best = heapq.nlargest(keep, scores.items(), key=lambda item: (item[1], item[0]))
        for rank, (document_id, score) in enumerate(best, 1):
            row = (query_id, rank, document_id, score, judged.get(document_id))
            for column, value in zip(ranked.values(), row, strict=True):
                column.append(value)
    found = per_query(run, qrels, measures)
    ids = [query_id for query_id in run if query_id in qrels]
    relevant = [sum(grade > 0 for grade in qrels[query_id].values()) for query_id in ids]
    queries: dict[str, pa.Array] = {
        "query_id": pa.array(ids, pa.string()),
        "n_relevant": pa.array(relevant, pa.int32()),
    }
    queries |= {name: pa.array([by_query[q] for q in ids], pa.float64()) for name, by_query in found.items()}
    return Details(_placed(split, subset, ranked).cast(RANKINGS), _placed(split, subset, queries))


def contents_of(
    sides: Mapping[tuple[str, str, str], tuple[Sequence[str], Sequence[bytes]]], metadata: Mapping[str, str]
) -> pa.Table:
    """(split, subset, role) → (ids, keys) as the table of contents."""
    parts = []
    for (split, subset, role), (ids, keys) in sides.items():
        columns = {"role": [role] * len(ids), "id": list(ids), "key": pa.array(list(keys), pa.binary(KEY_BYTES))}
        parts.append(_placed(split, subset, columns).cast(CONTENTS))
    table = pa.concat_tables(parts) if parts else CONTENTS.empty_table()
    return table.replace_schema_metadata(dict(metadata))


def _placed(split: str, subset: str, columns: Mapping[str, list | pa.Array]) -> pa.Table:
    n = len(next(iter(columns.values())))
    place = {"split": pa.array([split] * n, pa.string()), "subset": pa.array([subset] * n, pa.string())}
    return pa.table({**place, **columns})


def join_details(parts: Sequence[Details]) -> Details:
    """The details of several subsets as one; measures that some lack are null there. Contents of the first part that
    has any decide: others are joined where they name the same store and encoder."""
    contents = [part.contents for part in parts if part.contents is not None]
    alike = [table for table in contents if table.schema.metadata == contents[0].schema.metadata]
    return Details(
        pa.concat_tables([part.rankings for part in parts]),
        pa.concat_tables([part.queries for part in parts], promote_options="default"),
        pa.concat_tables(alike) if alike else None,
    )


def places(details: Details) -> set[tuple[str, str]]:
    """Every (split, subset) of the queries."""
    parts = details.queries.select(["split", "subset"]).group_by(["split", "subset"]).aggregate([]).to_pylist()
    return {(part["split"], part["subset"]) for part in parts}


def without(details: Details, gone: set[tuple[str, str]]) -> Details:
    """The same but for these (split, subset)."""

    def kept(table: pa.Table) -> pa.Table:
        where = zip(table["split"].to_pylist(), table["subset"].to_pylist(), strict=True)
        return table.filter(pa.array([place not in gone for place in where], pa.bool_()))

    contents = None if details.contents is None else kept(details.contents)
    return Details(kept(details.rankings), kept(details.queries), contents)


def write_details(folder: str, details: Details, keep: int) -> None:
    """Write the files of one task in place of those that are there. keep: documents per query, noted in the file.
    Raises UserError where the folder cannot be written to."""
    remove_details(folder)
    rankings = details.rankings.replace_schema_metadata({"keep": str(keep)})
    for name, table in zip(_FILES, (details.contents, details.queries, rankings), strict=True):
        if table is not None:
            with storage.atomic_write(_file(folder, name)) as stream:
                pq.write_table(table, stream, compression="zstd")


def read_details(folder: str) -> Details:
    """The details of one task. Raises UserError where there are none, or where a file cannot be read."""
    if not storage.exists(_file(folder, "rankings")):
        raise UserError(
            f"{folder} holds no rankings.parquet; raylib evaluate writes it for retrieval tasks, with --keep-rankings "
            "above 0"
        )
    contents = _read(folder, "contents") if storage.exists(_file(folder, "contents")) else None
    return Details(_read(folder, "rankings"), _read(folder, "queries"), contents)


def kept_rankings(folder: str) -> int:
    """How many documents per query are kept there; 0 where nothing is, or nothing that can be read."""
    try:
        with storage.open_input(_file(folder, "rankings")) as source:
            return int((pq.read_schema(source).metadata or {})[b"keep"])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return 0


def remove_details(folder: str) -> None:
    """Delete the details of one task, rankings first: a folder without them counts as empty."""
    for name in reversed(_FILES):
        storage.remove(_file(folder, name))


def _file(folder: str, name: str) -> str:
    return storage.join(folder, f"{name}.parquet")


def _read(folder: str, name: str) -> pa.Table:
    try:
        with storage.open_input(_file(folder, name)) as source:
            return pq.read_table(source)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{_file(folder, name)} cannot be read ({why}). Delete it and evaluate again.") from error
