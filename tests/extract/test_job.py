"""The extract job in one process: what is written, what goes on after a kill, what cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raylib
from raylib.cli import main
from raylib.errors import ModelError, UserError
from raylib.evaluate import auto_batch
from raylib.evaluate.progress import QuietReporter
from raylib.extract.batches import run_batch
from raylib.extract.config import ExtractConfig
from raylib.extract.extractor import Extractor
from raylib.extract.job import ExtractJob
from raylib.extract.local import ThisProcess
from raylib.models.protocol import ModelSpec
from raylib.store.hidden_states import open_states
from raylib.store.representations import Representation

from .made import columns, images_folder, rows

IDS = [row.question_id for row in rows()]


@pytest.fixture
def folder(tmp_path):
    images_folder(tmp_path)
    return tmp_path


@pytest.fixture
def settings(folder, checkpoint):
    return {
        "model": str(checkpoint("gemma3")),
        "vqa_dataset": str(folder / "vqa.csv"),
        "images_dir": str(folder / "images"),
        "output_dir": str(folder / "out"),
        "checkpoint_interval": 3,
        "batch_size": 2,
        "local": True,
        "quiet": True,
    }


class Counting(ThisProcess):
    """Counts the rows that are run, and may be stopped after so many batches."""

    def __init__(self, batches=None):
        self.ran, self.left = [], batches

    def extract(self, extractor, batches):
        for states in super().extract(extractor, batches):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left = None if self.left is None else self.left - 1
            self.ran += states.numbers
            yield states


def run(settings, place=None, **others):
    place = place or Counting()
    return ExtractJob(ExtractConfig(**(settings | others)), place, QuietReporter()).run(), place


# What is written.


def test_parts_hold_the_rows_of_the_data_set_in_its_order(settings, folder):
    outcome, _ = run(settings)
    assert outcome.ok and not outcome.bad
    names = [f"gemma3_embeddings_part_{n:03d}.h5" for n in (1, 2, 3)]
    names[:] = [Path(path).name for path in outcome.files]
    assert [open_states(path).question_ids for path in outcome.files] == [IDS[:3], IDS[3:6], IDS[6:]]
    found = open_states(settings["output_dir"])
    for name, expected in {
        "image_id": [row.image_name for row in rows()],
        "question": [row.question for row in rows()],
        "ground_truth_answer": [row.gt_answer for row in rows()],
        "answer": [""] * 8,
        "category": [row.category for row in rows()],
    }.items():
        assert found.texts(name) == expected
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted([*names, "manifest.json"])
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["files"] == names and manifest["counts"]["extracted"] == 8


def test_states_and_positions_are_those_of_each_row_alone(settings):
    run(settings)
    extractor = Extractor(ModelSpec(settings["model"]), "0,1/4,1/2,3/4,-1")
    found = open_states(settings["output_dir"])
    for i, row in enumerate(rows()):
        prepared = extractor.prepare(row.question, row.image)
        alone = extractor.forward([prepared]).values
        assert set(alone) == set(found.representations)
        for name, states in alone.items():
            np.testing.assert_allclose(found.matrix(name)[i], states[0], rtol=0, atol=1e-4)
        span = found.row(row.question_id).positions
        assert tuple(span["image_span"]) == prepared.span.bounds
        assert (span["vision_position"], span["query_position"]) == (prepared.span.vision, prepared.span.query)
        assert span["image_tokens"] == len(prepared.span.image)


def test_a_file_tells_which_model_and_layers_it_is_of(settings):
    outcome, _ = run(settings, layers="0,-1")
    with h5py.File(outcome.files[0]) as file:
        about = dict(file.attrs)
        assert about["model_name"] == settings["model"] and about["model_type"] == "gemma3"
        assert about["num_samples"] == 3 and about["num_layers"] == 6
        assert (about["device"], about["dtype"], about["boundary"]) == ("cpu", "float32", "exact")
        assert list(about["layers"]) == [0, 5] and list(about["layer_fractions"]) == [0.0, 1.0]
        assert json.loads(about["versions"])["torch"] and len(about["fingerprint"]) == 64
        old = file["q1"]
        assert set(old["query_token_representation"]) == {"layer_0", "layer_5"}
        assert old["vision_only_representation"].ndim == 1 and old["question"][()] == b"Why?"


def test_parquet_holds_the_same(settings, folder):
    run(settings)
    run(settings, output_dir=str(folder / "parquet"), format="parquet")
    ours, other = open_states(settings["output_dir"]), open_states(str(folder / "parquet"))
    assert ours.question_ids == other.question_ids and ours.representations == other.representations
    for name in ours.representations:
        np.testing.assert_array_equal(ours.matrix(name), other.matrix(name))


def test_the_vision_token_moves_with_the_legacy_boundary(settings, folder):
    run(settings)
    run(settings, output_dir=str(folder / "legacy"), boundary="legacy")
    exact, legacy = open_states(settings["output_dir"]), open_states(str(folder / "legacy"))
    assert legacy.about["boundary"] == "legacy" and legacy.about["fingerprint"] != exact.about["fingerprint"]
    for name in exact.representations:
        same = np.array_equal(exact.matrix(name), legacy.matrix(name))
        assert same == (name.kind != "vision_token"), name
    row = legacy.row("q1").positions
    assert row["vision_position"] == (row["query_position"] + 1) // 2


def test_answers_are_those_of_each_row_alone(settings):
    run(settings, generate=True, max_new_tokens=6, batch_size=8, layers="-1")
    extractor = Extractor(ModelSpec(settings["model"]), "-1", max_new_tokens=6)
    alone = [extractor.answer([extractor.prepare(row.question, row.image)])[0] for row in rows()]
    assert open_states(settings["output_dir"]).texts("answer") == alone
    assert len(set(alone)) > 3


def test_three_rows_are_enough_for_a_test(settings, folder):
    outcome, place = run(settings, test=True)
    assert outcome.folder == str(folder / "out" / "test") and len(place.ran) == 3
    assert place.ran != [0, 1, 2], "they are drawn"
    again, _ = run(settings, test=True, overwrite=True)
    assert again.files == outcome.files


def test_images_may_lie_in_a_column_of_the_table(settings, folder):
    run(settings)
    cells = [(folder / "images" / row.image_name).read_bytes() for row in rows()]
    texts = {
        name: [getattr(row, name) for row in rows()] for name in ("question_id", "question", "gt_answer", "category")
    }
    names = [row.image_name for row in rows()]
    pq.write_table(pa.table(texts | {"image_name": names, "scan": cells}), folder / "vqa.parquet")
    inside = {"vqa_dataset": str(folder / "vqa.parquet"), "images_dir": None, "output_dir": str(folder / "inside")}
    with pytest.raises(UserError, match="image"):
        run(settings, **inside)
    run(settings, **inside, image_column="scan")
    assert columns(folder / "inside") == columns(folder / "out")


def test_columns_may_be_compressed(settings, folder):
    outcome, _ = run(settings)
    small, _ = run(settings, output_dir=str(folder / "lzf"), compression="lzf")
    assert columns(folder / "lzf") == columns(folder / "out")
    with h5py.File(outcome.files[0]) as plain, h5py.File(small.files[0]) as lzf:
        path = "columns/query_token/layer_0"
        assert (plain[path].compression, lzf[path].compression) == (None, "lzf")


def test_a_model_of_the_hub_is_found_in_its_cache_by_revision(settings, folder, checkpoint, monkeypatch):
    """Two commits in the hub's own layout, in a folder of the user's; nothing is downloaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub = folder / "cache" / "models--some--vlm"
    commits = {"main": "a" * 40, "older": "b" * 40}
    for (revision, commit), model in zip(commits.items(), ("gemma3", "qwen2_5_vl"), strict=True):
        (hub / "refs").mkdir(parents=True, exist_ok=True)
        (hub / "refs" / revision).write_text(commit)
        shutil.copytree(checkpoint(model), hub / "snapshots" / commit)
    from_hub = {"model": "some/vlm", "cache_dir": str(folder / "cache")}
    run(settings)
    outcome, _ = run(settings, **from_hub, output_dir=str(folder / "hub"))
    assert Path(outcome.files[0]).name == "vlm_embeddings_part_001.h5"
    found, local = open_states(str(folder / "hub")), open_states(settings["output_dir"])
    for name in local.representations:
        np.testing.assert_array_equal(found.matrix(name), local.matrix(name))
    run(settings, **from_hub, output_dir=str(folder / "older"), revision="older")
    assert open_states(str(folder / "older")).about["model_type"] == "qwen2_5_vl"
    manifest = json.loads((folder / "older" / "manifest.json").read_text())
    assert manifest["settings"]["commit"] == "b" * 40
    with pytest.raises(ModelError, match="some/vlm"):
        run(settings, **(from_hub | {"cache_dir": str(folder)}), output_dir=str(folder / "none"))


