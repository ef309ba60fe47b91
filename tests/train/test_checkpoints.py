"""Checkpoints on a disk and in an object store (fsspec's, in memory): whole or not at all, and the right ones kept."""

import json
import os
import uuid
from pathlib import Path

import fsspec
import pytest
import torch

from raylib import storage
from raylib.errors import BucketError, StoreError, UserError
from raylib.train.checkpoints import Checkpoints


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path / "checkpoints")
        return
    bucket = f"memory://bucket-{uuid.uuid4().hex}"
    yield f"{bucket}/run/checkpoints"
    filesystem, name = fsspec.core.url_to_fs(bucket)
    if filesystem.exists(name):
        filesystem.rm(name, recursive=True)


class Told(list):
    def __call__(self, line):
        self.append(line)


def opened(folder, keep_last=2, keep_best=1):
    told = Told()
    return Checkpoints(folder, keep_last, keep_best, told), told


def write_model(folder):
    (folder / "weights.safetensors").write_bytes(b"weights " * 40)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("a b c")


def state_of(step):
    """What a run of AdamW has, with numbers that no decimal is."""
    weight = torch.nn.Parameter(torch.tensor([1 / 3, -7e-42, 2.5e38]) * step)
    optimizer = torch.optim.AdamW([weight], lr=1 / 7)
    weight.grad = torch.tensor([0.1, -0.2, 1e-30])
    optimizer.step()
    return {"step": step, "weights": {"w": weight.detach()}, "optimizer": optimizer.state_dict(), "scaler": {}}


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, write_model, state_of(step), {"epoch": 0, "position": step})


def steps(checkpoints):
    return [checkpoint.step for checkpoint in checkpoints.all()]


def replace(folder, name, data):
    with storage.atomic_write(storage.join(folder, name)) as stream:
        stream.write(data)


