"""A teacher's vectors of training data: both sides encoded at once, each content once, compared as the model does."""

import dataclasses
from contextlib import contextmanager

import numpy as np
import pytest

from raylib.errors import ModelError, UserError
from raylib.evaluate.batching import BatchLimits
from raylib.evaluate.encode import no_progress
from raylib.evaluate.progress import QuietReporter
from raylib.examples.examples import read_examples
from raylib.mine.comparison import DenseComparison
from raylib.mine.config import NegativesConfig
from raylib.mine.late import LateComparison
from raylib.mine.place import this_process
from raylib.mine.teacher import Teacher
from tests.encode.conftest import models as models
from tests.evaluate.conftest import fresh_factories as fresh_factories
from tests.examples.made_pairs import write_images
from tests.mine.made_teachers import BAG, DOT, LATE, SIDED, write_rows

ROWS = [
    {"query": "a", "pos": "aaa"},
    {"query": "ab", "pos": "bbb", "negs": ["cc"]},
    {"query": "a", "pos": "cc"},
]
QUERIES, DOCUMENTS = ["a", "ab", "a"], ["aaa", "bbb", "cc"]


class Told(QuietReporter):
    def __init__(self):
        self.said, self.warned = [], []

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)

    @contextmanager
    def stage(self, title, total):
        yield no_progress


def teacher_of(folder, rows=ROWS, model=DOT, place=None, **settings):
    config = NegativesConfig(
        data=[write_rows(folder / "train.jsonl", rows)],
        root=str(folder),
        model=[model],
        output=str(folder / "mined.jsonl"),
        **settings,
    )
    return Teacher.of(config, place or this_process(), read_examples(config.data, root=config.root))


def encoded(folder, *arguments, **settings):
    teacher = teacher_of(folder, *arguments, **settings)
    assert teacher.encode(Told()) == []
    return teacher


def counted_stages(calls):
    """This process, writing down the size and the role of the batches of each execution of the encode stage."""
    here = this_process()

    def stage_with(progress):
        stage = here.encode.stage_with(progress)

        def run(encoder, batches, sources, shelf):
            calls.append([(batch.context.role, batch.context.prompt, len(batch.keys)) for batch in batches])
            return stage(encoder, batches, sources, shelf)

        return run

    return dataclasses.replace(here, encode=dataclasses.replace(here.encode, stage_with=stage_with))


def test_both_sides_are_encoded_in_one_execution_each_content_once(tmp_path, models):
    calls = []
    teacher = encoded(tmp_path, ROWS, SIDED, counted_stages(calls))
    assert calls == [[("query", "query: ", 2), ("document", "document: ", 3)]]
    assert teacher.counts == {"contents": 5, "distinct": 5, "stored": 0, "encoded": 5, "failed": 0}
    assert (len(teacher.query_keys), len(teacher.document_keys)) == (2, 3)

    again = encoded(tmp_path, ROWS, SIDED, counted_stages(calls))
    assert len(calls) == 1 and models[SIDED].encoded == 5, "all is in the store"
    assert again.counts == {"contents": 5, "distinct": 5, "stored": 5, "encoded": 0, "failed": 0}


def test_what_is_missing_is_encoded_and_told(tmp_path, models):
    encoded(tmp_path)
    teacher = teacher_of(tmp_path, [*ROWS, {"query": "b", "pos": "aaa"}])
    told = Told()
    teacher.encode(told)
    assert teacher.counts["encoded"] == 1 and models[DOT].encoded == 6
    assert told.said == [f"{DOT}: encoding 1 contents, 5 of 6 are in the store"]


def test_batches_of_the_teacher_are_as_asked_or_found_by_trying(tmp_path, models):
    rows = [{"query": "a" * n, "pos": "b" * n} for n in range(1, 6)]
    encoded(tmp_path, rows, encode_batch_size=2)
    assert models[DOT].batches == [2, 2, 1, 2, 2, 1]
    encoded(tmp_path, rows, encode_batch_size="auto", store=str(tmp_path / "other"))
    (shelf,) = (tmp_path / "other").iterdir()
    assert (shelf / "batch_sizes.json").exists() and (tmp_path / "store").exists()
    config = NegativesConfig(encode_batch_size=4, max_batch_tokens=99)
    assert config.limits == BatchLimits(4, 99) and NegativesConfig(encode_batch_size="auto").limits is None


