"""Embeddings by hand-made values."""

import numpy as np
import pytest

from raylib.types import Embeddings, EncodeContext

RAGGED = [
    np.array([[1, 2]], np.float32),
    np.array([[3, 4], [5, 6], [7, 8]], np.float32),
    np.array([[9, 0]], np.float32),
]


def test_a_ragged_list_becomes_flat_rows_with_offsets():
    made = Embeddings.from_list(RAGGED)
    assert made.values.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]]
    assert made.offsets.tolist() == [0, 1, 4, 5] and made.offsets.dtype == np.int64
    assert len(made) == 3 and made.dim == 2 and made.token_counts.tolist() == [1, 3, 1]
    assert [item.tolist() for item in made] == [item.tolist() for item in RAGGED]
    assert made[-1].tolist() == [[9, 0]] and made[1].tolist() == [[3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize("index", [3, -4])
def test_a_content_that_is_not_there_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"content {index} of 3"):
        Embeddings.from_list(RAGGED)[index]


def test_dense_is_one_vector_per_content():
    dense = Embeddings.from_dense(np.eye(3, dtype=np.float32))
    assert dense.is_dense and dense.offsets.tolist() == [0, 1, 2, 3]
    assert (dense.dense() == np.eye(3)).all()


def test_as_many_vectors_as_contents_is_not_dense_when_one_content_has_none():
    uneven = Embeddings(np.ones((2, 2), np.float32), np.array([0, 0, 2]))
    assert not uneven.is_dense
    with pytest.raises(ValueError, match="2 contents have 2 vectors"):
        uneven.dense()


def test_late_interaction_vectors_are_not_dense():
    with pytest.raises(ValueError, match="3 contents have 5 vectors; expected one vector per content"):
        Embeddings.from_list(RAGGED).dense()


def test_take_orders_and_repeats_contents():
    taken = Embeddings.from_list(RAGGED).take([1, 0, 1, 2])
    assert taken.offsets.tolist() == [0, 3, 4, 7, 8]
    assert taken.values[:, 0].tolist() == [3, 5, 7, 1, 3, 5, 7, 9]
    dense = Embeddings.from_dense(np.array([[1.0], [2.0], [3.0]], np.float16)).take(np.array([2, 2, 0]))
    assert dense.values.tolist() == [[3], [3], [1]] and dense.is_dense and dense.values.dtype == np.float16


@pytest.mark.parametrize(
    "make", [lambda: Embeddings.from_list(RAGGED), lambda: Embeddings.from_dense(np.eye(3, dtype=np.float32))]
)
@pytest.mark.parametrize("index", [-2, 3])
def test_take_outside_the_contents_is_an_error_and_never_another_content(make, index):
    with pytest.raises(IndexError):
        make().take([0, index])


def test_take_of_nothing_is_empty():
    for some in (Embeddings.from_list(RAGGED), Embeddings.from_dense(np.eye(3, dtype=np.float32))):
        none = some.take([])
        assert len(none) == 0 and none.values.shape == (0, some.dim)


def test_concatenate_keeps_order_and_counts():
    joined = Embeddings.concatenate(
        [Embeddings.from_list(RAGGED[:2]), Embeddings.from_list([], dim=2), Embeddings.from_list(RAGGED[2:])]
    )
    assert joined.offsets.tolist() == [0, 1, 4, 5]
    assert joined.values[:, 1].tolist() == [2, 4, 6, 8, 0]


def test_an_empty_list_needs_its_dim():
    empty = Embeddings.from_list([], dim=7)
    assert len(empty) == 0 and empty.dim == 7


def test_astype_changes_values_only():
    half = Embeddings.from_list(RAGGED).astype(np.float16)
    assert half.values.dtype == np.float16 and half.offsets.tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        (np.zeros((2, 2)), np.array([0, 1, 2]), r"values is float64\[2, 2\]; expected float16 or float32"),
        (np.zeros(2, np.float32), np.array([0, 1, 2]), r"values is float32\[2\]"),
        (np.zeros((2, 2), np.float32), np.array([0, 1, 2], np.int32), r"offsets is int32\[3\]; expected int64"),
        (np.zeros((0, 2), np.float32), np.zeros(0, np.int64), r"offsets is int64\[0\]"),
        (np.zeros((2, 2), np.float32), np.array([0, 1]), "must rise from 0"),
        (np.zeros((2, 2), np.float32), np.array([1, 2]), "must rise from 0"),
        (np.zeros((2, 2), np.float32), np.array([0, 2, 1, 2]), "must rise from 0"),
    ],
)
def test_arrays_that_are_no_embeddings_are_refused(values, offsets, message):
    with pytest.raises(ValueError, match=message):
        Embeddings(values, offsets)


def test_what_a_task_is_told_besides_does_not_tell_two_contexts_apart():
    assert EncodeContext("query", "p", task="one") == EncodeContext("query", "p", task="two")
    assert hash(EncodeContext("query", "p", task="one")) == hash(EncodeContext("query", "p", task=["unhashable"]))
    assert EncodeContext("query", "p") != EncodeContext("document", "p") != EncodeContext("document", "q")
