"""`raylib probe` as it is met: states and labels in, a folder of probes and a report out; new rows scored."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

import raylib
from raylib.cli import main, parse
from raylib.errors import UserError
from raylib.evaluate.progress import QuietReporter
from raylib.probe.config import ProbeConfig
from raylib.probe.job import ProbeJob
from raylib.probe.place import ThisProcess
from raylib.store.hidden_states import StateTable, open_states, write_part
from raylib.store.representations import Representation

from .made import planted

QUICK = {"epochs": 8, "resamples": 50, "local": True, "quiet": True}
SIGNAL = Representation("query_token", 4)
PLAIN = Representation("query_token", 0)


def write_parts(folder: Path, ids, images, layers, fingerprint="f" * 64, per_part=250):
    """States of query_token at each layer, in parts."""
    for number, first in enumerate(range(0, len(ids), per_part), 1):
        rows = slice(first, first + per_part)
        n = len(ids[rows])
        table = StateTable(
            question_ids=list(ids[rows]),
            texts={"image_id": list(images[rows]), "question": ["?"] * n},
            states={Representation("query_token", layer): x[rows] for layer, x in layers.items()},
            image_spans=np.zeros((n, 2), np.int64),
            vision_positions=np.zeros(n, np.int64),
            query_positions=np.zeros(n, np.int64),
            image_tokens=np.zeros(n, np.int64),
            about={"model_name": "some/vlm", "fingerprint": fingerprint, "num_layers": 9, "layers": list(layers)},
        )
        write_part(table, str(folder / f"vlm_embeddings_part_{number:03d}.h5"), "hdf5")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """500 rows of 250 images with a signal in layer 4, and their labels, of which some are of no row."""
    folder = tmp_path_factory.mktemp("probe")
    data, layers = planted(rows=500, images=250, width=24)
    write_parts(folder / "states", data.ids, data.images, layers)
    with open(folder / "labels.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["question_id", "wrong", "image_name", "topic", "dataset"])
        for i, name in enumerate(data.ids):
            row = [name, bool(data.y[i]), data.images[i], data.columns["category"][i], data.columns["source"][i]]
            writer.writerow(row)
        writer.writerow(["nobody", "yes", "x.jpg", "objects", "set 0"])
    return folder


@pytest.fixture
def settings(made, tmp_path):
    given = {"labels": str(made / "labels.csv"), "target": "wrong", "output_dir": str(tmp_path / "probes")}
    return {"states": str(made / "states"), "category_column": "topic", **given, **QUICK}


class Counting(ThisProcess):
    def __init__(self):
        self.ran = []

    def train(self, tasks, common, matrix):
        for found in super().train(tasks, common, matrix):
            self.ran.append(found[0].name)
            yield found


def run(settings, **others):
    place = Counting()
    return ProbeJob(ProbeConfig(**(settings | others)), place, QuietReporter()).run(), place.ran


NAMES = [f"{prefix}query_token_layer{layer}" for layer in (0, 4, 8) for prefix in ("", "logistic_")]


def test_every_layer_and_classifier_has_its_folder_and_the_best_is_kept(settings, tmp_path, capsys):
    outcome, ran = run(settings)
    assert sorted(ran) == sorted(NAMES) and [result.name for result in outcome.results] == NAMES
    assert outcome.best.representation == SIGNAL
    auroc = {result.name: result.test.auroc for result in outcome.results}
    assert auroc["query_token_layer4"] > 0.9 and auroc["logistic_query_token_layer4"] > 0.95
    assert all(abs(auroc[name] - 0.5) < 0.2 for name in NAMES if "layer4" not in name)
    folder = tmp_path / "probes"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in (*NAMES, "best"):
        for file in ("probe_model.pt", "results.json", "roc_curve.png", "confusion_matrix.png", "test_scores.csv"):
            assert f"{name}/{file}" in written
    assert {"test_auroc_summary.csv", "overview.png", "overview.svg", "report.html", "manifest.json"} <= written
    best = json.loads((folder / "best" / "results.json").read_text())
    assert best == json.loads((folder / outcome.best.name / "results.json").read_text())
    assert set(outcome.best.by) == {"category", "source"}
    assert "1 rows have a label, but no hidden states" in capsys.readouterr().err
    validation = {result.name: result.validation.auroc for result in outcome.results}
    assert validation[outcome.best.name] == max(validation.values()), "the test chooses nothing"


def test_finished_probes_are_not_trained_again(settings, made, tmp_path):
    first, _ = run(settings, layers="4")
    outcome, ran = run(settings, layers="0,4", classifiers=["mlp"])
    assert ran == ["query_token_layer0"]
    kept = {result.name: result for result in outcome.results}["query_token_layer4"]
    fresh = {result.name: result for result in first.results}["query_token_layer4"]
    assert kept.test == fresh.test and kept.test_scores.tolist() == pytest.approx(fresh.test_scores.tolist())
    assert run(settings, layers="0,4", classifiers=["mlp"])[1] == []
    assert len(run(settings, layers="0,4", classifiers=["mlp"], overwrite=True)[1]) == 2


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"epochs": 3}, {"split": "random"}, {"label_shuffle": True}, {"recipe": "published"}]
)
def test_probes_of_other_settings_are_not_replaced_unless_that_is_said(settings, changed):
    run(settings, layers="4", classifiers=["logistic"])
    with pytest.raises(UserError, match="logistic_query_token_layer4 is a probe of other rows, labels or settings"):
        run(settings, layers="4", classifiers=["logistic"], **changed)


def test_probes_of_other_states_are_not_taken_for_these(settings, made, tmp_path):
    run(settings, layers="4", classifiers=["logistic"])
    data, layers = planted(rows=500, images=250, width=24)
    layers[4][7, 3] += 1
    write_parts(tmp_path / "other", data.ids, data.images, layers)
    with pytest.raises(UserError, match="is a probe of other rows, labels or settings"):
        run(settings, layers="4", classifiers=["logistic"], states=str(tmp_path / "other"))


def test_permuted_labels_are_near_chance_and_said_to_be(settings, tmp_path):
    outcome, _ = run(settings, layers="4", label_shuffle=True, resamples=300)
    for result in outcome.results:
        low, high = result.test.interval
        assert low - 0.02 <= 0.5 <= high + 0.02, result.name
    assert "permuted" in (tmp_path / "probes" / "report.html").read_text()


def test_the_published_split_is_that_of_rows_by_name_in_each_file(settings, made, tmp_path):
    """As the old loader reads them: files by name, groups by name, then scikit-learn's split of those rows."""
    outcome, _ = run(settings, split="random", recipe="published", layers="4", classifiers=["mlp"])
    states = open_states(settings["states"])
    order = [name for part in states.parts for name in sorted(part.question_ids)]
    with open(settings["labels"]) as stream:
        labels = {row["question_id"]: row["wrong"] == "True" for row in csv.DictReader(stream)}
    y = [labels[name] for name in order]
    _, test = train_test_split(np.arange(500), test_size=0.2, random_state=42, stratify=y)
    assert outcome.best.test_ids == [order[i] for i in test]
    assert outcome.best.validation is None and "best" not in outcome.files
    assert not (tmp_path / "probes" / "best").exists(), "the test chooses nothing"
    assert outcome.best.split.shared_images > 0
    kept, _ = run(settings, split="random", layers="4", classifiers=["mlp"], output_dir=str(tmp_path / "ours"))
    assert kept.best.test_ids == outcome.best.test_ids and kept.best.validation is not None


