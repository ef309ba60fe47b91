"""Training data is read as it is meant, and what is wrong with it is said."""

import os
import sys
import zipfile
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.evaluate.contents import decode_row
from raylib.evaluate.plan import Plan
from raylib.examples.examples import read_examples
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.types import EncodeContext
from tests.examples.made_pairs import COLOURS, png, write_images, write_jsonl, write_pages


@pytest.fixture
def root(tmp_path):
    write_images(tmp_path / "img")
    return tmp_path


def read(root, rows, **options):
    return read_examples(write_jsonl(root / "train.jsonl", rows), root=str(root), **options)


def test_triples_of_paths_and_texts(root):
    rows = [
        {"query": "a", "pos": "img/red.png", "negs": ["img/green.png", "a text"]},
        {"query": "b", "pos": "a text", "negs": []},
        {"query": "a", "pos": "img/blue.png", "dataset": "other", "id": "mine"},
    ]
    examples = read(root, rows)
    assert examples.ids == ["train.jsonl#line=1", "train.jsonl#line=2", "mine"]
    assert [examples.datasets[d] for d in examples.dataset] == ["train", "train", "other"]
    assert examples.queries.texts == ["a", "b"]
    assert examples.query.tolist() == [0, 1, 0]
    assert examples.documents.images == ["img/red.png", "img/green.png", "", "img/blue.png"]
    assert examples.documents.texts == ["", "", "a text", ""]
    assert examples.positive.tolist() == [0, 2, 3]
    assert [examples.given_negatives(i).tolist() for i in range(3)] == [[1, 2], [], []]
    assert examples.notes == []


def test_contents_are_a_source_that_a_plan_takes(root):
    examples = read(root, [{"query": "a", "pos": "one"}, {"query": "b", "pos": "two"}, {"query": "c", "pos": "one"}])
    encoder = resolve(ModelSpec("raylib/hashed-ngrams"))
    assert isinstance(encoder, Encoder)
    plan = Plan(encoder)
    keys = plan.add(examples.documents.source, EncodeContext(role="document", prompt=""))
    assert len(set(keys)) == 2
    assert examples.documents.source.rows([1]) == [{"text": "two"}]


def test_images_are_read_where_they_lie(root):
    examples = read(root, [{"query": "a", "pos": "img/red.png", "negs": ["text"]}])
    source = examples.documents.source
    assert source.kinds() == {("image",): [0], ("text",): [1]}
    assert source.rows([0], ["image"]) == [{"image": png("red")}]
    assert decode_row(source.rows([0], ["image"])[0], None)["image"].size == (8, 6)
    carried = source.piece(0, 2)
    (root / "img" / "red.png").unlink()
    assert carried.rows([0], ["image"]) == [{"image": png("red")}]


def test_same_content_under_other_names(root):
    examples = read(root, [{"query": "a", "pos": "img/red.png", "negs": ["img/green.png", "img/again.png", "t"]}])
    digests = examples.documents.digests()
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_objects_of_text_and_image(root):
    both = {"text": "look", "image": "img/red.png"}
    examples = read(root, [{"query": both, "pos": {"text": "it ends in.png"}}])
    assert examples.queries.source.rows([0]) == [{"text": "look", "image": png("red")}]
    assert examples.documents.texts == ["it ends in.png"]


def test_a_query_may_end_like_a_file(root):
    examples = read(root, [{"query": "what is in logo.png", "pos": "t"}, {"query": "img/red.png", "pos": "t"}])
    assert examples.queries.images == ["", "img/red.png"]


def test_several_positives_are_one_example_each(root):
    examples = read(root, [{"query": "a", "pos": ["x", "y"], "negs": ["z", "y"]}])
    assert examples.ids == ["train.jsonl#line=1", "train.jsonl#line=1#positive=2"]
    assert examples.positive.tolist() == [0, 1]
    assert [examples.given_negatives(i).tolist() for i in range(2)] == [[2], [2]]
    assert examples.notes == ["1 given negatives are a positive of their own row; they are left out"]