def test_inner_products_of_a_dense_teacher(tmp_path, models):
    with encoded(tmp_path).compared() as comparison:
        assert isinstance(comparison, DenseComparison)
        assert (comparison.n_queries, comparison.n_documents) == (3, 3)
        scores = comparison.block(np.arange(3), np.arange(3))
    shared = [[sum(q.count(x) * d.count(x) for x in "abc") + 1 for d in DOCUMENTS] for q in QUERIES]
    assert scores.tolist() == shared == [[4, 1, 1], [4, 4, 1], [4, 1, 1]]


def test_queries_are_encoded_as_queries_and_documents_as_documents(tmp_path, models):
    with encoded(tmp_path, ROWS, SIDED).compared() as comparison:
        scores = comparison.block(np.arange(3), np.arange(3))
    assert scores.tolist() == [[1, 1, 3], [1, 4, 3], [1, 1, 3]], "a query's a is a c"


def test_cosines_of_a_teacher_that_compares_by_them(tmp_path, models):
    letters = "tests.evaluate.made:letters"
    with encoded(tmp_path, ROWS, letters).compared() as comparison:
        scores = comparison.pairs(np.array([0, 1]), np.array([0, 1]))
    assert scores == pytest.approx([4 / np.sqrt(2 * 10), 4 / np.sqrt(3 * 10)])


@pytest.mark.parametrize("candidates", [None, 2])
def test_maxsim_of_a_late_interaction_teacher(tmp_path, models, candidates):
    rows = [{"query": "a b", "pos": "aab bb"}, {"query": "c", "pos": "cc a"}]
    with encoded(tmp_path, rows, LATE, candidates=candidates).compared() as comparison:
        assert isinstance(comparison, LateComparison) and comparison.candidates == candidates
        scores = comparison.block(np.arange(2), np.arange(2))
        assert scores.tolist() == [[2 + 2, 1 + 0], [0, 2]]
        ((_, _, found),) = list(comparison.nearest(2).blocks())
        assert found.tolist() == [[0, 1], [1, 0]]


def test_the_search_that_was_asked_for_finds_what_is_compared(tmp_path, models):
    asked = []

    def find(*arguments, **settings):
        asked.append(settings)
        return this_process().find(*arguments, **settings)

    place = dataclasses.replace(this_process(), find=find)
    with encoded(tmp_path, ROWS, DOT, place, search="exact", recall=0.5, seed=4).compared() as comparison:
        comparison.nearest(1)
    rows = [{"query": "a b", "pos": "aab bb"}, {"query": "c", "pos": "cc a"}, {"query": "a", "pos": "a b c"}]
    settings = {"search": "exact", "recall": 0.5, "seed": 4, "candidates": 2}
    with encoded(tmp_path, rows, LATE, place, **settings).compared() as comparison:
        list(comparison.nearest(1).blocks())
    assert len(asked) >= 2
    for given in asked:
        assert (given["method"], given["recall"], given["seed"]) == ("exact", 0.5, 4)


