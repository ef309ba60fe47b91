"""Both commands of mining from their command line to their files, in this process, on data whose scores are known."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import raylib
from raylib import cli, storage
from raylib.errors import UserError
from raylib.examples.batch_plan import read_plan
from raylib.mine.config import BatchesConfig, NegativesConfig
from raylib.tasks.hub_layout import HubFolder
from tests.encode.conftest import models as models
from tests.evaluate.conftest import fresh_factories as fresh_factories
from tests.evaluate.conftest import private_caches as private_caches
from tests.examples.made_pairs import COLOURS, png, write_images
from tests.mine.made_teachers import BAG, DOT, LATE, read_rows, topics, write_rows

PAIRS = [
    {"query": "a", "pos": "aaa"},
    {"query": "b", "pos": "bbb"},
    {"query": "c", "pos": "cc", "negs": ["aab"]},
]
"""Documents aaa, bbb, cc and aab; of them, `DOT` gives to a query of one letter one more than it has of that letter."""


class Run:
    """`raylib mine KIND` on rows in a folder."""

    def __init__(self, folder, kind, output, model, capsys):
        self.folder, self.kind, self.output, self.model, self.capsys = folder, kind, output, model, capsys
        self.rows, self.out, self.err = PAIRS, "", ""

    def __call__(self, *flags, status=0, output=None, model="", data=None):
        data = write_rows(self.folder / "train.jsonl", self.rows) if data is None else str(data)
        self.path = self.folder / "out" / (output or self.output)
        arguments = ["mine", self.kind, "--data", data, "--root", str(self.folder), "--output", str(self.path)]
        teacher = self.model if model == "" else model
        arguments += ["--model", teacher] if teacher else []
        found = cli.main([*arguments, "--local", *map(str, flags)])
        self.out, self.err = self.capsys.readouterr()
        assert found == status, self.err
        return self.summary

    @property
    def summary(self):
        path = self.path.with_suffix(".json")
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def found(self):
        return read_rows(self.path)

    @property
    def files(self):
        folder = self.folder / "out"
        return {path.name for path in folder.iterdir()} - {"store"} if folder.exists() else set()


@pytest.fixture
def negatives(tmp_path, capsys, models):
    return Run(tmp_path, "negatives", "mined.jsonl", DOT, capsys)


@pytest.fixture
def batches(tmp_path, capsys, models):
    run = Run(tmp_path, "batches", "plan.parquet", BAG, capsys)
    run.rows = topics(4, 8)
    return run


SMALL = ["--batch-size", 8, "--cluster-size", 8, "--skip-top", 0, "--neighbours", 7]
"""A plan of `topics(4, 8)`: as many examples in a cluster as a topic has."""


# Hard negatives.


def test_negatives_best_first_with_their_scores_and_ranks(negatives, models):
    told = negatives("--k", 2)
    assert negatives.found == [
        {
            "query": "a",
            "pos": "aaa",
            "negs": ["aab", "bbb"],
            "id": "train.jsonl#line=1",
            "dataset": "train",
            "neg_scores": [3.0, 1.0],
            "neg_ranks": [2, 3],
        },
        {
            "query": "b",
            "pos": "bbb",
            "negs": ["aab", "aaa"],
            "id": "train.jsonl#line=2",
            "dataset": "train",
            "neg_scores": [2.0, 1.0],
            "neg_ranks": [2, 3],
        },
        {
            "query": "c",
            "pos": "cc",
            "negs": ["aaa", "bbb"],
            "id": "train.jsonl#line=3",
            "dataset": "train",
            "neg_scores": [1.0, 1.0],
            "neg_ranks": [2, 3],
        },
    ]
    contents = {"contents": 7, "distinct": 7, "stored": 0, "encoded": 7, "failed": 0}
    assert told["counts"] == {"examples": 3, "left_out": 0, **contents}
    assert (told["negatives"], told["short"], told["same_documents"]) == (6, 0, 0)
    assert told["removed"] == {"positive": 3, "same_content": 0, "same_query": 0}
    assert told["search"] == {"method": "exact", "recall": 1.0}
    assert told["teacher"] == {"model": DOT, "fingerprint": models[DOT].fingerprint}
    assert told["settings"]["k"] == 2 and told["versions"]["numpy"] == np.__version__
    assert set(told["seconds"]) >= {"read", "plan", "encode", "mine", "write"}
    assert negatives.files == {"mined.jsonl", "mined.json"}
    assert "the positive itself" in negatives.out and f"wrote {negatives.path}: 3 triples" in negatives.out


def test_what_is_written_can_be_mined_again(negatives):
    negatives("--k", 2)
    first = negatives.found
    negatives("--k", 2, data=negatives.path, output="again.jsonl")
    assert negatives.found[:2] == first[:2], "the third has ties, which go by the order of documents"


def test_mining_again_with_other_thresholds_encodes_nothing(negatives, models):
    negatives("--k", 2)
    assert models[DOT].encoded == 7

    told = negatives("--k", 2, "--max-score", 2, output="other.jsonl")
    assert told["counts"]["encoded"] == 0 and models[DOT].encoded == 7
    assert [row["negs"] for row in negatives.found] == [["bbb", "cc"], ["aab", "aaa"], ["aaa", "bbb"]]
    assert told["removed"]["max_score"] == 1 and "score above --max-score" in negatives.out

    told = negatives("--k", 1, "--absolute-margin", 3, output="margin.jsonl")
    assert [row["negs"] for row in negatives.found] == [["bbb"], ["aaa"], []]
    assert told["short"] == 1 and "1 of 3 queries have fewer than 1 negatives, 1 of them none" in negatives.out

    told = negatives("--k", 3, "--range-min", 1, "--num-negatives", 1, "--range-max", 2, output="range.jsonl")
    assert [row["negs"] for row in negatives.found] == [["bbb"], ["aaa"], ["bbb"]]
    assert [row["neg_ranks"] for row in negatives.found] == [[3], [3], [3]]
    assert told["removed"]["range_min"] == 3 and models[DOT].encoded == 7


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        (["--relative-margin", 0.5], [["bbb", "cc"], ["aab", "aaa", "cc"], ["aaa", "bbb", "aab"]]),
        (["--positive-fraction", 0.3], [["bbb", "cc"], ["aaa", "cc"], []]),
        (["--min-score", 2], [["aab"], ["aab"], []]),
    ],
    ids=str,
)
def test_every_threshold_acts(negatives, flags, left):
    negatives("--k", 3, *flags)
    assert [row["negs"] for row in negatives.found] == left


def test_some_by_chance_are_those_of_the_seed(negatives):
    negatives.rows = [{"query": "a", "pos": "aaa"}, *({"query": "c" * n, "pos": "b" * n} for n in range(1, 30))]
    mined = {}
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        negatives("--k", 20, "--num-negatives", 3, "--sampling", "random", "--seed", seed, output=f"{name}.jsonl")
        mined[name] = negatives.found
    assert mined["x"] == mined["y"] != mined["z"]
    assert all(len(row["negs"]) == 3 for row in mined["z"])


def test_the_same_content_is_never_a_negative_whatever_its_name_and_side(negatives, tmp_path):
    write_images(tmp_path / "img")
    negatives.rows = [
        {"query": "a", "pos": "img/red.png"},
        {"query": "c", "pos": "img/again.png", "negs": ["img/green.png", "a", "img/blue.png"]},
        {"query": "img/blue.png", "pos": "cc"},
        {"query": "a", "pos": "aab"},
    ]
    told = negatives("--k", 20)
    first, _, third, _ = (set(row["negs"]) for row in negatives.found)
    assert first == {"img/green.png", "img/blue.png", "cc"}, "again.png is red.png, a is the query, aab answers it too"
    assert third == {"img/red.png", "img/green.png", "a", "aab"}, "blue.png is its query; again.png is as red.png"
    assert told["same_documents"] == 1 and told["removed"]["same_content"] >= 4 and told["removed"]["same_query"] >= 2


def test_items_of_data_sets_and_parquet_as_mmeb_has_it(negatives, tmp_path, private_caches):
    hub = HubFolder(str(tmp_path / "copies" / "owner" / "name"), "train")
    hub.add("default", {"query": ["q0", "q1", "q2"], "image": [png(colour) for colour in COLOURS[:3]]})
    hub.finish("Pages.")
    negatives.rows = [{"query": letter, "pos": f"owner/name/train/doc_{n}.png"} for n, letter in enumerate("abc")]
    negatives(status=2)
    assert "no local copy of the data set owner/name" in negatives.err
    copies = ["--data-root", tmp_path / "copies"]
    negatives("--k", 2, *copies, output="mined.parquet")
    rows = pq.read_table(negatives.path).to_pylist()
    assert [row["pos_image_path"] for row in rows] == [f"owner/name/train/doc_{n}.png" for n in range(3)]
    assert rows[0]["neg_image_path"] == ["owner/name/train/doc_1.png", "owner/name/train/doc_2.png"]
    assert rows[0]["neg_scores"] == [1.0, 1.0] and rows[0]["qry"] == "a" and rows[0]["neg_text"] == ["", ""]

    data = write_rows(tmp_path / "b.jsonl", PAIRS[:1])
    negatives("--k", 2, "--hub-name", "owner/name", "--split", "train", *copies, data=data, output="b.jsonl")
    assert [row["pos"] for row in negatives.found][1:] == [f"owner/name/train/doc_{n}.png" for n in range(3)]


def test_a_late_interaction_teacher_and_its_shortcut_with_its_recall(negatives, models):
    negatives.rows = [{"query": "a b", "pos": "aab bb"}, {"query": "c", "pos": "cc a"}, {"query": "a", "pos": "aa c"}]
    told = negatives("--k", 1, model=LATE)
    assert [(row["negs"], row["neg_scores"]) for row in negatives.found] == [
        (["aa c"], [2.0]),
        (["aa c"], [1.0]),
        (["aab bb"], [2.0]),
    ]
    assert told["search"] == {"method": "exact", "recall": 1.0}
    told = negatives("--k", 1, "--candidates", 3, "--range-max", 1, model=LATE, output="short.jsonl")
    assert told["search"] == {"method": "exact", "recall": 1.0}, "as many candidates as documents are no shortcut"
    told = negatives("--k", 1, "--candidates", 2, "--range-max", 1, model=LATE, output="shorter.jsonl")
    assert told["search"]["method"] == "pooled" and told["search"]["candidates"] == 2
    assert 0.5 <= told["search"]["recall"] <= 1 and "recall" in negatives.out and told["counts"]["encoded"] == 0


def test_limit_takes_the_first_rows(negatives):
    told = negatives("--k", 1, "--limit", 2)
    assert told["counts"]["examples"] == 2 and [row["query"] for row in negatives.found] == ["a", "b"]


def test_one_split_of_a_folder(negatives, tmp_path):
    (tmp_path / "folder").mkdir()
    write_rows(tmp_path / "folder" / "train.jsonl", PAIRS)
    write_rows(tmp_path / "folder" / "test.jsonl", PAIRS[1:])
    negatives(data=tmp_path / "folder", status=2)
    assert "several splits; choose one with --split" in negatives.err
    negatives("--split", "test", data=tmp_path / "folder")
    assert [row["query"] for row in negatives.found] == ["b", "c"]


# What is there before.


def test_the_same_again_is_complete_and_other_settings_are_refused(negatives, models):
    negatives("--k", 2)
    before = negatives.path.stat().st_mtime_ns
    told = negatives("--k", 2, "--workers", 3, "--encode-batch-size", 5)
    assert f"{negatives.path} is complete: the same data, teacher and settings as before" in negatives.out
    assert negatives.path.stat().st_mtime_ns == before and told["counts"]["encoded"] == 7

    negatives("--k", 1, status=2)
    assert f"{negatives.path} is there, of other data, another teacher or other settings" in negatives.err
    negatives("--k", 2, model="tests.mine.made_teachers:sided", status=2)
    negatives.rows = [PAIRS[0], {"query": "b", "pos": "bbbb"}, PAIRS[2]]
    negatives("--k", 2, status=2)
    assert negatives.path.stat().st_mtime_ns == before

    negatives.rows = PAIRS
    told = negatives("--k", 1, "--overwrite")
    assert told["counts"]["encoded"] == 0 and all(len(row["negs"]) == 1 for row in negatives.found)


def test_examples_of_other_data_sets_are_other_data(negatives):
    def rows_of(*datasets):
        return [{**row, "dataset": name} for row, name in zip(PAIRS, datasets, strict=True)]

    negatives.rows = rows_of("x", "y", "x")
    negatives()
    for other in (rows_of("x", "y", "y"), rows_of("x", "z", "x")):
        negatives.rows = other
        negatives(status=2)
    negatives.rows = rows_of("x", "y", "x")
    negatives()
    assert "is complete" in negatives.out


def test_a_summary_is_never_that_of_an_older_output(negatives, monkeypatch):
    """A run that replaces another's output and is killed before its own summary."""
    negatives("--k", 2)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("raylib.mine.negatives_job.print_negatives", killed)
        negatives("--k", 1, "--overwrite", status=130)
    assert negatives.files == {"mined.jsonl"} and len(negatives.found[0]["negs"]) == 1
    negatives("--k", 2, status=2)
    assert "is there without a summary" in negatives.err


