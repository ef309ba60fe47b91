"""Runs: what a search found, as a mapping and as a TREC run file."""

from __future__ import annotations

import math

from raylib import storage
from raylib.errors import UserError
from raylib.metrics.lines import read_lines

Run = dict[str, dict[str, float]]
"""Query id → document id → score, the greater the better."""


def read_run(path: str) -> Run:
    """A TREC run file: `query Q0 document rank score name` a line, white space between.

    Scores count, ranks do not, as in trec_eval. Raises UserError, naming file and line, for a line of another form, a
    score that is no finite number, and a document that a query has twice.
    """
    run: Run = {}
    for number, line in read_lines(path, "run file"):
        columns = line.split()
        if len(columns) != 6:
            raise UserError(
                f"run file {path}, line {number}: {len(columns)} columns; "
                "expected 6: query id, Q0, document id, rank, score, name of the run"
            )
        query, _, document, _, text, _ = columns
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise UserError(f"run file {path}, line {number}: the score is {text!r}; expected a finite number")
        documents = run.setdefault(query, {})
        if document in documents:
            raise UserError(f"run file {path}, line {number}: query {query} has document {document} twice")
        documents[document] = score
    return run


def write_run(run: Run, path: str, name: str) -> None:
    """Write a TREC run file, best first, ties by document id, descending; scores so that they read back as they are.

    Raises UserError for an id that a column cannot hold (see `unfit_id`); nothing is written then.
    """
    unfit = unfit_id(run)
    if unfit is not None:
        raise UserError(f"{path}: the id {unfit!r} is empty or holds white space, which a TREC run file cannot")
    with storage.atomic_write(path, "w") as stream:
        for query, documents in run.items():
            best = sorted(documents.items(), key=lambda item: (item[1], item[0]), reverse=True)
            stream.writelines(f"{query} Q0 {d} {rank} {score!r} {name}\n" for rank, (d, score) in enumerate(best, 1))


def unfit_id(run: Run) -> str | None:
    """An id that cannot stand in a TREC run file, because it is empty or holds white space; None where all can."""
    for query, documents in run.items():
        for found in (query, *documents):
            if len(found.split()) != 1 or found.split()[0] != found:
                return found
    return None
