"""MMEB-eval's layout: texts, images in folders and zips, candidates, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.tasks import mmeb_data
from raylib.tasks.mmeb_data import clean_text, local_folder, read_subset
from raylib.tasks.mmeb_images import find_images
from raylib.tasks.rows import HOLDS, read_bytes
from tests.tasks.made_mmeb import CLASSIFICATION, IMAGES, png, write_images, write_subset, zip_images


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("<|image_1|>\nRepresent the given image.\n", "Represent the given image.\n"),
        ("<|image_1|> Find it", "Find it"),
        ("Find <|image_1|> here", "Find here"),
        ("Find it: <|image_1|>\n", "Find it:\n"),
        ("Find it <|image_1|>", "Find it"),
        ("One\n<|image_1|>\nTwo <|image_2|> three", "One\n\nTwo three"),
        ("<|image_1|>\n", ""),
        ("  no placeholder, as it is \n", "  no placeholder, as it is \n"),
        ("\n", ""),
    ],
)
def test_placeholders_go_with_the_blanks_around_them(text, cleaned):
    assert clean_text(text) == cleaned


@pytest.fixture
def folder(tmp_path) -> Path:
    """MMEB-eval with one subset and a folder of images."""
    folder = write_subset(tmp_path, "VOC2007", CLASSIFICATION)
    write_images(folder / "images", IMAGES)
    return folder


def test_rows_become_queries_with_candidates(folder):
    data = read_subset(str(folder), "VOC2007")
    red, green, blue = data.queries["id"]
    assert red == "row 0: VOC2007/red.png" and list(data.queries["text"]) == ["Name it\n"] * 3
    assert data.category == "it2t" and data.corpus.column_names == ["id", "text", HOLDS]
    texts = dict(zip(data.corpus["id"], data.corpus["text"], strict=True))
    assert list(texts.values()) == ["aa", "bb", "", "bbbb", "cc"], "each content once, in the order of the data"
    listed = {query: [texts[i] for i in ids] for query, ids in data.candidates.items()}
    assert listed == {red: ["aa", "bb", ""], green: ["bb", "aa", "bbbb"], blue: ["bb", "cc", "aa"]}
    assert data.queries[1]["image"].getpixel((0, 0)) == (0, 255, 0)


def test_contents_that_look_the_same_are_one_candidate(tmp_path):
    rows = [("q", "", [("<|image_1|>\nA dog", ""), ("A dog", ""), ("A cat", "")])]
    data = read_subset(str(write_subset(tmp_path, "SUN397", rows)), "SUN397")
    assert list(data.corpus["text"]) == ["A dog", "A cat"] and data.candidates == {"row 0": ["target 0", "target 1"]}
    assert data.raw["target 0"] == ("<|image_1|>\nA dog", ""), "as the data has it"


def test_prefixes_go_before_targets_only(folder):
    data = read_subset(str(folder), "VOC2007", prefix="Represent the class label: ")
    assert list(data.corpus["text"])[:2] == ["Represent the class label: aa", "Represent the class label: bb"]
    assert list(data.queries["text"]) == ["Name it\n"] * 3 and data.raw["target 0"] == ("aa", "")


def test_rows_say_what_they_hold(tmp_path):
    rows = [("find", "", [("both", "a.png"), ("<|image_1|>", "b.png"), ("text", "")])]
    folder = write_subset(tmp_path, "EDIS", rows)
    write_images(folder / "images", {"a.png": "red", "b.png": "blue"})
    data = read_subset(str(folder), "EDIS")
    assert list(data.corpus[HOLDS]) == ["text image", "image", "text"] and data.category == "t2it"
    assert list(data.corpus["text"]) == ["both", "", "text"] and data.corpus[2]["image"] is None


@pytest.mark.parametrize("name", ["images.zip", "eval_images.zip"])
def test_images_are_read_inside_a_zip(tmp_path, name):
    folder = write_subset(tmp_path, "VOC2007", CLASSIFICATION)
    zip_images(folder / name, IMAGES)
    data = read_subset(str(folder), "VOC2007")
    assert data.queries[2]["image"].getpixel((0, 0)) == (0, 0, 255), "by datasets"
    undecoded = data.queries.cast_column("image", _undecoded())[2]["image"]
    assert undecoded["bytes"] is None and read_bytes(undecoded["path"]) == png("blue"), "by raylib"
    assert {path.name for path in folder.iterdir()} == {"VOC2007", name}, "nothing was unpacked"


def _undecoded():
    import datasets

    return datasets.Image(decode=False)


@pytest.mark.parametrize("before", ["", "images/", "eval_images/"])
def test_a_folder_inside_the_folder_or_the_zip_is_found(tmp_path, before):
    inside = {before + name: colour for name, colour in IMAGES.items()}
    zip_images(tmp_path / "any.zip", inside)
    write_images(tmp_path / "any", inside)
    for where in ("any.zip", "any"):
        images = find_images("", str(tmp_path / where))
        assert images is not None and read_bytes(images.path("VOC2007/green.png", "row 1")) == png("green")


def test_an_image_that_is_not_there_keeps_its_name(folder, tmp_path):
    (folder / "images" / "VOC2007" / "green.png").unlink()
    data = read_subset(str(folder), "VOC2007").queries.cast_column("image", _undecoded())
    with pytest.raises(OSError, match=r"VOC2007/green\.png"):
        read_bytes(data[1]["image"]["path"])
    zip_images(tmp_path / "few.zip", {"VOC2007/red.png": "red"})
    data = read_subset(str(folder), "VOC2007", image_dir=str(tmp_path / "few.zip")).queries
    with pytest.raises(OSError, match=r"VOC2007/green\.png cannot be read from .*few\.zip"):
        read_bytes(data.cast_column("image", _undecoded())[1]["image"]["path"])


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "a/../../b.png", "..\\x.png", "C:\\x.png", "a::b"]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_paths_that_lead_out_are_refused(folder, name, zipped):
    rows = [("q", name, [("a", "")])]
    write_subset(folder.parent.parent, "GQA", rows)
    zip_images(folder / "other.zip", IMAGES)
    image_dir = str(folder / "other.zip") if zipped else None
    with pytest.raises(UserError, match=r"GQA, row 0: .* leads out of the image folder"):
        read_subset(str(folder), "GQA", image_dir=image_dir)


def test_no_images_at_all(tmp_path):
    folder = write_subset(tmp_path, "VOC2007", CLASSIFICATION)
    with pytest.raises(UserError, match=r"no images of MMEB's VOC2007: there is none of .*images\.zip.*--image-dir"):
        read_subset(str(folder), "VOC2007")
    with pytest.raises(UserError, match="--image-dir nowhere does not exist"):
        read_subset(str(folder), "VOC2007", image_dir="nowhere")
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"broken\.zip cannot be read"):
        read_subset(str(folder), "VOC2007", image_dir=str(tmp_path / "broken.zip"))


def test_the_folder_is_found_as_the_hub_lays_it_out_or_directly(folder, tmp_path):
    for root in (tmp_path, tmp_path / "TIGER-Lab", folder):
        assert local_folder(str(root), "VOC2007") == str(folder)
    with pytest.raises(UserError, match=r"no Parquet file of MMEB's SUN397 in .*hf download TIGER-Lab/MMEB-eval"):
        local_folder(str(tmp_path), "SUN397")


def test_rows_out_of_the_layout_are_named(tmp_path):
    write_subset(tmp_path, "GQA", [("q", "", [("a", "")]), ("q", "", [])])
    with pytest.raises(UserError, match="GQA, row 1: tgt_text and tgt_img_path are 0 and 0; expected two lists of one"):
        read_subset(local_folder(str(tmp_path), "GQA"), "GQA")
    path = write_subset(tmp_path, "VizWiz", []) / "VizWiz" / "test-00000-of-00001.parquet"
    with pytest.raises(UserError, match="VizWiz has no rows"):
        read_subset(local_folder(str(tmp_path), "VizWiz"), "VizWiz")
    pq.write_table(pa.table({"qry_text": ["a"]}), path)
    with pytest.raises(UserError, match="has no column qry_img_path, tgt_text, tgt_img_path; expected qry_text"):
        read_subset(local_folder(str(tmp_path), "VizWiz"), "VizWiz")
    path.write_bytes(b"no Parquet")
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet cannot be read"):
        read_subset(local_folder(str(tmp_path), "VizWiz"), "VizWiz")


def test_the_hub_cache_is_read_without_network(tmp_path, monkeypatch):
    """A cache as the hub's client lays it out: a snapshot by its commit, and the branch that names it."""
    import shutil

    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "datasets--TIGER-Lab--MMEB-eval"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    written = write_subset(tmp_path, "VOC2007", CLASSIFICATION)
    zip_images(written / "images.zip", IMAGES)
    shutil.copytree(written, repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    folder, found = mmeb_data.hub_folder("VOC2007", images=True)

    assert found == commit and len(read_subset(folder, "VOC2007").queries) == 3