def test_repeated_rows_are_reported(root):
    examples = read(root, [{"query": "a", "pos": "x"}, {"query": "b", "pos": "x"}, {"query": "a", "pos": "x"}])
    assert examples.repeated.tolist() == [2]
    assert "1 examples have the query and the positive of an earlier one: train.jsonl#line=3" in examples.notes


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"query": "a", "pos": "img/none.png"}, "there is no image img/none.png in --root"),
        ({"query": "a", "pos": "my scan.png"}, "there is no image my scan.png"),
        ({"query": "a", "pos": "../secret.png"}, "leads out of --root"),
        ({"query": "a", "pos": "/elsewhere/a.png"}, "give a folder above it as --root"),
        ({"query": "a", "negs": ["x"]}, "the query has no positive: its fields are query, negs; expected"),
        ({"query": "a", "pos": "x", "id": {"n": 1}}, "its id is dict; expected text or a whole number"),
        ({"query": "a", "pos": "x", "id": True}, "its id is bool; expected text or a whole number"),
        ({"query": "a", "pos": "x", "dataset": ["d"]}, "its dataset is list; expected text or a whole number"),
        ({"query": "a", "pos": "x", "id": "\ud800"}, "in its id: it holds half of a surrogate pair"),
        ({"query": "a", "pos": "x", "dataset": "\udfff"}, "in its dataset: it holds half of a surrogate pair"),
        ({"query": "a", "pos": ""}, "the query has no positive"),
        ({"query": "a", "pos": []}, "the query has no positive"),
        ({"query": " ", "pos": "x"}, "the query is empty"),
        ({"query": ["a", "b"], "pos": "x"}, "it has 2 queries"),
        ({"query": "a", "pos": 3}, "its pos is int"),
        ({"question": "a"}, "its fields are question; expected query and pos"),
        ({"qry": "a", "pos_text": ["x", "y"], "pos_image_path": ["img/red.png"]}, "expected lists of one length"),
        ([1], "the line is a list; expected an object"),
    ],
)
def test_bad_rows_are_named(root, row, why):
    with pytest.raises(UserError) as caught:
        read(root, [{"query": "fine", "pos": "x"}, row])
    assert "1 rows of" in str(caught.value)
    assert "train.jsonl#line=2: " in str(caught.value)
    assert why in str(caught.value)


def test_a_line_that_is_no_json(root):
    (root / "bad.jsonl").write_text('{"query": "a", "pos": "x"}\n{"query"\n')
    with pytest.raises(UserError, match=r"bad\.jsonl#line=2: the line is no JSON"):
        read_examples(str(root / "bad.jsonl"), root=str(root))


def test_wrong_paths(root):
    with pytest.raises(UserError, match="no training data"):
        read_examples()
    with pytest.raises(UserError, match=r"--data .*none\.jsonl does not exist"):
        read_examples(str(root / "none.jsonl"))
    with pytest.raises(UserError, match="is no folder"):
        read_examples(write_jsonl(root / "t.jsonl", []), root=str(root / "none"))
    with pytest.raises(UserError, match="has no rows"):
        read(root, [])
    with pytest.raises(UserError, match=r"this kind of file is not read; expected \.parquet, \.jsonl"):
        read_examples(str(root / "img" / "red.png"), root=str(root))
    with pytest.raises(UserError, match=r"holds no .parquet"):
        read_examples(str(root / "img"), root=str(root))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_of_files_that_are_no_text(root):
    name = os.fsencode(str(root)) + b"/\xff.jsonl"
    with open(name, "w") as stream:
        stream.write('{"query": "a", "pos": "x"}')
    with pytest.raises(UserError, match=r"the name of the file .* is no UTF-8"):
        read_examples(os.fsdecode(name), root=str(root))


def test_ids_and_groups_may_be_whole_numbers(root):
    rows = [{"query": "a", "pos": "x", "id": 0, "source": 7}, {"query": "b", "pos": "x", "id": "1", "source": ""}]
    examples = read(root, rows, group_by="source")
    assert examples.ids == ["0", "1"]
    assert [examples.datasets[d] for d in examples.dataset] == ["7", "train"]


def test_a_field_to_group_by_that_is_nowhere(root):
    with pytest.raises(UserError, match=r"no row of .*train\.jsonl has the field sorce, which --group-by names"):
        read(root, [{"query": "a", "pos": "x", "source": "s"}], group_by="sorce")


