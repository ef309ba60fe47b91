"""The score job: vectors or a run file, and judgements, to a ranking, measures per query and a summary."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UserError
from raylib.metrics.details import details_of
from raylib.metrics.measures import DEFAULT_MEASURES, means, parse_measure
from raylib.metrics.qrels import Qrels, read_qrels
from raylib.metrics.runs import Run, read_run, unfit_id, write_run
from raylib.score.config import ScoreConfig
from raylib.score.search import find, resolve_similarity
from raylib.score.vectors import Vectors, listed, open_vectors

RUN_FILE, QUERIES_FILE, SUMMARY_FILE = "run.trec", "queries.parquet", "summary.json"


@dataclass
class Outcome:
    """What was scored. queries: one row a scored query, in the columns of a details folder's queries.parquet. notes:
    what a reader should know, one line each."""

    run: Run
    read: dict[str, Any]
    search: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    where: tuple[str, str, str] = ("", "", "")
    """Task, split and subset, where the vectors' source names them."""

    queries: pa.Table = field(default_factory=lambda: pa.table({}))

    @property
    def values(self) -> dict[str, dict[str, float]]:
        """Measure → query id → value."""
        ids = self.queries.column("query_id").to_pylist()
        names = [f.name for f in self.queries.schema if f.type == pa.float64()]
        return {name: dict(zip(ids, self.queries.column(name).to_pylist(), strict=True)) for name in names}

    @property
    def means(self) -> dict[str, float]:
        return means(self.values)

    def summary(self) -> dict[str, Any]:
        """summary.json, JSON-able."""
        from raylib import __version__

        task, split, subset = self.where
        return {
            "measures": {name: None if math.isnan(value) else value for name, value in self.means.items()},
            "counts": self.counts,
            "notes": self.notes,
            "task": task,
            "split": split,
            "subset": subset,
            "read": self.read,
            "search": self.search,
            "raylib_version": __version__,
        }


def score(config: ScoreConfig) -> Outcome:
    """Score what `config` names and write the files of its output folder.

    Raises UserError for input that cannot be scored; nothing is written then.
    """
    config.check_complete()
    measures = config.metrics or list(DEFAULT_MEASURES)
    for name in measures:
        parse_measure(name)
    assert config.qrels is not None
    qrels = read_qrels(config.qrels)
    outcome = _score_run(config, qrels) if config.run is not None else _score_vectors(config, qrels)
    outcome.queries = details_of(*outcome.where[1:], outcome.run, qrels, 0, measures).queries
    outcome.counts["queries_scored"] = len(outcome.queries)
    _write(outcome, config)
    return outcome


def _score_vectors(config: ScoreConfig, qrels: Qrels) -> Outcome:
    assert config.queries is not None and config.documents is not None
    told = {"split": config.split, "subset": config.subset, "store": config.store}
    queries = open_vectors(config.queries, "query", config.query_ids, **told)
    documents = open_vectors(config.documents, "document", config.document_ids, **told)
    similarity = resolve_similarity(config.similarity, queries, documents)
    counts, notes = _check_judgements(qrels, set(queries.ids), set(documents.ids), config)
    run, quality = find(queries, documents, similarity, config.top_k, config.search_options())
    read = {"queries": _described(queries), "documents": _described(documents), "qrels": config.qrels}
    options = vars(config.search_options())
    search = {"similarity": str(similarity), "top_k": config.top_k, **options, "quality": quality}
    counts = {"queries": len(queries.ids), "documents": len(documents.ids), **counts}
    where = tuple(queries.described.get(name, "") for name in ("task", "split", "subset"))
    return Outcome(run, read, search, counts, notes, where)  # pyright: ignore[reportArgumentType]


def _score_run(config: ScoreConfig, qrels: Qrels) -> Outcome:
    assert config.run is not None
    run = read_run(config.run)
    counts = {"queries": len(run)}
    unjudged = [query for query in run if query not in qrels]
    absent = [query for query in qrels if query not in run]
    if len(unjudged) == len(run):
        raise UserError(
            f"none of the {len(run)} queries of {config.run} ({listed(run)}) is in {config.qrels} ({listed(qrels)}); "
            "expected the same ids in both"
        )
    notes = []
    _note(counts, notes, "run_queries_without_judgements", unjudged, "queries of the run without judgements, left out")
    if config.complete:
        run.update({query: {} for query in absent})
    fate = "counted as 0" if config.complete else "left out (--complete counts them as 0)"
    _note(
        counts, notes, "judged_queries_without_results", absent, f"judged queries without a result in the run, {fate}"
    )
    return Outcome(run, {"run": config.run, "qrels": config.qrels}, {}, counts, notes)


def _check_judgements(
    qrels: Qrels, queries: set[str], documents: set[str], config: ScoreConfig
) -> tuple[dict[str, int], list[str]]:
    """Counts and notes of ids that one side has and the other has not. Raises UserError where nothing is left."""
    counts: dict[str, int] = {"queries_judged": len(qrels)}
    notes: list[str] = []
    unknown = [query for query in qrels if query not in queries]
    if len(unknown) == len(qrels):
        raise UserError(
            f"none of the {len(qrels)} queries of {config.qrels} ({listed(qrels)}) is in {config.queries} "
            f"({listed(sorted(queries))}); expected the same ids in both"
        )
    judged = dict.fromkeys(d for query in qrels if query in queries for d in qrels[query])
    strange = [document for document in judged if document not in documents]
    if len(strange) == len(judged):
        raise UserError(
            f"none of the {len(judged)} documents that {config.qrels} judge ({listed(judged)}) is in "
            f"{config.documents} ({listed(sorted(documents))}); expected the same ids in both"
        )
    _note(counts, notes, "unknown_queries", unknown, "queries of the qrels without a vector, left out")
    text = "documents of the qrels without a vector, counted as not found"
    _note(counts, notes, "unknown_documents", strange, text)
    unjudged = sorted(queries - qrels.keys())
    _note(counts, notes, "queries_without_judgements", unjudged, "queries without judgements, ranked and not scored")
    return counts, notes


def _note(counts: dict[str, int], notes: list[str], name: str, ids: Iterable[str], text: str) -> None:
    ids = list(ids)
    counts[name] = len(ids)
    if ids:
        notes.append(f"{text}: {len(ids)} ({listed(ids)})")


def _described(side: Vectors) -> dict[str, Any]:
    contents = {"ids": len(side.ids), "contents": side.n_contents, "dim": side.dim}
    return {"path": side.path, **contents, "late_interaction": side.late, **side.described}


def _write(outcome: Outcome, config: ScoreConfig) -> None:
    folder = config.output_folder
    storage.make_folder(folder)
    unfit = unfit_id(outcome.run)
    if unfit is None:
        write_run(outcome.run, storage.join(folder, RUN_FILE), config.run_name)
    else:
        storage.remove(storage.join(folder, RUN_FILE))  # one of an earlier run is not of this one
        outcome.notes.append(f"{RUN_FILE} is not written: the id {unfit!r} holds white space, TREC's separator")
    with storage.atomic_write(storage.join(folder, QUERIES_FILE)) as stream:
        pq.write_table(outcome.queries, stream)
    storage.write_text(storage.join(folder, SUMMARY_FILE), json.dumps(outcome.summary(), indent=2) + "\n")
