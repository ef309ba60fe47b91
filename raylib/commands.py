"""The commands that show what there is and what came out: what `raylib evaluate`, `list` and `report` do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from raylib.errors import UserError
from raylib.terminal import console

if TYPE_CHECKING:
    from raylib.bench.config import BenchConfig
    from raylib.encode.config import EncodeConfig
    from raylib.evaluate.config import EvaluateConfig
    from raylib.extract.config import ExtractConfig
    from raylib.mine.config import BatchesConfig, NegativesConfig
    from raylib.mine.job import Outcome as MineOutcome
    from raylib.probe.config import ProbeConfig
    from raylib.serve.config import ServeConfig
    from raylib.train.config import TrainConfig


@dataclass
class ListConfig:
    """Show what can be evaluated, and with what."""

    what: Literal["benchmarks", "tasks", "models"] = field(metadata={"positional": True})
    """What to list."""

    match: str = ""
    """Only names that contain this; case does not count."""

    benchmark: str | None = None
    """Only the tasks of this benchmark."""

    json: bool = False
    """One JSON object a line, for programs."""


@dataclass
class ReportConfig:
    """Rebuild leaderboard.md and leaderboard.html from the result files in a folder, raylib's or MTEB's."""

    folder: str = field(default="results", metadata={"positional": True})
    """The folder that holds them."""

    quiet: bool = False
    """Write the files, print nothing."""


def run_evaluate(config: EvaluateConfig) -> int:
    from raylib import api
    from raylib.evaluate.report import build_report, print_leaderboard

    config.check_complete()
    if config.dry_run:
        _print_plan(api.plan(config))
        return 0
    outcome = api.evaluate(config)
    if config.log_format == "text":
        print_leaderboard(build_report(config.output_folder), console())
    return 0 if outcome.ok else 1


def _print_plan(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["error"]:
            print(f"{row['model']}: {row['error']}")
            continue
        print(
            f"{row['model']}: {row['contents']} distinct contents of {row['requested']} asked for; "
            f"{row['stored']} are stored, {row['to encode']} would be encoded"
        )
        for task, reason in row["skipped"].items():
            print(f"  skipped {task}: {reason}")


def run_encode(config: EncodeConfig) -> int:
    from raylib import api

    config.check_complete()
    if not config.dry_run:
        return 0 if api.encode(config).ok else 1
    from raylib.evaluate.errors_file import listed

    row = api.plan_encoding(config)
    print(_would_encode(row))
    if row["bad"]:
        print(f"{len(row['bad'])} contents cannot be encoded\n{listed(row['bad'])}")
    return 0 if len(row["bad"]) <= config.allow_errors else 1


def _would_encode(row: dict[str, Any]) -> str:
    return (
        f"{row['model']}: {row['distinct']} distinct contents of {row['contents']}; {row['stored']} are stored, "
        f"{row['distinct'] - row['stored']} would be encoded"
    )


def run_extract(config: ExtractConfig) -> int:
    from raylib import api

    return 0 if api.extract(config).ok else 1


def run_probe(config: ProbeConfig) -> int:
    from raylib import api
    from raylib.probe.job import Outcome
    from raylib.probe.report import print_summary

    found = api.probe(config)
    if isinstance(found, Outcome) and not config.quiet:
        print_summary(found.results, found.best, console())
    return 0


def run_train(config: TrainConfig) -> int:
    from raylib import api_training

    if not config.dry_run:
        api_training.train(config)
        return 0
    row = api_training.plan_training(config)
    print(
        f"{row['model']}: {row['examples']} examples, {row['batches']} batches of {row['batch_size']} an epoch, "
        f"{row['steps']} steps"
    )
    return 0


def run_bench(config: BenchConfig) -> int:
    from raylib import api

    outcome = api.bench(config)
    return 0 if outcome.ok or config.skip_on_error else 1


def run_serve(config: ServeConfig) -> int:
    from raylib.evaluate.quiet import quiet_libraries

    config.check_complete()
    quiet_libraries()
    if config.local:
        from raylib.serve.local import open_locally
        from raylib.serve.server import serve

        serve(config, open_locally)
    else:
        from raylib.cluster.serve import serve_on_ray

        serve_on_ray(config)
    return 0


def run_mine_negatives(config: NegativesConfig) -> int:
    from raylib import api_training

    config.check_complete()
    return (
        _print_mining(api_training.plan_mining(config))
        if config.dry_run
        else _status(api_training.mine_negatives(config))
    )


def run_mine_batches(config: BatchesConfig) -> int:
    from raylib import api_training

    config.check_complete()
    return (
        _print_mining(api_training.plan_mining(config))
        if config.dry_run
        else _status(api_training.mine_batches(config))
    )


def _status(outcome: MineOutcome) -> int:
    return 0 if outcome.ok else 1


def _print_mining(row: dict[str, Any]) -> int:
    print(f"{row['examples']} examples" + (f"; {_would_encode(row)}" if row["model"] is not None else ""))
    return 0


def run_list(config: ListConfig) -> int:
    from rich.table import Table

    from raylib.evaluate.quiet import quiet_libraries

    if config.benchmark is not None and config.what != "tasks":
        raise UserError(f"--benchmark goes with `raylib list tasks`, not with {config.what}")
    quiet_libraries()
    rows = [dataclasses.asdict(row) for row in _rows(config)]
    if config.json:
        for row in rows:
            print(json.dumps(row, default=str))
        return 0
    if not rows:
        print(f"no {config.what} match {config.match!r}")
        return 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=name == "name")
    for row in rows:
        table.add_row(*("(a directory)" if k == "name" and v is None else _cell(v) for k, v in row.items()))
    console().print(table)
    return 0


def _rows(config: ListConfig) -> Sequence[Any]:
    if config.what == "models":
        from raylib.models.listing import known_models

        return known_models(config.match)
    from raylib.tasks.selection import list_benchmarks, list_tasks

    return list_benchmarks(config.match) if config.what == "benchmarks" else list_tasks(config.benchmark, config.match)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple | set | frozenset):
        items = [str(v) for v in value]
        return ", ".join(items[:6]) + (f" … {len(items)}" if len(items) > 6 else "")
    return str(value)


def run_report(config: ReportConfig) -> int:
    from raylib.evaluate.report import build_report, print_leaderboard, write_leaderboard

    report = build_report(config.folder)
    paths = write_leaderboard(report, config.folder)
    if not config.quiet:
        print_leaderboard(report, console())
        print("wrote " + " and ".join(paths))
    return 1 if report.problems else 0
