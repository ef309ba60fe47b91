"""The encode job: every input to the vectors that were made by hand, once each, and what goes wrong said by id."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raylib
from raylib import cli
from raylib.encode import job
from raylib.encode.config import EncodeConfig
from raylib.errors import ModelError, UserError
from tests.encode.made import COLOURS, config, encrypted_pdf, png, write_pdf
from tests.evaluate.made import by_hand

LETTERS = "tests.evaluate.made:letters"


def rows(folder, name="out"):
    """id → vector, in the order of the file."""
    table = pq.read_table(folder / name / "embeddings.parquet")
    return dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True))


def errors(folder):
    table = pq.read_table(folder / "out" / "errors.parquet")
    return list(zip(table["item_id"].to_pylist(), table["reason"].to_pylist(), strict=True))


def manifest(folder):
    return json.loads((folder / "out" / "manifest.json").read_text())


def files_of(folder):
    return {path.name for path in (folder / "out").iterdir()} - {"store"}


@pytest.fixture
def mixed(tmp_path):
    """A folder with one file of every kind."""
    folder = tmp_path / "in"
    (folder / "pages").mkdir(parents=True)
    (folder / "notes.txt").write_text("aab\n\nccc\naab\n")
    (folder / "whole.md").write_text("b\nb\n")
    (folder / "rows.jsonl").write_text('{"id": "j1", "text": "abc"}\n{"id": "j2", "text": "aab"}\n')
    (folder / "rows.csv").write_text("id,text\nc1,cab\n")
    pq.write_table(pa.table({"id": ["p1"], "image": pa.array([png("lime")], pa.binary())}), folder / "rows.parquet")
    (folder / "pages" / "blue.png").write_bytes(png("blue"))
    (folder / "pages" / "lime.png").write_bytes(png("lime"))
    write_pdf(folder / "doc.pdf", ["red", "blue"])
    (folder / "other.docx").write_bytes(b"x")
    return folder


EXPECTED = {
    "doc.pdf#page=1": COLOURS["red"],
    "doc.pdf#page=2": COLOURS["blue"],
    "notes.txt#line=1": by_hand("aab"),
    "notes.txt#line=3": by_hand("ccc"),
    "notes.txt#line=4": by_hand("aab"),
    "pages/blue.png": COLOURS["blue"],
    "pages/lime.png": COLOURS["lime"],
    "c1": by_hand("cab"),
    "j1": by_hand("abc"),
    "j2": by_hand("aab"),
    "p1": COLOURS["lime"],
    "whole.md": by_hand("b\nb\n"),
}


def test_a_mixed_folder_gives_a_row_an_id_in_input_order_and_each_content_is_encoded_once(mixed, tmp_path, models):
    outcome = raylib.encode(config(tmp_path, mixed))

    found = rows(tmp_path)
    assert list(found) == list(EXPECTED)
    for name, vector in EXPECTED.items():
        assert found[name] == pytest.approx(vector, abs=0.01), name  # Pillow writes pages as JPEG
    assert outcome.ok and models[LETTERS].encoded == 9, "one text is there three times, one image twice"
    assert outcome.counts == {"contents": 12, "distinct": 9, "stored": 0, "encoded": 9, "failed": 0, "vectors": 12}
    assert files_of(tmp_path) == {"embeddings.parquet", "manifest.json"}
    told = manifest(tmp_path)
    assert (told["model"], told["dim"], told["similarity"], told["role"]) == (LETTERS, 4, "cosine", "document")
    assert told["inputs"] == {"files": 8, "skipped": [str(mixed / "other.docx")]}
    assert told["options"]["input"] == [str(mixed)] and told["versions"]["numpy"] == np.__version__
    sources = pq.read_table(tmp_path / "out" / "embeddings.parquet")["source"].to_pylist()
    assert sources[0] == str(mixed / "doc.pdf") and sources[-1] == str(mixed / "whole.md")


def test_a_second_run_encodes_nothing_and_a_larger_one_only_what_is_new(mixed, tmp_path, models):
    raylib.encode(config(tmp_path, mixed))
    before = models[LETTERS].encoded
    written = (tmp_path / "out" / "embeddings.parquet").stat().st_mtime_ns

    again = raylib.encode(config(tmp_path, mixed))
    assert again.ok and again.counts["encoded"] == 0 and models[LETTERS].encoded == before
    assert again.files == {"embeddings": str(tmp_path / "out" / "embeddings.parquet")}
    assert (tmp_path / "out" / "embeddings.parquet").stat().st_mtime_ns == written

    (mixed / "new.txt").write_text("aaaa")
    with pytest.raises(UserError, match=r"out holds vectors of another run \(.*letters, 12 contents\).*--overwrite"):
        raylib.encode(config(tmp_path, mixed))
    more = raylib.encode(config(tmp_path, mixed, overwrite=True))
    assert more.counts["encoded"] == 1 and models[LETTERS].encoded == before + 1
    assert rows(tmp_path)["new.txt#line=1"] == by_hand("aaaa")

    other = raylib.encode(config(tmp_path, mixed, output=str(tmp_path / "b"), store=str(tmp_path / "out" / "store")))
    assert other.counts["encoded"] == 0 and rows(tmp_path, "b") == rows(tmp_path)


def test_text_and_image_of_one_row_are_one_content_for_a_model_that_fuses_them(tmp_path, models):
    (tmp_path / "blue.png").write_bytes(png("blue"))
    table = {"text": ["aa", None, "bb", " "], "image": pa.array([png("red"), png("red"), None, None], pa.binary())}
    pq.write_table(pa.table({"id": list("wxyz"), **table}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"id": "path", "text": "c", "image": "blue.png"}')
    inputs = tmp_path / "a.parquet", tmp_path / "b.jsonl"

    outcome = raylib.encode(config(tmp_path, *inputs, model="tests.encode.made:fuser", allow_errors=1))

    assert rows(tmp_path) == {"w": [3, 0, 0, 1], "x": [1, 0, 0, 1], "y": [0, 2, 0, 1], "path": [0, 0, 2, 1]}
    assert outcome.ok and errors(tmp_path) == [("z", "it has no text and no image")]

    with pytest.raises(UserError, match=r"2 of 5 contents, w first: contents hold text and image together; .*--text-c"):
        raylib.encode(config(tmp_path, *inputs, output=str(tmp_path / "b")))
    raylib.encode(config(tmp_path, *inputs, output=str(tmp_path / "b"), text_column=["text"], allow_errors=2))
    assert rows(tmp_path, "b") == {"w": [2, 0, 0, 1], "y": [0, 2, 0, 1], "path": [0, 0, 1, 1]}


def test_a_model_of_texts_is_refused_images_at_once_or_goes_without_them(mixed, tmp_path, models, capsys):
    reader = "tests.evaluate.made:reader"
    message = r"5 of 12 contents, doc.pdf#page=1 first: contents are image; .*reader reads text only. Give a model that"
    with pytest.raises(UserError, match=message):
        raylib.encode(config(tmp_path, mixed, model=reader, allow_errors=4))
    assert models[reader].encoded == 0

    outcome = raylib.encode(config(tmp_path, mixed, model=reader, allow_errors=5))
    assert outcome.ok and list(rows(tmp_path)) == [name for name in EXPECTED if name[0] in "ncjw"]
    assert errors(tmp_path)[0] == ("doc.pdf#page=1", f"contents are image; {reader} reads text only")

    with pytest.raises(UserError, match=r"2 of 2 contents, blue.png first"):
        raylib.encode(config(tmp_path, mixed / "pages", model=reader, allow_errors=9, overwrite=True))

    (tmp_path / "b.jsonl").write_text('{"text": "c", "image": "in/pages/blue.png"}')
    raylib.encode(config(tmp_path, tmp_path / "b.jsonl", model=reader, overwrite=True))
    assert "reader does not read the image beside 1 contents" in capsys.readouterr().err


@pytest.fixture
def damaged(tmp_path):
    """Three good contents, and five that cannot be encoded."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("a\ncrash\nb\n")
    (folder / "b.png").write_bytes(png("red")[:40])
    (folder / "c.png").write_bytes(png("red"))
    (folder / "d.pdf").write_bytes(encrypted_pdf())
    (folder / "e.pdf").write_bytes(b"%PDF-1.4")
    (folder / "f.jsonl").write_text("{\n")
    return folder


