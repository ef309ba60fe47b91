"""What searches say that they lose and save."""

import numpy as np
import pytest

from raylib.search.quality import losses, recall, sampled, sizes


def test_recall_is_a_mean_of_shares():
    found, exact = np.array([[1, 2, 3], [7, 8, 9]]), np.array([[3, 2, 1], [7, 6, 5]])
    assert recall(found, exact) == {3: pytest.approx((3 / 3 + 1 / 3) / 2)}
    assert list(recall(np.zeros((1, 100), int), np.zeros((1, 100), int))) == [10, 100]


def test_what_was_not_found_counts_as_lost():
    assert recall(np.array([[4, -1, -1, -1]]), np.array([[4, 5, 6, 7]])) == {4: 0.25}


@pytest.mark.parametrize("n", [1, 2, 37, 99, 100])
def test_few_queries_are_all_sampled(n):
    assert sampled(n).tolist() == list(range(n))


def test_of_many_queries_a_hundred_are_sampled_evenly():
    sample = sampled(9901)
    assert sample.tolist() == list(range(0, 9901, 100))
    assert len(sampled(101)) == 100 and len(sampled(1_000_000)) == 100


def test_as_it_is_reported():
    one, other = np.arange(20)[None], np.arange(5, 25)[None]
    assert losses(one, other) == {"recall_at_10": 0.5, "recall_at_20": 0.75, "sampled_queries": 1}
    assert sizes(12.345, 512.0) == {"bytes_per_document": 12.3, "bytes_per_document_float32": 512.0}