# Going on.


@pytest.mark.parametrize("batches", [0, 1, 3, 4])
def test_a_run_that_was_stopped_goes_on_with_the_next_batch(settings, folder, batches):
    run(settings, output_dir=str(folder / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run(settings, Counting(batches))
    assert not (folder / "out" / "manifest.json").exists()
    outcome, place = run(settings)
    done = 8 - len(place.ran)
    assert outcome.ok and done == sum([2, 1, 2, 1, 2][:batches]), "no batch is run twice, none is left out"
    assert columns(folder / "out") == columns(folder / "whole")
    assert not (folder / "out" / ".unfinished").exists()


def test_a_finished_run_is_not_run_again(settings):
    run(settings)
    outcome, place = run(settings)
    assert outcome.ok and place.ran == [] and len(outcome.files) == 3
    Path(outcome.files[1]).unlink()
    _, place = run(settings)
    assert sorted(place.ran) == [3, 4, 5], "a part that is gone is made again"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"layers": "0"}, r"its layers is \[0, 1, 3, 4, 5\], this run's is \[0\]"),
        ({"boundary": "legacy"}, "its boundary is exact, this run's is legacy"),
        ({"checkpoint_interval": 4}, "its checkpoint_interval is 3, this run's is 4"),
        ({"dtype": "bfloat16"}, "its dtype is float32, this run's is bfloat16"),
        ({"generate": True}, "its max_new_tokens is None, this run's is 200"),
    ],
)
def test_files_of_another_run_are_not_replaced_unless_that_is_said(settings, changed, difference):
    outcome, _ = run(settings)
    before = Path(outcome.files[0]).read_bytes()
    with pytest.raises(UserError, match=f"is of another run: {difference}. Give another --output-dir"):
        run(settings, **changed)
    assert Path(outcome.files[0]).read_bytes() == before