BAD = ["a.txt#line=2", "b.png", "d.pdf", "e.pdf", "f.jsonl#line=1"]


def test_bad_contents_are_named_and_nothing_is_written_unless_they_are_allowed(damaged, tmp_path, models, capsys):
    outcome = raylib.encode(config(tmp_path, damaged))

    assert not outcome.ok and outcome.files == {} and [content.item_id for content in outcome.bad] == BAD
    assert files_of(tmp_path) == {"errors.parquet"}, "presence means complete"
    assert [name for name, _ in errors(tmp_path)] == BAD
    reasons = dict(errors(tmp_path))
    assert reasons["a.txt#line=2"].startswith("preprocessing failed: RuntimeError: cannot tokenise")
    assert reasons["b.png"].startswith("unreadable image: ")
    assert reasons["d.pdf"] == "the PDF cannot be opened: it is encrypted: save it without a password"
    told = capsys.readouterr().err
    assert "5 contents could not be encoded" in told and "--allow-errors 5." in told

    before = models[LETTERS].encoded
    covered = raylib.encode(config(tmp_path, damaged, allow_errors=5))
    assert covered.ok and models[LETTERS].encoded == before, "what was good is in the store"
    assert list(rows(tmp_path)) == ["a.txt#line=1", "a.txt#line=3", "c.png"]
    assert manifest(tmp_path)["counts"]["failed"] == 5 and manifest(tmp_path)["files"]["errors"] == "errors.parquet"


