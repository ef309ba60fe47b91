"""The leaderboard: every result under a folder as Markdown, as one self-contained HTML page and on the terminal.

Names come from result files, which may come from anyone: every form escapes them in its own way.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib.evaluate.groups import group_tables
from raylib.evaluate.ranking import MAIN, MISSING, Cell, Column, Report, Row, format_score, rank
from raylib.evaluate.result_files import ModelScores, read_folder
from raylib.evaluate.results import NO_REVISION
from raylib.storage import join, write_text

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.console import Console

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[ _-])")
"""Between the words of a name such as VidoreArxivQARetrieval, after a space, a dash or an underscore."""


def build_report(folder: str | Path) -> Report:
    """Every result under `folder`, raylib's or MTEB's (see result_files.read_folder), ranked.

    A broken file is in the report's `problems` and stops nothing. Raises UserError where there is no such folder.
    """
    return rank(read_folder(folder))


def write_leaderboard(report: Report, folder: str | Path) -> tuple[str, str]:
    """Write leaderboard.md and the self-contained leaderboard.html; returns their paths."""
    markdown, html = join(folder, "leaderboard.md"), join(folder, "leaderboard.html")
    write_text(markdown, render_markdown(report))
    write_text(html, render_html(report))
    return markdown, html


def render_markdown(report: Report) -> str:
    """The leaderboard as a GitHub-flavoured table; every name is escaped."""
    view = report.view()
    tasks = [escape_markdown(column_title(column)) for column in report.columns]
    heads = ["#", "Model", "Revision", *mean_titles(report), *tasks]
    lines = ["# Leaderboard", "", "Main score of each task × 100. **Bold**: best of its column.", ""]
    if view.rows:
        lines += ["| " + " | ".join(heads) + " |", "|---:|:---|:---|" + "---:|" * (len(heads) - 3)]
    for row in view.rows:
        name = escape_markdown(model_title(row.model)) + "".join(f" _({mark})_" for mark in row_marks(report, row))
        scores = [
            (f"**{format_score(cell.value)}**" if cell.best else format_score(cell.value))
            + (f" ({escape_markdown(cell.note)})" if cell.note else "")
            for cell in _scores(report, row)
        ]
        line = [str(row.rank or MISSING), name, escape_markdown(revision_title(row.model)) or MISSING, *scores]
        lines.append("| " + " | ".join(line) + " |")
    if not view.rows:
        lines.append("There are no results yet.")
    lines += [f"\n{escape_markdown(provenance(report))}"] if provenance(report) else []
    for table in group_tables(report):
        lines += ["", f"## {escape_markdown(table.title)}", "", "| Model | " + " | ".join(table.heads) + " |"]
        lines += ["|:---|" + "---:|" * len(table.heads)]
        lines += [f"| {escape_markdown(model_title(model))} | {' | '.join(cells)} |" for model, cells in table.rows]
    for title, items in report_lists(report):
        lines += ["", f"## {title}", "", *(f"- {escape_markdown(item)}" for item in items)]
    return "\n".join(lines) + "\n"


def mean_titles(report: Report) -> list[str]:
    """Heads of the columns of means: over the tasks that all models share, where these are not all, and over all."""
    shared, total = report.view().shared, len(report.columns)
    return ([f"Mean of {shared} shared"] if 0 < shared < total else []) + [f"Mean of {total}"]


def _scores(report: Report, row: Row) -> list[Cell]:
    """The cells of a row under mean_titles and the tasks; a mean over some of the tasks has "n/m" as its note."""
    total = len(report.columns)
    note = "" if row.mean.complete or not row.count else f"{row.count}/{total}"
    means = [row.shared_mean] * (len(mean_titles(report)) - 1) + [replace(row.mean, note=note)]
    return [*means, *row.cells]


def provenance(report: Report) -> str:
    """Dates and versions of MTEB that the results name, and what data they are on where none is official."""
    data = {column.data for column in report.columns}
    local = [f"on {' and '.join(sorted(data))}, not official"] if data and "" not in data else []
    return " · ".join([*local, *([report.provenance] if report.provenance else [])])


def report_lists(report: Report) -> list[tuple[str, list[str]]]:
    """(title, lines) of what is to be told below the table; only what there is."""
    failures = [
        f"{f.model}{f' ({f.variant})' if f.variant else ''}{f', {f.task}' if f.task else ''}: "
        + f.error.removeprefix(f"{f.model}: ")
        for f in report.failures
    ]
    problems = [f"{problem.path}: {problem.reason}" for problem in report.problems]
    lists = [("Failed", failures), ("Files that could not be read", problems), ("Notes", report.notes)]
    return [(title, items) for title, items in lists if items]


def column_title(column: Column) -> str:
    return column.task + (f" ({column.data})" if column.data else "")


def model_title(model: ModelScores) -> str:
    return model.model + (f" [{model.variant}]" if model.variant else "")


def _short_titles(report: Report) -> dict[int, str]:
    """By id() of each of report.models, a name that tells it from the others and is no longer than that needs."""
    models = report.models
    short = [model_title(m).removeprefix(m.model.rpartition("/")[0]).lstrip("/") for m in models]
    full = [model_title(m) for m in models]
    exact = [f"{title} @ {m.revision[:12]}" for title, m in zip(full, models, strict=True)]
    choices = zip(models, short, full, exact, strict=True)
    return {id(m): s if short.count(s) == 1 else f if full.count(f) == 1 else e for m, s, f, e in choices}


def revision_title(model: ModelScores) -> str:
    """The first 12 characters of a revision, enough of a commit; "" where MTEB knows none."""
    return "" if model.revision == NO_REVISION else model.revision[:12]


def row_marks(report: Report, row: Row) -> list[str]:
    """What to know of a row. That no result is official is said once, not in every row."""
    some_official = any(column.official for column in report.columns)
    marks = {"untrained": row.untrained, "not official": some_official and not row.official}
    return [mark for mark, holds in marks.items() if holds]


def escape_markdown(text: str) -> str:
    """Plain text for Markdown: nothing in it can end a cell, start HTML, a link or an emphasis."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", lambda match: "\\" + match[0], text)


