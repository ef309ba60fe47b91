"""The command line: what it accepts, what it refuses in one line, and how fast it answers."""

import dataclasses
import json
import resource
import subprocess
import sys

import pytest

from raylib import __version__, cli
from raylib.cli import main, parse
from raylib.commands import ListConfig, ReportConfig
from raylib.errors import ModelError, RaylibError, UnknownNameError, UserError
from raylib.evaluate.config import EvaluateConfig
from raylib.extract.show import InspectStatesConfig
from raylib.models.families import FAMILIES
from raylib.models.protocol import option_flag
from raylib.train.plot_config import PlotMetricsConfig

HEAVY = {"torch", "mteb", "ray", "transformers", "datasets", "sklearn", "pandas"}

HELP = f"""
import sys
from raylib.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:  # argparse's way
    status = end.code
print("IMPORTED", sorted({HEAVY!r} & set(sys.modules)), "STATUS", status)
"""


def read(*arguments):
    return parse(EvaluateConfig, arguments, prog="raylib evaluate")


def one_line(capsys):
    """What was printed on stderr: one line that starts with the program's name, and no trace."""
    err = capsys.readouterr().err.strip()
    assert err.startswith("raylib: ") and "\n" not in err and "Traceback" not in err
    return err


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        (tmp_path / "run.yaml").write_text(text)
        return str(tmp_path / "run.yaml")

    return write


# Help.