def test_what_was_bad_is_tried_again_and_leaves_no_trace_once_it_is_mended(damaged, tmp_path, models):
    (damaged / "b.png").write_bytes(png("blue"))
    raylib.encode(config(tmp_path, damaged, allow_errors=4))
    kept = {name: (damaged / name).read_bytes() for name in ("a.txt", "b.png", "c.png")}
    for path in damaged.iterdir():
        path.unlink()
    for name, data in kept.items():
        (damaged / name).write_bytes(data.replace(b"crash", b"craft"))
    assert raylib.encode(config(tmp_path, damaged, overwrite=True)).ok
    assert files_of(tmp_path) == {"embeddings.parquet", "manifest.json"}
    assert rows(tmp_path)["a.txt#line=2"] == by_hand("craft")


def test_nothing_but_bad_contents_is_an_error(tmp_path, models):
    (tmp_path / "a.jsonl").write_text("{\n")
    with pytest.raises(ModelError, match="no content could be encoded"):
        raylib.encode(config(tmp_path, tmp_path / "a.jsonl", allow_errors=1))
    assert "manifest.json" not in files_of(tmp_path)


def test_ids_that_stand_for_two_contents_are_named(tmp_path, models):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("a\nb")
    message = r"2 ids name two or more contents: a.txt#line=1, a.txt#line=2 \(a.txt#line=1 is in .*x/a.txt, .*y/a.txt\)"
    with pytest.raises(UserError, match=message):
        raylib.encode(config(tmp_path, tmp_path / "x", tmp_path / "y"))
    (tmp_path / "c.csv").write_text("id,text\n1,a\n1,b\n")
    with pytest.raises(UserError, match="1 ids name two or more contents: 1 "):
        raylib.encode(config(tmp_path, tmp_path / "c.csv"))


def test_limit_role_and_prompt(tmp_path, models):
    (tmp_path / "a.txt").write_text("a\nb\nc\n")
    outcome = raylib.encode(config(tmp_path, tmp_path / "a.txt", limit=2, role="query"))
    assert outcome.counts["contents"] == 2 and manifest(tmp_path)["role"] == "query"
    documents = raylib.encode(config(tmp_path, tmp_path / "a.txt", limit=2, overwrite=True))
    assert documents.counts["encoded"] == 2, "a query is no document"


def test_dpi_is_another_content(tmp_path, models):
    write_pdf(tmp_path / "a.pdf", ["red"])
    raylib.encode(config(tmp_path, tmp_path / "a.pdf"))
    assert raylib.encode(config(tmp_path, tmp_path / "a.pdf", dpi=72, overwrite=True)).counts["encoded"] == 1


def test_batches_are_as_asked_or_found_by_trying(tmp_path, models):
    (tmp_path / "a.txt").write_text("".join("a" * n + "\n" for n in range(1, 8)))
    raylib.encode(config(tmp_path, tmp_path / "a.txt", batch_size=3))
    assert models[LETTERS].batches == [3, 3, 1]
    store = str(tmp_path / "other")
    assert raylib.encode(config(tmp_path, tmp_path / "a.txt", batch_size="auto", store=store, overwrite=True)).ok
    (shelf,) = (tmp_path / "other").iterdir()
    assert (shelf / "batch_sizes.json").exists()


def test_a_dry_run_counts_and_writes_nothing(damaged, tmp_path, models, capsys):
    arguments = ["--model", LETTERS, "--input", str(damaged), "--output", str(tmp_path / "out"), "--dry-run"]
    assert cli.main(["encode", *arguments, "--local"]) == 1
    out = capsys.readouterr().out
    assert "5 distinct contents of 8; 0 are stored, 5 would be encoded" in out
    assert "3 contents cannot be encoded\n  d.pdf: the PDF cannot be opened: it is encrypted" in out
    assert not (tmp_path / "out").exists() and models[LETTERS].encoded == 0
    assert cli.main(["encode", *arguments, "--local", "--allow-errors", "3"]) == 0


