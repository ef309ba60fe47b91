"""Jobs whose every path is in a bucket: the scores, files and weights of a local disk, whether the bucket is calm, busy
for a while, or refuses a fifth of all requests."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file

import raylib
from raylib import storage
from raylib.copies import local_copy
from raylib.errors import BucketError, UserError
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.untrained import build_clip
from raylib.store.hidden_states import open_states
from tests.bucket import Bucket, copy_together, put, take
from tests.bucket import bucket as bucket
from tests.bucket import server as server
from tests.evaluate.colours import QUERIES, V1, V2, page, write_v1, write_v2
from tests.evaluate.compare import flatten
from tests.evaluate.conftest import private_caches as private_caches
from tests.extract.conftest import checkpoint as checkpoint
from tests.extract.made import columns, images_folder
from tests.train.made_runs import write_pairs

pytestmark = pytest.mark.usefixtures("private_caches")

FAULTS = {"calm": {}, "burst": {"next": 20}, "by chance": {"share": 0.2, "seed": 7}}
COLOURS = ["red", "lime", "blue", "white", "orange", "navy"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and something for every job, on a disk. Nobody writes here."""
    found = tmp_path_factory.mktemp("local")
    build_clip(found / "clip")
    (found / "data").mkdir()
    write_pairs(found / "data" / "pairs.jsonl", 23)
    images = found / "pages"
    for colour in COLOURS:
        (images / "sub").mkdir(parents=True, exist_ok=True)
        (images / "sub" / f"{colour}.png").write_bytes(page(colour))
    rows = [{"id": f"r{i}", "text": f"a {c} page", "image": f"sub/{c}.png"} for i, c in enumerate(COLOURS)]
    (images / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (images / "lines.txt").write_text("one line\nanother line\n")
    pairs = [{"query": f"the {c} one", "pos": f"sub/{c}.png", "negs": ["a text"]} for c in COLOURS]
    (found / "data" / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    write_v1(found / "tasks", queries=QUERIES)
    write_v2(found / "tasks")
    images_folder(found / "vqa")
    return found


def disturb(bucket: Bucket, fault: str) -> None:
    bucket.refused = 0
    bucket.refuse(**FAULTS[fault])


def check_disturbed(bucket: Bucket, fault: str) -> None:
    assert bucket.refused == {"calm": 0, "burst": 20}.get(fault, bucket.refused)
    assert fault == "calm" or bucket.refused >= 5
    bucket.refuse()


@pytest.fixture(scope="module")
def scored(folder):
    """What evaluate gives on a disk: scores, and keys of the store."""
    out = folder / "calm"
    outcome = raylib.evaluate(
        str(folder / "clip"), tasks=[V1, V2], data_root=str(folder / "tasks"), output_folder=str(out), local=True
    )
    assert outcome.ok
    return scores(outcome)


def scores(outcome):
    (results,) = outcome.task_results.values()
    return flatten({result.task_name: result.scores for result in results})


@pytest.mark.parametrize("fault", FAULTS)
def test_evaluate(bucket, folder, scored, fault):
    put(bucket, folder / "clip", folder / "tasks")
    places = {"data_root": f"{bucket.url}/tasks", "output_folder": f"{bucket.url}/out", "store": f"{bucket.url}/st"}
    disturb(bucket, fault)
    outcome = raylib.evaluate(f"{bucket.url}/clip", tasks=[V1, V2], local=True, quiet=True, **places)
    (summary,) = outcome.summaries
    # Those of loading the tasks came before the model's own work.
    assert 0 < summary.repeated_requests <= bucket.refused if fault == "by chance" else summary.repeated_requests == 0
    check_disturbed(bucket, fault)
    assert outcome.ok and scores(outcome) == scored and list(outcome.task_results) == [f"{bucket.url}/clip"]
    assert any(name.startswith("out/local__clip/") and name.endswith(f"{V1}.json") for name in bucket.files())
    parts = {name for name in bucket.files() if name.startswith("st/") and name.endswith(".parquet")}

    again = raylib.evaluate(f"{bucket.url}/clip", tasks=[V1, V2], local=True, quiet=True, overwrite=True, **places)
    assert scores(again) == scored
    assert {n for n in bucket.files() if n.startswith("st/") and n.endswith(".parquet")} == parts  # nothing was encoded


def test_a_bucket_that_goes_away_in_the_middle_and_comes_back(bucket, folder, scored, monkeypatch):
    put(bucket, folder / "clip", folder / "tasks")
    monkeypatch.setenv("RAYLIB_BUCKET_PATIENCE", "0.05")
    places = {"data_root": f"{bucket.url}/tasks", "output_folder": f"{bucket.url}/out", "store": f"{bucket.url}/st"}
    settings = {"tasks": [V1, V2], "local": True, "quiet": True, "batch_size": 2, **places}
    bucket.refuse(share=1.0, key="out/")
    with pytest.raises(BucketError, match=f"{bucket.url} did not answer"):
        raylib.evaluate(f"{bucket.url}/clip", **settings)
    bucket.refuse()
    parts = {name for name in bucket.files() if name.startswith("st/") and name.endswith(".parquet")}
    assert parts
    assert scores(raylib.evaluate(f"{bucket.url}/clip", **settings)) == scored
    assert {n for n in bucket.files() if n.startswith("st/") and n.endswith(".parquet")} == parts


@pytest.mark.parametrize("fault", FAULTS)
def test_encode(bucket, folder, tmp_path, fault):
    clip, common = str(folder / "clip"), {"format": "npy", "local": True, "quiet": True}
    raylib.encode(clip, input=str(folder / "pages"), output=str(tmp_path / "out"), text_column=["text"], **common)
    put(bucket, folder / "pages")
    disturb(bucket, fault)
    url = f"{bucket.url}/pages"
    raylib.encode(clip, input=url, output=f"{url}/out", text_column=["text"], **common)
    repeated = json.loads(bucket.files()["pages/out/manifest.json"])["repeated_requests"]
    assert repeated == bucket.refused if fault != "by chance" else 0 < repeated <= bucket.refused  # it is written last
    check_disturbed(bucket, fault)
    files = bucket.files()
    for name in ("embeddings.npy", "ids.txt"):
        assert files[f"pages/out/{name}"] == (tmp_path / "out" / name).read_bytes()
    # What lies in the output folder below the input is no input the next time.
    outcome = raylib.encode(clip, input=url, output=f"{url}/out", text_column=["text"], **common)
    assert outcome.counts["encoded"] == 0 and outcome.counts["contents"] == 6 + 6 + 2


def test_encode_patterns_and_tables_whose_images_lie_beside_them(bucket, folder, tmp_path):
    clip, common = str(folder / "clip"), {"local": True, "quiet": True, "image_column": "image"}
    put(bucket, folder / "pages")
    for given in ("pages/rows.jsonl", "pages/sub/*.png"):
        for at, root in enumerate((folder, bucket.url)):
            out = tmp_path / f"{given.count('*')}{at}"
            raylib.encode(clip, input=f"{root}/{given}", output=str(out), format="npy", **common)
        here, there = (tmp_path / f"{given.count('*')}{at}" for at in (0, 1))
        for name in ("embeddings.npy", "ids.txt"):
            assert (here / name).read_bytes() == (there / name).read_bytes()
    with pytest.raises(UserError, match=r"nothing/\*.png matches nothing"):
        raylib.encode(clip, input=f"{bucket.url}/nothing/*.png", output=str(tmp_path / "x"), **common)
    with pytest.raises(UserError, match=r"nothing\.txt does not exist, or holds no files"):
        raylib.encode(clip, input=f"{bucket.url}/nothing.txt", output=str(tmp_path / "x"), **common)


@pytest.fixture(scope="module")
def states(folder, checkpoint):
    """What extract writes on a disk, but for its date."""
    settings = {"vqa_dataset": str(folder / "vqa/vqa.csv"), "images_dir": str(folder / "vqa/images")}
    common = {"checkpoint_interval": 3, "batch_size": 2, "local": True, "quiet": True}
    assert raylib.extract(str(checkpoint("gemma3")), output_dir=str(folder / "states"), **settings, **common).ok
    return columns(folder / "states"), common


@pytest.mark.parametrize("fault", FAULTS)
def test_extract(bucket, folder, checkpoint, states, tmp_path, fault):
    expected, common = states
    model = checkpoint("gemma3")
    put(bucket, folder / "vqa", model)
    disturb(bucket, fault)
    outcome = raylib.extract(
        f"{bucket.url}/{model.name}",
        vqa_dataset=f"{bucket.url}/vqa/vqa.csv",
        images_dir=f"{bucket.url}/vqa/images",
        output_dir=f"{bucket.url}/states",
        **common,
    )
    check_disturbed(bucket, fault)
    assert outcome.ok and not [name for name in bucket.files() if ".unfinished" in name]
    take(bucket, ".h5", tmp_path)
    assert columns(tmp_path) == expected
    read = open_states(f"{bucket.url}/states")
    assert read.question_ids == open_states(str(folder / "states")).question_ids


def test_mine(bucket, folder, tmp_path):
    clip, common = str(folder / "clip"), {"k": 2, "local": True, "quiet": True}
    data = {"data": str(folder / "data/pages.jsonl"), "root": str(folder / "pages")}
    raylib.mine_negatives(clip, output=str(tmp_path / "mined.jsonl"), **data, **common)
    put(bucket, folder / "data", folder / "pages")
    data = {"data": f"{bucket.url}/data/pages.jsonl", "root": f"{bucket.url}/pages"}
    bucket.refuse(share=0.2)
    mined = raylib.mine_negatives(clip, output=f"{bucket.url}/out/mined.jsonl", **data, **common)
    assert bucket.files()["out/mined.jsonl"] == (tmp_path / "mined.jsonl").read_bytes()
    assert mined.files["triples"] == f"{bucket.url}/out/mined.jsonl"
    with pytest.raises(UserError, match="or be read with it the next time"):
        raylib.mine_negatives(
            clip, output=f"{bucket.url}/data/mined.jsonl", **{**data, "data": f"{bucket.url}/data"}, **common
        )


SETTINGS = {"batch_size": 7, "max_steps": 6, "save_every": 2, "lr": 1e-4, "local": True, "quiet": True}


@pytest.fixture(scope="module")
def trained(folder):
    data = {"data": str(folder / "data/pairs.jsonl")}
    raylib.train(str(folder / "clip"), output_folder=str(folder / "run"), **data, **SETTINGS)
    return load_file(folder / "run" / "model" / "model.safetensors")


def same(weights: bytes, expected: dict[str, torch.Tensor]) -> bool:
    found = load(weights)
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("fault", FAULTS)
def test_train(bucket, folder, trained, fault):
    put(bucket, folder / "data", folder / "clip")
    places = {"data": f"{bucket.url}/data/pairs.jsonl", "output_folder": f"{bucket.url}/run"}
    disturb(bucket, fault)
    raylib.train(f"{bucket.url}/clip", **places, **SETTINGS)
    check_disturbed(bucket, fault)
    assert same(bucket.files()["run/model/model.safetensors"], trained)

    # Of a run whose end was lost, the last steps are done again, to the same weights; the best is run from there.
    storage.remove(f"{bucket.url}/run/finished.json")
    storage.remove_folder(f"{bucket.url}/run/model")
    storage.remove_folder(f"{bucket.url}/run/checkpoints/step-00000006")
    disturb(bucket, fault)
    assert raylib.train(f"{bucket.url}/clip", **places, **SETTINGS).trained.resumed == 4
    bucket.refuse()
    assert same(bucket.files()["run/model/model.safetensors"], trained)
    there, here = (
        raylib.encode(model, texts=["list of words"])
        for model in (f"{bucket.url}/run/checkpoints/step-00000006/model", str(folder / "run" / "model"))
    )
    assert np.array_equal(there, here)


# Weights, once per node.


def test_weights_are_fetched_once_per_node(bucket, folder):
    put(bucket, folder / "clip")
    bucket.seconds_a_get = 0.3
    spawning = multiprocessing.get_context("spawn")
    together, answers = spawning.Barrier(4), spawning.Queue()
    workers = [spawning.Process(target=copy_together, args=(f"{bucket.url}/clip", together, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = {answers.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join()
    (path,) = found
    assert bucket.gets("model.safetensors") == 1
    assert set(bucket.files()) == {f"clip/{p.name}" for p in Path(path).iterdir()}
    here = resolve(ModelSpec(f"{bucket.url}/clip"))
    assert here.spec.name == path and here.fingerprint == resolve(ModelSpec(str(folder / "clip"))).fingerprint


def test_a_copy_follows_what_it_is_a_copy_of(bucket, folder, monkeypatch, tmp_path):
    import pickle

    put(bucket, folder / "clip")
    url = f"{bucket.url}/clip"
    spec = ModelSpec(url).here()
    assert spec.asked == url and not spec.given()
    storage.write_text(f"{url}/extra.json", "{}")
    storage.remove(f"{url}/README.md")
    storage.write_text(f"{url}/config.json", '{"changed": true}')
    asked = bucket.gets("model.safetensors")
    copied = Path(local_copy(url))
    assert str(copied) == spec.name and bucket.gets("model.safetensors") == asked == 1
    assert (copied / "config.json").read_text() == '{"changed": true}' and (copied / "extra.json").exists()
    # On another node, whose cache is elsewhere, the spec that arrives names that node's copy.
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "other"))
    arrived = pickle.loads(pickle.dumps(spec))
    assert arrived.name.startswith(str(tmp_path / "other")) and Path(arrived.name, "config.json").exists()


def test_a_copy_that_was_cut_short_or_damaged_is_mended(bucket, folder, monkeypatch):
    put(bucket, folder / "clip")
    url = f"{bucket.url}/clip"
    monkeypatch.setenv("RAYLIB_BUCKET_PATIENCE", "0.05")
    bucket.refuse(share=1.0, key="model.safetensors")
    with pytest.raises(BucketError):
        local_copy(url)
    bucket.refuse()
    path = Path(local_copy(url))
    assert (path / "model.safetensors").read_bytes() == (folder / "clip" / "model.safetensors").read_bytes()
    shutil.rmtree(path)
    assert (Path(local_copy(url)) / "config.json").exists()
