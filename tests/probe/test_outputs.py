"""The folder of one probe: the names of HALP's scripts, the way back, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.probe.outputs import read_probe, write_probe
from raylib.probe.results import ProbeResult
from tests.probe.made_results import probe, scores

OLD_KEYS = ["model_name", "embedding_type", "layer_name", "target_column", "input_dim", "dataset_statistics"]
OLD_KEYS += ["train_set", "test_set", "training_history", "config"]
OLD_SET = {"num_samples", "accuracy", "precision", "recall", "f1", "auroc", "confusion_matrix"}
OLD_SET |= {"num_no_hallucination", "num_hallucination"}


def same(a: ProbeResult, b: ProbeResult) -> None:
    arrays = ("test_labels", "test_scores")
    for name in arrays:
        assert getattr(a, name).dtype == getattr(b, name).dtype
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    left, right = ({k: v for k, v in vars(r).items() if k not in arrays} for r in (a, b))
    assert left == right


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, ProbeResult]:
    result = probe("query_token/layer_24")
    folder = tmp_path_factory.mktemp("probes")
    place = write_probe(str(folder), result, {"model_state_dict": {}, "input_dim": 3840}, "digest of rows")
    assert Path(place) == folder / "query_token_layer24"
    return Path(place), result


def test_the_folder_has_the_old_files_and_one_more(written):
    assert {p.name for p in written[0].iterdir()} == {
        *("probe_model.pt", "results.json", "confusion_matrix.png", "roc_curve.png", "training_history.png"),
        *("test_scores.csv", "category_auroc.csv", "source_auroc.csv"),
    }


def test_results_json_has_the_old_names_and_the_new_ones(written):
    found = json.loads((written[0] / "results.json").read_text())
    assert list(found)[: len(OLD_KEYS)] == OLD_KEYS
    new = {"classifier", "validation_set", "split", "by", "test_scores", "seconds", "notes", "digest", "sha256"}
    assert set(found) == {*OLD_KEYS, *new}
    assert (found["embedding_type"], found["layer_name"]) == ("query_token_representation", "layer_24")
    assert found["dataset_statistics"] == {
        "total_samples": 42,
        "num_no_hallucination": 25,
        "num_hallucination": 17,
        "hallucination_percentage": pytest.approx(100 * 17 / 42),
    }
    assert set(found["train_set"]) == set(found["test_set"]) == {*OLD_SET, "auroc_interval"}
    assert found["test_set"]["confusion_matrix"] == [[4, 1], [1, 2]]
    assert found["test_set"]["auroc_interval"] == [pytest.approx(0.86), pytest.approx(0.93)]
    assert found["training_history"]["train_loss"] == [0.7, 0.4, 0.25]
    assert found["split"]["kind"] == "image"


def test_what_is_read_is_what_was_written(written):
    place, result = written
    found = read_probe(str(place))
    assert found is not None
    same(found[0], result)
    assert found[1] == "digest of rows"


def test_the_model_is_what_was_given(written):
    import torch

    assert torch.load(written[0] / "probe_model.pt") == {"model_state_dict": {}, "input_dim": 3840}


def test_vision_only_of_one_class_and_of_no_history(tmp_path):
    result = replace(
        probe("vision_only", None, "logistic"),
        test=scores(None, 8, 0),
        test_labels=np.zeros(8, np.int64),
        test_scores=np.linspace(0, 1, 8),
        validation=None,
    )
    place = write_probe(str(tmp_path), result, {}, "d")
    found, text = read_probe(place), json.loads((Path(place) / "results.json").read_text())
    assert found is not None
    same(found[0], result)
    assert text["layer_name"] is None and text["test_set"]["auroc"] is None and text["validation_set"] is None
    assert not (Path(place) / "training_history.png").exists()


def test_a_loss_that_is_no_number_is_null(tmp_path):
    result = probe("vision_only", history={"loss": [0.5, math.nan]})
    place = write_probe(str(tmp_path), result, {}, "d")
    found = read_probe(place)
    assert "NaN" not in (Path(place) / "results.json").read_text()
    assert found is not None and list(found[0].history) == ["loss"] and math.isnan(found[0].history["loss"][1])


def test_without_results_json_there_is_no_probe(written, tmp_path, monkeypatch):
    place = Path(shutil.copytree(written[0], tmp_path / "query_token_layer24"))

    def fail(*_: object) -> None:
        raise RuntimeError("stopped here")

    monkeypatch.setattr("raylib.probe.outputs.write_group_tables", fail)
    with pytest.raises(RuntimeError, match="stopped here"):
        write_probe(str(tmp_path), written[1], {}, "d2")
    assert not (place / "results.json").exists()  # a probe that is half replaced is none
    assert read_probe(str(place)) is None and read_probe(str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("results.json", b'{"model_name": "m"', "delimiter"),
        ("results.json", b"[]", "no whole probe"),
        ("results.json", b'{"model_name": "of HALP"}', "'sha256' is missing"),
        ("results.json", None, "classifier 'forest'"),
        ("probe_model.pt", b"", "probe_model.pt is not the file"),
        ("test_scores.csv", b'"question_id","label","score"\n', "test_scores.csv is not the file"),
    ],
)
def test_a_damaged_folder_is_refused(written, tmp_path, name, content, told):
    place = Path(shutil.copytree(written[0], tmp_path / "copy"))
    whole = (place / "results.json").read_bytes()
    (place / name).write_bytes(whole.replace(b'"mlp"', b'"forest"') if content is None else content)
    with pytest.raises(UserError, match=told) as caught:
        read_probe(str(place))
    assert "--overwrite" in str(caught.value)


def test_a_missing_model_is_refused(written, tmp_path):
    place = Path(shutil.copytree(written[0], tmp_path / "copy"))
    (place / "probe_model.pt").unlink()
    with pytest.raises(UserError, match="no whole probe"):
        read_probe(str(place))


def test_a_remote_folder(tmp_path):
    result = probe("query_token/layer_0", classifier="logistic")
    place = write_probe(f"memory://probes-{tmp_path.name}", result, {}, "d")
    found = read_probe(place)
    assert place.endswith("/logistic_query_token_layer0") and found is not None
    same(found[0], result)