def test_python_gives_what_an_earlier_run_wrote(tmp_path, models):
    data = write_rows(tmp_path / "train.jsonl", PAIRS)
    settings = {"data": data, "output": str(tmp_path / "mined.jsonl"), "k": 1, "local": True, "quiet": True}
    first = raylib.mine_negatives(DOT, **settings)
    again = raylib.mine_negatives(NegativesConfig(model=[DOT], **settings))
    assert first.ok and not first.complete and again.ok and again.complete
    assert again.files == first.files
    assert first.files == {"triples": str(tmp_path / "mined.jsonl"), "summary": str(tmp_path / "mined.json")}
    assert again.counts == {**first.counts, "encoded": 0} and again.summary["digest"] == first.summary["digest"]
    with pytest.raises(UserError, match="mine negatives has no setting batch_size"):
        raylib.mine_negatives(DOT, batch_size=3, **settings)


def test_a_run_that_was_killed_as_it_ended_is_not_taken_for_complete(negatives, monkeypatch):
    write = storage.write_text

    def killed(path, text):
        if str(path).endswith("mined.json"):
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_text", killed)
        negatives(status=130)
    assert negatives.files == {"mined.jsonl"}
    negatives(status=2)
    assert "mined.jsonl is there without a summary" in negatives.err and "--overwrite" in negatives.err
    assert negatives("--overwrite")["counts"]["encoded"] == 0


