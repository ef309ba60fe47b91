"""Probes find what is planted, and nothing where nothing is."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from raylib.errors import UserError
from raylib.probe import mlp
from raylib.probe.metrics import interval
from raylib.probe.splits import split_rows
from raylib.probe.train import PUBLISHED, Recipe, load_probe, run_probe
from raylib.store.representations import Representation
from tests.probe.made import QUERY, leaking, planted, probe_data

QUICK = Recipe(epochs=12, resamples=200)


def run(data, x, kind="image", classifier="logistic", recipe=QUICK, split=None, **settings):
    split = split or split_rows(kind, data.y, data.images, data.sources)
    facts = split.facts(data.images, data.sources)
    return run_probe(x, data, split, facts, QUERY, classifier, recipe, "org/tiny", "wrong", **settings)


def with_labels(data, y):
    return dataclasses.replace(data, y=np.asarray(y, np.int8))


@pytest.mark.parametrize("classifier", ["mlp", "logistic"])
def test_the_layer_with_the_signal_is_found_and_the_others_give_chance(classifier):
    data, layers = planted()
    found = {layer: run(data, x, classifier=classifier)[0].test for layer, x in layers.items()}
    assert found[4].auroc > 0.95
    assert found[4].interval[0] > 0.9
    for layer in (0, 8):
        assert found[layer].interval[0] < 0.5 < found[layer].interval[1]


@pytest.mark.parametrize("classifier", ["mlp", "logistic"])
def test_shuffled_labels_give_chance_in_the_layer_with_the_signal(classifier):
    data, layers = planted()
    shuffled = with_labels(data, np.random.default_rng(1).permutation(data.y))
    test = run(shuffled, layers[4], classifier=classifier)[0].test
    assert test.interval[0] < 0.5 < test.interval[1]
    assert abs(test.auroc - 0.5) < 0.15


@pytest.mark.parametrize("classifier", ["mlp", "logistic"])
def test_a_leak_through_shared_images_shows_at_random_and_vanishes_by_image(classifier):
    quick = dataclasses.replace(QUICK, epochs=6)
    data, x = leaking()
    random = run(data, x, "random", classifier, quick)[0]
    assert random.test.auroc > 0.95
    assert random.split.shared_images > 0.9 * random.split.test_rows
    # 60 test images tell little at a time: AUROC of chance differs by 0.07 from one draw of fingerprints to the next
    grouped = [run(*leaking(seed=seed), "image", classifier, quick)[0] for seed in range(6)]
    assert abs(np.mean([result.test.auroc for result in grouped]) - 0.5) < 0.1
    assert sum(result.test.interval[0] < 0.5 < result.test.interval[1] for result in grouped) >= 4
    assert all(result.split.shared_images == 0 for result in grouped)


def test_the_published_recipe_trains_every_epoch_on_raw_vectors_and_takes_the_last_weights():
    data, layers = planted()
    result, checkpoint = run(data, layers[4], "random", "mlp", dataclasses.replace(PUBLISHED, epochs=8))
    assert result.test.auroc > 0.9
    assert result.validation is None
    assert set(result.history) == {"loss", "accuracy"}
    assert len(result.history["loss"]) == 8
    assert checkpoint["mean"] is None
    assert checkpoint["std"] is None
    assert (PUBLISHED.epochs, PUBLISHED.batch_size, PUBLISHED.lr, PUBLISHED.dropout) == (50, 32, 1e-3, 0.3)
    shapes = {name: tuple(t.shape) for name, t in checkpoint["model_state_dict"].items() if t.ndim == 2}
    assert shapes == {
        "model.0.weight": (512, 48),
        "model.4.weight": (256, 512),
        "model.8.weight": (128, 256),
        "model.12.weight": (1, 128),
    }


def test_a_result_tells_of_its_rows():
    data, layers = planted()
    result, checkpoint = run(data, layers[4], fingerprint="f00d")
    split = split_rows("image", data.y, data.images)
    assert result.test_ids == [data.ids[at] for at in split.test]
    assert result.test_labels.tolist() == data.y[split.test].tolist()
    assert result.test_scores.tolist() == load_probe(checkpoint)(layers[4][split.test]).tolist()
    assert (result.train.rows, result.validation.rows, result.test.rows) == tuple(
        len(rows) for rows in (split.train, split.validation, split.test)
    )
    assert result.test.positives == int(data.y[split.test].sum())
    assert [group.name for group in result.by["category"]] == ["numbers", "objects"]
    assert sum(group.rows for group in result.by["source"]) == len(split.test)
    assert checkpoint["fingerprint"] == "f00d"
    assert checkpoint["representation"] == "query_token/layer_4"
    assert result.notes == []


@pytest.mark.parametrize("classifier", ["mlp", "logistic"])
def test_the_same_seed_gives_the_same_numbers_and_leaves_the_random_state_of_torch(classifier):
    data, layers = planted(200, 100)
    recipe = Recipe(epochs=3, resamples=50)
    torch.manual_seed(7)
    expected = torch.rand(3).tolist()
    torch.manual_seed(7)
    first, _ = run(data, layers[4], classifier=classifier, recipe=recipe)
    assert torch.rand(3).tolist() == expected
    second, _ = run(data, layers[4], classifier=classifier, recipe=recipe)
    assert first.test_scores.tolist() == second.test_scores.tolist()
    assert first.test == second.test
    assert first.history == second.history
    if classifier == "mlp":
        other, _ = run(data, layers[4], classifier=classifier, recipe=dataclasses.replace(recipe, seed=43))
        assert other.test_scores.tolist() != first.test_scores.tolist()


@pytest.mark.parametrize("classifier", ["mlp", "logistic"])
def test_a_checkpoint_goes_through_torch_load_without_trust(classifier):
    data, layers = planted(200, 100)
    _, checkpoint = run(data, layers[4], classifier=classifier, recipe=Recipe(epochs=2, resamples=20))
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    assert load_probe(loaded)(layers[4]).tolist() == load_probe(checkpoint)(layers[4]).tolist()
    assert {"model_state_dict", "config", "input_dim", "timestamp"} <= set(loaded)


def test_only_training_rows_decide_the_scaling():
    data, layers = planted(200, 100)
    split = split_rows("image", data.y, data.images)
    x = layers[4].copy()
    x[split.test] += 1000
    x[:, 5] = 3.25
    for classifier in ("mlp", "logistic"):
        _, checkpoint = run(data, x, classifier=classifier, recipe=Recipe(epochs=1, resamples=20), split=split)
        assert np.allclose(checkpoint["mean"], x[split.train].mean(axis=0), atol=1e-4)
        spread = x[split.train].std(axis=0)
        spread[5] = 1.0  # a dimension that never changes stays as it is
        assert np.allclose(checkpoint["std"], spread, atol=1e-4)


def test_rows_without_a_vector_are_left_out_with_a_note():
    data, layers = planted(200, 100)
    x = layers[4].copy()
    split = split_rows("image", data.y, data.images)
    gone = [int(split.train[0]), int(split.test[0]), int(split.test[3])]
    x[gone] = np.nan
    result, _ = run(data, x, split=split)
    assert result.notes == ["3 of 200 rows have no query_token/layer_4 and were left out"]
    assert result.split.train_rows == len(split.train) - 1
    assert result.test.rows == result.split.test_rows == len(split.test) - 2
    assert data.ids[gone[1]] not in result.test_ids
    x[data.y == 1] = np.nan
    with pytest.raises(UserError, match="one label only"):
        run(data, x, split=split)


def test_with_few_test_sources_intervals_are_by_image_and_say_so():
    data, layers = planted(200, 100)
    result, _ = run(data, layers[4], "source")
    sources = {data.sources[int(id[1:])] for id in result.test_ids}
    assert result.split.kind == "source"
    assert 1 < len(sources) < 10
    assert f"intervals are by image: {len(sources)} test sources are too few" in result.notes[0]
    assert result.test.interval[0] < result.test.interval[1]


@pytest.mark.parametrize("kind", ["image", "random", "source"])
def test_intervals_draw_what_the_split_kept_together(kind):
    data, layers = planted()
    sources = [f"set {int(name.removesuffix('.jpg')) % 60}" for name in data.images]  # 12 of them to test with
    data = dataclasses.replace(data, columns={"source": sources})
    result, _ = run(data, layers[0], kind)
    rows = [int(id[1:]) for id in result.test_ids]
    drawn = {"image": data.images, "random": data.ids, "source": sources}
    found = {
        name: interval(result.test_labels, result.test_scores, [groups[at] for at in rows], 200, 42)
        for name, groups in drawn.items()
    }
    assert len(set(found.values())) == 3
    assert result.test.interval == found[kind]
    assert result.notes == []
    assert any(group.interval for group in result.by["source"])  # within a source, images are drawn


def test_a_column_of_very_many_values_is_no_breakdown():
    data, layers = planted(1200, 600, 4)
    data.columns["domain"] = data.ids
    result, _ = run(data, layers[4])
    assert "domain" not in result.by
    assert "domain has 240 values among the test rows" in result.notes[0]


# Early stopping, imbalance, batches.


def test_training_stops_after_the_best_epoch_and_keeps_its_weights():
    rng = np.random.default_rng(0)
    x, held_x = (rng.standard_normal((n, 16)).astype(np.float32) for n in (120, 60))
    y, held_y = rng.integers(0, 2, 120), rng.integers(0, 2, 60)  # noise: what is learnt does not last
    long = mlp.train_mlp(x, y, held_x, held_y, Recipe(epochs=40, patience=4))
    curve = long.history["validation_auroc"]
    assert len(curve) == long.best_epoch + 4 + 1 < 40
    assert curve[long.best_epoch] == max(curve)
    short = mlp.train_mlp(x, y, held_x, held_y, Recipe(epochs=long.best_epoch + 1, patience=None))
    assert all(torch.equal(long.state[name], short.state[name]) for name in long.state)


def test_class_weights_raise_the_scores_of_a_rare_class():
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 10 == 0).astype(np.int8)
    x = rng.standard_normal((300, 1)).astype(np.float32)
    data = probe_data(y)
    for classifier in ("mlp", "logistic"):
        means = {}
        for weight in (True, False):
            recipe = Recipe(epochs=5, lr=0.01, patience=None, resamples=20, class_weight=weight)
            means[weight] = run(data, x, classifier=classifier, recipe=recipe)[0].test_scores.mean()
        assert means[False] < 0.2  # one row of ten
        assert means[True] > 0.4  # as if they were as many as the others


@pytest.mark.parametrize(("rows", "sizes"), [(5, [2, 3]), (6, [2, 2, 2]), (1, [1]), (3, [3]), (33, [2] * 15 + [3])])
def test_a_last_batch_of_one_row_joins_the_one_before(rows, sizes):
    parts = mlp.batches(torch.arange(rows), 2)
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts).tolist() == list(range(rows))


def test_training_rows_that_leave_one_over_train():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((65, 6)).astype(np.float32), np.arange(65) % 2
    trained = mlp.train_mlp(x, y, x[:0], y[:0], Recipe(epochs=2, batch_size=32))
    assert len(trained.history["loss"]) == 2
    assert all(torch.isfinite(tensor).all() for tensor in trained.state.values())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "batches of at least 2"),
        ({"patience": 0}, "patience is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"hidden": ()}, "hidden is"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        Recipe(**wrong)


# Stored probes.


def old_weights(layout, width=6, hidden=(5, 4, 3), seed=0):
    """(weights as the old scripts name them, a forward written by hand in NumPy)."""
    rng = np.random.default_rng(seed)
    norm_at = {"model": 2, "network": 1}[layout]
    state, steps = {}, []
    for block, (before, size) in enumerate(zip((width, *hidden[:-1]), hidden, strict=True)):
        w, b, gamma, beta, mean = (rng.standard_normal(s) for s in ((size, before), size, size, size, size))
        var = rng.uniform(0.5, 2, size)
        steps.append((w, b, gamma, beta, mean, var))
        linear, norm = f"{layout}.{4 * block}", f"{layout}.{4 * block + norm_at}"
        state |= {f"{linear}.weight": w, f"{linear}.bias": b, f"{norm}.weight": gamma, f"{norm}.bias": beta}
        state |= {f"{norm}.running_mean": mean, f"{norm}.running_var": var}
        state[f"{norm}.num_batches_tracked"] = np.array(7)
    last_w, last_b = rng.standard_normal((1, hidden[-1])), rng.standard_normal(1)
    state |= {f"{layout}.12.weight": last_w, f"{layout}.12.bias": last_b}

    def forward(x):
        for w, b, gamma, beta, mean, var in steps:
            x = x @ w.T + b
            if layout == "model":
                x = np.maximum(x, 0)
            x = (x - mean) / np.sqrt(var + 1e-5) * gamma + beta
            if layout == "network":
                x = np.maximum(x, 0)
        return 1 / (1 + np.exp(-(x @ last_w.T + last_b)[:, 0]))

    tensors = {
        name: torch.tensor(value) if value.dtype == np.int64 else torch.tensor(value, dtype=torch.float32)
        for name, value in state.items()
    }
    return tensors, forward


@pytest.mark.parametrize("layout", ["model", "network"])
@pytest.mark.parametrize("bare", [False, True])
def test_old_checkpoints_of_both_layouts_score_as_by_hand(layout, bare):
    state, forward = old_weights(layout)
    config = {"LAYER_SIZES": [5, 4, 3], "DROPOUT_RATE": 0.3}
    checkpoint = {"model_state_dict": state, "config": config, "input_dim": 6, "timestamp": "20250101_000000"}
    probe = load_probe(state if bare else checkpoint)
    x = np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)
    assert np.allclose(probe(x), forward(x.astype(np.float64)), atol=1e-5)
    assert probe(x[:1]).shape == (1,)
    assert probe(x[:0]).shape == (0,)
    assert (probe.input_dim, probe.representation, probe.classifier) == (6, "", "mlp")


def test_a_logistic_checkpoint_scores_as_by_hand():
    data, layers = planted(200, 100)
    _, checkpoint = run(data, layers[4])
    weights = {name: tensor.numpy() for name, tensor in checkpoint["model_state_dict"].items()}
    x = layers[4][:5].astype(np.float64)
    line = (x - checkpoint["mean"].numpy()) / checkpoint["std"].numpy() @ weights["coef"] + weights["intercept"]
    assert np.allclose(load_probe(checkpoint)(layers[4][:5]), 1 / (1 + np.exp(-line)), atol=1e-6)


def test_what_is_no_probe_is_refused_by_name():
    state, _ = old_weights("model")
    with pytest.raises(UserError, match=r"x\.pt holds the weights encoder"):
        load_probe({"model_state_dict": {"encoder.weight": torch.zeros(2, 2)}}, "x.pt")
    with pytest.raises(UserError, match=r"x\.pt holds the weights of another network"):
        load_probe({"model_state_dict": {**state, "model.20.weight": torch.zeros(2)}}, "x.pt")
    with pytest.raises(UserError, match="'forest' probe"):
        load_probe({"model_state_dict": {}, "classifier": "forest"})
    with pytest.raises(UserError, match="no coef"):
        load_probe({"model_state_dict": {}, "classifier": "logistic"})
    with pytest.raises(UserError, match=r"\(2, 7\); the probe of x\.pt takes \[n, 6\]"):
        load_probe(state, "x.pt")(np.zeros((2, 7), np.float32))


def test_the_name_of_a_representation_is_that_of_the_result():
    data, layers = planted(200, 100)
    split = split_rows("image", data.y, data.images)
    vision = Representation("vision_only")
    result, checkpoint = run_probe(
        layers[4], data, split, split.facts(data.images), vision, "logistic", QUICK, "org/tiny", "wrong"
    )
    assert (result.name, result.target, result.input_dim) == ("logistic_vision_only", "wrong", 48)
    assert load_probe(checkpoint).representation == "vision_only"
