"""Judgements: which documents answer a query, and how well. TREC, BEIR and Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UserError
from raylib.metrics.lines import read_lines

Qrels = dict[str, dict[str, int]]
"""Query id → document id → grade; from 1 on a document is relevant."""

_NAMES = {
    "query": ("query-id", "query_id", "qid", "query"),
    "document": ("corpus-id", "corpus_id", "document-id", "document_id", "doc-id", "doc_id", "docid", "document"),
    "grade": ("score", "relevance", "grade", "label"),
}
"""Heads of columns, as BEIR, MTEB and ir_datasets name them."""


def read_qrels(path: str) -> Qrels:
    """Judgements from a file. The form is seen from the file:

    - Parquet (.parquet): a column for the query (query-id), the document (corpus-id) and the grade (score);
    - BEIR: a header with such names, tabs between columns;
    - TREC: `query iteration document grade` a line, white space between.

    Raises UserError, naming file and line, for anything else, for a grade that is no whole number, and for a pair
    that is judged twice and differently.
    """
    rows = _parquet_rows(path) if path.endswith((".parquet", ".pq")) else _text_rows(path)
    qrels: Qrels = {}
    for where, query, document, grade in rows:
        judged = qrels.setdefault(query, {})
        if judged.setdefault(document, grade) != grade:
            raise UserError(
                f"qrels {path}, {where}: query {query} and document {document} are judged {grade} here and "
                f"{judged[document]} before; expected one judgement a pair"
            )
    if not qrels:
        raise UserError(f"qrels {path} hold no judgement")
    return qrels


def _text_rows(path: str) -> Iterator[tuple[str, str, str, int]]:
    lines = read_lines(path, "qrels")
    number, first = next(lines)
    heads = [head.strip().lower() for head in first.split("\t")]
    if len(heads) >= 3 and _column("query", heads) is not None:
        yield from _beir_rows(path, heads, lines)
        return
    yield _trec_row(path, number, first)
    for number, line in lines:
        yield _trec_row(path, number, line)


def _beir_rows(path: str, heads: list[str], lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, str, str, int]]:
    query, document, grade = _columns(path, heads)
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) != len(heads):
            raise UserError(
                f"qrels {path}, line {number}: {len(cells)} columns; expected {len(heads)}, with tabs between, "
                f"as in the header ({', '.join(heads)})"
            )
        where = f"line {number}"
        yield where, cells[query].strip(), cells[document].strip(), _grade(path, where, cells[grade])


def _trec_row(path: str, number: int, line: str) -> tuple[str, str, str, int]:
    cells, where = line.split(), f"line {number}"
    if len(cells) != 4:
        raise UserError(
            f"qrels {path}, {where}: {len(cells)} columns; expected TREC's 4 (query id, iteration, document id, "
            "grade), or BEIR's header query-id, corpus-id, score in the first line, with tabs between"
        )
    return where, cells[0], cells[2], _grade(path, where, cells[3])


def _parquet_rows(path: str) -> Iterator[tuple[str, str, str, int]]:
    try:
        with storage.open_input(path) as source:
            table = pq.read_table(source)
    except OSError as error:
        raise UserError(f"qrels {path} cannot be read: {' '.join(str(error).split())}") from error
    except pa.ArrowException as error:
        raise UserError(f"qrels {path} are no Parquet file: {' '.join(str(error).split())}") from error
    at = _columns(path, [name.lower() for name in table.column_names])
    for row, values in enumerate(zip(*(table.column(i).to_pylist() for i in at), strict=True)):
        where = f"row {row}"
        if None in values:
            raise UserError(
                f"qrels {path}, {where}: query {values[0]}, document {values[1]}, grade {values[2]}: a null"
            )
        yield where, str(values[0]), str(values[1]), _grade(path, where, values[2])


def _columns(path: str, heads: list[str]) -> tuple[int, int, int]:
    """Where the query, the document and the grade are. Raises UserError where one is not."""
    found = {what: _column(what, heads) for what in _NAMES}
    missing = [f"{what} (one of {', '.join(_NAMES[what])})" for what, at in found.items() if at is None]
    if missing:
        raise UserError(f"qrels {path} have the columns {', '.join(heads)}; no column for {'; '.join(missing)}")
    query, document, grade = (at for at in found.values() if at is not None)
    return query, document, grade


def _column(what: str, heads: list[str]) -> int | None:
    return next((heads.index(name) for name in _NAMES[what] if name in heads), None)


def _grade(path: str, where: str, value: Any) -> int:
    """A whole number, also where it is written as 1.0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number.is_integer():
        return int(number)
    text = value.strip() if isinstance(value, str) else value
    raise UserError(f"qrels {path}, {where}: the grade is {text!r}; expected a whole number")