@pytest.mark.parametrize(
    "arguments",
    [
        [*name.split(), "--help"]
        for name in (
            "",
            "evaluate",
            "encode",
            "score",
            "compare",
            "inspect",
            "mine",
            "mine negatives",
            "mine batches",
            "plot loss",
        )
    ],
    ids=" ".join,
)
def test_help_answers_at_once_and_imports_nothing_heavy(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", HELP, *arguments], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.endswith("IMPORTED [] STATUS 0\n"), done.stdout
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # others may use the machine
    assert seconds < 1.5


def test_the_overview_names_every_job_with_its_purpose(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    lines = (
        "evaluate Score embedding models",
        "encode Turn your own text, images, PDFs",
        "inspect Show what files of hidden states hold",
        "inspect-run Write a page",
        "list Show what can be",
        "mine negatives Find hard negatives",
        "mine batches Plan training batches",
        "plot loss Draw the loss",
        "plot metrics Draw what",
    )
    lines += ("score Score vectors that are already there", "compare Compare two runs query by query")
    for line in (*lines, "report Rebuild leaderboard.md"):
        assert line in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("command", cli._JOBS)
def test_every_command_has_settings_and_something_that_runs_it(command):
    config_class, run = map(cli._load, cli._JOBS[command])
    assert dataclasses.is_dataclass(config_class) and callable(run)
    of_job = {"command": "Sequence[str]", "arguments": "Sequence[str]"} if command == "submit" else {}
    assert run.__annotations__ == {"config": config_class.__name__, **of_job, "return": "int"}


def test_help_of_evaluate_shows_every_setting(capsys):
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for name in EvaluateConfig.__dataclass_fields__:
        assert option_flag(name) in out
    assert "Contents per forward" in out


def test_no_command_shows_the_overview_and_is_no_success(capsys):
    assert main([]) == 2
    assert "usage: raylib COMMAND" in capsys.readouterr().out


def test_a_word_that_several_commands_begin_with_shows_those(capsys):
    assert main(["mine"]) == 2
    shown = capsys.readouterr().out
    assert main(["mine", "--help"]) == main(["mine", "-h"]) == 0
    assert capsys.readouterr().out == shown * 2
    assert "usage: raylib mine COMMAND [options]" in shown and "Try:  raylib mine negatives --data" in shown
    assert "mine negatives  Find" in shown and "mine batches " in shown and "evaluate" not in shown


@pytest.mark.parametrize("command", ["negatives", "batches"])
def test_help_of_a_command_of_two_words_shows_every_setting(command, capsys):
    with pytest.raises(SystemExit) as end:
        main(["mine", command, "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and f"usage: raylib mine {command} " in " ".join(out.split())
    for name in cli._load(cli._JOBS[f"mine {command}"][0]).__dataclass_fields__:
        assert option_flag(name) in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine", "negativs"], "unknown command 'mine negativs'. Did you mean mine negatives"),
        (["mine", "--k", "3"], "unknown command 'mine --k'. "),
        (["mine", "list"], "unknown command 'mine list'. "),
        (["negatives"], "unknown command 'negatives'. Did you mean mine negatives"),
        (["min"], "unknown command 'min'. Did you mean mine "),
        (["mine-batches"], "unknown command 'mine-batches'. Did you mean mine batches"),
    ],
    ids=" ".join,
)
def test_commands_of_two_words_that_are_not_there(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in one_line(capsys)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"raylib {__version__}\n"


# Flags and YAML.

FLAGS = [
    *[
        "--model",
        "a/b,pkg.mod:factory",
        "--benchmarks",
        "ViDoRe(v1),MTEB(eng, v2)",
        "--tasks",
        "T",
        "--languages",
        "eng",
    ],
    *["--price-table", "prices.yaml", "--log-format", "json"],
    *["--splits", "test", "--data-root", "data", "--output-folder", "out", "--store", "s3://x"],
    *["--revision", "12ab", "--adapter", "lora", "--dtype", "float16", "--pooling", "mean", "--embedding-dim", "768"],
    *["--max-pixels", "9", "--device", "cpu", "--trust-remote-code", "--batch-size", "8", "--workers", "3"],
    *[
        "--min-workers",
        "2",
        "--gpus-per-worker",
        "0.5",
        "--cpus-per-worker",
        "4",
        "--parallel-models",
        "2",
        "--address",
        "ray://h",
    ],
    *["--family", "clip", "--no-merge", "--fusion", "mean", "--mode", "hybrid", "--mode-weights", "1,2,3"],
    *["--query-prompt", "q: ", "--document-prompt", "", "--attention", "eager", "--compile"],
    *["--runtime", "onnx", "--precision", "int8", "--endpoint", "http://h/v1", "--max-batch-tokens", "99"],
    *["--index", "IVF8,Flat", "--candidates", "int8", "--oversample", "9", "--token-pooling", "2"],
    *["--target-prefix", "--candidate-pool", "subset", "--image-dir", "images.zip"],
    *["--limit", "10", "--keep-rankings", "7", "--allow-errors", "5", "--overwrite", "--dry-run", "--quiet"],
]
YAML = """
model: [a/b, "pkg.mod:factory"]
benchmarks: ["ViDoRe(v1)", "MTEB(eng, v2)"]
tasks: T
languages: eng
splits: [test]
data-root: data
output_folder: out
store: s3://x
revision: 12ab
adapter: lora
dtype: float16
pooling: mean
embedding-dim: 768
max_pixels: 9
device: cpu
trust-remote-code: true
batch-size: 8
workers: 3
min-workers: 2
gpus-per-worker: 0.5
cpus-per-worker: 4
parallel-models: 2
address: ray://h
family: clip
merge: false
fusion: mean
mode: hybrid
mode-weights: 1,2,3
query-prompt: "q: "
document-prompt: ""
attention: eager
compile: true
runtime: onnx
precision: int8
endpoint: http://h/v1
max-batch-tokens: 99
index: IVF8,Flat
candidates: int8
oversample: 9
token-pooling: 2
target-prefix: true
candidate_pool: subset
image-dir: images.zip
limit: 10
keep-rankings: 7
allow-errors: 5
overwrite: yes
dry_run: true
quiet: true
price_table: prices.yaml
log-format: json
"""
SAID = EvaluateConfig(
    model=["a/b", "pkg.mod:factory"],
    benchmarks=["ViDoRe(v1)", "MTEB(eng, v2)"],
    tasks=["T"],
    languages=["eng"],
    splits=["test"],
    data_root="data",
    output_folder="out",
    store="s3://x",
    revision="12ab",
    adapter="lora",
    dtype="float16",
    pooling="mean",
    embedding_dim=768,
    max_pixels=9,
    device="cpu",
    trust_remote_code=True,
    batch_size=8,
    workers=3,
    min_workers=2,
    gpus_per_worker=0.5,
    cpus_per_worker=4,
    parallel_models=2,
    address="ray://h",
    family="clip",
    merge=False,
    fusion="mean",
    mode="hybrid",
    mode_weights="1,2,3",
    query_prompt="q: ",
    document_prompt="",
    attention="eager",
    compile=True,
    runtime="onnx",
    precision="int8",
    endpoint="http://h/v1",
    max_batch_tokens=99,
    index="IVF8,Flat",
    candidates="int8",
    oversample=9,
    token_pooling=2,
    target_prefix=True,
    candidate_pool="subset",
    image_dir="images.zip",
    limit=10,
    keep_rankings=7,
    allow_errors=5,
    overwrite=True,
    dry_run=True,
    quiet=True,
    price_table="prices.yaml",
    log_format="json",
)


def test_flags_and_a_yaml_file_say_the_same(yaml_file):
    untold = {name for name, value in vars(EvaluateConfig()).items() if getattr(SAID, name) == value}
    assert untold == {"local", "exact_mteb"}, "every setting but those that exclude another is in this test"
    assert vars(read(*FLAGS)) == vars(SAID) == vars(read("--config", yaml_file(YAML)))


def test_flags_win_over_the_file_and_the_file_over_defaults(yaml_file):
    path = yaml_file("model: [a, b]\nbatch-size: 4\nlimit: 7\nlocal: true\ntasks: [T, U]")
    config = read("--config", path, "--batch-size", "16", "--tasks", "V", "--tasks=W,X")
    assert (config.batch_size, config.limit, config.min_workers) == (16, 7, 1)
    assert config.model == ["a", "b"], "a list that no flag gives stays"
    assert config.tasks == ["V", "W", "X"], "flags take the place of the file's list"


@pytest.mark.parametrize(("flag", "expected"), [("--local", True), ("--no-local", False), (None, True)])
def test_a_switch_of_the_file_can_be_repeated_or_taken_back(yaml_file, flag, expected):
    assert read(f"--config={yaml_file('local: true')}", *([flag] if flag else [])).local is expected


def test_an_empty_file_sets_nothing(yaml_file):
    assert vars(read("--config", yaml_file("# nothing\n"))) == vars(EvaluateConfig())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_sze: 3", r"unknown setting in .*run.yaml: 'batch_sze'. Did you mean batch-size\?$"),
        ("batch-size: many", "batch_size is 'many': Input should be a valid integer"),
        ("batch-size: 0", r"run.yaml: --batch-size is 0; expected at least 1$"),
        ("workers: 1.5", "workers is 1.5: Input should be a valid integer"),
        ("local: maybe", "local is 'maybe': Input should be a valid boolean"),
        ("gpus-per-worker: half", "gpus_per_worker is 'half': Input should be a valid number"),
        ("model: {a: b}", "model is {'a': 'b'}: Input should be a valid list"),
        ("model: [a, true]", "model.1 is True: Input should be a valid string"),
        ("model: true", "model is True: Input should be a valid list"),
        ("model: [a, [b]]", r"model.1 is \['b'\]: Input should be a valid string"),
        ("local: true\naddress: x", r"run.yaml: --local runs without Ray and --address names a cluster"),
        ("- model", "run.yaml holds a list; expected settings"),
        ("model: [", "run.yaml is no YAML: "),
    ],
)
def test_a_file_that_says_something_wrong_is_one_line(yaml_file, text, message, capsys):
    path = yaml_file(text)
    with pytest.raises(UserError, match=message):
        read("--config", path)
    assert main(["evaluate", "--config", path]) == 2
    one_line(capsys)


def test_a_file_that_is_not_there_is_one_line(capsys):
    assert main(["evaluate", "--config", "/nowhere/run.yaml"]) == 2
    assert one_line(capsys) == "raylib: --config /nowhere/run.yaml cannot be read: No such file or directory"
    assert main(["evaluate", "--config"]) == 2
    assert one_line(capsys) == "raylib: --config needs a file"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-sz", "3"], "--batch-size"),
        (["--batch-size", "x"], "--batch-size"),
        (["--batch-size", "0"], "at least 1"),
    ],
)
def test_a_wrong_flag_ends_with_status_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *arguments])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and said in out + err and "Traceback" not in err


