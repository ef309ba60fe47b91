"""Two runs, query by query: differences of a measure, a paired bootstrap interval, the queries that changed most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from raylib.errors import UnknownNameError, UserError
from raylib.score.config import CompareConfig
from raylib.score.sides import Key, Side, Values, read_side
from raylib.storage import write_text

CONFIDENCE = 0.95
_DEFAULT = "ndcg_at_5"
_BCA = 10_000
"""Most queries for BCa, whose time grows with their square; its correction shrinks with their root."""

_BATCH = 4_000_000
"""Resampled numbers that are held at a time, 32 MB."""


@dataclass(frozen=True)
class TaskDifference:
    """One task, split and subset, over the queries that both sides have. difference: mean_b - mean_a; low, high: its
    95 % interval, None where there is none (one query). better, worse, equal: queries, from A to B. only_a, only_b:
    queries that the other side lacks."""

    task: str
    split: str
    subset: str
    queries: int
    mean_a: float
    mean_b: float
    difference: float
    low: float | None
    high: float | None
    better: int
    worse: int
    equal: int
    only_a: int
    only_b: int


@dataclass(frozen=True)
class QueryChange:
    """One query, before and after."""

    task: str
    split: str
    subset: str
    query_id: str
    a: float
    b: float
    difference: float


@dataclass(frozen=True)
class Comparison:
    """a, b: names of the sides. changed: the greatest changes first. notes: one line each."""

    a: str
    b: str
    measure: str
    tasks: list[TaskDifference]
    changed: list[QueryChange]
    resamples: int
    seed: int
    confidence: float = CONFIDENCE
    notes: list[str] = field(default_factory=list)


def compare(config: CompareConfig) -> Comparison:
    """Compare the two sides that `config` names, and write its output files.

    Raises UserError where a side cannot be read or the two have no task, measure or query in common.
    """
    a, b = _sides(config)
    pairs, notes = _paired(a, b, config.tasks)
    measure = _measure(pairs, config.measure)
    tasks, changes = [], []
    for key, (values_a, values_b) in pairs.items():
        left, right = values_a.get(measure), values_b.get(measure)
        if left is None or right is None:
            notes.append(f"{_title(key)}: {measure} is not on both sides: left out")
            continue
        shared = [query for query in left if query in right]
        if not shared:
            notes.append(f"{_title(key)}: no query is on both sides: left out")
            continue
        tasks.append(_difference(key, left, right, shared, config))
        changes += [QueryChange(*key, q, left[q], right[q], right[q] - left[q]) for q in shared if left[q] != right[q]]
    if not tasks:
        raise UserError(f"{a.name} and {b.name} have nothing in common: {'; '.join(notes)}")
    changes.sort(key=lambda c: (-abs(c.difference), c.task, c.split, c.subset, c.query_id))
    chosen = changes[: config.changed]
    comparison = Comparison(a.name, b.name, measure, tasks, chosen, config.resamples, config.seed, notes=notes)
    for path in config.output:
        write_text(path, render_json(comparison) if path.endswith(".json") else render_markdown(comparison))
    return comparison


def paired_interval(differences: np.ndarray, resamples: int, seed: int) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the mean of `differences` [n], queries resampled with replacement.

    BCa (Efron, Better Bootstrap Confidence Intervals, 1987), or percentiles where BCa is not defined, or for so many
    queries that both say the same. One query tells nothing of others: None. Equal differences give an interval of one
    point.
    """
    if len(differences) < 2:
        return None
    if (differences == differences[0]).all():
        return float(differences[0]), float(differences[0])
    found = _bootstrap(differences, "BCa", resamples, seed) if len(differences) <= _BCA else None
    if found is None or not np.isfinite(found).all():
        found = _bootstrap(differences, "percentile", resamples, seed)
    return found