def test_a_write_that_is_interrupted_leaves_nothing_and_the_next_run_needs_no_permission(negatives, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("raylib.examples.writers._rows", broken)
        negatives(status=130)
    assert negatives.files == set()
    assert negatives()["counts"]["encoded"] == 0


def test_nothing_is_replaced_that_this_command_did_not_write(negatives, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mined.json").write_text('{"mine": 1}')
    for flags in ((), ("--overwrite",)):
        negatives(*flags, status=2)
        assert "the summary goes to" in negatives.err and "what is there is none" in negatives.err
    assert (tmp_path / "out" / "mined.json").read_text() == '{"mine": 1}'

    negatives(output="x.jsonl")
    negatives("--overwrite", output="x.parquet", status=2)
    assert "x.json is the summary of x.jsonl, and would be that of this --output as well" in negatives.err

    data = write_rows(tmp_path / "out" / "y.jsonl", PAIRS)
    negatives("--overwrite", output="y.jsonl", data=data, status=2)
    assert "would replace what --data" in negatives.err and read_rows(data) == PAIRS
    negatives(output="z.jsonl", data=tmp_path / "out", status=2)
    assert "or be read with it the next time" in negatives.err


def test_outputs_and_stores_in_an_object_store(tmp_path, models):
    folder = f"memory://{tmp_path.name}/run"
    settings = {"data": write_rows(tmp_path / "train.jsonl", PAIRS), "local": True, "quiet": True}
    mined = raylib.mine_negatives(DOT, output=f"{folder}/mined.jsonl", k=1, **settings)
    rows = [json.loads(line) for line in storage.read_text(mined.files["triples"]).splitlines()]
    assert [row["negs"] for row in rows] == [["aab"], ["aab"], ["aaa"]]
    assert mined.files["summary"] == f"{folder}/mined.json"
    assert raylib.mine_negatives(DOT, output=f"{folder}/mined.jsonl", k=1, **settings).complete
    sizes = {"batch_size": 3, "cluster_size": 3, "skip_top": 0}
    plan = raylib.mine_batches(DOT, output=f"{folder}/plan.parquet", **sizes, **settings)
    assert plan.counts["encoded"] == 0 and storage.read_bytes(plan.files["histograms"])[:4] == b"\x89PNG"


# What cannot be encoded.


def test_bad_contents_are_named_and_nothing_is_mined_unless_they_are_allowed(negatives, models):
    negatives.rows = [*PAIRS, {"query": "crash", "pos": "b"}, {"query": "c", "pos": "c", "negs": ["crash d"]}]
    negatives("--k", 1, status=1)
    assert negatives.files == {"mined.errors.parquet"}
    bad = pq.read_table(negatives.path.with_suffix(".errors.parquet")).to_pylist()
    named = [("queries", "train.jsonl#line=4, query"), ("documents", "train.jsonl#line=5, negative")]
    assert [(row["source"], row["item_id"]) for row in bad] == named
    assert "Nothing was mined. Mend them, or leave them out with --allow-errors 2." in negatives.err
    negatives("--k", 1, "--allow-errors", 1, status=1)

    before = models[DOT].encoded
    told = negatives("--k", 1, "--allow-errors", 2)
    assert models[DOT].encoded == before, "what was good is in the store"
    assert "1 of 5 examples are left out: their query or positive could not be encoded" in negatives.err
    assert [row["id"] for row in negatives.found] == [f"train.jsonl#line={line}" for line in (1, 2, 3, 5)]
    contents = {"contents": 11, "distinct": 11, "stored": 9, "encoded": 0, "failed": 2}
    assert told["counts"] == {"examples": 4, "left_out": 1, **contents}
    assert told["files"] == {"triples": "mined.jsonl", "errors": "mined.errors.parquet"}
    assert not any("crash d" in row["negs"] for row in negatives.found)

    negatives("--k", 1, "--allow-errors", 2)
    assert "is complete" not in negatives.out, "what failed may be mended: it is tried again"
    negatives.rows = negatives.rows[:3]
    negatives("--k", 1, "--overwrite")
    assert negatives.files == {"mined.jsonl", "mined.json"}


def test_a_dry_run_counts_and_writes_nothing(negatives, models):
    negatives("--dry-run")
    assert f"3 examples; {DOT}: 7 distinct contents of 7; 0 are stored, 7 would be encoded" in negatives.out
    assert negatives.files == set() and DOT in models and models[DOT].encoded == 0


# What cannot be right, said before anything is encoded.

WRONG = [
    ([{"query": "a", "pos": "img/gone.png"}], "there is no image img/gone.png in --root"),
    ([{"query": "a", "negs": ["x"]}], "its fields are query, negs"),
    ([{"query": "a", "pos": []}], "the query has no positive"),
    ([{"query": " ", "pos": "x"}], "the query is empty"),
    ([], "has no rows; expected training data"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG, ids=[message for _, message in WRONG])
@pytest.mark.parametrize("kind", ["negatives", "batches"])
def test_data_that_cannot_be_used(kind, rows, message, request, models):
    run = request.getfixturevalue(kind)
    run.rows = rows
    run(status=2)
    assert run.err.startswith("raylib: ") and message in run.err and "Traceback" not in run.err
    assert run.files == set() and not any(model.encoded for model in models.values())


@pytest.mark.parametrize("kind", ["negatives", "batches"])
def test_a_wrong_path(kind, request, tmp_path):
    run = request.getfixturevalue(kind)
    run(data=tmp_path / "nowhere.jsonl", status=2)
    assert "nowhere.jsonl" in run.err and "raylib: " in run.err
    run("--group-by", "sorce", status=2)
    assert "has the field sorce, which --group-by names" in run.err


BATCH_ERRORS = [
    (
        ["--batch-size", 64],
        "--batch-size is 64, and a batch is of one data set; these have fewer examples: train (32).",
    ),
    (["--skip-top", 32], "the first 32 ranks are left out, and the examples of train have 32 documents"),
    (["--skip-top", "trian=3"], "unknown data set 'trian'. Did you mean train"),
    (["--skip-top", "many"], "--skip-top many: expected a whole number"),
]


@pytest.mark.parametrize(("flags", "message"), BATCH_ERRORS, ids=[message for _, message in BATCH_ERRORS])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_plans_that_cannot_be_made(batches, flags, message, dry, models):
    batches("--batch-size", 8, "--cluster-size", 8, *flags, *dry, status=2)
    assert message in batches.err and batches.files == set()
    assert not any(model.encoded for model in models.values())


def test_sizes_that_do_not_divide(batches, models):
    with pytest.raises(SystemExit) as end:
        batches("--batch-size", 12, "--cluster-size", 8)
    told = " ".join(batches.capsys.readouterr().err.split())
    assert end.value.code == 2 and "batch_size is 12 and cluster_size 8; expected a batch_size that is a" in told
    assert not models


def test_examples_of_one_positive_that_must_meet(batches, models):
    batches.rows = [{"query": f"q{n}", "pos": f"class {n % 2}"} for n in range(32)]
    flags = ["--batch-size", 8, "--cluster-size", 4, "--skip-top", 0]
    batches(*flags, status=2)
    assert "16 examples of train share one positive and it has 4 batches" in batches.err
    assert not any(model.encoded for model in models.values())
    told = batches(*flags, "--allow-duplicates")
    assert told["quality"]["metis"]["duplicates"] == 4 * 2 * (4 * 3), "as evenly as can be: 4 of each in a batch"


# Batches.


def plan_of(run):
    ids = [row["id"] for row in run.rows]
    plan = read_plan(str(run.path), ids)
    placed = plan.batches[plan.batches >= 0]
    assert len(set(placed.tolist())) == len(placed), "no example comes twice"
    return plan, [[ids[i] for i in batch if i >= 0] for batch in plan.batches]


def test_batches_recover_what_belongs_together_and_their_quality_is_told(batches, models):
    told = batches(*SMALL)
    plan, named = plan_of(batches)
    assert all(len({name[:2] for name in batch}) == 1 for batch in named)
    assert plan.batches.shape == (4, 8) and sorted(plan.batches.ravel().tolist()) == list(range(32))
    assert plan.teacher == models[BAG].fingerprint == told["teacher"]["fingerprint"]
    assert plan.settings["skip_top"] == {"train": 0} and plan.settings["method"] == "metis"
    assert (told["steps"], told["placed"]) == (4, 32)
    b3, chance = told["quality"]["metis"], told["quality"]["random"]
    assert b3["similarity"] > chance["similarity"] + 0.2 and b3["n_examples"] == chance["n_examples"] == 32
    assert told["clusters"]["cut"] < 0.05 and (told["clusters"]["smallest"], told["clusters"]["largest"]) == (8, 8)
    assert told["search"]["train"]["recall"] == 1.0
    assert batches.files == {"plan.parquet", "plan.json", "plan.png"}
    assert (batches.path.with_suffix(".png")).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert told["files"] == {"plan": "plan.parquet", "histograms": "plan.png"}
    assert "edge cut" in batches.out and "wrote" in batches.out and "4 batches, 32 examples" in batches.out


def test_a_plan_is_that_of_its_seed_and_planning_again_encodes_nothing(batches, models):
    plans = {}
    for name, seed in (("x", 0), ("y", 0), ("z", 5)):
        told = batches(*SMALL[:2], "--cluster-size", 4, *SMALL[4:], "--seed", seed, output=f"{name}.parquet")
        plans[name] = plan_of(batches)[0].batches.tolist()
    assert plans["x"] == plans["y"] != plans["z"]
    assert told["counts"]["encoded"] == 0 and models[BAG].encoded == 64


def test_the_first_ranks_are_left_out_as_asked(batches):
    """Each example's nearest is its twin: kept together where nothing is skipped, and apart where that rank is."""
    rng = np.random.default_rng(0)
    words = [" ".join(f"w{w}" for w in rng.choice(60, 8, replace=False)) for _ in range(32)]
    batches.rows = [
        {"id": f"p{pair}{side}", "query": f"{text} {pair}{side} x", "pos": f"{text} {pair}{side} y"}
        for pair, text in enumerate(words)
        for side in "uv"
    ]
    twins = {}
    for skip in (0, 2):
        flags = ["--batch-size", 2, "--cluster-size", 2, "--skip-top", f"train={skip}", "--neighbours", 2]
        batches(*flags, "--duplicate-similarity", 1, output=f"skip{skip}.parquet")
        named = plan_of(batches)[1]
        twins[skip] = sum(batch[0][:-1] == batch[1][:-1] for batch in named)
    assert twins[0] >= 30 and twins[2] <= 4


def test_duplicates_never_meet(batches):
    rows = topics(4, 8)
    rows[3]["pos"] = rows[0]["pos"]
    rows[5]["query"] = rows[1]["query"]
    batches.rows = rows
    told = batches(*SMALL)
    for batch in plan_of(batches)[1]:
        assert not {rows[0]["id"], rows[3]["id"]} <= set(batch) and not {rows[1]["id"], rows[5]["id"]} <= set(batch)
    assert told["quality"]["metis"]["duplicates"] == 0


def test_near_duplicates_are_those_of_the_similarity_that_was_asked_for(batches):
    """No two of a topic may meet, so that each of four batches has one of each topic."""
    batches.rows = topics(8, 4)
    batches("--batch-size", 8, "--cluster-size", 4, "--skip-top", 0, "--duplicate-similarity", 0.5)
    for batch in plan_of(batches)[1]:
        assert len({name[:2] for name in batch}) == 8


def test_a_batch_is_of_one_data_set_and_what_remains_is_short_or_left_out(batches):
    rows = [{**row, "source": "s0" if number < 9 else "s1"} for number, row in enumerate(topics(2, 11))]
    batches.rows = rows
    flags = ["--batch-size", 4, "--cluster-size", 2, "--skip-top", 1, "--skip-top", "s1=2", "--neighbours", 5]
    told = batches(*flags, "--group-by", "source")
    source = {row["id"]: row["source"] for row in rows}
    plan, named = plan_of(batches)
    assert all(len({source[name] for name in batch}) == 1 for batch in named)
    assert sorted(map(len, named)) == [1, 1, 4, 4, 4, 4, 4] and told["placed"] == 22
    assert plan.settings["skip_top"] == {"s0": 1, "s1": 2} and set(told["search"]) == {"s0", "s1"}
    assert told["quality"]["metis"]["group_purity"] == 1.0
    assert told["quality"]["random"]["n_batches"] == 7, "batches by chance are of one data set as well"

    told = batches(*flags, "--group-by", "source", "--remainder", "drop", output="drop.parquet")
    assert sorted(map(len, plan_of(batches)[1])) == [4, 4, 4, 4, 4] and told["placed"] == 20


def test_hard_negatives_are_near_and_of_other_batches(batches):
    batches.rows = topics(4, 8)
    flags = ["--batch-size", 4, "--cluster-size", 4, "--skip-top", 0, "--neighbours", 7]
    told = batches(*flags, "--hard-negatives", 2)
    plan, named = plan_of(batches)
    assert plan.hard_negatives is not None and plan.hard_negatives.shape == (8, 4, 2)
    ids = [row["id"] for row in batches.rows]
    for batch, given in zip(named, plan.hard_negatives, strict=True):
        found = {ids[i] for i in given.ravel() if i >= 0}
        assert found and not found & set(batch)
        assert {name[:2] for name in found} <= {name[:2] for name in batch}
    assert plan.settings["hard_negatives"] == 2 and told["settings"]["hard_negatives"] == 2
    batches(*flags, output="none.parquet")
    assert plan_of(batches)[0].hard_negatives is None


def test_given_negatives_are_not_encoded_for_a_plan(batches, models):
    batches.rows = [{**row, "negs": [f"negative {number}", "crash"]} for number, row in enumerate(topics(4, 8))]
    told = batches(*SMALL)
    assert told["counts"]["contents"] == 64 and models[BAG].encoded == 64


@pytest.mark.parametrize("method", ["random", "sequential"])
def test_plans_without_a_teacher_are_in_the_same_form_and_say_that_their_quality_is_unknown(batches, method, models):
    told = batches("--batch-size", 12, "--method", method, model=None)
    plan, named = plan_of(batches)
    assert sorted(map(len, named)) == [8, 12, 12] and plan.teacher == "" and told["teacher"] is None
    in_order = [row["id"] for row in batches.rows] == [name for batch in named for name in batch]
    assert in_order == (method == "sequential")
    assert "quality" not in told and batches.files == {"plan.parquet", "plan.json"} and not models
    assert "no teacher was given: how hard the batches are is not known" in batches.out
    batches("--batch-size", 12, "--method", method, model=None)
    assert "is complete" in batches.out
    batches("--batch-size", 12, "--method", method, "--seed", 1, model=None, output="other.parquet")
    assert (plan_of(batches)[0].batches.tolist() == plan.batches.tolist()) == (method == "sequential")
    batches("--batch-size", 16, "--method", method, model=None, status=2)
    assert "is there, of other data, another teacher or other settings" in batches.err


def test_plans_by_chance_with_a_teacher_show_their_quality(batches):
    told = batches("--batch-size", 8, "--method", "sequential")
    assert set(told["quality"]) == {"sequential", "random"} and "clusters" not in told
    told = batches("--batch-size", 8, "--method", "random", output="chance.parquet")
    assert set(told["quality"]) == {"random"} and "chance.png" in batches.files


@pytest.mark.parametrize("method", ["metis-swaps", "growth", "growth-swaps", "signed-growth", "balanced-kmeans"])
def test_every_method_can_be_asked_for_by_name(batches, method):
    told = batches(*SMALL, "--method", method)
    plan, named = plan_of(batches)
    assert plan.settings["method"] == method and set(told["quality"]) == {method, "random"}
    met = sum(len({name[:2] for name in batch}) for batch in named)
    assert met <= 4 + 2 * (method == "balanced-kmeans"), "planted topics are recovered: one in a batch"


def test_pieces_of_a_large_graph_are_cut_where_the_place_runs_them(batches, monkeypatch):
    runs = []

    def run(function, tasks):
        for task in tasks:
            runs.append(task)
            yield function(task)

    from raylib.mine import place

    here = place.this_process()
    monkeypatch.setattr(place, "this_process", lambda: place.MinePlace(here.encode, here.find, here.search, run))
    batches(*SMALL, "--split-above", 16)
    assert len(runs) >= 2 and len(plan_of(batches)[1]) == 4


def test_a_late_interaction_teacher_plans_batches_too(batches, models):
    batches.rows = [
        {"id": f"{letter}{n}", "query": letter * n + " b", "pos": letter * n + " bb"}
        for letter in "ac"
        for n in range(1, 9)
    ]
    told = batches(
        *["--batch-size", 4, "--cluster-size", 4, "--skip-top", 0, "--neighbours", 5, "--duplicate-similarity", 1],
        model=LATE,
    )
    assert plan_of(batches)[0].batches.shape == (4, 4) and told["search"]["train"]["method"] == "exact"
    assert told["quality"]["metis"]["n_examples"] == 16


def test_what_is_suspect_is_as_asked(batches):
    shares = [
        batches(*SMALL, "--suspect-above", above, output=f"{above}.parquet")["quality"]["metis"]["suspects"]
        for above in (0.2, 0.9)
    ]
    assert shares[0] > 0.9 and shares[1] < 0.7


def test_a_mean_of_nothing_is_no_number_in_json(batches):
    """Batches of one example have no negatives."""
    batches("--batch-size", 1, "--cluster-size", 1, "--skip-top", 0)
    text = batches.path.with_suffix(".json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["quality"]["metis"]["hardness"] is None
    assert "–" in batches.out


def test_bad_contents_of_a_plan(batches):
    batches.rows = [*topics(4, 8), {"id": "bad", "query": "crash", "pos": "t0w1"}]
    batches(*SMALL, status=1)
    told = batches(*SMALL, "--allow-errors", 1)
    ids = [row["id"] for row in batches.rows[:-1]]
    assert told["counts"]["left_out"] == 1 and read_plan(str(batches.path), ids).batches.shape == (4, 8)
    batches("--batch-size", 33, "--cluster-size", 33, "--allow-errors", 1, output="x.parquet", status=2)
    assert "these have fewer examples: train (32)" in batches.err


def test_quiet_prints_nothing(batches, negatives):
    batches(*SMALL, "--quiet")
    assert (batches.out, batches.err) == ("", "")
    negatives("--quiet")
    assert (negatives.out, negatives.err) == ("", "")


def test_python_jobs_of_plans(tmp_path, models):
    rows = topics(4, 8)
    data = write_rows(tmp_path / "train.jsonl", rows)
    settings = {"data": [data], "batch_size": 8, "local": True, "quiet": True}
    chance = raylib.mine_batches(method="random", output=str(tmp_path / "chance.parquet"), **settings)
    assert chance.ok and set(chance.files) == {"plan", "summary"}
    config = BatchesConfig(
        model=[BAG], output=str(tmp_path / "b3.parquet"), cluster_size=8, skip_top=["0"], neighbours=7, **settings
    )
    outcome = raylib.mine_batches(config)
    assert outcome.ok and outcome.summary["quality"]["metis"]["n_examples"] == 32
    assert set(outcome.files) == {"plan", "histograms", "summary"}
    with pytest.raises(UserError, match="no teacher was given"):
        raylib.mine_batches(output=str(tmp_path / "x.parquet"), cluster_size=8, **settings)
    assert storage.exists(outcome.files["histograms"])
