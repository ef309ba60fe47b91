"""The two text baselines that need no weights: what they rank first, and that they do it exactly."""

from __future__ import annotations

import math
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from raylib.errors import UnsupportedOptionError, UserError
from raylib.models.bm25 import best
from raylib.models.bridge import SearchModel
from raylib.models.hashed import HashedEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import EncodeContext


def hashed() -> HashedEncoder:
    found = resolve(ModelSpec("raylib/hashed-ngrams"))
    assert isinstance(found, HashedEncoder)
    return found


def encode(texts: list[str]) -> np.ndarray:
    return hashed().encode({"text": texts}, EncodeContext(None)).dense()


def docstring_questions(limit: int = 150) -> tuple[list[str], list[str]]:
    """First sentences of functions' docstrings without the function's name, and the docstrings without them."""
    import collections
    import json as json_module
    import statistics
    import textwrap
    import zipfile

    questions, documents = [], []
    for module in (collections, json_module, statistics, textwrap, zipfile, math):
        for name, value in sorted(vars(module).items()):
            docstring = getattr(value, "__doc__", None)
            text = " ".join(docstring.split()) if isinstance(docstring, str) else ""
            first, _, rest = text.partition(". ")
            if callable(value) and len(rest) > 80 and len(first.split()) > 4:
                questions.append(first.replace(name, ""))
                documents.append(rest)
    return questions[:limit], documents[:limit]


def test_questions_find_the_rest_of_their_docstring() -> None:
    questions, documents = docstring_questions()
    scores = encode(questions) @ encode(documents).T
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1)
    ndcg = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean()
    chance = sum(1 / math.log2(rank + 2) for rank in range(10)) / len(documents)
    assert len(documents) >= 30
    assert ndcg > 0.4 and ndcg > 4 * min(chance, 0.1)