def print_leaderboard(report: Report, console: Console) -> None:
    """Print the table to a rich console: as many tasks as fit its width, then what failed and what is broken."""
    from rich.table import Table
    from rich.text import Text

    view, titles = report.view(), _short_titles(report)
    names = [
        Text(titles[id(row.model)]).append("".join(f" · {mark}" for mark in row_marks(report, row)), style="dim")
        for row in view.rows
    ]
    heads = [*mean_titles(report), *(column_title(column) for column in report.columns)]
    name_width = min(max([len(name) for name in names] + [5]), max(24, console.width // 3))
    shown = max(1, (console.width - name_width - 7) // (_TERMINAL_COLUMN + 2))
    table = Table(title="Leaderboard", title_justify="left", title_style="bold", header_style="dim", box=None)
    table.add_column("#", justify="right", style="dim")
    table.add_column("Model", overflow="fold", width=name_width)
    folded = [_fold(head) for head in heads[:shown]]
    height = max(len(lines) for lines in folded)
    for lines in folded:  # heads stand on the line above the scores
        table.add_column(Text("\n".join([""] * (height - len(lines)) + lines)), justify="right", no_wrap=True)
    for row, name in zip(view.rows, names, strict=True):
        cells = []
        for cell in _scores(report, row)[:shown]:
            text = Text(format_score(cell.value), style="bold green" if cell.best else "")
            note = cell.note.removesuffix(" splits and subsets")
            cells.append(text.append(f" {note}" if note else "", style="dim"))
        table.add_row(str(row.rank or MISSING), name, *cells)
    console.print(table if view.rows else "There are no results yet.")
    notes = [provenance(report)] if provenance(report) else []
    if len(heads) > shown:
        notes.append(f"{len(heads) - shown} more columns are in leaderboard.html and leaderboard.md")
    console.print(Text(" · ".join(notes), style="dim"))
    for groups in group_tables(report):
        table = Table(title=groups.title, title_justify="left", title_style="bold", header_style="dim", box=None)
        table.add_column("Model", overflow="fold", width=name_width)
        for head in groups.heads:
            table.add_column(head, justify="right")
        for model, cells in groups.rows:
            table.add_row(Text(titles[id(model)]), *cells)
        console.print(table)
    for title, items in report_lists(report):
        console.print(Text(title, style="yellow" if title == "Notes" else "bold red"))
        for item in items:
            console.print(Text(f"  {item}"), soft_wrap=True)


_TERMINAL_COLUMN = 12  # characters: the widest score with its mark, and most words of a task's name


def _fold(head: str) -> list[str]:
    """A head in lines of at most _TERMINAL_COLUMN characters, broken between words: Vidore2, ESGReports, Retrieval."""
    lines = [""]
    for word in _WORDS.split(head):
        for piece in (word[i : i + _TERMINAL_COLUMN] for i in range(0, len(word), _TERMINAL_COLUMN)):
            if lines[-1] and len(lines[-1]) + len(piece) > _TERMINAL_COLUMN:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines]


def render_html(report: Report) -> str:
    """The leaderboard as one page that needs no network: sortable, with a choice of metric and scores by language."""
    from importlib.resources import files

    import jinja2

    template = files("raylib.evaluate").joinpath("templates", "leaderboard.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"score": format_score, "metric": metric_title, "width": _bar_width, "breakable": _breakable}
    view, titles = report.view(), _short_titles(report)
    return environment.from_string(template).render(
        report=report,
        view=view,
        column_title=column_title,
        marks=row_marks,
        revision_title=revision_title,
        provenance=provenance(report),
        metrics=report.metrics,
        metric_values={metric: _metric_values(report, metric) for metric in report.metrics},
        tasks=[_task_details(report, column) for column in report.columns],
        groups=group_tables(report),
        report_titles=lambda model: titles[id(model)],
        lists=report_lists(report),
    )


def metric_title(name: str) -> str:
    """MTEB's name of a metric as the field writes it: ndcg_at_10 → nDCG@10."""
    written = {"main_score": "Main score", "ndcg": "nDCG", "map": "MAP", "mrr": "MRR"}
    base, at, k = name.partition("_at_")
    title = written.get(base, base.replace("_", " ").capitalize())
    return f"{title}@{k}" if at else title


def _bar_width(value: float | None) -> str:
    """Share of the full bar, in per cent; a score below 0 has none."""
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.1f}"


def _breakable(name: str) -> Markup:
    """A task's name as HTML that may be broken between its words: Vidore·Arxiv·QARetrieval."""
    from markupsafe import Markup

    return Markup("<wbr>").join(_WORDS.split(name))


def _metric_values(report: Report, metric: str) -> list[dict[str, Any]]:
    """What the page's script shows under one metric, per model of report.models: its rank, and its scores in the
    order mean over shared tasks, mean, tasks; each [score × 100 or None, best as 0 or 1, note]."""
    total, view = len(report.columns), report.view(metric)
    shared_note = "" if view.shared == report.view().shared else f"{view.shared} tasks"
    by_model = {id(row.model): row for row in view.rows}
    values = []
    for model in report.models:
        row = by_model[id(model)]
        mean_note = "" if row.mean.complete or not row.count else f"{row.count}/{total} tasks"
        cells = [(row.shared_mean, shared_note), (row.mean, mean_note), *((cell, cell.note) for cell in row.cells)]
        scores = [[c.value if c.value is None else round(100 * c.value, 4), int(c.best), note] for c, note in cells]
        values.append({"rank": row.rank, "scores": scores})
    return values


def _task_details(report: Report, column: Column) -> dict[str, Any]:
    """One task's card: its models from the best down, each with its main score on every split and subset."""
    index, entries = report.columns.index(column), []
    titles = _short_titles(report)
    languages: dict[tuple[str, str], set[str]] = {part: set() for part in column.parts}
    for row in report.view().rows:
        scores = row.model.tasks.get((column.task, column.official))
        if scores is None:
            continue
        by_part = {(part.split, part.subset): part.scores[MAIN] for part in scores.subsets}
        for part in scores.subsets:
            languages[part.split, part.subset].update(part.languages)
        parts = [by_part.get(part) for part in column.parts]
        entries.append({"title": titles[id(row.model)], "cell": row.cells[index], "parts": parts})
    entries.sort(key=lambda entry: -1.0 if entry["cell"].value is None else entry["cell"].value, reverse=True)
    splits = {split for split, _ in column.parts}
    return {
        "column": column,
        "entries": entries,
        "labels": [subset if len(splits) == 1 else f"{split} / {subset}" for split, subset in column.parts],
        "languages": [", ".join(sorted(languages[part])) for part in column.parts],
        "parts_name": "language" if len(splits) == 1 and len(set(map(str, languages.values()))) > 1 else "subset",
    }
