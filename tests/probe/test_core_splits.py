"""How rows are divided: no group on two sides, both classes on every side, and the published split exactly."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from raylib.errors import UserError
from raylib.probe.splits import split_rows

RNG = np.random.default_rng(0)
Y = (RNG.uniform(size=400) < 0.3).astype(np.int8)
IMAGES = [f"{at % 150}.jpg" for at in range(400)]
SOURCES = [f"set {at % 150 % 7}" for at in range(400)]


def sets(split):
    return [split.train.tolist(), split.validation.tolist(), split.test.tolist()]


def names(values, rows):
    return {values[at] for at in rows}


def test_the_random_split_is_the_published_one_row_by_row():
    x = np.arange(800).reshape(400, 2)
    for seed in (42, 7):
        split = split_rows("random", Y, IMAGES, seed=seed)
        x_train, x_test, y_train, y_test = train_test_split(x, Y, test_size=0.2, random_state=seed, stratify=Y)
        assert np.array_equal(x[split.train], x_train)
        assert np.array_equal(x[split.test], x_test)
        assert np.array_equal(Y[split.train], y_train)
        assert np.array_equal(Y[split.test], y_test)
        assert len(split.validation) == 0


def test_validation_rows_of_the_random_split_come_out_of_the_training_rows():
    plain, split = split_rows("random", Y, IMAGES), split_rows("random", Y, IMAGES, validation_size=0.1)
    assert split.test.tolist() == plain.test.tolist()
    assert len(split.validation) == 40
    assert sorted([*split.train, *split.validation]) == sorted(plain.train)


@pytest.mark.parametrize(("kind", "groups"), [("image", IMAGES), ("source", SOURCES)])
def test_no_group_is_in_two_sets_and_the_classes_are_even(kind, groups):
    split = split_rows(kind, Y, IMAGES, SOURCES)
    assert sorted(at for rows in sets(split) for at in rows) == list(range(400))
    train, validation, test = (names(groups, rows) for rows in sets(split))
    assert not train & validation
    assert not train & test
    assert not validation & test
    for rows, share in ((split.test, 0.2), (split.validation, 0.1)):
        if kind == "image":
            assert len(rows) / 400 == pytest.approx(share, abs=0.03)
            assert Y[rows].mean() == pytest.approx(Y.mean(), abs=0.06)
        assert set(Y[rows]) == {0, 1}


def test_a_seed_decides_the_split():
    first, again, other = (sets(split_rows("image", Y, IMAGES, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_without_validation_the_training_rows_are_all_others():
    split = split_rows("image", Y, IMAGES, validation_size=None)
    assert len(split.validation) == 0
    assert len(split.train) + len(split.test) == 400


def test_facts_count_what_is_shared():
    images = ["a", "a", "b", "c", "d", "e"]
    split = split_rows("random", np.array([0, 1] * 5), ["x"] * 10)
    split = type(split)("random", 42, np.array([0, 2]), np.array([3]), np.array([1, 4]))
    facts = split.facts(images)
    assert (facts.train_rows, facts.validation_rows, facts.test_rows) == (2, 1, 2)
    assert facts.shared_images == 1  # row 1 has the image of row 0
    assert facts.groups == 5  # row 5 is in no set
    assert (facts.kind, facts.seed) == ("random", 42)
    assert split_rows("image", Y, IMAGES).facts(IMAGES).shared_images == 0
    assert split_rows("image", Y, IMAGES).facts(IMAGES).groups == 150
    assert split_rows("source", Y, IMAGES, SOURCES).facts(IMAGES, SOURCES).groups == 7
    random = split_rows("random", Y, IMAGES)
    seen = names(IMAGES, random.train)
    assert random.facts(IMAGES).shared_images == sum(IMAGES[at] in seen for at in random.test) > 50


def test_rows_can_be_left_out_of_a_split():
    split = split_rows("image", Y, IMAGES)
    keep = np.ones(400, bool)
    keep[[split.train[1], split.test[0]]] = False
    rest = split.only(keep, Y)
    assert rest.train.tolist() == [at for at in split.train if keep[at]]
    assert rest.validation.tolist() == split.validation.tolist()
    assert rest.test.tolist() == split.test[1:].tolist()


def test_a_random_split_of_fewer_rows_is_the_published_one_of_these():
    keep = np.arange(400) % 9 != 0
    left = np.flatnonzero(keep)
    rest = split_rows("random", Y, IMAGES, seed=3).only(keep, Y)
    train, test = train_test_split(left, test_size=0.2, random_state=3, stratify=Y[left])
    assert rest.train.tolist() == train.tolist()
    assert rest.test.tolist() == test.tolist()


def test_one_large_image_does_not_take_the_whole_test_set():
    images = ["big"] * 200 + [f"{at}" for at in range(100)]
    y = np.arange(300) % 2
    split = split_rows("image", y, images)
    assert "big" in names(images, split.train)
    assert len(split.test) < 100


def test_two_sources_leave_one_to_learn_from_and_validate_by_image():
    sources = ["left" if at % 150 < 75 else "right" for at in range(400)]
    split = split_rows("source", Y, IMAGES, sources)
    assert len(names(sources, [*split.train, *split.validation])) == 1
    assert len(names(sources, split.test)) == 1
    assert names(sources, split.test) != names(sources, split.train)
    assert len(split.validation) > 10
    assert not names(IMAGES, split.train) & names(IMAGES, split.validation)


def test_sources_of_one_class_each_cannot_be_left_out():
    sources = ["yes" if label else "no" for label in Y]
    with pytest.raises(UserError, match="cannot be divided so that rows with label 0 and with label 1 are on both"):
        split_rows("source", Y, IMAGES, sources)


@pytest.mark.parametrize(
    ("kind", "y", "images", "sources", "says"),
    [
        ("image", [1] * 20, ["a"] * 20, None, "all 20 rows have the label 1"),
        ("random", [0] * 20, ["a"] * 20, None, "all 20 rows have the label 0"),
        ("random", [0, 1] * 4, ["a"] * 8, None, "8 rows with a label, 4 of them 1; expected at least 10"),
        ("image", [0] * 19 + [1], ["a"] * 20, None, "1 of them 1; expected at least 10, with 2 of each"),
        ("image", [0, 1] * 10, ["a"] * 20, None, "20 rows of 1 images cannot be divided"),
        ("source", [0, 1] * 10, list("ab") * 10, None, "needs a column source or dataset"),
        ("source", [0, 1] * 10, list("ab") * 10, ["s"] * 20, "all rows are of the source 's'"),
    ],
)
def test_rows_that_cannot_be_split_say_why(kind, y, images, sources, says):
    with pytest.raises(UserError, match=says):
        split_rows(kind, np.array(y), images, sources)


def test_sizes_that_leave_nothing_are_refused():
    with pytest.raises(UserError, match=r"test_size is 1\.5"):
        split_rows("image", Y, IMAGES, test_size=1.5)
    with pytest.raises(UserError, match="leave no rows to train on"):
        split_rows("image", Y, IMAGES, test_size=0.5, validation_size=0.5)