def test_two_examples_of_one_id(root):
    with pytest.raises(UserError, match=r"1 ids name two or more examples .*: x; expected"):
        read(root, [{"id": "x", "query": "a", "pos": "p"}, {"id": "x", "query": "b", "pos": "p"}])


def test_items_of_a_local_copy_and_files_that_win(root):
    write_pages(root / "data" / "owner" / "pages")
    shadow = root / "owner" / "pages" / "train"
    shadow.mkdir(parents=True)
    (shadow / "doc_1.png").write_bytes(png("white"))
    rows = [{"query": "a", "pos": f"owner/pages/train/doc_{i}.png", "negs": ["img/red.png"]} for i in (2, 1, 0)]
    examples = read(root, rows, data_root=str(root / "data"))
    found = [row["image"] for row in examples.documents.source.rows(examples.positive.tolist())]
    assert found == [png("blue"), png("white"), png("red")]
    assert examples.documents.images[0] == "owner/pages/train/doc_2.png"
    same = examples.documents.digests()
    assert same[examples.positive[2]] == same[examples.given_negatives(0)[0]]


def test_items_that_are_not_there(root):
    write_pages(root / "owner" / "pages")
    with pytest.raises(UserError, match="no item 3 in the split train of owner/pages; it has 3"):
        read(root, [{"query": "a", "pos": "owner/pages/train/doc_3.png"}])
    with pytest.raises(UserError, match=r"has no split test. It has train"):
        read(root, [{"query": "a", "pos": "owner/pages/test/doc_0.png"}])
    why = r"there is no image owner/none/test/doc_0.png in .* no local copy of the data set owner/none.*hf download"
    with pytest.raises(UserError, match=why):
        read(root, [{"query": "a", "pos": "owner/none/test/doc_0.png"}])


def test_data_sets_by_name_that_are_not_there(root):
    folder = root / "copies" / "owner" / "none"
    how = f"no local copy .* there is no {folder} and no {root}/copies/none. Copy it .hf download owner/none "
    with pytest.raises(UserError, match=how + f"--repo-type dataset --local-dir {folder}., or .* --data-root"):
        read_examples(hub_name="owner/none", root=str(root), data_root=str(root / "copies"))
    for name in ("https://huggingface.co/datasets/owner/pages", write_pages(root / "owner" / "pages"), "../pages", ""):
        with pytest.raises(UserError, match=r"is no name of a data set of the hub; expected owner/name.* by --data"):
            read_examples(hub_name=name, root=str(root))


@pytest.mark.parametrize("how", ["folder", "name", "saved"])
def test_a_data_set_of_pages(root, how):
    folder = write_pages(root / "owner" / "pages")
    if how == "saved":
        rows = {"query": ["q0", "q1", "q2"], "image": [{"bytes": png(c), "path": None} for c in COLOURS[:3]]}
        features = datasets.Features({"query": datasets.Value("string"), "image": datasets.Image()})
        folder = str(root / "owner" / "saved")
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder)
    given: dict[str, Any] = {"hub_name": "owner/pages"} if how == "name" else {"data": folder}
    examples = read_examples(**given, root=str(root))
    name = "saved" if how == "saved" else "pages"
    assert examples.datasets == [name]
    assert examples.queries.texts == ["q0", "q1", "q2"]
    assert examples.documents.images == [f"owner/{name}/train/doc_{i}.png" for i in range(3)]
    images = [row["image"] for row in examples.documents.source.rows([2, 0, 1])]
    assert images == [png("blue"), png("red"), png("green")]


def mmeb_table():
    return pa.table(
        {
            "qry": ["<|image_1|>\nwhat colour?\n", "find it"],
            "qry_image_path": ["red.png", ""],
            "pos_text": ["red", "<|image_1|>\nA page."],
            "pos_image_path": ["", "green.png"],
            "neg_text": [["blue", ""], []],
            "neg_image_path": [["", ""], []],
        }
    )