def test_positional_arguments_of_list_and_report():
    listed = parse(ListConfig, ["tasks", "--benchmark", "ViDoRe(v2)"], prog="x")
    assert vars(listed) == vars(ListConfig("tasks", "", "ViDoRe(v2)"))
    assert parse(ReportConfig, ["some/folder"], prog="x").folder == "some/folder"
    assert parse(ReportConfig, [], prog="x").folder == "results"


def test_inspect_has_short_forms_of_its_switches(yaml_file, capsys):
    said = InspectStatesConfig("out/x.h5", detailed=True, all=True)
    for flags in (["-d", "-a"], ["--detailed", "--all"], ["-a", "--detailed"]):
        assert vars(parse(InspectStatesConfig, ["out/x.h5", *flags], prog="x")) == vars(said)
    path = yaml_file("path: out/x.h5\ndetailed: true\nall: true")
    assert vars(parse(InspectStatesConfig, ["--config", path], prog="x")) == vars(said)
    assert not parse(InspectStatesConfig, ["--config", path, "--no-detailed"], prog="x").detailed
    sample = yaml_file("path: out\nsample: q7")
    for arguments in (["out", "--sample", "q7"], ["--config", sample]):
        assert vars(parse(InspectStatesConfig, arguments, prog="x")) == vars(InspectStatesConfig("out", sample="q7"))
    with pytest.raises(SystemExit) as end:
        main(["inspect", "--config", sample, "-d"])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert end.value.code == 2 and "leave out --detailed and --all" in said


