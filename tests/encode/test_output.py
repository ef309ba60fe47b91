"""The files of vectors, read by their own libraries, by Arrow, pandas and polars, and by `raylib score`."""

import json
import zipfile

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import raylib
from raylib.encode import output, vectors
from raylib.encode.output import VectorTable, write_vectors
from raylib.errors import UserError
from raylib.score.config import ScoreConfig
from raylib.score.job import score
from raylib.score.vectors import open_vectors
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings
from tests.encode.made import config
from tests.evaluate.made import by_hand

WORDS = "tests.evaluate.made:words"
TEXTS = {"d1": "a b", "d2": "abc", "d3": "cc a b b", "d4": "aab c"}
MATRICES = {
    name: np.array([[w.count(c) for c in "abc"] for w in text.split()], np.float32) for name, text in TEXTS.items()
}


def write_texts(folder, texts, name="a"):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in texts.items()))
    return path


def encode(folder, texts=TEXTS, name="a", **settings):
    outcome = raylib.encode(config(folder, write_texts(folder, texts, name), output=str(folder / name), **settings))
    assert outcome.ok
    return outcome.files


def ids_in(path):
    with open(path) as stream:
        return stream.read().splitlines()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dense_parquet(dtype, tmp_path, models):
    path = encode(tmp_path, output_dtype=dtype)["embeddings"]

    frame = pd.read_parquet(path)
    assert frame.columns.tolist() == ["id", "source", "vector"] and frame["id"].tolist() == list(TEXTS)
    stacked = np.stack(frame["vector"].tolist())
    assert stacked.dtype == dtype and stacked.tolist() == [by_hand(text) for text in TEXTS.values()]
    assert pl.read_parquet(path)["vector"].to_numpy().tolist() == stacked.tolist()
    assert pq.read_schema(path).metadata[b"similarity"] == b"cosine"


def test_late_parquet(tmp_path, models):
    path = encode(tmp_path, model=WORDS)["embeddings"]
    frame = pd.read_parquet(path)
    assert frame.columns.tolist() == ["id", "source", "tokens", "vector"]
    assert frame["tokens"].tolist() == [2, 1, 4, 2]
    for found, expected in zip(frame["vector"], MATRICES.values(), strict=True):
        assert np.stack(found.tolist()).tolist() == expected.tolist()
    assert [np.array(v).tolist() for v in pl.read_parquet(path)["vector"].to_list()] == [
        m.tolist() for m in MATRICES.values()
    ]


def test_npy(tmp_path, models):
    files = encode(tmp_path, format="npy")
    array = np.load(files["embeddings"], mmap_mode="r")
    assert array.dtype == np.float32 and array.tolist() == [by_hand(text) for text in TEXTS.values()]
    assert ids_in(files["ids"]) == list(TEXTS)


def test_npz_of_late_interaction(tmp_path, models):
    files = encode(tmp_path, format="npy", model=WORDS, output_dtype="float16")
    with np.load(files["embeddings"]) as arrays:
        assert arrays["offsets"].tolist() == [0, 2, 3, 7, 9] and arrays["vectors"].dtype == np.float16
        assert arrays["vectors"].tolist() == np.concatenate(list(MATRICES.values())).tolist()
    assert zipfile.ZipFile(files["embeddings"]).testzip() is None
    assert ids_in(files["ids"]) == list(TEXTS)


@pytest.mark.parametrize("late", [False, True])
def test_hdf5(late, tmp_path, models):
    path = encode(tmp_path, format="hdf5", **({"model": WORDS} if late else {}))["embeddings"]
    with h5py.File(path) as file:
        assert [name.decode() for name in file["ids"]] == list(TEXTS)
        assert file.attrs["similarity"] == ("maxsim" if late else "cosine")
        found, offsets = file["vectors"][()], file["offsets"][()].tolist() if late else None
    assert offsets == ([0, 2, 3, 7, 9] if late else None)
    dense = [by_hand(text) for text in TEXTS.values()]
    assert found.tolist() == (np.concatenate(list(MATRICES.values())).tolist() if late else dense)


# `raylib score`.

QUERIES = {"q1": "a", "q2": "cc"}


@pytest.mark.parametrize("form", ["parquet", "npy", "hdf5"])
@pytest.mark.parametrize("late", [False, True], ids=["dense", "late"])
@pytest.mark.parametrize("by_folder", [False, True], ids=["file", "folder"])
def test_score_reads_the_output(form, late, by_folder, tmp_path, models):
    settings = {"format": form, **({"model": WORDS} if late else {})}
    queries = encode(tmp_path, QUERIES, "q", role="query", **settings)["embeddings"]
    documents = encode(tmp_path, TEXTS, "d", **settings)["embeddings"]
    if by_folder:
        queries, documents = str(tmp_path / "q"), str(tmp_path / "d") + "/"
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq2 0 d3 1\n")

    outcome = score(
        ScoreConfig(
            queries, documents, str(tmp_path / "qrels"), output_folder=str(tmp_path / "s"), metrics=["mrr_at_1"]
        )
    )

    assert outcome.search["similarity"] == ("maxsim" if late else "cosine")
    for query, ranking in outcome.run.items():
        for name, found in ranking.items():
            if late:
                expected = (MATRICES[name] @ np.array([QUERIES[query].count(c) for c in "abc"], np.float32)).max()
            else:
                q, d = np.array(by_hand(QUERIES[query])), np.array(by_hand(TEXTS[name]))
                expected = q @ d / np.linalg.norm(q) / np.linalg.norm(d)
            assert found == pytest.approx(expected, rel=1e-6)
    assert outcome.read["documents"]["model"] == (WORDS if late else "tests.evaluate.made:letters")


