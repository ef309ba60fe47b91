"""Which files --input names, in which order and under which names."""

import os

import pytest

from raylib.encode.inputs import find_inputs
from raylib.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def named(inputs):
    return [(file.name, file.kind) for file in inputs.files]


def test_a_folder_gives_its_files_by_their_paths_in_order(tmp_path):
    touch(tmp_path, "b.TXT", "a/z.pdf", "a/b/c.Jpeg", "d.docx", ".hidden.txt", ".git/x.txt", "c.parquet")
    found = find_inputs([str(tmp_path)])
    assert named(found) == [("a/b/c.Jpeg", "image"), ("a/z.pdf", "pdf"), ("b.TXT", "lines"), ("c.parquet", "parquet")]
    assert found.skipped == [str(tmp_path / "d.docx")]


def test_a_file_goes_by_its_base_name_and_a_pattern_by_what_it_matches(tmp_path):
    touch(tmp_path, "x/b.csv", "x/a.tsv", "y/c.jsonl", "y/[1].md")
    found = find_inputs([str(tmp_path / "y" / "c.jsonl"), str(tmp_path / "x" / "*"), str(tmp_path / "y" / "[1].md")])
    assert named(found) == [("c.jsonl", "jsonl"), ("a.tsv", "csv"), ("b.csv", "csv"), ("[1].md", "whole")]


def test_a_file_that_is_named_twice_is_read_once_and_links_are_files_of_their_own(tmp_path):
    touch(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "round").symlink_to(tmp_path)
    found = find_inputs([str(tmp_path), str(tmp_path / "a.txt")])
    assert named(found) == [("a.txt", "lines"), ("b.txt", "lines")]


def test_the_output_folder_inside_the_input_is_not_read(tmp_path):
    touch(tmp_path, "a.txt", "out/embeddings.parquet", "out/store/0/part-1.parquet")
    assert named(find_inputs([str(tmp_path)], leave_out=[str(tmp_path / "out")])) == [("a.txt", "lines")]


def test_a_name_that_is_no_utf8_can_still_be_written(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "wb"):
        pass
    (file,) = find_inputs([str(tmp_path)]).files
    assert file.name == "�.txt" and file.source.encode() and os.path.exists(file.path)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("nowhere.txt", "--input .*nowhere.txt does not exist$"),
        ("*.png", "does not exist, and matches nothing"),
        ("x.docx", r"x.docx: this kind of file is not read; expected \.png, .*\.pdf"),
        ("empty", r"no file to read in --input .*empty: expected .*; 1 files of other kinds are there"),
    ],
)
def test_what_cannot_be_read_is_said_by_name(asked, message, tmp_path):
    touch(tmp_path, "x.docx", "empty/y.docx")
    with pytest.raises(UserError, match=message):
        find_inputs([str(tmp_path / asked)])
