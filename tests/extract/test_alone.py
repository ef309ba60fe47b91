"""What counts as another state than alone, by hand."""

import numpy as np

from raylib.extract.alone import first_difference
from raylib.store.representations import Representation

QUERY, MEAN = Representation("query_token", 3), Representation("multimodal", 3)


def values(query, mean):
    return {QUERY: np.array(query, np.float32), MEAN: np.array(mean, np.float32)}


TOGETHER = values([[9, 9], [3, 4]], [[9, 9], [0, 10]])


def test_rounding_is_no_difference():
    assert first_difference(TOGETHER, values([[3.0001, 4]], [[0, 10.01]]), 1, "float32") is None


def test_another_row_s_states_are():
    assert first_difference(TOGETHER, values([[3, 4]], [[0, 10]]), 0, "float32") == QUERY
    assert first_difference(TOGETHER, values([[3, 4]], [[1, 10]]), 1, "float32") == MEAN


def test_in_sixteen_bits_single_tokens_may_differ_and_means_a_little():
    assert first_difference(TOGETHER, values([[4, -3]], [[1, 10]]), 1, "bfloat16") is None
    assert first_difference(TOGETHER, values([[3, 4]], [[6, 10]]), 1, "bfloat16") == MEAN


def test_states_that_are_not_finite_are_left_to_who_looks_for_them():
    assert first_difference(values([[np.nan, 1]], [[1, 1]]), values([[np.nan, 1]], [[1, 1]]), 0, "float32") is None
