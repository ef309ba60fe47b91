"""Sources against what MTEB itself hands to a model, row by row."""

import datasets
import mteb
import numpy as np
import pytest
from mteb._create_dataloaders import create_dataloader
from mteb.types import PromptType
from PIL import Image
from torch.utils.data import DataLoader

from raylib.evaluate.contents import BadContentError, decode_row, encoded_image
from raylib.evaluate.sources import loader_source, retrieval_source

PICTURES = [Image.fromarray(np.full((4 + i, 6, 4), 40 * i, dtype=np.uint8), "RGBA") for i in range(3)]
TEXT = "NFCorpus"  # t2t
PAGES = "VidoreArxivQARetrieval"  # t2i
FUSED = "Vidore3FinanceEnRetrieval.v2"  # t2it


def metadata(name):
    return mteb.get_task(name).metadata


def corpus(**columns):
    data = {"id": ["a", "b", "c"], **columns}
    return datasets.Dataset.from_dict(data, features_of(data))


def features_of(data):
    kinds = {name: datasets.Value("string") for name in data}
    return datasets.Features({**kinds, "image": datasets.Image()} if "image" in data else kinds)


def mtebs_rows(data, name, role):
    """The rows of MTEB's own batches, without the ids, which raylib keeps apart."""
    loader = create_dataloader(data, task_metadata=metadata(name), prompt_type=PromptType(role), batch_size=2)
    batches = list(loader)
    return [
        {column: values[i] for column, values in batch.items() if column != "id"}
        for batch in batches
        for i in range(len(next(iter(batch.values()))))
    ]


def same(mine, theirs):
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        assert set(one) == set(other)
        for column in one:
            if column == "image":
                assert one[column].mode == other[column].mode
                assert one[column].tobytes() == other[column].tobytes()
            else:
                assert one[column] == other[column]


TITLED = {"text": ["first", "second ", "third"], "title": ["One", "", "Three"]}


@pytest.mark.parametrize(
    ("name", "role", "columns"),
    [
        (TEXT, "document", {"text": ["first", " second ", "third"]}),
        (TEXT, "document", TITLED),
        (TEXT, "document", {"image": PICTURES, "text": ["to be", "read", "alone"]}),
        (TEXT, "query", {"text": ["first", "second", "third"]}),
        (TEXT, "query", {"text": ["first", "second", "third"], "instruction": ["find", "seek", "look"]}),
        (PAGES, "query", {"text": ["first", "second", "third"]}),
        (PAGES, "document", {"image": PICTURES}),
        (PAGES, "document", {"image": PICTURES, "text": ["not", "to be", "read"]}),
        (FUSED, "document", {"image": PICTURES, "text": ["page one", "page two", "page three"]}),
    ],
    ids=["text", "title", "text only", "query", "instruction", "page query", "image", "image only", "fused"],
)
def test_rows_are_those_of_mteb(name, role, columns):
    data = corpus(**columns)
    source = retrieval_source(data, metadata(name), role, name="s")
    assert source.ids == ["a", "b", "c"]
    same([decode_row(row, source.required) for row in source.rows(range(3))], mtebs_rows(data, name, role))


def test_titles_are_joined_by_hand_too():
    rows = retrieval_source(corpus(**TITLED), metadata(TEXT), "document", name="s").rows(range(3))
    assert [row["text"] for row in rows] == ["One first", "second", "Three third"]


def test_only_the_rows_to_keep_are_there():
    source = retrieval_source(corpus(text=["x", "y", "z"]), metadata(TEXT), "query", name="s", keep=[2, 0])
    assert source.ids == ["c", "a"] and [row["text"] for row in source.rows([0, 1])] == ["z", "x"]


def test_queries_need_text_and_documents_do_not():
    data = corpus(text=["x", "", "z"])
    assert retrieval_source(data, metadata(TEXT), "query", name="s").required == "text"
    assert retrieval_source(data, metadata(TEXT), "document", name="s").required is None


def test_images_stay_as_they_are_stored():
    (row, *_) = retrieval_source(corpus(image=PICTURES), metadata(PAGES), "document", name="s").rows([0])
    assert isinstance(row["image"], bytes) and row["image"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("role", "columns"),
    [
        ("document", {"text": ["first", None, "third"]}),
        ("document", {"text": ["first", None, "third"], "title": ["One", "Two", None]}),
        ("query", {"text": ["first", None, "third"]}),
        ("query", {"text": ["first", None, "third"], "instruction": ["find", "seek", None]}),
    ],
    ids=["document", "title", "query", "instruction"],
)
def test_a_missing_text_is_one_bad_content_and_does_not_stop_the_others(role, columns):
    source = retrieval_source(corpus(**columns), metadata(TEXT), role, name="s")
    rows = source.rows(range(3))
    with pytest.raises(BadContentError, match="the text is NoneType, expected str"):
        decode_row(rows[1], source.required)
    assert "first" in decode_row(rows[0], source.required)["text"]
    assert decode_row(rows[2], source.required)["text"] == "third"


def test_no_rows_make_an_empty_source():
    source = retrieval_source(corpus(text=["x", "y", "z"]), metadata(TEXT), "query", name="s", keep=[])
    assert len(source) == 0 and source.ids == []


def test_a_loader_over_a_data_set_is_read_undecoded():
    data = corpus(image=PICTURES, text=["x", "y", "z"])
    source = loader_source(DataLoader(data, batch_size=2), name="s")
    assert source.ids == ["a", "b", "c"] and source.fields == ["text", "image"]
    assert [isinstance(row["image"], bytes) for row in source.rows(range(3))] == [True] * 3
    same([decode_row(row, None) for row in source.rows([2])], [{"text": "z", "image": PICTURES[2]}])


def test_a_loader_without_ids_numbers_its_rows():
    source = loader_source(DataLoader(datasets.Dataset.from_dict({"text": ["x", "y"]})), name="s", required="text")
    assert [source.id_of(i) for i in range(2)] == ["row 0", "row 1"] and source.required == "text"


class Decoded(list):
    """MTEB's CustomImageDataset: rows of decoded images, no data set of Hugging Face."""


def test_a_loader_over_decoded_images_is_read_once():
    loader = DataLoader(
        Decoded({"image": p} for p in PICTURES),
        batch_size=1,
        collate_fn=lambda rows: {"image": [r["image"] for r in rows]},
    )
    source = loader_source(loader, name="s")
    assert source.ids == ["row 0", "row 1", "row 2"] and source.fields == ["image"]
    assert [row["image"] for row in source.rows([1, 0])] == [encoded_image(PICTURES[1]), encoded_image(PICTURES[0])]
