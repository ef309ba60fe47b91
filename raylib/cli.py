"""The command line: `raylib <job>`. One dataclass per job is its flags, its YAML keys and its Python arguments.

Only what a command needs is imported when it runs: `raylib --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raylib.errors import RaylibError, UnknownNameError, UserError

_JOBS: dict[str, tuple[str, str]] = {
    "evaluate": ("raylib.evaluate.config:EvaluateConfig", "raylib.commands:run_evaluate"),
    "encode": ("raylib.encode.config:EncodeConfig", "raylib.commands:run_encode"),
    "extract": ("raylib.extract.config:ExtractConfig", "raylib.commands:run_extract"),
    "probe": ("raylib.probe.config:ProbeConfig", "raylib.commands:run_probe"),
    "mine negatives": ("raylib.mine.config:NegativesConfig", "raylib.commands:run_mine_negatives"),
    "mine batches": ("raylib.mine.config:BatchesConfig", "raylib.commands:run_mine_batches"),
    "train": ("raylib.train.config:TrainConfig", "raylib.commands:run_train"),
    "bench": ("raylib.bench.config:BenchConfig", "raylib.commands:run_bench"),
    "serve": ("raylib.serve.config:ServeConfig", "raylib.commands:run_serve"),
    "plot loss": ("raylib.train.plot_config:PlotLossConfig", "raylib.train.plots:run_plot_loss"),
    "plot metrics": ("raylib.train.plot_config:PlotMetricsConfig", "raylib.train.plots:run_plot_metrics"),
    "score": ("raylib.score.config:ScoreConfig", "raylib.score.commands:run_score"),
    "compare": ("raylib.score.config:CompareConfig", "raylib.score.commands:run_compare"),
    "inspect": ("raylib.extract.show:InspectStatesConfig", "raylib.extract.show:run_inspect_states"),
    "inspect-run": ("raylib.inspect.config:InspectConfig", "raylib.inspect.run:run_inspect"),
    "report": ("raylib.commands:ReportConfig", "raylib.commands:run_report"),
    "submit": ("raylib.submit_config:SubmitConfig", "raylib.cluster.jobs:run_submit"),
    "jobs": ("raylib.submit_config:JobsConfig", "raylib.cluster.jobs:run_jobs"),
    "stop": ("raylib.submit_config:StopConfig", "raylib.cluster.jobs:run_stop"),
    "list": ("raylib.commands:ListConfig", "raylib.commands:run_list"),
}
"""Command, of one word or two → where its settings are and what runs it, as module:name. A command lives with its job;
the module of its settings imports nothing heavy, for the overview reads all of them."""

_TRY = {
    "": "evaluate --model raylib/bm25,raylib/hashed-ngrams --benchmarks StdlibPages",
    "mine": "mine negatives --data train.jsonl --model BAAI/bge-m3 --output mined.jsonl --positive-fraction 0.95",
    "plot": "plot loss runs/first --smooth 20",
}
"""What an overview proposes, by the word that its commands begin with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status: 0 all done, 1 something failed, 2 the command cannot be right, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from raylib import __version__

        print(f"raylib {__version__}")
        return 0
    try:
        more = _beginning_with(arguments[0])
        if more and arguments[1:2] in ([], ["-h"], ["--help"]):
            print(_overview(more, arguments[0]))
            return 0 if arguments[1:] else 2
        command = _command(arguments)
        config_class, run = _JOBS[command]
        rest = arguments[len(command.split()) :]
        if command == "submit":
            return _submit(rest)
        config = parse(_load(config_class), rest, prog=f"raylib {command}")
        return _load(run)(config)
    except UserError as error:
        print(f"raylib: {error}", file=sys.stderr)
        return 2
    except RaylibError as error:
        print(f"raylib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("raylib: interrupted; what was stored is kept, the same command continues", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"raylib: {error}", file=sys.stderr)
        return 1


def _beginning_with(word: str) -> dict[str, tuple[str, str]]:
    """The commands of two words."""
    return {name: job for name, job in _JOBS.items() if name.startswith(f"{word} ")}


def _command(arguments: Sequence[str]) -> str:
    """The command that `arguments` begin with. Raises UnknownNameError."""
    more = _beginning_with(arguments[0])
    command = " ".join(arguments[: 2 if more else 1])
    if command not in _JOBS:
        raise UnknownNameError("command", command, more or _JOBS, hint="See raylib --help.")
    return command


_ON_CLUSTERS = ("evaluate", "encode", "extract", "probe", "mine negatives", "mine batches", "train", "bench")
"""What `raylib submit` sends."""


def _submit(arguments: list[str]) -> int:
    """A job's command line with the flags of `raylib submit` among its own, which are checked here already."""
    import tyro

    config_class, run = (_load(name) for name in _JOBS["submit"])
    if arguments[:1] in (["-h"], ["--help"]):
        parse(config_class, ["--help"], prog="raylib submit JOB [flags of the job]")
    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"no job was named; begin with one of {', '.join(_ON_CLUSTERS)}")
    command = _command(arguments)
    if command not in _ON_CLUSTERS:
        raise UnknownNameError("job for a cluster", command, _ON_CLUSTERS)
    given = arguments[len(command.split()) :]
    if "--help" in given or "-h" in given:
        parse(_load(_JOBS[command][0]), ["--help"], prog=f"raylib submit {command}")
    settings, of_job = tyro.cli(
        _for_command_line(config_class),
        args=given,
        prog=f"raylib submit {command}",
        config=[tyro.conf.FlagCreatePairsOff],
        return_unknown_args=True,
    )
    parse(_load(_JOBS[command][0]), of_job, prog=f"raylib submit {command}")
    return run(settings, command.split(), of_job)


