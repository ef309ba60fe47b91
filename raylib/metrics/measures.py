"""What a ranking is worth, query by query: MTEB's retrieval measures, to the bit, without MTEB.

The values come from ir-measures over pytrec_eval (trec_eval's own code), which MTEB uses too: documents are ordered
by score, as float32, and ties by document id, descending. The reciprocal rank is the one measure that MTEB computes
itself; it orders by the score in double precision, so it is computed apart here as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raylib.errors import UnknownNameError, UserError
from raylib.metrics.qrels import Qrels
from raylib.metrics.runs import Run

DEFAULT_MEASURES = (
    *("ndcg_at_1", "ndcg_at_5", "ndcg_at_10"),
    *("recall_at_1", "recall_at_5", "recall_at_10", "recall_at_100"),
    *("mrr_at_10", "map_at_10", "precision_at_10", "hit_rate_at_10"),
)
_FAMILIES = {
    "ndcg": "nDCG",
    "ndcg_linear": "nDCG",
    "ndcg_exponential": "nDCG",
    "map": "AP",
    "recall": "R",
    "precision": "P",
    "hit_rate": "Success",
    "mrr": "",
}
"""MTEB's name → ir-measures' name; "" where it is computed here."""
_EXPONENTIAL = "ndcg_exponential"


def per_query(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES) -> dict[str, dict[str, float]]:
    """Measure → query id → value, for the queries of `run` that `qrels` judges, in the order of `run`.

    measures: as MTEB spells them, family_at_k with family one of ndcg (gain = grade, discount log2), map, recall,
    precision, hit_rate, mrr; a document counts as relevant from grade 1. The two gains of nDCG have names of their own:
    ndcg_linear is ndcg; ndcg_exponential has the gain 2^grade − 1, which is the same for grades 0 and 1. A query with
    an empty ranking, or without a relevant document, scores 0. Equal to what MTEB computes for the query. Raises
    UserError for a measure there is not.
    """
    cutoffs = {name: parse_measure(name) for name in measures}
    judged = {query: documents for query, documents in run.items() if query in qrels}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(judged, 0.0) for name in cutoffs}
    plain = {name: parsed for name, parsed in cutoffs.items() if parsed[0] not in ("mrr", _EXPONENTIAL)}
    exponential = {name: parsed for name, parsed in cutoffs.items() if parsed[0] == _EXPONENTIAL}
    _add(values, plain, judged, qrels)
    _add(values, exponential, judged, {query: _gained(qrels[query]) for query in judged} if exponential else {})
    reciprocal = {name: cutoff for name, (family, cutoff) in cutoffs.items() if family == "mrr"}
    if reciprocal:
        for query, documents in judged.items():
            rank = _first_relevant(documents, qrels[query])
            for name, cutoff in reciprocal.items():
                values[name][query] = 1.0 / rank if rank and rank <= cutoff else 0.0
    return values


def _add(
    values: dict[str, dict[str, float]], measures: Mapping[str, tuple[str, int]], judged: Run, qrels: Qrels
) -> None:
    """Put what the library computes for `measures` (name → family, cutoff) into `values`."""
    if not measures or not judged:
        return
    import ir_measures

    names: dict[Any, list[str]] = {}
    for name, parsed in measures.items():
        names.setdefault(_measure(*parsed), []).append(name)
    evaluator = ir_measures.pytrec_eval.evaluator(list(names), {query: qrels[query] for query in judged})
    for metric in evaluator.iter_calc(judged):
        for name in names[metric.measure]:
            values[name][metric.query_id] = float(metric.value)


def _gained(judgements: Mapping[str, int]) -> dict[str, int]:
    """Grades whose linear gain is the exponential gain of the given ones; what is not relevant stays so."""
    return {document: 2**grade - 1 if grade > 0 else grade for document, grade in judgements.items()}


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Measure → mean over its queries, of what `per_query` gives; NaN where there is no query."""
    return {name: sum(v.values()) / len(v) if v else float("nan") for name, v in values.items()}


def parse_measure(name: str) -> tuple[str, int]:
    """ "ndcg_at_10" → ("ndcg", 10). Raises UserError for what is no measure."""
    family, at, cutoff = name.rpartition("_at_")
    if not at or family not in _FAMILIES:
        raise UnknownNameError("measure", name, DEFAULT_MEASURES, hint=f"There are {_spelled(_FAMILIES)}.")
    if not (cutoff.isascii() and cutoff.isdigit() and int(cutoff) > 0):
        raise UserError(f"measure {name!r}: the cutoff is {cutoff!r}; expected a positive number, as in {family}_at_10")
    return family, int(cutoff)


def _spelled(families: Iterable[str]) -> str:
    return ", ".join(f"{family}_at_K" for family in families)


def _measure(family: str, cutoff: int):
    import ir_measures

    return getattr(ir_measures, _FAMILIES[family]) @ cutoff


def _first_relevant(documents: Mapping[str, float], judgements: Mapping[str, int]) -> int:
    """The rank, from 1, of the first relevant document; 0 where there is none."""
    relevant = [(documents[d], d) for d, grade in judgements.items() if grade > 0 and d in documents]
    if not relevant:
        return 0
    best = max(relevant)
    return 1 + sum((score, document) > best for document, score in documents.items())
