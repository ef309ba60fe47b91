"""Records of a run: what is written where, and that a resumed run has each step once."""

import json
import sys
import types
import uuid

import pytest

from raylib import storage
from raylib.errors import UserError
from raylib.train.records import Records, line, mean_loss, read_losses, read_metrics
from raylib.train.trackers import check_trackers, open_trackers


@pytest.fixture(params=["local", "remote"])
def run(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path / "run")
        return
    folder = f"memory://bucket-{uuid.uuid4().hex}/run"
    yield folder
    storage.remove_folder(folder)


def opened(run, resume_step=0, trackers=(), steps_per_epoch=10, mode="hf", tell=print):
    return Records(run, resume_step, trackers, steps_per_epoch=steps_per_epoch, mode=mode, tell=tell)


def lines(run):
    return storage.read_text(f"{run}/training_loss.txt").splitlines()


def events(folder):
    """tag → [(step, value)], as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_values_are_read_back_by_step(run):
    records = opened(run)
    records.log(1, {"loss": 2.5, "lr": 4.5e-05})
    records.log(5, {"eval/StdlibPagesT2I/ndcg_at_5": 1 / 3})
    records.log(6, {"loss": 1.5, "grad_norm": float("inf")})
    records.flush()
    expected = [
        {"step": 1, "loss": 2.5, "lr": 4.5e-05},
        {"step": 5, "eval/StdlibPagesT2I/ndcg_at_5": 1 / 3},
        {"step": 6, "loss": 1.5, "grad_norm": None},
    ]
    assert read_metrics(run) == expected
    records.close()
    assert read_metrics(run) == expected


def test_losses_are_told_in_the_lines_of_the_old_tool(run):
    records = opened(run, steps_per_epoch=4)
    for step, loss in [(1, 2.08), (2, 2.0), (4, 1.0), (6, 0.5)]:
        records.log(step, {"loss": loss})
    records.close()
    assert lines(run) == [
        "[hf] Epoch 1 iter 1/4 - loss 2.0800",
        "[hf] Epoch 1 iter 2/4 - loss 2.0000",
        "[hf] Epoch 1 iter 4/4 - loss 1.0000",
        "[hf] Epoch 1 done. avg loss = 1.5200",  # (2.08 + 2 + 1 + 1) / 4: the third line is of two steps
        "[hf] Epoch 2 iter 2/4 - loss 0.5000",
    ]
    assert read_losses(f"{run}/training_loss.txt") == [(1, 2.08), (2, 2.0), (4, 1.0), (6, 0.5)]


def test_epochs_that_end_between_two_lines_are_told_with_the_next(tmp_path):
    records = opened(tmp_path, steps_per_epoch=3, mode="raylib")
    records.log(2, {"loss": 3.0})
    records.log(8, {"loss": 1.0})
    records.log(9, {"loss": 2.0})
    records.close()
    assert lines(tmp_path) == [
        "[raylib] Epoch 1 iter 2/3 - loss 3.0000",
        "[raylib] Epoch 1 done. avg loss = 2.3333",  # (3 + 3 + 1) / 3
        "[raylib] Epoch 2 done. avg loss = 1.0000",
        "[raylib] Epoch 3 iter 2/3 - loss 1.0000",
        "[raylib] Epoch 3 iter 3/3 - loss 2.0000",
        "[raylib] Epoch 3 done. avg loss = 1.3333",  # (1 + 1 + 2) / 3
    ]


def test_the_mean_counts_steps_and_not_lines():
    losses = [(2, 4.0), (6, 1.0), (7, 5.0)]
    assert mean_loss(losses, 0, 7) == (2 * 4 + 4 * 1 + 5) / 7
    assert mean_loss(losses, 1, 4) == (4 + 2 * 1) / 3
    assert mean_loss(losses, 6, 7) == 5.0


# Going on.


def test_a_resumed_run_has_each_step_once(run, tmp_path):
    first = opened(run, steps_per_epoch=4)
    for step in range(1, 7):
        first.log(step, {"loss": float(step)})
    first.flush()  # and then it is killed
    with open(f"{first._local}/metrics.jsonl", "a") as stream:
        stream.write('{"step": 7, "lo')
    if storage.is_remote(run):
        storage.upload_folder(first._local, run, last="metrics.jsonl")
    again = opened(run, resume_step=3, steps_per_epoch=4)
    for step in range(4, 9):
        again.log(step, {"loss": float(10 * step)})
    again.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(run)] == [
        *[(1, 1), (2, 2), (3, 3)],
        *[(4, 40), (5, 50), (6, 60), (7, 70), (8, 80)],
    ]
    assert lines(run)[2:5] == [
        "[hf] Epoch 1 iter 3/4 - loss 3.0000",
        "[hf] Epoch 1 iter 4/4 - loss 40.0000",
        "[hf] Epoch 1 done. avg loss = 11.5000",  # (1 + 2 + 3 + 40) / 4, of both processes
    ]
    assert len(lines(run)) == 10
    there = f"{run}/tensorboard"
    if storage.is_remote(run):
        for name in storage.find_files(there):
            storage.download_file(f"{there}/{name}", tmp_path / "copy" / name)
        there = tmp_path / "copy"
    steps = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0), (7, 70.0), (8, 80.0)]
    assert events(there) == {"train/loss": steps}


def test_a_run_that_begins_anew_has_nothing_of_the_one_before(tmp_path):
    first = opened(tmp_path)
    first.log(10, {"loss": 1.0, "eval/T/ndcg_at_5": 0.5})
    first.close()
    opened(tmp_path).close()
    assert read_metrics(tmp_path) == [] and lines(tmp_path) == [] and events(tmp_path / "tensorboard") == {}


def test_tensorboard_groups_training_and_evaluations(tmp_path):
    records = opened(tmp_path)
    records.log(5, {"loss": 1.25, "eval/T/ndcg_at_5": 0.5})
    records.close()
    assert events(tmp_path / "tensorboard") == {"train/loss": [(5, 1.25)], "eval/T/ndcg_at_5": [(5, 0.5)]}


def test_metrics_that_are_not_there_or_not_whole(tmp_path):
    with pytest.raises(UserError, match=r"has no metrics.jsonl; give the --output-folder of a `raylib train`"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl: line 1 is no record of a step .*; remove it"):
        read_metrics(tmp_path)


# The line on the screen.


def test_the_line_of_a_step():
    values = {"loss": 2.07944, "lr": 4.5e-05, "grad_norm": 0.83, "epoch": 0.125}
    values |= {"examples_per_second": 312.4, "tokens_per_second": 12_437.0, "memory_gb": 1.2366}
    assert line(50, 400, values) == (
        "step 50/400  loss 2.0794  lr 4.5e-05  grad norm 0.83  312 examples/s  12.4k tokens/s  1.24 GB"
    )
    assert line(1, 9, {"tokens_per_second": 999.6, "temperature": 0.02}) == "step 1/9  1k tokens/s  temperature 0.02"
    assert line(1, 9, {"tokens_per_second": 1_240_000}) == "step 1/9  1.24M tokens/s"
    assert line(9, 9, {"eval/StdlibPagesT2I/ndcg_at_5": 0.89123}) == "step 9/9  StdlibPagesT2I ndcg_at_5 0.8912"


# Trackers.


class Stub(types.ModuleType):
    """A package that keeps the calls it gets."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **settings):
            self.calls.append((name, args, settings))
            return self.answer

        return call