def test_what_was_saved_is_loaded_to_the_bit(folder):
    save(opened(folder)[0], 50)
    checkpoints, told = opened(folder)  # another process
    newest = checkpoints.newest()
    assert newest is not None and newest.name == "step-00000050" and told == []
    assert newest.facts == {"step": 50, "epoch": 0, "position": 50}
    found, expected = checkpoints.load(newest), state_of(50)
    assert found["step"] == 50 and torch.equal(found["weights"]["w"], expected["weights"]["w"])
    for name, value in expected["optimizer"]["state"][0].items():
        assert torch.equal(found["optimizer"]["state"][0][name], value), name
    assert found["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    model = checkpoints.model_folder(newest)
    assert (model / "weights.safetensors").read_bytes() == b"weights " * 40
    assert (model / "tokenizer" / "vocab.txt").read_text() == "a b c"


def test_the_manifest_has_sizes_and_digests(folder):
    save(opened(folder)[0], 50)
    (checkpoint,) = opened(folder)[0].all()
    assert sorted(checkpoint.files) == ["model/tokenizer/vocab.txt", "model/weights.safetensors", "state.pt"]
    digest = "0e9f64031fcb2bc708b531c2a20441580425d151a38503f38592a7dd36019d3b"  # printf "a b c" | sha256sum
    assert checkpoint.files["model/tokenizer/vocab.txt"] == (5, digest)


def test_no_checkpoint_is_none(folder):
    checkpoints, told = opened(folder)
    assert checkpoints.newest() is None and checkpoints.all() == [] and checkpoints.best() is None and told == []


# Whole or not at all.


def test_a_model_that_cannot_be_written_leaves_those_before(folder):
    checkpoints, told = opened(folder)
    save(checkpoints, 50)

    def fails(folder):
        (folder / "weights.safetensors").write_bytes(b"half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        checkpoints.save(100, fails, {}, {})
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 50 and steps(checkpoints) == [50] and told == []
    if not storage.is_remote(folder):
        assert os.listdir(folder) == ["step-00000050"]


def test_a_failure_half_way_in_the_replacement_of_a_step_keeps_a_whole_one(folder):
    checkpoints, _ = opened(folder)
    save(checkpoints, 50, 100)

    def fails(folder):
        raise KeyError("gone")

    with pytest.raises(KeyError):
        checkpoints.save(100, fails, {}, {})
    newest = opened(folder)[0].newest()
    assert newest is not None and newest.step == 100


def test_a_full_disk_is_one_line(folder):
    checkpoints, _ = opened(folder)

    def fails(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(
        UserError, match=r"checkpoint .*step-00000050: No space left on device. Those before .* --resume"
    ):
        checkpoints.save(50, fails, {}, {})


def test_a_store_that_goes_away_half_way_leaves_no_checkpoint(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    folder = f"memory://bucket-{uuid.uuid4().hex}"
    checkpoints, _ = opened(folder)
    save(checkpoints, 50)
    put = MemoryFileSystem.put_file

    def gone(self, path, name, **options):
        if name.endswith("state.pt"):
            raise OSError("the connection was closed")
        return put(self, path, name, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", gone)
    with pytest.raises(UserError, match="the connection was closed"):
        save(checkpoints, 100)
    monkeypatch.undo()
    checkpoints, told = opened(folder)
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 50
    assert "checkpoint step-00000100 is damaged: it has no files.json" in told[0]
    save(checkpoints, 150)
    assert storage.list_folders(folder) == ["step-00000050", "step-00000150"]


def test_the_manifest_comes_last(folder, monkeypatch):
    seen = []

    def watched(path, text):
        seen.append((Path(path).name, sorted(p.name for p in Path(path).parent.rglob("*") if p.is_file())))
        return real(path, text)

    real = storage.write_text
    monkeypatch.setattr(storage, "write_text", watched)
    save(opened(folder)[0], 50)
    assert seen == [("files.json", ["state.pt", "vocab.txt", "weights.safetensors"])]


def test_the_checkpoint_of_a_step_is_replaced(folder):
    checkpoints, _ = opened(folder)
    save(checkpoints, 50)
    first = checkpoints.all()[0]
    assert float(checkpoints.load(first)["weights"]["w"][0]) != 0
    checkpoints.save(50, lambda folder: None, {"step": 50, "new": 1}, {"epoch": 1})
    (second,) = checkpoints.all()
    assert list(second.files) == ["state.pt"] and second.facts == {"epoch": 1, "step": 50}
    assert checkpoints.load(second) == {"step": 50, "new": 1}
    assert list(checkpoints.model_folder(second).iterdir()) == []


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    checkpoints, _ = opened(tmp_path)
    left = tmp_path / ".step-00000100.0123abcd.part"
    (left / "model").mkdir(parents=True)
    (left / "model" / "half").write_bytes(b"x")
    others = [tmp_path / ".other.part", tmp_path / "notes"]
    for other in others:
        other.mkdir()
    save(checkpoints, 150)
    assert not left.exists() and all(other.exists() for other in others)
    assert steps(checkpoints) == [150]


def test_a_state_that_could_not_be_read_back_is_not_written(folder):
    checkpoints, _ = opened(folder)
    with pytest.raises(AssertionError, match=r"state\['rng'\]\[1\] is a set"):
        checkpoints.save(1, write_model, {"rng": [1, {2}]}, {})
    assert checkpoints.all() == []


# Damage.


def damaged(folder, name, data):
    """Two checkpoints; of the newest a file has other contents."""
    save(opened(folder)[0], 50, 100)
    replace(folder, f"step-00000100/{name}", data)
    checkpoints, told = opened(folder)
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 50 and len(told) == 1
    assert told[0].startswith("checkpoint step-00000100 is damaged: ")
    assert told[0].endswith("; going on from step-00000050")
    assert checkpoints.load(newest)["step"] == 50
    return checkpoints, told[0]


def test_a_truncated_state_is_passed_over(folder):
    _, told = damaged(folder, "state.pt", b"x" * 10)
    assert "state.pt has 10 bytes of " in told


def test_a_flipped_bit_of_the_model_is_passed_over(folder):
    _, told = damaged(folder, "model/weights.safetensors", b"weights " * 39 + b"weightz ")
    assert "model/weights.safetensors has not the contents that were written" in told


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {}}', '{"facts": {"step": 50}, "files": {}}'])
def test_a_manifest_that_is_none_is_passed_over(folder, text):
    _, told = damaged(folder, "files.json", text.encode())
    assert "files.json cannot be read" in told or "files.json is of step 50" in told


def test_a_manifest_that_names_files_elsewhere_is_passed_over(folder):
    text = json.dumps({"facts": {"step": 100}, "files": {"../x": {"bytes": 1, "sha256": ""}}})
    _, told = damaged(folder, "files.json", text.encode())
    assert "names ../x, outside of it" in told


@pytest.mark.parametrize(
    ("name", "said"), [("files.json", "it has no files.json"), ("state.pt", "state.pt is missing")]
)
def test_a_missing_file_is_passed_over(folder, name, said):
    save(opened(folder)[0], 50, 100)
    storage.remove(storage.join(folder, "step-00000100", name))
    checkpoints, told = opened(folder)
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 50 and said in told[0]


def test_where_all_are_damaged_there_is_none_and_each_is_told(folder):
    save(opened(folder)[0], 50, 100)
    for step in ("050", "100"):
        replace(folder, f"step-00000{step}/state.pt", b"")
    checkpoints, told = opened(folder)
    assert checkpoints.newest() is None
    assert [line[:24] for line in told] == ["checkpoint step-00000100", "checkpoint step-00000050"]
    assert all(line.endswith("; there is no whole one before it") for line in told)


def test_a_damaged_one_is_removed_by_the_next_save_and_takes_no_place(folder):
    checkpoints, _ = damaged(folder, "state.pt", b"")
    save(checkpoints, 75)
    assert steps(checkpoints) == [50, 75], "the damaged one is none of the last two"
    save(checkpoints, 100)
    newest = opened(folder)[0].newest()
    assert newest is not None and newest.step == 100


def test_a_damaged_one_that_is_asked_for_is_an_error(folder):
    save(opened(folder)[0], 50)
    replace(folder, "step-00000050/model/weights.safetensors", b"x")
    checkpoints, _ = opened(folder)
    (checkpoint,) = checkpoints.all()
    with pytest.raises(
        StoreError, match=r"step-00000050 is damaged: model/weights.safetensors has 1 bytes of 320; use"
    ):
        checkpoints.model_folder(checkpoint)
    assert checkpoints.load(checkpoint)["step"] == 50, "its state is whole"


# Which are kept.


def test_the_newest_are_kept(folder):
    checkpoints, _ = opened(folder, keep_last=2, keep_best=0)
    save(checkpoints, 10, 20, 30, 40)
    assert steps(checkpoints) == [30, 40]
    assert storage.list_folders(folder) == ["step-00000030", "step-00000040"]


def test_the_best_are_kept_beside_the_newest(folder):
    checkpoints, _ = opened(folder, keep_last=1, keep_best=2)
    kept = []
    for step, score in [(10, 0.5), (20, 0.7), (30, 0.6), (40, 0.7), (50, 0.1)]:
        save(checkpoints, step)
        checkpoints.score(step, score)
        kept.append(steps(checkpoints))
    # Scores follow a save, so that a step counts from the next one on; of equal scores the earlier is better.
    assert kept == [[10], [10, 20], [10, 20, 30], [20, 30, 40], [20, 40, 50]]
    assert checkpoints.best() == (20, 0.7)


def test_scores_outlive_the_process_and_a_step_is_scored_again(folder):
    checkpoints, _ = opened(folder)
    checkpoints.score(10, 0.1)
    checkpoints.score(5, 1 / 3)
    assert opened(folder)[0].best() == (5, 1 / 3)
    checkpoints.score(5, 0.0)
    assert opened(folder)[0].best() == (10, 0.1)
    assert json.loads(storage.read_text(storage.join(folder, "scores.json"))) == {"5": 0.0, "10": 0.1}


def test_scores_and_numbers_that_cannot_be(folder):
    checkpoints, _ = opened(folder)
    with pytest.raises(UserError, match="score of step 5 is nan; expected a number"):
        checkpoints.score(5, float("nan"))
    storage.write_text(storage.join(folder, "scores.json"), "{")
    with pytest.raises(StoreError, match=r"scores.json cannot be read"):
        checkpoints.best()
    with pytest.raises(UserError, match="--keep-last is 0; expected at least 1"):
        opened(folder, keep_last=0)
    with pytest.raises(UserError, match="--keep-best is -1; expected 0 or more"):
        opened(folder, keep_best=-1)


def test_a_store_that_does_not_answer_is_no_damage(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    folder = f"memory://bucket-{uuid.uuid4().hex}"
    save(opened(folder)[0], 50)

    def silent(*args, **kwargs):
        raise TimeoutError("no answer")

    monkeypatch.setattr(MemoryFileSystem, "get_file", silent)
    checkpoints, told = opened(folder)
    with pytest.raises(BucketError, match="no answer"):
        checkpoints.newest()
    assert told == []