def test_new_rows_are_scored_by_the_best_probe(settings, made, tmp_path, capsys):
    outcome, _ = run(settings)
    data, layers = planted(rows=500, images=250, width=24)
    new = np.r_[300:500]
    write_parts(tmp_path / "new", [data.ids[i] for i in new], [data.images[i] for i in new], {4: layers[4][new]})
    best = outcome.files["best"]
    asked = {"states": str(tmp_path / "new"), "apply": best, "output_dir": str(tmp_path / "scores"), "quiet": True}
    found = raylib.probe(**asked)
    assert found.question_ids == [data.ids[i] for i in new] and found.metrics is None
    at = {name: i for i, name in enumerate(outcome.best.test_ids)}
    both = [name for name in found.question_ids if name in at]
    scores = dict(zip(found.question_ids, found.scores, strict=True))
    assert len(both) > 10
    assert [scores[name] for name in both] == pytest.approx([outcome.best.test_scores[at[name]] for name in both])
    written = list(csv.DictReader((tmp_path / "scores" / "scores.csv").open()))
    assert [float(row["score"]) for row in written] == pytest.approx(found.scores.tolist(), abs=1e-6)
    assert [row["predicted"] == "1" for row in written] == [score > 0.5 for score in found.scores]
    judged = raylib.probe(**asked, labels=settings["labels"], target="wrong")
    assert judged.metrics.rows == 200 and judged.metrics.auroc > 0.9
    assert json.loads((tmp_path / "scores" / "metrics.json").read_text())["auroc"] == judged.metrics.auroc
    assert main(["probe", asked["states"], "--apply", best, "--output-dir", asked["output_dir"]]) == 0
    assert "wrote 200 scores" in capsys.readouterr().out