def test_what_cannot_be_encoded_is_named_and_its_examples_go(tmp_path, models):
    rows = [*ROWS, {"id": "own", "query": "crash", "pos": "b"}, {"query": "b", "pos": "c", "negs": ["crash", "a"]}]
    teacher = teacher_of(tmp_path, rows)
    bad = teacher.encode(Told())
    assert [(content.source, content.item_id) for content in bad] == [
        ("queries", "train.jsonl#line=4, query"),
        ("documents", "train.jsonl#line=5, negative"),
    ]
    assert all("cannot tokenise" in content.reason for content in bad) and teacher.counts["failed"] == 2
    kept = teacher.without_bad()
    assert kept.examples.ids == [f"train.jsonl#line={line}" for line in (1, 2, 3, 5)]
    assert kept.examples.documents.texts == ["aaa", "bbb", "cc", "c", "a"], "b was of the bad query only"
    assert kept.examples.given_negatives(3).tolist() == [4] and kept.examples.given_negatives(1).tolist() == [2]
    with kept.compared() as comparison:
        scores = comparison.pairs(np.arange(4), kept.examples.positive)
    assert scores.tolist() == [4, 4, 1, 1], "each content has its own key still"
    assert models[DOT].encoded == teacher.counts["encoded"] == 9


def test_none_left_is_an_error(tmp_path, models):
    teacher = teacher_of(tmp_path, [{"query": "crash", "pos": "a"}])
    teacher.encode(Told())
    with pytest.raises(UserError, match="no example is left"):
        teacher.without_bad()


def test_images_that_failed_are_not_read_again(tmp_path, models, monkeypatch):
    write_images(tmp_path / "img")
    (tmp_path / "img" / "cut.png").write_bytes((tmp_path / "img" / "red.png").read_bytes()[:40])
    rows = [{"query": "a", "pos": "img/red.png"}, {"query": "b", "pos": "img/cut.png"}]
    teacher = teacher_of(tmp_path, rows)
    (bad,) = teacher.encode(Told())
    assert (bad.item_id, bad.reason[:16]) == ("img/cut.png", "unreadable image")
    kept = teacher.without_bad()
    before = teacher.examples.documents.digests()[0]
    (tmp_path / "img" / "red.png").unlink()
    assert kept.examples.documents.digests() == [before]


# What cannot be mined with.


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("raylib/bm25", {}, "raylib/bm25 searches by itself and has no vectors"),
        (
            "tests.mine.made_teachers:sparse",
            {},
            "sparse compares by sparse, which has no vectors to find neighbours by",
        ),
        (DOT, {"candidates": 9}, "--candidates is for late-interaction teachers, and .*dot compares by dot; leave it"),
        (LATE, {"search": "ivf"}, "--search ivf is for dense vectors, and .*late is a late-interaction teacher; give"),
        ("raylib/hashed-ngram", {}, "raylib/hashed-ngrams"),
    ],
    ids=str,
)
def test_teachers_that_cannot_be_mined_with(tmp_path, models, model, settings, message):
    with pytest.raises(UserError, match=message):
        teacher_of(tmp_path, ROWS, model, **settings)


def test_an_inverted_file_may_find_the_candidates_of_a_late_interaction_teacher(tmp_path, models):
    assert teacher_of(tmp_path, ROWS, LATE, search="ivf", candidates=3).name == LATE


def test_contents_that_a_teacher_does_not_read_are_named_before_anything_is_encoded(tmp_path, models):
    write_images(tmp_path / "img")
    rows = [*ROWS, {"query": "img/red.png", "pos": "img/blue.png"}, {"query": "b", "pos": "img/white.png"}]
    message = r"3 of 9 contents, img/red.png first: contents are image; .*bag reads text only. Give a teacher that"
    with pytest.raises(UserError, match=message):
        teacher_of(tmp_path, rows, BAG)
    assert models[BAG].encoded == 0


def test_a_field_that_is_left_out_is_told(tmp_path, models):
    write_images(tmp_path / "img")
    rows = [{"query": "a", "pos": {"text": "aa", "image": "img/red.png"}}, {"query": "b", "pos": "b"}]
    teacher = teacher_of(tmp_path, rows, BAG)
    told = Told()
    teacher.encode(told)
    assert told.warned == [f"{BAG} does not read the image beside 1 contents"]


def test_several_vectors_of_a_dense_teacher_are_an_error(tmp_path, models):
    teacher = encoded(tmp_path, ROWS, "tests.mine.made_teachers:several")
    with pytest.raises(ModelError, match="compares by dot and gave several vectors"), teacher.compared():
        pass
