"""StdlibCards: its cards, its questions, its two parts, and how they are written."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.examples.examples import read_examples
from raylib.tasks import docstrings, page_layout, stdlib_card_tasks, stdlib_cards
from raylib.tasks.stdlib_cards import Card
from tests.tasks.test_stdlib_pages import FEW, files_of
from tests.tasks.test_stdlib_tasks import HashModel, evaluate


@pytest.fixture(scope="module")
def everything():
    """Both parts, not drawn."""
    modules = docstrings.collect()
    return {split: stdlib_cards.build(split, modules) for split in ("test", "train")}


@pytest.fixture
def few_modules(monkeypatch):
    modules = docstrings.collect(names=FEW)
    monkeypatch.setattr(docstrings, "collect", lambda: modules)
    return modules


def test_sizes(everything):
    cards, queries = everything["test"]
    assert len(cards) == 300 and 300 <= len(queries) <= 600
    cards, queries = everything["train"]
    assert 1500 <= len(cards) <= 2400 and len(cards) < len(queries) <= 2 * len(cards)


def test_no_card_is_in_both_parts(everything):
    test, train = everything["test"][0], everything["train"][0]
    assert not {card.entry for card in test} & {card.entry for card in train}
    assert not {card.words for card in test} & {card.words for card in train}, "not even under another name"
    printed = [card.text for card in (*test, *train)]
    assert len(set(printed)) == len(printed), "no two cards look alike"


def test_words_of_the_test_part_can_be_learned(everything):
    seen = {word for card in everything["train"][0] for word in card.lines}
    words = [word for card in everything["test"][0] for word in card.words]
    assert sum(word in seen for word in words) > 0.9 * len(words)


def test_the_part_of_a_card_hangs_on_its_summary_alone(few_modules):
    """Another Python version has other entries, and so prints other words; what both have stays in its part."""
    fewer = [module for module in few_modules if module.name != "statistics"]
    all_of, some_of = (
        {split: {card.entry for card in stdlib_cards.build(split, modules)[0]} for split in ("test", "train")}
        for modules in (few_modules, fewer)
    )
    assert some_of["test"] and some_of["train"]
    assert not some_of["test"] & all_of["train"] and not some_of["train"] & all_of["test"]
    assert stdlib_cards.split_of("Return the Lines") == stdlib_cards.split_of("the lines (2) return an")


def test_questions_are_clear_and_at_most_two_a_card(everything):
    for cards, queries in everything.values():
        assert max(Counter(query.entry for query in queries).values()) == 2
        assert max(Counter(query.text.casefold() for query in queries).values()) == 1
        assert {query.entry for query in queries} <= {card.entry for card in cards}
        assert [query.id for query in queries] == [str(n) for n in range(len(queries))]


def test_a_card_and_its_questions(tmp_path):
    """Words without an apostrophe or a digit, in order, once; two of three entries at least have them."""
    body = "".join(
        f'def {name}():\n    """{summary}"""\n'
        for name, summary in [
            ("readAll_lines", "Return the lines of the open file as a list."),
            ("one", "Lines of an open file, in a list."),
            ("two", "The open file has a list of lines."),
            ("three", "An unheard-of zebra."),
        ]
    )
    (tmp_path / "csv.py").write_text(body)
    modules = docstrings.collect(tmp_path, ["csv"])
    found = {split: stdlib_cards.build(split, modules) for split in ("test", "train")}
    cards = {card.entry: card for cards, _ in found.values() for card in cards}
    asked = {entry: [q.text for _, queries in found.values() for q in queries if q.entry == entry] for entry in cards}

    assert "csv.three" not in cards, "words that nothing else has"
    # "lines" is in the name, and not printed again.
    assert cards["csv.readAll_lines"].lines == ("read", "all", "lines", "open", "file", "list")
    assert asked["csv.readAll_lines"] == [
        "How do I get the lines of the open file as a list?",
        "read all lines file list",
    ]
    assert cards["csv.one"].lines == ("one", "lines", "open", "file", "list")
    assert asked["csv.two"] == ["The open file has a list of lines", "two list lines"]


CARD = Card("csv.reader", ("reader",), ("gypsy", "file", "lines"), "")


def test_lines_stand_on_rows_of_patches():
    image = stdlib_cards.draw(CARD)

    pixels = np.asarray(image)
    assert image.mode == "RGB" and pixels.shape == (128, 128, 3)
    dark = (pixels.min(axis=2) < 128).reshape(8, 16, 128).any(axis=(1, 2))
    assert dark.tolist() == [True] * 4 + [False] * 4
    alone = np.asarray(stdlib_cards.draw(Card("x", (), ("gypsy",), "")))
    assert (pixels[16:32] == alone[:16]).all(), "a word looks the same on every line, tails and all"


def test_pixels_are_the_same_on_every_machine():
    """The shipped page retriever has learned to read these."""
    digest = hashlib.sha256(stdlib_cards.draw(CARD).tobytes()).hexdigest()
    assert digest == "86a9a0b886cc3e4ee0a6ae903ec6c9d4c77e406fe14b9ece63101c25a3fadebe"


def test_every_card_is_drawn_whole(everything):
    for cards, _ in everything.values():
        for card in cards:
            assert len(card.lines) <= 8 and 2 <= len(card.words) <= 5
            assert max(page_layout.width_of(line, stdlib_cards.TYPE_SIZE) for line in card.lines) <= 124


def test_two_builds_are_the_same_bytes(few_modules, tmp_path):
    for name in ("a", "b"):
        stdlib_cards.write(str(tmp_path / name), *stdlib_cards.build("train"), "train")

    first = files_of(tmp_path / "a")
    assert sorted(first) == ["README.md", "corpus/train.parquet", "qrels/train.parquet", "queries/train.parquet"]
    assert first == files_of(tmp_path / "b")


def test_training_pairs_are_read_as_examples(few_modules, tmp_path):
    folder = stdlib_cards.write_training(str(tmp_path / "pairs"))
    cards, queries = stdlib_cards.build("train")

    examples = read_examples(folder)

    assert examples.ids[:2] == [
        f"{queries[0].entry}#1",
        f"{queries[1].entry}#{1 + (queries[0].entry == queries[1].entry)}",
    ]
    assert len(examples) == len(queries) and len(set(examples.ids)) == len(queries)
    texts = [examples.queries.source.rows([row])[0]["text"] for row in examples.query[:5]]
    assert texts == [query.text for query in queries[:5]]
    table = pq.read_table(f"{folder}/pairs/train.parquet").to_pydict()
    drawn = {card.entry: page_layout.to_png(stdlib_cards.draw(card)) for card in cards}
    assert [image["bytes"] for image in table["image"]] == [drawn[query.entry] for query in queries]


def test_a_python_without_sources_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(docstrings, "collect", list)
    with pytest.raises(UserError, match="no source files of its standard library, from which StdlibCards"):
        stdlib_cards.ensure_built("test")
    with pytest.raises(UserError, match="no source files of its standard library"):
        stdlib_cards.write_training(str(tmp_path / "pairs"))


def test_two_tasks_over_the_same_cards(few_modules, monkeypatch):
    monkeypatch.setattr(HashModel, "vector", staticmethod(hashed))
    tasks = list(stdlib_card_tasks.benchmark().tasks)
    assert [task.metadata.name for task in tasks] == ["StdlibCardsT2I", "StdlibCardsT2T"]

    (image, image_scores), (text, text_scores) = (evaluate(task) for task in tasks)

    assert image.seen["document"] == {"id", "image"} and text.seen["document"] == {"id", "text", "body"}
    assert text_scores["main_score"] == text_scores["ndcg_at_5"] > 0.6, "shared words find the card"
    assert image_scores["ndcg_at_5"] < text_scores["ndcg_at_5"] - 0.2, "hashed pixels do not"


def hashed(text, image):
    vector = np.full(4096, 1e-6, dtype=np.float32)
    parts = [word.encode() for word in text.lower().split()] + ([image.tobytes()] if image is not None else [])
    for part in parts:
        vector[int(hashlib.md5(part).hexdigest()[:3], 16)] += 1
    return vector


def test_bm25_finds_cards_by_their_words(everything):
    """On the first fifty cards: a text baseline, and proof that questions are answerable."""
    from datasets import Dataset

    from raylib.models.protocol import ModelSpec
    from raylib.models.registry import resolve

    cards, queries = everything["test"]
    first = {card.entry: card.text for card in cards[:50]}
    asked = [query for query in queries if query.entry in first]
    where: dict[str, Any] = {"task_metadata": stdlib_card_tasks.StdlibCardsT2T.metadata, "encode_kwargs": {}}
    where |= {"hf_split": "test", "hf_subset": "default"}
    model: Any = resolve(ModelSpec("raylib/bm25")).load()
    model.index(Dataset.from_dict({"id": list(first), "text": list(first.values())}), **where)
    rows = Dataset.from_dict({"id": [q.id for q in asked], "text": [q.text for q in asked]})
    found = model.search(rows, top_k=5, **where)
    hits = [query.entry in found[query.id] for query in asked]
    assert np.mean(hits) > 0.9


def test_metadata_says_which_python():
    for task in stdlib_card_tasks.TASKS:
        assert task.metadata.dataset == {"path": "raylib/StdlibCards", "revision": stdlib_cards.revision()}
        assert task.metadata.main_score == "ndcg_at_5" and task.metadata.eval_splits == ["test"]