def test_overwrite_replaces_every_file_of_another_run(settings, folder):
    run(settings, checkpoint_interval=1)
    outcome, place = run(settings, overwrite=True)
    assert sorted(place.ran) == list(range(8))
    assert sorted(path.name for path in (folder / "out").glob("*.h5")) == [Path(path).name for path in outcome.files]


def test_other_rows_are_another_run(settings, folder):
    run(settings)
    lines = (folder / "vqa.csv").read_text().splitlines()
    (folder / "vqa.csv").write_text("\n".join(lines[:1] + lines[2:]))
    with pytest.raises(UserError, match=r"part_001.h5 is of another run: it holds 1 rows that are not rows of this"):
        run(settings)


def test_a_batch_size_that_was_found_is_kept_until_the_run_ends(settings, folder, monkeypatch):
    tried = []

    def largest(model, device, forward, most):
        tried.append(most)
        forward(2)
        return 2

    monkeypatch.setattr("raylib.extract.local.largest_batch", largest)
    with pytest.raises(KeyboardInterrupt):
        run(settings, Counting(1), batch_size="auto")
    _, place = run(settings, batch_size="auto")
    assert len(tried) == 1 and len(place.ran) == 6


def test_auto_finds_a_batch_by_running_the_longest_row(settings, monkeypatch):
    sizes = []
    original = Extractor.forward

    def forward(self, prepared, side="right"):
        sizes.append([row.tokens for row in prepared])
        return original(self, prepared, side)

    monkeypatch.setattr(Extractor, "forward", forward)
    monkeypatch.setattr(auto_batch, "_WORTH_DOUBLING", 1000.0)  # nothing is: one row it is
    outcome, _ = run(settings, batch_size="auto")
    tokens = [tokens for batch in sizes for tokens in batch]
    assert outcome.ok and set(sizes[0]) == {max(tokens)}


# What cannot be used.


def test_rows_with_broken_images_are_reported_and_the_others_kept(settings, folder, capsys):
    (folder / "images" / "wide.png").write_bytes(b"no image")
    outcome, _ = run(settings)
    assert not outcome.ok and [(b.item_id, b.source) for b in outcome.bad] == [("q2", settings["vqa_dataset"])]
    assert open_states(settings["output_dir"]).question_ids == [name for name in IDS if name != "q2"]
    errors = pq.read_table(folder / "out" / "errors.parquet").to_pylist()
    assert [(e["item_id"], e["reason"]) for e in errors] == [("q2", outcome.bad[0].reason)]
    assert "q2" in capsys.readouterr().err
    assert run(settings, allow_errors=1)[0].ok


def test_a_mended_image_makes_its_part_anew_and_no_other(settings, folder):
    good = (folder / "images" / "wide.png").read_bytes()
    (folder / "images" / "wide.png").write_bytes(b"no image")
    run(settings)
    (folder / "images" / "wide.png").write_bytes(good)
    outcome, place = run(settings)
    assert outcome.ok and sorted(place.ran) == [0, 1, 2]
    assert open_states(settings["output_dir"]).question_ids == IDS
    assert not (folder / "out" / "errors.parquet").exists()