def test_hashed_dot_products_are_those_of_the_full_counts_on_average() -> None:
    """Sign hashing is unbiased: over many pairs the mean error is far below the error of one pair."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    _, texts = docstring_questions()
    full = np.zeros((len(texts), len(texts)))
    for options in (
        {"analyzer": "word", "ngram_range": (1, 2), "stop_words": "english"},
        {"analyzer": "char_wb", "ngram_range": (3, 5)},
    ):
        counts: Any = CountVectorizer(**options).fit_transform(texts)
        counts.data = 1 + np.log(counts.data)
        unit: Any = normalize(counts.astype(np.float64))
        full += (unit @ unit.T).toarray() / 2
    ours = encode(texts)
    error = (ours @ ours.T - full)[np.triu_indices(len(texts), 1)]
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(error).max() < 0.2
    assert abs(error.mean()) < 0.01


def test_hashed_vectors_depend_on_the_content_alone() -> None:
    texts = ["read a file", "café 漢字", "sort", "…", ""]
    together = encode(texts)
    assert np.array_equal(np.concatenate([encode([text]) for text in texts]), together)
    again = pickle.loads(pickle.dumps(hashed())).encode({"text": texts}, EncodeContext("query")).dense()
    assert np.array_equal(again, together)
    assert together.shape == (5, 1024) and together.dtype == np.float32
    assert not together[4].any() and np.isfinite(together).all()


def test_hashed_has_no_options_and_no_images() -> None:
    with pytest.raises(UnsupportedOptionError, match="has no option --dtype; it has: none"):
        resolve(ModelSpec("raylib/hashed-ngrams", dtype="float16"))
    with pytest.raises(UserError, match="encodes text; this content has \\['image'\\]"):
        hashed().preprocess({"image": [None]}, EncodeContext(None))


TASK: Any = SimpleNamespace(name="T", eval_langs=["eng-Latn"], hf_subsets_to_langscripts={})
WHERE: dict[str, Any] = {"task_metadata": TASK, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
DOCUMENTS = {
    "d1": "The cat sat on the mat with another cat",
    "d2": "Dogs chase cats in gardens",
    "d3": "Stock prices fell sharply today",
    "d4": "Stock prices fell sharply today",
    "d5": "Gardens need water",
}


def bm25(documents: dict[str, str] = DOCUMENTS) -> Any:
    found = resolve(ModelSpec("raylib/bm25"))
    assert isinstance(found, SearchModel)
    model = found.load()
    rows = {"id": list(documents), "title": [""] * len(documents), "text": list(documents.values())}
    model.index(Dataset.from_dict(rows), **WHERE)
    return model


def queries(*texts: str) -> Dataset:
    return Dataset.from_dict({"id": [f"q{i}" for i in range(len(texts))], "text": list(texts)})


def test_bm25_scores_are_lucenes_formula() -> None:
    """idf · tf / (tf + k1 (1 - b + b · length / mean length)), k1 = 1.5, b = 0.75, over stems without stop words."""
    found = bm25().search(queries("cats"), top_k=5, **WHERE)["q0"]
    lengths = [5, 4, 5, 5, 3]  # d1: cat sat mat anoth cat. d2: dog chase cat garden. d5: garden need water
    idf = math.log(1 + (5 - 2 + 0.5) / (2 + 0.5))
    mean = sum(lengths) / 5
    expected = {
        name: idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * length / mean))
        for name, tf, length in (("d1", 2, 5), ("d2", 1, 4))
    }
    assert found["d1"] == pytest.approx(expected["d1"], rel=1e-5)
    assert found["d2"] == pytest.approx(expected["d2"], rel=1e-5)
    assert found["d3"] == 0


def test_bm25_breaks_ties_by_document_id_descending() -> None:
    found = bm25().search(queries("stock prices", "unheard-of zebra"), top_k=2, **WHERE)
    assert list(found["q0"]) == ["d4", "d3"] and found["q0"]["d3"] == found["q0"]["d4"] > 0
    assert found["q1"] == {"d5": 0, "d4": 0}


def test_bm25_ranks_every_allowed_document_and_no_other() -> None:
    """MTEB's own search looks among the best k only, and loses the candidates that are not there."""
    allowed = {"q0": ["d5", "d1"], "q1": ["d3"]}
    found = bm25().search(queries("stock prices", "cats"), top_k=1, top_ranked=allowed, **WHERE)
    assert found == {"q0": {"d5": 0.0}, "q1": {"d3": 0.0}}
    found = bm25().search(queries("cats"), top_k=10, top_ranked=allowed, **WHERE)
    assert list(found["q0"]) == ["d1", "d5"]


def test_bm25_agrees_with_mtebs_own_where_there_are_no_ties() -> None:
    import mteb

    question, documents = docstring_questions()
    corpus = {f"d{i:03}": text for i, text in enumerate(documents)}
    theirs: Any = mteb.get_model("mteb/baseline-bm25s")
    rows = {"id": list(corpus), "title": [""] * len(corpus), "text": list(corpus.values())}
    theirs.index(Dataset.from_dict(rows), **WHERE)
    expected = theirs.search(queries(*question), top_k=len(corpus), **WHERE)
    ours = bm25(corpus).search(queries(*question), top_k=len(corpus), **WHERE)
    for query, scores in expected.items():
        assert ours[query] == pytest.approx(scores, rel=1e-5)


def test_bm25_needs_text_and_has_no_options() -> None:
    with pytest.raises(UserError, match="reads text; this corpus has only id, image"):
        resolve(ModelSpec("raylib/bm25")).load().index(Dataset.from_dict({"id": ["a"], "image": ["x"]}), **WHERE)
    with pytest.raises(UnsupportedOptionError, match="has no option --adapter"):
        resolve(ModelSpec("raylib/bm25", adapter="x"))
    meta = resolve(ModelSpec("raylib/bm25")).model_meta()
    assert meta is not None and meta.name == "raylib/bm25"


@pytest.mark.parametrize("top_k", [1, 2, 3, 5, 9])
def test_the_best_are_those_of_a_full_stable_sort(top_k: int) -> None:
    values = np.array([1, 3, 2, 3, 0, 3, 2], dtype=np.float32)
    assert best(values, top_k).tolist() == [1, 3, 5, 2, 6, 0, 4][:top_k]