@pytest.mark.parametrize("norm_first", [False, True], ids=["model", "network"])
@pytest.mark.parametrize("alone", [False, True], ids=["with its config", "weights alone"])
def test_probes_of_the_old_scripts_can_be_applied(norm_first, alone, made, tmp_path):
    """Both layouts, in a dict with a config or as weights with a results.json beside them."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for width, next_width in ((24, 512), (512, 256), (256, 128)):
        norm, relu = torch.nn.BatchNorm1d(next_width), torch.nn.ReLU()
        layers += [torch.nn.Linear(width, next_width), *((norm, relu) if norm_first else (relu, norm))]
        layers.append(torch.nn.Dropout(0.3))
    plain = torch.nn.Sequential(*layers, torch.nn.Linear(128, 1), torch.nn.Sigmoid()).eval()
    prefix = "network." if norm_first else "model."
    state = {prefix + name: tensor for name, tensor in plain.state_dict().items()}
    names = {"EMBEDDING_TYPE": "query_token_representation", "LAYER_NAME": "layer_4"}
    torch.save(
        state if alone else {"model_state_dict": state, "config": names, "input_dim": 24}, tmp_path / "probe_model.pt"
    )
    (tmp_path / "results.json").write_text(json.dumps({name.lower(): value for name, value in names.items()}))
    found = raylib.probe(str(made / "states"), apply=str(tmp_path), output_dir=str(tmp_path / "out"), quiet=True)
    x = open_states(str(made / "states")).matrix(SIGNAL)
    with torch.no_grad():
        expected = plain(torch.from_numpy(x)).flatten().numpy()
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


def test_a_probe_is_not_applied_to_states_of_another_kind(settings, made, tmp_path):
    best = run(settings, layers="4")[0].files["best"]
    data, layers = planted(rows=60, images=30, width=24)
    asked = {"apply": best, "output_dir": str(tmp_path / "scores"), "quiet": True}
    write_parts(tmp_path / "model", data.ids, data.images, layers, fingerprint="e" * 64)
    with pytest.raises(UserError, match="was trained on states of another model, revision or number format"):
        raylib.probe(str(tmp_path / "model"), **asked)
    write_parts(tmp_path / "layer", data.ids, data.images, {0: layers[0]})
    with pytest.raises(UserError, match=r"reads query_token/layer_4; .*layer has query_token/layer_0"):
        raylib.probe(str(tmp_path / "layer"), **asked)
    write_parts(tmp_path / "width", data.ids, data.images, {4: layers[4][:, :10]})
    with pytest.raises(UserError, match=r"takes \[n, 24\]"):
        raylib.probe(str(tmp_path / "width"), **asked)
    layers[4][3, 2] = np.nan
    write_parts(tmp_path / "nan", data.ids, data.images, layers)
    with pytest.raises(UserError, match="1 rows of query_token/layer_4 hold NaN"):
        raylib.probe(str(tmp_path / "nan"), **asked)
    with pytest.raises(UserError, match=r"there is no probe_model.pt; expected a probe's folder"):
        raylib.probe(settings["states"], **(asked | {"apply": str(tmp_path)}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"states": ""}, "no hidden states were given"),
        ({"labels": None}, "no labels were given"),
        ({"representations": ["query"]}, "unknown representation 'query'. Did you mean query_token"),
        ({"representations": ["vision_only"]}, r"none of them is in the states \(query_token\)"),
        ({"classifiers": ["svm"]}, "unknown classifier 'svm'"),
        ({"layers": "4,5"}, r"--layers asks for \[5\]; the states have \[0, 4, 8\]"),
        ({"layers": "last"}, "--layers is 'last'"),
        ({"target": "right"}, "right"),
        ({"split": "source", "source_column": "topic"}, "cannot be divided|source"),
        ({"batch_size": 1}, "--batch-size is 1"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
        ({"address": "auto"}, "--local runs without Ray"),
    ],
)
def test_what_cannot_be_right_is_said(settings, changed, message):
    if "split" in changed:  # two sources, of which one has one label
        with open(settings["labels"]) as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            row["topic"] = "all wrong" if row["wrong"] == "True" else "all right"
        changed["labels"] = str(Path(settings["output_dir"]).parent / "labels.csv")
        with open(changed["labels"], "w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    with pytest.raises(UserError, match=message):
        raylib.probe(**(settings | changed))


VALUES = {
    "states": "output", "labels": "l.csv", "target": "wrong", "output_dir": "p", "representations": ["vision_only"],
    "layers": "0,4", "classifiers": ["mlp"], "split": "source", "recipe": "published", "seed": 7, "epochs": 3,
    "batch_size": 16, "learning_rate": 0.01, "resamples": 10, "image_column": "i", "category_column": "c",
    "source_column": "s", "label_shuffle": True, "apply": "best", "workers": 2, "address": "auto", "local": True,
    "overwrite": True, "quiet": True,
}  # fmt: skip


def test_there_is_a_value_for_every_flag():
    assert set(VALUES) == {f.name for f in dataclasses.fields(ProbeConfig)}


@pytest.mark.parametrize("name", VALUES)
def test_every_flag_is_read_from_the_command_line_and_from_yaml(name, tmp_path):
    value, flag = VALUES[name], "--" + name.replace("_", "-")
    (tmp_path / "run.yaml").write_text(json.dumps({flag[2:]: value}))
    said = [str(value[0])] if isinstance(value, list) else [] if value is True else [str(value)]
    arguments = said if name == "states" else [flag, *said]
    for given in (arguments, ["--config", str(tmp_path / "run.yaml")]):
        found = dataclasses.asdict(parse(ProbeConfig, given, prog="raylib probe"))
        assert found == dataclasses.asdict(ProbeConfig()) | {name: value}