def test_a_list_of_several_values_is_one_flag(yaml_file):
    said = vars(PlotMetricsConfig(["a", "b"], ["ours", "base"]))
    for flags in (["a", "b", "--labels", "ours", "base"], ["--labels", "ours,base", "--out=metrics.png", "a", "b"]):
        assert vars(parse(PlotMetricsConfig, flags, prog="x")) == said
    path = yaml_file("runs: [a, b]\nlabels: [x, y]")
    assert parse(PlotMetricsConfig, ["--config", path, "--labels", "ours", "base"], prog="x").labels == ["ours", "base"]


# Exit status.


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["evalute"]) == 2
    assert one_line(capsys) == "raylib: unknown command 'evalute'. Did you mean evaluate? See raylib --help."


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("wrong"), 2),
        (UnknownNameError("model", "x", []), 2),
        (ModelError("broken"), 1),
        (RaylibError("failed"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_known_error_is_one_line_and_a_status(error, status, monkeypatch, capsys):
    def fail(config):
        raise error

    monkeypatch.setattr("raylib.commands.run_report", fail)
    assert main(["report"]) == status
    assert (str(error) or "interrupted; what was stored is kept") in one_line(capsys)


ON_TEXT = "--tasks StdlibPagesT2T"
WRONG = {
    "": "no model was given; add --model NAME",
    "--model raylib/bm25": 'nothing to evaluate on; add --benchmarks "ViDoRe(v2)" or --tasks NAME',
    "--model raylib/bm25 --benchmarks ViDoRe(v7)": "unknown benchmark 'ViDoRe(v7)'. Did you mean ViDoRe(v",
    "--model raylib/bm25 --tasks StdlibPagesT2X": "unknown task 'StdlibPagesT2X'. Did you mean StdlibPagesT2",
    f"--model raylib/bm52 {ON_TEXT}": "unknown model 'raylib/bm52'. Did you mean raylib/bm25",
    f"--model ./nowhere/ {ON_TEXT}": "model directory ./nowhere/ does not exist",
    f"--model tests.evaluate.made:gone {ON_TEXT}": "tests.evaluate.made has no callable 'gone'",
    f"--model no.module:x {ON_TEXT}": "cannot import no.module",
    f"--model raylib/hashed-ngrams --pooling mean {ON_TEXT}": "has no option --pooling; it has: none. Leave it out.",
    f"--model tests.evaluate.made:letters --dtype float16 {ON_TEXT}": "its factory gives a finished encoder",
    f"--model m --endpoint http://me:secret@h/v1 {ON_TEXT}": "--endpoint for h has a user, a query or a fragment",
    f"--model raylib/bm25 --languages xyz {ON_TEXT}": "has the language xyz; there are: eng",
    "--model raylib/bm25 --tasks VidoreArxivQARetrieval --data-root /nowhere": "no local copy of",
}


@pytest.mark.parametrize("arguments", WRONG)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_what_cannot_be_right_is_one_line_and_status_2(arguments, dry, tmp_path, capsys, monkeypatch):
    loaded = []
    monkeypatch.setattr("raylib.tasks.stdlib_tasks._StdlibPages.load_data", lambda self, **kwargs: loaded.append(self))
    status = main(["evaluate", "--local", "--output-folder", str(tmp_path / "out"), *arguments.split(), *dry])
    assert WRONG[arguments] in one_line(capsys) and status == 2
    assert loaded == [], "it is said before any data is loaded"


# Other commands.


def test_list_gives_a_table_and_json(capsys):
    assert main(["list", "tasks", "--benchmark", "StdlibPages"]) == 0
    assert "StdlibPagesT2IT" in capsys.readouterr().out
    assert main(["list", "models", "--match", "hashed", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["raylib/hashed-ngrams"] and rows[0]["modalities"] == ["text"]


def test_list_names_families_that_only_a_directory_brings(capsys):
    assert main(["list", "models", "--match", "colintern"]) == 0
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert row.startswith("(a directory)") and " ".join(row.split()).endswith(
        "colintern late-interaction – – text, image"
    )
    assert main(["list", "models", "--match", "colintern", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["name"] is None and row["family"] == "colintern"


def listed(capsys, *arguments):
    assert main(["list", "models", "--json", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_models_of_every_family_are_listed_with_what_they_are(capsys):
    rows = {row["name"]: row for row in listed(capsys)}
    published = [(entry, name) for entry in FAMILIES for name in entry.members]
    assert len(published) > 60
    for entry, name in published:
        row = rows[name]
        assert list(row) == ["name", "family", "kind", "dim", "max_tokens", "modalities"]
        assert (row["family"], row["kind"], row["modalities"]) == (entry.name, entry.kind, list(entry.modalities))
        assert row["dim"] is None if name == "raylib/bm25" else row["dim"] > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("google/siglip-so400m-patch14-224", ("siglip", "dense", 1152, 16, ["text", "image"])),
        ("openai/clip-vit-large-patch14", ("clip", "dense", 768, 77, ["text", "image"])),
        ("google/embeddinggemma-300m", ("sentence-transformers", "dense", 768, 2048, ["text"])),
        ("Qwen/Qwen3-Embedding-0.6B", ("qwen3-embedding", "dense", 1024, 32768, ["text"])),
        ("Cognitive-Lab/NetraEmbed", ("bigemma3", "dense", 2560, 131072, ["text", "image"])),
        ("Cognitive-Lab/ColNetraEmbed", ("colgemma3", "late-interaction", 128, 131072, ["text", "image"])),
        ("vidore/colqwen2.5-v0.2", ("colqwen2.5", "late-interaction", 128, 128000, ["text", "image"])),
    ],
)
def test_what_a_listed_model_is(name, expected, capsys):
    (row,) = [row for row in listed(capsys, "--match", name) if row["name"] == name]
    assert tuple(row.values()) == (name, *expected)


def test_list_without_a_match_says_so(capsys):
    assert main(["list", "models", "--match", "no such thing"]) == 1
    assert capsys.readouterr().out == "no models match 'no such thing'\n"


def test_list_refuses_a_benchmark_where_it_has_no_meaning(capsys):
    assert main(["list", "models", "--benchmark", "StdlibPages"]) == 2
    assert "--benchmark goes with `raylib list tasks`" in one_line(capsys)


def test_report_of_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in one_line(capsys)


# Jobs for a cluster.


def test_submit_checks_the_job_and_passes_its_flags_on(monkeypatch):
    sent = {}

    def run(config, command, arguments):
        sent.update(config=config, command=command, arguments=arguments)
        return 5

    monkeypatch.setattr("raylib.cluster.jobs.run_submit", run)
    flags = ["mine", "batches", "--address", "http://head:8265", "--data=a.jsonl", "--model", "m", "--follow"]
    assert main(["submit", *flags, "--seed", "3"]) == 5
    assert sent["command"] == ["mine", "batches"]
    assert sent["arguments"] == ["--data=a.jsonl", "--model", "m", "--seed", "3"]
    assert sent["config"].follow and sent["config"].url == "http://head:8265"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no job was named"),
        (["evaluat"], "Did you mean evaluate"),
        (["report", "results"], "job for a cluster"),
        (["evaluate", "--address", "head:10001"], "expected http://HEAD:8265"),
        (["evaluate", "--working-dir", "/never/there"], "no cluster to ask"),
    ],
)
def test_submit_refuses_what_cannot_be_sent(arguments, says, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert main(["submit", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_submit_refuses_a_wrong_flag_of_the_job_here(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["submit", "evaluate", "--address", "http://head:8265", "--modell", "x"])
    assert ended.value.code == 2
    assert "--modell" in capsys.readouterr().err