def _load(name: str) -> Any:
    """What module:name names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _overview(jobs: Mapping[str, tuple[str, str]] = _JOBS, word: str = "") -> str:
    """word: the one that all of `jobs` begin with."""
    from raylib import __version__

    width = max(map(len, jobs))
    summaries = {name: _load(config).__doc__.strip().splitlines()[0] for name, (config, _) in jobs.items()}
    command = f"{word} COMMAND".strip()
    return "\n".join(
        [
            f"raylib {__version__}: train and judge retrieval embedding models on a Ray cluster.",
            "",
            f"usage: raylib {command} [options]      raylib {command} --help",
            "",
            *[f"  {name:<{width}}  {summary}" for name, summary in summaries.items()],
            "",
            f"Try:  raylib {_TRY.get(word, _TRY[''])}",
        ]
    )


def parse(config_class: type, arguments: Sequence[str], *, prog: str) -> Any:
    """Flags over the YAML file of --config over defaults → a `config_class`.

    Raises UserError for a file that cannot be read or a key it should not have; a wrong flag ends the process with
    status 2, as argparse does.
    """
    import tyro

    arguments, path = _take_config(list(arguments))
    markers: list[Any] = []
    extra = {}
    if path is None:
        markers.append(tyro.conf.FlagCreatePairsOff)
    else:  # both --local and --no-local: either may say the opposite of the file, or the same
        extra["default"] = _without_lists_of(arguments, read_yaml(config_class, path))
    return tyro.cli(_for_command_line(config_class), args=arguments, prog=prog, config=markers, **extra)


def _without_lists_of(arguments: Sequence[str], settings: Any) -> Any:
    """`settings` with the lists emptied that a flag gives: repeated flags add to each other, not to the file's list."""
    given = {a.partition("=")[0].removeprefix("--").replace("-", "_") for a in arguments if a.startswith("--")}
    lists = {f.name for f in dataclasses.fields(settings) if isinstance(getattr(settings, f.name), list)}
    return dataclasses.replace(settings, **{name: [] for name in given & lists})


def read_yaml(config_class: type, path: str) -> Any:
    """The settings of a YAML file, checked by name and by type. Keys are flag names, with dashes or underscores."""
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from raylib import storage

    try:
        loaded = yaml.safe_load(storage.read_text(path))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config {path} is no YAML: {' '.join(str(error).split())}") from error
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise UserError(f"--config {path} holds a {type(loaded).__name__}; expected settings, one `name: value` a line")
    known = {f.name: f for f in dataclasses.fields(config_class)}
    settings = {}
    for key, value in loaded.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UnknownNameError(f"setting in {path}:", str(key), [k.replace("_", "-") for k in known])
        settings[name] = _texts(value) if str(known[name].type).startswith("list") else value
    try:
        return TypeAdapter(config_class).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # the class's own check, which names its flag
            raise UserError(f"--config {path}: {first['msg'].removeprefix('Value error, ')}") from error
        where = ".".join(str(part) for at, part in enumerate(first["loc"]) if at == 0 or isinstance(part, int))
        wrong = [found["msg"] for found in error.errors() if found["loc"][:1] == first["loc"][:1]]  # one a type
        raise UserError(f"--config {path}: {where} is {first.get('input')!r}: {', or '.join(wrong)}") from error


def _texts(value: Any) -> Any:
    """What stands for a list of texts: one text, and numbers, which YAML does not leave as they are written."""
    if isinstance(value, list):
        return [str(one) if _is_number(one) else one for one in value]
    return [str(value)] if isinstance(value, str) or _is_number(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _take_config(arguments: list[str]) -> tuple[list[str], str | None]:
    """Cut `--config FILE` out of the arguments."""
    path = None
    rest = []
    while arguments:
        argument = arguments.pop(0)
        if argument == "--config":
            if not arguments:
                raise UserError("--config needs a file")
            path = arguments.pop(0)
        elif argument.startswith("--config="):
            path = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    return rest, path


def _for_command_line(config_class: type) -> type:
    """`config_class` as tyro should show it: positional arguments, and a plain word for the value of every flag."""
    import tyro

    hints = typing.get_type_hints(config_class)
    annotations: dict[str, Any] = {}
    for f in dataclasses.fields(config_class):
        if f.metadata.get("positional"):
            choices = typing.get_origin(hints[f.name]) is typing.Literal  # which tyro lists itself
            word = None if choices else f.name.upper()
            annotations[f.name] = typing.Annotated[hints[f.name], tyro.conf.Positional, tyro.conf.arg(metavar=word)]
        elif hints[f.name] is bool:
            if "aliases" in f.metadata:  # short forms, such as -d
                short = tyro.conf.arg(aliases=list(f.metadata["aliases"]))
                annotations[f.name] = typing.Annotated[hints[f.name], short]
        else:
            plain = next((t for t in (int, float, str) if t in (hints[f.name], *typing.get_args(hints[f.name]))), str)
            word = f.metadata.get("metavar", {int: "N", float: "N", str: "NAME"}[plain])
            arg = tyro.conf.arg(metavar=word, aliases=f.metadata.get("aliases"))
            annotations[f.name] = typing.Annotated[hints[f.name], arg]
            if not f.metadata.get("several"):  # `--name a b`; a list is else of flags that are repeated
                annotations[f.name] = typing.Annotated[annotations[f.name], tyro.conf.UseAppendAction]
    shown = type(
        config_class.__name__, (config_class,), {"__annotations__": annotations, "__doc__": config_class.__doc__}
    )
    for f in dataclasses.fields(config_class):  # a field that is annotated anew keeps its default
        if f.name in annotations and (
            f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        ):
            setattr(shown, f.name, field(default=f.default, default_factory=f.default_factory, metadata=f.metadata))
    return dataclass(shown)


if __name__ == "__main__":
    sys.exit(main())