def test_score_takes_the_similarity_of_the_manifest_and_the_models_of_both_sides(tmp_path, models):
    encode(tmp_path)
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "similarity": "dot"}))
    found = open_vectors(str(tmp_path / "a" / "embeddings.parquet"), "document")
    assert found.similarity == "dot" and found.described["fingerprint"] == manifest["fingerprint"]
    path.unlink()
    with pytest.raises(UserError, match="a finished output folder of `raylib encode`"):
        open_vectors(str(tmp_path / "a"), "document")
    assert open_vectors(str(tmp_path / "a" / "embeddings.parquet"), "document").similarity is None


# Blocks, order and limits.


@pytest.mark.parametrize("form", ["parquet", "npy", "hdf5"])
@pytest.mark.parametrize("late", [False, True], ids=["dense", "late"])
def test_many_blocks_give_what_one_gives(form, late, tmp_path, monkeypatch):
    random = np.random.default_rng(3)
    counts = random.integers(1, 6, 50) if late else np.ones(50, int)
    matrices = [random.normal(size=(n, 8)).astype(np.float32) for n in counts]
    ids = [f"é {i}" for i in range(50)]
    monkeypatch.setattr(output, "_BLOCK_BYTES", 300)
    table = VectorTable(ids, ["s"] * 50, Embeddings.from_list(matrices), late, {})
    assert len(list(table.blocks())) > 5
    files = write_vectors(table, str(tmp_path), form)
    told = str(tmp_path / files["ids"]) if "ids" in files else None
    found = open_vectors(str(tmp_path / files["embeddings"]), "document", told)
    assert found.ids == ids and found.late is late
    assert np.array_equal(found.load().values, np.concatenate(matrices))
    assert found.load().token_counts.tolist() == counts.tolist()


def test_vectors_come_in_the_order_of_their_keys_whatever_part_they_are_in(tmp_path):
    shelf = Shelf(str(tmp_path), "f" * 64)
    keys = [bytes([i]) * 32 for i in range(9)]
    matrices = [np.full((1 + i % 3, 2), i, np.float32) for i in range(9)]
    for part in ([8, 0, 4], [1], [7, 2, 3, 6, 5]):
        shelf.write([keys[i] for i in part], Embeddings.from_list([matrices[i] for i in part]))
    shelf.refresh()
    order = [4, 0, 8, 8, 1, 5, 0, 2]
    with vectors.in_order(shelf, [keys[i] for i in order], np.dtype("float32"), str(tmp_path)) as found:
        assert [m.tolist() for m in found] == [matrices[i].tolist() for i in order]
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_number_that_is_too_large_for_float16_is_refused(tmp_path):
    shelf = Shelf(str(tmp_path), "f" * 64)
    shelf.write([b"k" * 32], Embeddings.from_dense(np.array([[70000.0, 1.0]], np.float32)))
    shelf.refresh()
    with (
        pytest.raises(UserError, match="too large for float16; leave out --output-dtype"),
        vectors.in_order(shelf, [b"k" * 32], np.dtype("float16"), None),
    ):
        pass


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    shelf = Shelf(str(tmp_path), "f" * 64)
    shelf.write([b"k" * 32], Embeddings.from_dense(np.ones((1, 2), np.float32)))
    shelf.refresh()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with (
        pytest.raises(UserError, match=r"no room for 0 MiB of vectors in .*: No space left"),
        vectors.in_order(shelf, [b"k" * 32], np.dtype("float32"), str(tmp_path)),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "form"), [("a\nb", "npy"), (" a", "npy"), ("\ufeffa", "npy"), ("", "npy"), ("a\0", "hdf5")]
)
def test_an_id_that_a_form_cannot_hold_is_refused(name, form, tmp_path):
    table = VectorTable([name], ["s"], Embeddings.from_dense(np.ones((1, 2), np.float32)), False, {})
    with pytest.raises(UserError, match=f"cannot be written with --format {form}; use --format parquet"):
        write_vectors(table, str(tmp_path), form)
    assert not list(tmp_path.iterdir())
    write_vectors(table, str(tmp_path), "parquet")
    assert pq.read_table(tmp_path / "embeddings.parquet")["id"].to_pylist() == [name]


def test_another_form_replaces_the_files_of_the_first(tmp_path, models):
    encode(tmp_path, format="npy")
    encode(tmp_path, overwrite=True)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"embeddings.parquet", "manifest.json", "store"}
