"""Queries, documents and judgements of a task, read by id."""

import pytest
from datasets import Dataset

from raylib.errors import UserError
from raylib.tasks.local_data import redirect
from raylib.tasks.retrieval_data import Item, RetrievalSubset, load_retrieval
from raylib.tasks.selection import select_tasks
from raylib.tasks.synthetic import draw_pages


def test_pages_and_questions_of_a_local_copy(local_copies):
    """v2: four languages over one corpus of ten pages."""
    (task,) = select_tasks(tasks=["Vidore2ESGReportsRetrieval"], data_root=str(local_copies))
    data = load_retrieval(task)
    assert {split for split, _ in data} == {"test"} and {subset for _, subset in data} == set(task.hf_subsets)
    subset = data["test", "french"]
    pages = draw_pages(10, (48, 64))

    ids = [str(i) for i in subset.corpus["id"]]
    found = subset.items("document", [ids[3], "nobody", ids[0]])
    assert list(found) == [ids[3], ids[0]], "in the order asked for; what is not there is left out"
    assert [item.image for item in found.values()] == [pages[3].png, pages[0].png]
    assert {item.text for item in found.values()} == {None}

    query = str(subset.queries["id"][1])
    item = subset.items("query", [query])[query]
    assert item.text is not None and item.text.startswith("Sur quelle page lit-on") and item.image is None
    assert max(subset.relevant[query].values()) == 2


def test_pages_with_text(local_copies):
    """v3.1: the pages' text beside the images."""
    (task,) = select_tasks(tasks=["Vidore3FinanceEnRetrieval.v2"], languages=["eng"], data_root=str(local_copies))
    subset = load_retrieval(task)["test", task.hf_subsets[0]]
    first = str(subset.corpus["id"][0])
    page = draw_pages(10, (48, 64))[0]
    assert subset.items("document", [first]) == {first: Item(page.text, page.png)}


def made(category: str, **columns):
    """A task's subset in memory. Its category says which columns count."""
    (task,) = select_tasks(tasks=["NFCorpus"])
    metadata = task.metadata.model_copy(update={"category": category, "type": "Retrieval"})
    rows = Dataset.from_dict(columns)
    return RetrievalSubset(metadata, rows, rows, {})


def test_texts_are_as_a_model_is_given_them():
    subset = made("t2t", id=["a", "b", "c"], title=["Title", "", "x"], text=["body", "alone", None])
    texts = {i: item.text for i, item in subset.items("document", ["a", "b", "c"]).items()}
    assert texts == {"a": "Title body", "b": "alone", "c": "x"}


def test_instructions_go_with_the_query():
    subset = made("t2t", id=["a"], text=["question"], instruction=["Only short pages."])
    assert subset.items("query", ["a"])["a"].text == "question Only short pages."


def test_no_ids_give_no_items():
    assert made("t2t", id=["a"], text=["x"]).items("document", []) == {}


def test_an_image_file_that_is_gone_is_no_image(tmp_path):
    (tmp_path / "there.png").write_bytes(b"pixels")
    cells = [{"bytes": None, "path": str(tmp_path / name)} for name in ("there.png", "gone.png")]
    subset = made("t2i", id=["a", "b"], image=cells)
    assert [item.image for item in subset.items("document", ["a", "b"]).values()] == [b"pixels", None]


def test_data_that_cannot_be_had(local_copies):
    (task,) = select_tasks(tasks=["VidoreDocVQARetrieval"])
    with pytest.raises(UserError, match=r"the data of VidoreDocVQARetrieval cannot be loaded.*--data-root DIR"):
        load_retrieval(task)
    (other,) = select_tasks(tasks=["STS12"])
    with pytest.raises(UserError, match="STS12 is STS; expected a retrieval task"):
        load_retrieval(other)
    with pytest.raises(UserError, match="no local copy"):
        redirect(task, str(local_copies))