def test_mmeb_in_folders_of_subsets(root):
    for subset in ("VQA", "Retrieval"):
        (root / "mmeb" / subset).mkdir(parents=True)
        pq.write_table(mmeb_table(), root / "mmeb" / subset / "original-00000-of-00001.parquet")
    examples = read_examples(str(root / "mmeb"), root=str(root / "img"))
    assert [examples.datasets[d] for d in examples.dataset] == ["Retrieval", "Retrieval", "VQA", "VQA"]
    assert examples.ids[0] == "mmeb/Retrieval/original-00000-of-00001.parquet#row=1"
    assert examples.queries.texts == ["<|image_1|>\nwhat colour?\n", "find it"]  # as written
    assert [row["text"] for row in examples.queries.source.rows([0, 1], ["text"])] == ["what colour?\n", "find it"]
    assert examples.queries.source.kinds() == {("text", "image"): [0], ("text",): [1]}
    assert examples.documents.texts == ["red", "blue", "<|image_1|>\nA page."]
    assert [examples.given_negatives(i).tolist() for i in range(2)] == [[1], []]


def test_splits_of_files_are_not_mixed(root):
    (root / "mmeb").mkdir()
    for split in ("original", "diverse_instruction"):
        pq.write_table(mmeb_table(), root / "mmeb" / f"{split}-00000-of-00001.parquet")
    with pytest.raises(
        UserError, match=r"several splits; choose one with --split. It has diverse_instruction, original"
    ):
        read_examples(str(root / "mmeb"), root=str(root / "img"))
    assert len(read_examples(str(root / "mmeb"), root=str(root / "img"), split="original")) == 2
    with pytest.raises(UserError, match="has no split test"):
        read_examples(str(root / "mmeb"), root=str(root / "img"), split="test")


def test_parts_of_a_data_set_are_one(root):
    (root / "DocVQA" / "data").mkdir(parents=True)
    paths = [root / "DocVQA" / f"original-0000{i}-of-00002.parquet" for i in range(2)]
    paths.append(root / "DocVQA" / "data" / "train-00000-of-00001.parquet")
    for path in paths:
        pq.write_table(mmeb_table(), path)
    examples = read_examples([str(path) for path in paths], root=str(root / "img"))
    assert (examples.datasets, len(examples)) == (["DocVQA"], 6)


def test_a_part_without_rows(root):
    (root / "mmeb").mkdir()
    pq.write_table(mmeb_table().slice(0, 0), root / "mmeb" / "original-00000-of-00002.parquet")
    with pytest.raises(UserError, match="has no rows; expected training data"):
        read_examples(str(root / "mmeb"), root=str(root / "img"))
    pq.write_table(mmeb_table(), root / "mmeb" / "original-00001-of-00002.parquet")
    assert len(read_examples(str(root / "mmeb"), root=str(root / "img"))) == 2


def test_an_edited_file_is_read_again(root):
    path = root / "t.parquet"
    for text in ("old", "new"):
        pq.write_table(pa.table({"query": ["a"], "pos": [text], "negs": [["x", "y"]]}), path)
        examples = read_examples(str(path), root=str(root))
        assert examples.documents.texts == [text, "x", "y"]


def test_tables_in_no_form_and_damaged_ones(root):
    pq.write_table(pa.table({"question": ["a"]}), root / "t.parquet")
    with pytest.raises(UserError, match="its columns are question; expected query and pos"):
        read_examples(str(root / "t.parquet"), root=str(root))
    (root / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"bad\.parquet cannot be read"):
        read_examples(str(root / "bad.parquet"), root=str(root))


def test_images_in_a_zip(root):
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        archive.writestr("images/a/red.png", png("red"))
    path = write_jsonl(root / "t.jsonl", [{"query": "a", "pos": "a/red.png"}])
    examples = read_examples(path, root=str(root / "images.zip"))
    assert examples.documents.source.rows([0]) == [{"image": png("red")}]
    with pytest.raises(UserError, match=r"no image a/none.png"):
        read_examples(
            write_jsonl(root / "t.jsonl", [{"query": "a", "pos": "a/none.png"}]), root=str(root / "images.zip")
        )


def test_files_of_one_name_have_ids_of_their_own(root):
    paths = []
    for name in ("a", "b"):
        (root / name).mkdir()
        paths.append(write_jsonl(root / name / "t.jsonl", [{"query": name, "pos": "x"}]))
    examples = read_examples(paths, root=str(root))
    assert examples.ids == [f"{path}#line=1" for path in paths]
    assert np.array_equal(examples.positive, [0, 0])