def _bootstrap(differences: np.ndarray, method: str, resamples: int, seed: int) -> tuple[float, float]:
    """NaN where the method is not defined for these numbers."""
    import warnings

    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's word for "not defined", which NaN says too
        found = bootstrap(
            (differences,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, _BATCH // len(differences)),
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)


def render_json(comparison: Comparison) -> str:
    return json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n"


def render_markdown(comparison: Comparison) -> str:
    """Two GitHub-flavoured tables; names are escaped."""
    c = comparison
    lines = [f"# {c.measure}: {_escape(c.b)} against {_escape(c.a)}", ""]
    lines += _markdown_table(*task_rows(c))
    if c.changed:
        lines += ["", "## Queries that changed most", "", *_markdown_table(*changed_rows(c))]
    lines += ["", f"A: {_escape(c.a)}. B: {_escape(c.b)}. {explanation(c)}", *(f"\n- {_escape(n)}" for n in c.notes)]
    return "\n".join(lines) + "\n"


def explanation(comparison: Comparison) -> str:
    """What the numbers are, in a sentence."""
    return (
        f"B − A: difference of the means of {comparison.measure} × 100 over the queries of both sides, with its 95 % "
        f"paired bootstrap interval ({comparison.resamples} resamples, seed {comparison.seed}). ↑/↓/=: queries "
        "that got better, worse, stayed. Only A/B: queries that the other side lacks."
    )


def task_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of the table of tasks."""
    heads = ["task", "queries", "A", "B", "B − A", "95 % interval", "↑/↓/=", "only A/B"]
    rows = []
    for t in comparison.tasks:
        between = "–" if t.low is None or t.high is None else f"{100 * t.low:+.2f} … {100 * t.high:+.2f}"
        numbers = [f"{100 * t.mean_a:.2f}", f"{100 * t.mean_b:.2f}", f"{100 * t.difference:+.2f}", between]
        counts = [f"{t.better}/{t.worse}/{t.equal}", f"{t.only_a}/{t.only_b}"]
        rows.append([_title((t.task, t.split, t.subset)), str(t.queries), *numbers, *counts])
    return heads, rows


def changed_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of the table of queries."""
    rows = [
        [_title((q.task, q.split, q.subset)), q.query_id, f"{q.a:.4f}", f"{q.b:.4f}", f"{q.difference:+.4f}"]
        for q in comparison.changed
    ]
    return ["task", "query", "A", "B", "B − A"], rows


def _sides(config: CompareConfig) -> tuple[Side, Side]:
    if len(config.model) > 2:
        raise UserError(f"--model names {len(config.model)} models; expected one or two")
    if config.b is None and len(config.model) < 2:
        raise UserError("one side was given; add the other, or --model with two models of one output folder")
    models: list[str | None] = [None, None]
    if config.model:
        models = [config.model[0], config.model[-1]]
    paths = [config.a, config.b if config.b is not None else config.a]
    a, b = (read_side(p, m, config.qrels, config.measure) for p, m in zip(paths, models, strict=True))
    if a.name == b.name and paths[0] != paths[1]:
        a, b = (Side(f"{path}: {side.name}", side.tables) for path, side in zip(paths, (a, b), strict=True))
    return a, b


def _paired(a: Side, b: Side, wanted: list[str]) -> tuple[dict[Key, tuple[Values, Values]], list[str]]:
    """The tables that both sides have, and notes of those that one has. Two single tables are a pair whatever their
    names."""
    tables_a, tables_b = ({k: v for k, v in s.tables.items() if not wanted or k[0] in wanted} for s in (a, b))
    for name in wanted:
        known = {key[0] for key in (*a.tables, *b.tables)}
        if name not in known:
            raise UnknownNameError("task", name, known, hint=f"There are: {', '.join(sorted(known))}.")
    if len(tables_a) == len(tables_b) == 1:
        (key_a, values_a), (key_b, values_b) = (next(iter(t.items())) for t in (tables_a, tables_b))
        if key_a == key_b or "" in (key_a[0], key_b[0]):
            return {max(key_a, key_b): (values_a, values_b)}, []
    shared = sorted(tables_a.keys() & tables_b.keys())
    notes = []
    for side, only in ((a, tables_a.keys() - tables_b.keys()), (b, tables_b.keys() - tables_a.keys())):
        notes += [f"{_title(key)} is only in {side.name}: left out" for key in sorted(only)]
    if not shared:
        raise UserError(f"{a.name} and {b.name} have no task, split and subset in common: {'; '.join(notes)}")
    return {key: (tables_a[key], tables_b[key]) for key in shared}, notes


def _measure(pairs: Mapping[Key, tuple[Values, Values]], asked: str | None) -> str:
    """The measure to compare. Raises UserError where no pair has it on both sides."""
    shared = list(dict.fromkeys(name for left, right in pairs.values() for name in left if name in right))
    if not shared:
        raise UserError("the two sides have no measure in common")
    if asked is None:
        return _DEFAULT if _DEFAULT in shared else shared[0]
    if asked not in shared:
        raise UnknownNameError("measure of both sides:", asked, shared, hint=f"Both have {', '.join(shared)}.")
    return asked


def _difference(
    key: Key, left: Mapping[str, float], right: Mapping[str, float], shared: list[str], config: CompareConfig
) -> TaskDifference:
    a, b = np.array([left[q] for q in shared]), np.array([right[q] for q in shared])
    difference = b - a
    low, high = paired_interval(difference, config.resamples, config.seed) or (None, None)
    return TaskDifference(
        *key,
        queries=len(shared),
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=float(difference.mean()),
        low=low,
        high=high,
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        equal=int((difference == 0).sum()),
        only_a=len(left) - len(shared),
        only_b=len(right) - len(shared),
    )


def _title(key: Key) -> str:
    return " ".join(part for part in key if part and part != "default") or "all queries"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, also within a table."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#|~!" else " " if c in "\r\n" else c for c in text)


def _markdown_table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|" + ":---|" + "---:|" * (len(heads) - 1),
        *("| " + " | ".join(map(_escape, row)) + " |" for row in rows),
    ]
