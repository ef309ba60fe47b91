"""Numbers about plans, by hand."""

import io

import numpy as np
import pytest

from raylib.mine import b3_plan, random_batches
from raylib.mine.graph import from_pairs
from raylib.mine.quality import batch_quality, cluster_quality, histograms, random_quality
from tests.mine.planted import communities, compared


def on_circle(*degrees):
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_a_batch_by_hand():
    queries, documents = on_circle(0, 60, 90), on_circle(0, 60, 5)
    # Query 0: own 1, negatives cos 60 = .5 and cos 5 = .996, suspect. Query 1: own 1, cos 60 = .5, cos 55 = .574.
    # Query 2: own cos 85 = .087; cos 90 = 0, and cos 30 = .866, suspect.
    found = batch_quality(np.array([[0, 1, 2, -1]]), compared(queries, documents), np.arange(3), np.arange(3))
    assert found.hardest == pytest.approx([0.5, (0.5 + 0.57358) / 2, 0], abs=1e-4)
    assert found.hardness == pytest.approx((0.5 + 0.53679 + 0) / 3, abs=1e-4)
    assert found.suspects == pytest.approx(2 / 6) and found.examples_with_suspects == pytest.approx(2 / 3)
    assert found.similarity == pytest.approx((0.5 + 0.99619 + 0.5 + 0.57358 + 0 + 0.86603) / 6, abs=1e-4)
    assert (found.n_batches, found.n_examples, found.duplicates, found.group_purity) == (1, 3, 0, 1)


def test_duplicates_are_no_negatives_and_are_counted():
    queries = documents = on_circle(0, 0, 90)
    found = batch_quality(np.array([[0, 1, 2]]), compared(queries, documents), np.arange(3), np.array([0, 0, 1]))
    assert found.duplicates == 2 and found.suspects == 0 and found.hardness == pytest.approx(0, abs=1e-6)


def test_ten_hardest_of_more():
    queries, documents = on_circle(*[0] * 30), on_circle(*range(0, 90, 3))
    found = batch_quality(
        np.arange(30)[None], compared(queries, documents), np.arange(30), np.arange(30), suspect_above=1.01
    )
    expected = np.cos(np.deg2rad(np.arange(3, 33, 3))).mean()  # of query 0: 3 to 30 degrees
    assert found.hardest[0] == pytest.approx(expected, abs=1e-5)


def test_purity_is_the_share_of_pairs_of_one_group():
    queries = documents = on_circle(0, 40, 80, 120)
    found = batch_quality(
        np.arange(4)[None], compared(queries, documents), np.arange(4), np.arange(4), groups=list("aabb")
    )
    assert found.group_purity == pytest.approx(4 / 12)


def test_an_example_alone_in_its_batch_has_no_negatives():
    queries = documents = on_circle(0, 40, 80)
    found = batch_quality(np.array([[0, 1], [2, -1]]), compared(queries, documents), np.arange(3), np.arange(3))
    assert np.isnan(found.hardest[2]) and found.hardness == pytest.approx(np.cos(np.deg2rad(40)), abs=1e-5)
    assert "hardest" not in found.numbers() and found.numbers()["n_examples"] == 3


def test_clusters_by_hand():
    graph = from_pairs(np.array([0, 1, 2]), np.array([1, 2, 3]), 4)
    excluded = np.array([[0, 1], [1, 3], [0, -1], [2, 0]])  # 0 meets document 1, 3 meets 2; their own do not count
    found = cluster_quality(np.array([0, 0, 1, 1]), graph, excluded, np.arange(4))
    assert (found.smallest, found.largest) == (2, 2) and found.cut == pytest.approx(1 / 3)
    assert found.wanted == pytest.approx(4 / 4) and found.excluded == pytest.approx(2 / 4)


def test_b3_is_harder_than_chance_and_a_figure_shows_it():
    queries, documents, _ = communities(640, 40)
    plan = b3_plan(queries, documents, batch_size=64, cluster_size=16, skip_top=4, neighbours=30)
    about = (compared(queries, documents), np.arange(640), plan.same)
    hard, chance = batch_quality(plan.batches, *about), random_quality(plan.batches, *about)
    assert hard.hardness > chance.hardness + 0.2 and chance.n_examples == 640
    png = histograms({"B3": hard, "random": chance})
    assert png == histograms({"B3": hard, "random": chance})
    from PIL import Image

    assert Image.open(io.BytesIO(png)).size == (880, 495)


def test_of_many_batches_some_are_judged():
    queries = documents = on_circle(*np.linspace(0, 180, 1200))
    found = batch_quality(
        random_batches(1200, batch_size=4), compared(queries, documents), np.arange(1200), np.arange(1200)
    )
    assert len(found.hardest) == 256 * 4 and found.n_batches == 300 and found.n_examples == 1200