@pytest.fixture
def wandb(monkeypatch):
    stub = Stub("wandb")
    stub.answer = stub
    stub.id = "run-1"
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return stub


@pytest.fixture
def mlflow(monkeypatch):
    stub = Stub("mlflow")
    stub.answer = types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return stub


def test_wandb_gets_the_settings_and_every_record(wandb, tmp_path):
    run = str(tmp_path / "run")
    records = opened(run, trackers=open_trackers(["wandb"], run, {"lr": 0.1}))
    records.log(3, {"loss": 2.0})
    records.close()
    started = {"project": "raylib", "name": "run", "config": {"lr": 0.1}, "dir": run}
    logged = ("log", ({"loss": 2.0},), {"step": 3})
    assert wandb.calls == [("init", (), started), logged, ("finish", (), {})]
    wandb.calls.clear()
    open_trackers(["wandb"], run, {}, resumed=True)
    assert (wandb.calls[0][2]["id"], wandb.calls[0][2]["resume"]) == ("run-1", "allow")
    wandb.calls.clear()
    open_trackers(["wandb"], run, {})
    assert "id" not in wandb.calls[0][2], "a run that begins anew is another one"


def test_mlflow_gets_the_settings_and_every_record(mlflow, run):
    records = opened(run, trackers=open_trackers(["mlflow"], run, {"lr": 0.1}))
    records.log(3, {"eval/A(b)/ndcg_at_5": 0.5})
    records.close()
    assert mlflow.calls == [
        ("set_experiment", ("raylib",), {}),
        ("start_run", (), {"run_name": "run"}),
        ("log_params", ({"lr": "0.1"},), {}),
        ("log_metrics", ({"eval/A_b_/ndcg_at_5": 0.5},), {"step": 3}),
        ("end_run", (), {}),
    ]
    mlflow.calls.clear()
    open_trackers(["mlflow"], run, {"lr": 0.2}, resumed=True)
    assert mlflow.calls == [("start_run", (), {"run_id": "abc"})], "parameters of a run cannot change"


def test_a_package_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    for call in (lambda: check_trackers(["wandb"]), lambda: open_trackers(["wandb"], tmp_path, {})):
        with pytest.raises(UserError, match="--track wandb: it is not installed; pip install wandb, or leave --track"):
            call()


def test_a_tracker_that_refuses_ends_the_others(wandb, mlflow, tmp_path, monkeypatch):
    def refuses(**settings):
        raise RuntimeError("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuses, raising=False)
    with pytest.raises(UserError, match="--track wandb: RuntimeError: api_key not configured"):
        open_trackers(["mlflow", "wandb"], tmp_path, {})
    assert mlflow.calls[-1][0] == "end_run"


def test_a_tracker_that_fails_later_is_told_once_and_left(wandb, tmp_path, monkeypatch):
    told = []
    records = opened(tmp_path, trackers=open_trackers(["wandb"], tmp_path, {}), tell=told.append)

    def gone(values, step):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(wandb, "log", gone, raising=False)
    for step in (1, 2):
        records.log(step, {"loss": 1.0})
    records.close()
    assert told == ["wandb failed (ConnectionError: no route to host); it gets nothing more of this run"]
    assert [json.loads(text)["step"] for text in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
