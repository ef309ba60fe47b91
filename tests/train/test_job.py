"""`raylib train` in one process: from a file of pairs to a folder of weights, and what it refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file

import raylib
from raylib.errors import BadContentsError, ModelError, UserError
from raylib.examples.batch_plan import read_plan, write_plan
from raylib.examples.examples import read_examples
from raylib.models.untrained import build_clip, build_colpali
from raylib.train.records import read_metrics
from tests.evaluate.mock_tasks import grown_task

from .made_runs import most_different, write_pairs

N, BATCH = 23, 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("job")
    build_clip(found / "clip")
    write_pairs(found / "pairs.jsonl", N)
    return found


@pytest.fixture(scope="module")
def settings(folder):
    return {
        "model": str(folder / "clip"),
        "data": str(folder / "pairs.jsonl"),
        "batch_size": BATCH,
        "max_steps": 10,
        "save_every": 3,
        "lr": 1e-4,
        "log_every": 1,
        "local": True,
        "quiet": True,
    }


@pytest.fixture(scope="module")
def undisturbed(settings, folder):
    """The weights of a run that nothing happened to."""
    raylib.train(**settings, output_folder=str(folder / "undisturbed"))
    return weights(folder / "undisturbed")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_what_a_run_leaves_behind(folder, settings, undisturbed):
    run = folder / "undisturbed"
    assert sorted(p.name for p in (run / "checkpoints").iterdir() if p.is_dir()) == ["step-00000009", "step-00000010"]
    assert [row["step"] for row in read_metrics(run)] == list(range(1, 11))
    assert json.loads((run / "run.json").read_text())["settings"]["batch_size"] == BATCH
    assert json.loads((run / "finished.json").read_text())["steps"] == 10
    assert (run / "training_loss.txt").read_text().count("\n") >= 10
    assert list((run / "tensorboard").iterdir())

    plans = [read_plan(str(path)) for path in sorted((run / "plans").iterdir())]
    assert len(plans) == 3  # of 4 batches each: 10 steps reach into the third
    assert all(np.sort(plan.batches[plan.batches >= 0]).tolist() == list(range(N)) for plan in plans)
    assert not np.array_equal(plans[0].batches, plans[1].batches)

    # The weights have changed, and they are a model.
    before = load_file(folder / "clip" / "model.safetensors")
    assert most_different(before, undisturbed) > 1e-5
    (vectors,) = [raylib.encode(str(run / "model"), texts=["list of words"])]
    assert vectors.shape[0] == 1 and np.isfinite(vectors).all()


def test_the_same_command_again_does_nothing(folder, settings, undisturbed):
    outcome = raylib.train(**settings, output_folder=str(folder / "undisturbed"))
    assert outcome.complete and outcome.trained.steps == 10


def test_another_command_does_not_take_its_place(folder, settings, undisturbed):
    with pytest.raises(UserError, match="--overwrite"):
        raylib.train(**{**settings, "lr": 2e-4}, output_folder=str(folder / "undisturbed"))
    assert most_different(weights(folder / "undisturbed"), undisturbed) == 0


def test_a_plan_is_followed_to_the_id(folder, settings, undisturbed):
    # The plans by chance of another run, joined into one and given back, train the same weights.
    run = folder / "undisturbed"
    plans = [read_plan(str(path)).batches for path in sorted((run / "plans").iterdir())]
    examples = read_examples(settings["data"])
    assert np.array_equal(np.unique(np.concatenate([p.ravel() for p in plans])), np.arange(-1, N))
    for name, order in (("first", slice(None)), ("backwards", slice(None, None, -1))):
        path = folder / f"{name}.parquet"
        write_plan(str(path), plans[0][order], examples.ids, settings={"method": "random", "seed": 0}, teacher="")
        four = {**settings, "max_steps": 4, "batch_size": None, "schedule": "constant"}
        raylib.train(**four, batch_plan=str(path), output_folder=str(folder / name))
    by_chance = {**settings, "max_steps": 4, "schedule": "constant"}
    raylib.train(**by_chance, output_folder=str(folder / "by-chance"))
    assert most_different(weights(folder / "first"), weights(folder / "by-chance")) == 0
    assert most_different(weights(folder / "backwards"), weights(folder / "by-chance")) > 1e-6
    assert not (folder / "first" / "plans").exists()


def test_a_killed_run_goes_on_by_the_same_command_and_by_resume(folder, settings, undisturbed):
    flags = [f"--{n.replace('_', '-')}={v}" for n, v in settings.items() if n not in ("local", "quiet")]
    for name, again in (("killed", flags), ("resumed", [f"--resume={folder / 'resumed'}"])):
        run = folder / name
        command = [sys.executable, "-m", "raylib.cli", "train", "--local"]
        first = subprocess.Popen([*command, *flags, f"--output-folder={run}"], stdout=subprocess.PIPE, text=True)
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("step 5/"):
                first.send_signal(signal.SIGKILL)
        first.wait()
        assert not (run / "finished.json").exists()
        if name == "killed":
            again = [*flags, f"--output-folder={run}"]
        second = subprocess.run([*command, *again], capture_output=True, text=True, check=True)
        assert "going on from step 3 of 10" in second.stdout
        assert most_different(weights(run), undisturbed) <= 1e-7
        assert [row["step"] for row in read_metrics(run)] == list(range(1, 11))


def test_a_damaged_checkpoint_is_passed_over_and_this_is_said(folder, settings, undisturbed, capsys):
    run = folder / "damaged"
    raylib.train(**settings, output_folder=str(run))
    (run / "finished.json").unlink()
    state = run / "checkpoints" / "step-00000010" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1000])
    outcome = raylib.train(**settings, output_folder=str(run))
    assert outcome.trained.resumed == 9
    told = capsys.readouterr().err
    assert "step-00000010" in told and "damaged" in told
    assert most_different(weights(run), undisturbed) <= 1e-7


def test_resume_takes_the_settings_of_the_run(folder, settings, undisturbed):
    with pytest.raises(UserError, match=r"--lr differ"):
        raylib.train(resume=str(folder / "undisturbed"), lr=3e-4, local=True)
    with pytest.raises(UserError, match=r"no run\.json"):
        raylib.train(resume=str(folder / "nowhere"), local=True)
    assert raylib.train(resume=str(folder / "undisturbed"), local=True, quiet=True).complete


def test_resume_keeps_what_was_switched_off(settings, tmp_path):
    run = tmp_path / "run"
    raylib.train(**settings, score_per_token=False, mask_duplicates=False, output_folder=str(run))
    (run / "finished.json").unlink()
    outcome = raylib.train(resume=str(run), local=True, quiet=True)
    assert outcome.trained.resumed == outcome.trained.steps == 10


def test_evaluation_as_it_trains(folder, settings, monkeypatch):
    monkeypatch.setattr("raylib.tasks.selection.select_tasks", lambda *_: [grown_task("MockRetrievalTask")])
    run = folder / "evaluated"
    evaluated = {**settings, "eval_tasks": ["MockRetrievalTask"], "eval_every": 4, "keep_last": 1, "lr": 1e-3}
    outcome = raylib.train(**evaluated, output_folder=str(run))
    found = {r["step"]: r for r in read_metrics(run) if "eval/mean" in r}
    assert list(found) == [0, 4, 8, 10]
    assert all(0 <= row["eval/MockRetrievalTask/ndcg_at_5"] <= 1 for row in found.values())
    step, score = outcome.trained.best
    assert score == max(row["eval/mean"] for at, row in found.items() if at)
    assert score == pytest.approx(found[step]["eval/mean"])

    # What was scored is what these weights score when they are evaluated by themselves.
    monkeypatch.setattr("raylib.tasks.selection.select_tasks", lambda *_, **__: [grown_task("MockRetrievalTask")])
    judged = raylib.evaluate(outcome.trained.best_model, tasks=["x"], output_folder=str(folder / "judged"), local=True)
    ((result,),) = judged.task_results.values()
    by_split = [subset["ndcg_at_5"] for subsets in result.scores.values() for subset in subsets]
    assert np.mean(by_split) == pytest.approx(score, abs=1e-6)
    assert not list((run / "evaluations" / "store").iterdir())


def test_one_example_has_nothing_to_be_told_from(folder, settings):
    with pytest.raises(UserError, match="nothing to tell a positive from"):
        raylib.train(**{**settings, "batch_size": None}, limit=1, output_folder=str(folder / "one"))
    with pytest.raises(UserError, match=r"--batch-size is 7.*fewer"):
        raylib.train(**settings, limit=1, output_folder=str(folder / "one"))


def test_a_loss_that_is_no_number_names_the_batch(folder, settings, monkeypatch):
    run = folder / "nan"
    raylib.train(**{**settings, "max_steps": 3}, output_folder=str(run))
    path = run / "checkpoints" / "step-00000003" / "state.pt"
    kept = path.read_bytes()
    raised = {**settings, "max_steps": 6, "lr": 1e30, "max_grad_norm": 0, "optimizer": "sgd", "save_every": 1}
    with pytest.raises(ModelError, match=r"is (nan|inf).* of the examples e\d+, e\d+"):
        raylib.train(**raised, output_folder=str(folder / "inf"))
    assert list((folder / "inf" / "checkpoints").glob("step-*"))
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"lora": True, "lora_targets": ["nosuch"]}, r"nosuch: no such module.*q_proj"),
        ({"save_legacy": True}, "--save-legacy is for ColIntern"),
        ({"batch_plan": "nowhere.parquet"}, "cannot be read"),
        ({"eval_tasks": ["NoSuchTask"]}, "NoSuchTask"),
        ({"matryoshka": ["4096"]}, "4096"),
        ({"model": "raylib/bm25"}, "no weights that can be trained"),
        ({"runtime": "onnx"}, "--runtime onnx: torch alone has gradients; leave it out"),
        ({"keep_last": 0}, "--keep-last is 0"),
        ({"optimizer": "paged_adamw_8bit"}, "sees no CUDA GPU"),
        ({"track": ["wandb"]}, "pip install wandb"),
        ({"heads_only": True, "gradient_checkpointing": True}, "no backbone is trained"),
    ],
)
def test_what_cannot_be_right(changed, told, folder, settings, tmp_path):
    with pytest.raises(UserError, match=told):
        raylib.train(**{**settings, **changed}, output_folder=str(tmp_path / "run"))


def test_an_adapter_for_another_model(folder, settings, tmp_path):
    lora = {**settings, "lora": True, "lora_r": 2, "max_steps": 2}
    raylib.train(**lora, output_folder=str(tmp_path / "lora"))
    adapter = str(tmp_path / "lora" / "model")
    assert (tmp_path / "lora" / "model" / "adapter_model.safetensors").stat().st_size < 2e6
    with pytest.raises(UserError, match="has an adapter already"):
        raylib.train(**lora, adapter=adapter, output_folder=str(tmp_path / "twice"))
    other = build_colpali(tmp_path / "other") or tmp_path / "other"
    with pytest.raises((UserError, ModelError), match=r"adapter"):
        raylib.train(**{**settings, "model": str(other)}, adapter=adapter, output_folder=str(tmp_path / "wrong"))


def test_images_that_cannot_be_read_are_named(folder, settings, tmp_path):
    rows = [{"query": f"q {i}", "pos": f"page{i}.png"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for i in range(8):
        (tmp_path / f"page{i}.png").write_bytes(b"no image")
    broken = {**settings, "data": str(tmp_path / "rows.jsonl"), "root": str(tmp_path)}
    with pytest.raises(BadContentsError, match=r"page\d\.png"):
        raylib.train(**broken, output_folder=str(tmp_path / "run"))


def test_a_dry_run_writes_nothing(folder, settings, tmp_path, capsys):
    from raylib.cli import main

    flags = [f"--{n.replace('_', '-')}={settings[n]}" for n in ("model", "data", "batch_size", "max_steps")]
    assert main(["train", *flags, "--dry-run", f"--output-folder={tmp_path / 'run'}"]) == 0
    assert "23 examples, 4 batches of 7 an epoch, 10 steps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_run_in_an_object_store(settings, undisturbed):
    store = fsspec.filesystem("memory")
    raylib.train(**settings, output_folder="memory://train-job/run")
    store.rm("/train-job/run/finished.json")
    store.rm("/train-job/run/checkpoints/step-00000010/files.json")
    outcome = raylib.train(**settings, output_folder="memory://train-job/run")
    assert outcome.trained.resumed == 9
    saved = load(store.cat("/train-job/run/model/model.safetensors"))
    assert most_different(saved, undisturbed) <= 1e-7
    assert [row["step"] for row in read_metrics("memory://train-job/run")] == list(range(1, 11))