def test_a_part_whose_rows_are_all_bad_is_a_file_without_rows(settings, folder):
    for name in ("square.png", "wide.png", "tall.png"):
        (folder / "images" / name).write_bytes(b"no image")
    outcome, _ = run(settings)
    assert [b.item_id for b in outcome.bad] == ["q1", "q2", "set/q3", "q8"]
    assert open_states(outcome.files[0]).question_ids == []
    assert open_states(settings["output_dir"]).question_ids == ["q4", "q5", "q6", "q7"]


def test_rows_that_are_bad_in_the_table_are_reported_too(settings, folder):
    shutil.copy(folder / "vqa.csv", folder / "more.csv")
    with open(folder / "more.csv", "a") as stream:
        stream.write("q1,square.png,Again?,yes,short\nq9,../secret.png,Why?,yes,short\n")
    outcome, _ = run(settings, vqa_dataset=str(folder / "more.csv"))
    assert [b.item_id for b in outcome.bad] == ["q1", "q9"] and outcome.counts["rows"] == 10
    assert open_states(settings["output_dir"]).question_ids == IDS


def test_a_question_that_holds_the_models_own_mark_is_refused(settings, folder):
    lines = (folder / "vqa.csv").read_text().replace("Why?", "Why <image_soft_token> ?")
    (folder / "vqa.csv").write_text(lines)
    outcome, _ = run(settings)
    assert [b.item_id for b in outcome.bad] == ["q1"] and "<image_soft_token>" in outcome.bad[0].reason


def test_a_batch_that_does_not_fit_is_halved(settings, monkeypatch):
    original = Extractor.forward
    sizes = []

    def short_of_memory(self, prepared, side="right"):
        if len(prepared) > 2:
            raise MemoryError("out of memory")
        sizes.append(len(prepared))
        return original(self, prepared, side)

    monkeypatch.setattr(Extractor, "forward", short_of_memory)
    outcome, _ = run(settings, batch_size=8, checkpoint_interval=8)
    assert outcome.ok and sizes == [2, 2, 2, 2]
    assert open_states(settings["output_dir"]).question_ids == IDS


def test_a_row_that_gives_nan_or_does_not_fit_alone_is_set_aside(settings, monkeypatch):
    original = Extractor.forward
    longest = []

    def forward(self, prepared, side="right"):
        if len(prepared) == 1 and prepared[0].tokens == max(longest):
            raise MemoryError("out of memory")
        longest.extend(row.tokens for row in prepared)
        if max(longest) in [row.tokens for row in prepared]:
            raise MemoryError("out of memory")
        states = original(self, prepared, side)
        states.values[Representation("query_token", 0)][0, 3] = np.nan
        return states

    monkeypatch.setattr(Extractor, "forward", forward)
    extractor = Extractor.of(ExtractConfig(**settings))
    from raylib.extract.batches import PreparedBatch

    prepared = [extractor.prepare(row.question, row.image) for row in rows()[:4]]
    done = run_batch(extractor, PreparedBatch(1, "b", [10, 11, 12, 13], prepared))
    assert done.numbers == [11] and len(done.values[Representation("query_token", 0)]) == 1
    assert "NaN or infinite" in done.failed[10] and "does not fit in memory alone" in done.failed[13]
    assert any("batch halved" in note for note in done.notes)


# As a user meets it.


def test_the_command_the_function_and_its_exit_status(settings, folder, capsys):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if value is not True]
    assert main(["extract", *flags, "--local"]) == 0
    assert "wrote 3 files" in capsys.readouterr().out
    assert raylib.extract(settings["model"], **{k: v for k, v in settings.items() if k != "model"}).ok
    (folder / "images" / "wide.png").write_bytes(b"no image")
    assert main(["extract", *flags, "--local"]) == 1
    assert main(["extract", *flags, "--local", "--allow-errors", "1"]) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": ""}, "no model was given"),
        ({"vqa_dataset": ""}, "no questions were given"),
        ({"layers": "99"}, "--layers asks for 99; the decoder has 6 layers"),
        ({"layers": "x"}, "--layers has 'x'"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"checkpoint_interval": 0}, "--checkpoint-interval is 0"),
        ({"format": "parquet", "compression": "lzf"}, "--compression is of HDF5"),
        ({"dtype": "float8"}, "--dtype is 'float8'"),
        ({"images_dir": "/nowhere"}, "--images-dir /nowhere does not exist"),
    ],
)
def test_what_cannot_be_right_is_said_at_once(settings, changed, message):
    given = settings | changed
    with pytest.raises(UserError, match=message):
        raylib.extract(given.pop("model"), **given)


def test_another_architecture_has_no_legacy_boundary(settings, checkpoint):
    with pytest.raises(UserError, match="--boundary legacy: no script of HALP was for internvl"):
        run(settings, model=str(checkpoint("internvl3")), boundary="legacy")
