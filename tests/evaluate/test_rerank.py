"""Scores of given candidates, by hand."""

import numpy as np
import pytest
from mteb.similarity_functions import cos_sim, max_sim

from raylib.errors import ModelError, UserError
from raylib.evaluate.rerank import rerank
from raylib.types import Embeddings


def dense(*vectors):
    return Embeddings.from_dense(np.array(vectors, dtype=np.float32))


DOCUMENTS = (["x", "y", "z"], dense([1, 0], [1, 1], [0, 2]))


def test_candidates_of_each_query_best_first():
    queries = (["q", "r", "s"], dense([2, 0], [0, 1], [1, 0]))
    candidates = {"q": ["z", "y", "x"], "r": ["x", "y", "y", "unknown"], "other": ["x"]}
    found = rerank(queries, DOCUMENTS, candidates, 2, cos_sim)
    assert list(found) == ["q", "r", "s"] and found["s"] == {}
    assert list(found["q"]) == ["x", "y"], "z is the third"
    assert found["q"] == {"x": 1.0, "y": pytest.approx(0.5**0.5)} and found["r"] == {"x": 0.0, "y": found["q"]["y"]}


def test_late_interaction():
    documents = ["x", "y"], Embeddings.from_list([np.eye(2, dtype=np.float32), np.array([[3, 0]], dtype=np.float32)])
    queries = ["q"], Embeddings.from_list([np.eye(2, dtype=np.float32)])
    assert rerank(queries, documents, {"q": ["x", "y"]}, 9, max_sim, late=True) == {"q": {"y": 3.0, "x": 2.0}}
    one = ["x", "y"], dense([1, 0], [3, 0])
    found = rerank(queries, one, {"q": ["x", "y"]}, 9, max_sim, late=True)
    assert found == {"q": {"y": 3.0, "x": 1.0}}, "documents of one token each are late interaction, too"


@pytest.mark.parametrize("n", [3, 17, 1000])
def test_equal_vectors_have_equal_scores_whatever_the_product_of_matrices_gives(n):
    def uneven(query, documents):
        return cos_sim(query, documents) + np.arange(len(documents)) * 1e-6

    vector = np.random.default_rng(0).normal(size=64)
    documents = [f"d{i}" for i in range(n)], dense(*[vector] * n)
    (scores,) = rerank((["q"], dense(vector)), documents, {"q": documents[0]}, n, uneven).values()
    assert len(scores) == n and len(set(scores.values())) == 1


def test_nan_names_query_and_document():
    documents = ["x", "y"], dense([1, 0], [np.nan, 0])
    with pytest.raises(ModelError, match="the score of query q and document y is NaN"):
        rerank((["q"], dense([1, 0])), documents, {"q": ["x", "y"]}, 2, cos_sim)


def test_sides_of_unlike_widths_are_refused():
    with pytest.raises(UserError, match=r"queries have 1 dimensions, documents 2; .*take sum or mean"):
        rerank((["q"], dense([1])), DOCUMENTS, {"q": ["x"]}, 1, cos_sim)
