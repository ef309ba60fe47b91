"""Tables of probes, under the names and with the columns that HALP's analysis scripts gave, intervals beside them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from raylib import storage
from raylib.evaluate.report import escape_markdown
from raylib.probe.results import CLASSIFIERS, GroupScores, ProbeResult
from raylib.store.representations import KINDS

SUMMARY, ANALYSIS, REPORT = "test_auroc_summary.csv", "analysis_summary.json", "analysis_report.md"
_FILES = {
    "source": "source_auroc.csv",
    "hallucination_type": "basic_hallucination_type_auroc.csv",
    "domain": "domain_type_auroc.csv",
}
_HEADS = {"category": "category", "source": "source_dataset"}
"""Of the first column; "type" in every other file."""
_COUNTS = ["num_samples", "num_hallucination", "num_no_hallucination", "auroc", "note", "auroc_low", "auroc_high"]
_MANY = 20
"""Of more categories than twice this, the report shows so many of the best and of the worst."""


def write_tables(folder: str, results: Sequence[ProbeResult], best: ProbeResult) -> None:
    """Write to `folder` test_auroc_summary.csv of all probes, and of the best the tables by group, analysis_report.md
    and analysis_summary.json."""
    storage.write_text(
        storage.join(folder, SUMMARY), _csv(["Probe Name", "Test AUROC", "Train AUROC"], _summary(results))
    )
    write_group_tables(folder, best)
    storage.write_text(storage.join(folder, REPORT), render_markdown(results, best))
    storage.write_text(storage.join(folder, ANALYSIS), json.dumps(_analysis(results, best), indent=2) + "\n")


def write_group_tables(folder: str, result: ProbeResult) -> None:
    """Write one file for each column that the test rows are told apart by: category_auroc.csv, source_auroc.csv, …"""
    for column, groups in result.by.items():
        rows = [
            [g.name, g.rows, g.positives, g.rows - g.positives, g.auroc, g.why, *(g.interval or (None, None))]
            for g in by_auroc(groups)
        ]
        path = storage.join(folder, group_file(column))
        storage.write_text(path, _csv([_HEADS.get(column, "type"), *_COUNTS], rows))


def group_file(column: str) -> str:
    """The file of the groups of a column: domain_type_auroc.csv for domain_type. A column may have any name; what a
    file's name should not have is a dash in it."""
    return _FILES.get(column, f"{re.sub(r'[^A-Za-z0-9_]+', '-', column)[:80]}_auroc.csv")


def in_order(results: Iterable[ProbeResult]) -> list[ProbeResult]:
    """As the old table has them: vision only, then each kind by layer; the logistic ones after all others."""

    def key(result: ProbeResult) -> tuple[int, int, int]:
        layer = result.representation.layer
        kind = KINDS.index(result.representation.kind)
        return CLASSIFIERS.index(result.classifier), kind, -1 if layer is None else layer

    return sorted(results, key=key)


def by_auroc(groups: Iterable[GroupScores]) -> list[GroupScores]:
    """From the highest AUROC down, those without one last; equal ones by name."""
    return sorted(groups, key=lambda g: (g.auroc is None, -(g.auroc or 0.0), g.name))


def old_title(result: ProbeResult) -> str:
    """As in the old table: Query Token - Layer 24."""
    layer = result.representation.layer
    title = result.representation.kind.replace("_", " ").title() + ("" if layer is None else f" - Layer {layer}")
    return title + ("" if result.classifier == "mlp" else f" ({result.classifier})")


def _summary(results: Sequence[ProbeResult]) -> list[list[str]]:
    def score(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    return [[old_title(r), score(r.test.auroc), score(r.train.auroc)] for r in in_order(results)]


def _csv(head: list[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if v is None else float(v) if hasattr(v, "dtype") else v for v in row] for row in rows)
    return stream.getvalue()


def _analysis(results: Sequence[ProbeResult], best: ProbeResult) -> dict[str, Any]:
    return {
        "model_name": best.model_name,
        "embedding_type": best.representation.old_kind,
        "layer_name": best.representation.layer_name,
        "probe_dir": best.name,
        "overall_auroc": best.test.auroc,
        "test_samples": best.test.rows,
        "num_categories_analyzed": len(best.by.get("category", [])),
        "num_sources_analyzed": len(best.by.get("source", [])),
        "checkpoint_path": f"{best.name}/probe_model.pt",
        "overall_auroc_interval": best.test.interval,
        "chosen_by": "test" if best.validation is None else "validation",
        "target_column": best.target,
        "classifier": best.classifier,
        "split": vars(best.split),
        "analysis_types": list(best.by),
        "probes": {
            r.name: {
                "test_auroc": r.test.auroc,
                "test_auroc_interval": r.test.interval,
                "validation_auroc": None if r.validation is None else r.validation.auroc,
                "train_auroc": r.train.auroc,
            }
            for r in in_order(results)
        },
    }


def render_markdown(results: Sequence[ProbeResult], best: ProbeResult) -> str:
    """analysis_report.md: the best probe over all test rows and by group, then all probes. Names are escaped."""
    chosen = "the test rows: none were held out" if best.validation is None else "its validation AUROC"
    lines = ["# Probe analysis", ""]
    lines += [f"**Model:** {_cell(best.model_name)}  ", f"**Target:** {_cell(best.target)}  "]
    lines += [f"**Probe:** {_cell(best.title)}, chosen by {chosen}  "]
    lines += [f"**Split:** {best.split.kind}, {best.split.test_rows} test rows, of which {best.split.shared_images} "]
    lines[-1] += "share their image with a training row"
    lines += ["", "## Overall performance", "", f"**Test AUROC:** {_score(best.test.auroc, best.test.interval)}", ""]
    for column, groups in best.by.items():
        lines += _group_lines(column.replace("_", " "), by_auroc(groups))
    lines += ["## All probes", "", "| Probe | Test AUROC | Validation AUROC | Train AUROC |", "|:---|---:|---:|---:|"]
    for r in in_order(results):
        held_out = "–" if r.validation is None else _score(r.validation.auroc)
        test = _score(r.test.auroc, r.test.interval)
        lines.append(f"| {_cell(r.title)} | {test} | {held_out} | {_score(r.train.auroc)} |")
    return "\n".join(lines) + "\n"


def _group_lines(title: str, groups: list[GroupScores]) -> list[str]:
    known = [g for g in groups if g.auroc is not None]
    parts = {f"Performance by {title}": known}
    if len(known) > 2 * _MANY:
        parts = {f"The best {_MANY} by {title}": known[:_MANY], f"The worst {_MANY} by {title}": known[-_MANY:]}
    lines = []
    for head, shown in parts.items():
        lines += [f"## {_cell(head)}", "", f"| {_cell(title)} | AUROC | Rows | Positives | Negatives |"]
        lines += ["|:---|---:|---:|---:|---:|"]
        for g in shown:
            score = _score(g.auroc, g.interval)
            lines.append(f"| {_cell(g.name)} | {score} | {g.rows} | {g.positives} | {g.rows - g.positives} |")
        lines.append("")
    without = [g for g in groups if g.auroc is None]
    if without:
        lines += [f"Without an AUROC: {'; '.join(f'{_cell(g.name)} ({_cell(g.why) or g.rows})' for g in without)}"]
        lines.append("")
    return lines


def _score(value: float | None, interval: tuple[float, float] | None = None) -> str:
    text = "–" if value is None else f"{value:.4f}"
    return text + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval and value is not None else "")


def _cell(text: str) -> str:
    """A name as one line of Markdown."""
    return escape_markdown(" ".join(text.split()))