# Killed, and interrupted.


def test_a_run_that_is_killed_looks_like_nothing_and_the_next_completes_it(tmp_path):
    (tmp_path / "a.txt").write_text("".join("a" * n + "\n" for n in range(1, 10)))
    settings = {"model": "tests.encode.made:killed", "batch_size": 2}
    command = "from raylib.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    arguments = ["encode", "--model", settings["model"], "--input", str(tmp_path / "a.txt"), "--local", "--quiet"]
    arguments += ["--output", str(tmp_path / "out"), "--batch-size", "2"]
    environment = {**os.environ, "RAYLIB_KILL": "1"}
    done = subprocess.run([sys.executable, "-c", command, *arguments], env=environment, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert files_of(tmp_path) == set()

    assert raylib.encode(config(tmp_path, tmp_path / "a.txt", **settings)).ok
    assert list(rows(tmp_path).values()) == [by_hand("a" * n) for n in range(1, 10)]


def test_a_write_that_is_interrupted_leaves_nothing_behind(mixed, tmp_path, models, monkeypatch):
    def broken(table, stream):
        stream.write(b"PAR1")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("raylib.encode.output._write_parquet", broken)
        raylib.encode(config(tmp_path, mixed))
    assert files_of(tmp_path) == set(), "neither vectors nor scratch files"
    assert raylib.encode(config(tmp_path, mixed)).counts["encoded"] == 0


def test_vectors_without_their_manifest_are_not_taken_for_complete_nor_lost(mixed, tmp_path, models, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job, "write_manifest", broken)
        raylib.encode(config(tmp_path, mixed))
    with pytest.raises(UserError, match=r"out holds embeddings.parquet without the manifest .* --overwrite"):
        raylib.encode(config(tmp_path, mixed))
    assert raylib.encode(config(tmp_path, mixed, overwrite=True)).ok


def test_vectors_that_are_no_numbers_write_nothing(tmp_path, models):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ModelError, match="NaN"):
        raylib.encode(config(tmp_path, tmp_path / "a.txt", model="tests.evaluate.made:nan"))
    assert files_of(tmp_path) == set()


# What cannot be right from the start.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": []}, "no model was given"),
        ({"model": ["a", "b"]}, "--model names 2 models; vectors of one go into one --output"),
        ({"input": []}, "nothing to encode; add --input"),
        ({"output": None}, "no place for the vectors; add --output"),
        ({"dpi": 0}, "--dpi is 0; expected at least 1"),
        ({"limit": 0}, "--limit is 0; expected at least 1"),
        ({"allow_errors": -1}, "--allow-errors is -1; expected 0 or more"),
        ({"batch_size": "auto", "max_batch_tokens": 3}, "--batch-size auto finds the bound"),
        ({"model": ["raylib/bm25"]}, "raylib/bm25 searches by itself and has no vectors"),
        ({"address": "x"}, "--local runs without Ray"),
        ({"input": ["nowhere"]}, "--input nowhere does not exist"),
        ({"pooling": "cls"}, "without --pooling"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_command_that_cannot_be_right_says_what_to_change(settings, message, tmp_path, models):
    (tmp_path / "a.txt").write_text("a")
    usual = {"model": [LETTERS], "input": [str(tmp_path / "a.txt")], "output": str(tmp_path / "out"), "local": True}
    with pytest.raises(UserError, match=message):
        raylib.encode(EncodeConfig(**{**usual, **settings}))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_wrong_flags_end_with_status_2(tmp_path, capsys):
    for arguments, said in (
        (["--format", "csv"], "--format"),
        (["--role", "page"], "--role"),
        (["--dip", "3"], "--dpi"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["encode", *arguments])
        out, err = capsys.readouterr()
        assert end.value.code == 2 and said in out + err
    assert cli.main(["encode", "--model", "a", "--input", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("raylib: no place for the vectors")
    with pytest.raises(UserError, match="encode has no setting inputs"):
        raylib.encode(LETTERS, inputs="a")


def test_the_command_line_gives_the_status(damaged, tmp_path, models, capsys):
    arguments = [
        "encode",
        "--model",
        LETTERS,
        "--input",
        str(damaged / "*"),
        "--output",
        str(tmp_path / "out"),
        "--local",
    ]
    assert cli.main(arguments) == 1
    assert cli.main([*arguments, "--allow-errors", "5"]) == 0
    assert "wrote " in capsys.readouterr().out
