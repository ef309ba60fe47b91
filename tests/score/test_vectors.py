"""Vectors from files: every form gives what was written, and says what is wrong with it."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.score import formats
from raylib.score.vectors import read_ids
from tests.score.files import DENSE, LATE, by_id, id_file, opened, write_dense, write_late

IDS = ["d10", "d2", "ü/3".replace("/", "-"), "7", "e", "f", "g"]


def matrices(dtype=np.float32):
    """7 contents of 1 to 5 vectors of 6 numbers."""
    rng = np.random.default_rng(1)
    return [rng.normal(size=(tokens, 6)).astype(dtype) for tokens in (2, 1, 5, 3, 1, 4, 2)]


@pytest.fixture(params=[None, 1], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """Blocks of the usual size, or of one content each."""
    if request.param is not None:
        monkeypatch.setattr(formats, "BLOCK_BYTES", request.param)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("form", DENSE)
def test_one_vector_each(form, dtype, tmp_path, blocks):
    written = np.concatenate([m[:1] for m in matrices(dtype)])
    found = opened(*write_dense(form, tmp_path, "d", IDS, written))
    assert sorted(found.ids) == sorted(IDS) and (found.dim, found.late, found.n_contents) == (6, False, 7)
    if form != "hdf5 one per id":
        assert found.ids == IDS
    vectors = by_id(found)
    expected = written.astype(np.float32) if dtype == np.float64 else written
    for i, row in zip(IDS, expected, strict=True):
        np.testing.assert_array_equal(vectors[i], row[None])
    assert found.load().dense().dtype == np.float32
    np.testing.assert_array_equal(found.load().dense(), [vectors[i][0] for i in found.ids])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("form", LATE)
def test_several_vectors_each(form, dtype, tmp_path, blocks):
    found = opened(*write_late(form, tmp_path, "d", IDS, matrices(dtype)))
    assert (found.dim, found.late, found.n_contents) == (6, True, 7)
    vectors = by_id(found)
    for i, tokens in zip(IDS, matrices(dtype), strict=True):
        np.testing.assert_array_equal(vectors[i], tokens)


def test_only_the_end_of_a_padded_content_is_padding(tmp_path):
    """A zero vector in the middle is one of its vectors."""
    padded = np.zeros((2, 4, 3), dtype=np.float32)
    padded[0, 0], padded[0, 2], padded[1, :] = 1, 2, 3
    np.save(tmp_path / "x.npy", padded)
    found = by_id(opened(tmp_path / "x.npy", id_file(tmp_path, "x", ["a", "b"])))
    assert found["a"].tolist() == [[1, 1, 1], [0, 0, 0], [2, 2, 2]] and found["b"].shape == (4, 3)


@pytest.mark.parametrize("blocks_of", [1, 100, 10**9])
def test_blocks_are_as_small_as_asked(blocks_of, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK_BYTES", blocks_of)
    found = opened(*write_late("npz offsets", tmp_path, "d", IDS, matrices()))
    sizes = [(len(e), e.values.nbytes) for _, e in found.blocks()]
    assert sum(n for n, _ in sizes) == 7
    assert all(n == 1 or size <= blocks_of for n, size in sizes)
    assert len(sizes) == {1: 7, 100: 5, 10**9: 1}[blocks_of]


@pytest.mark.parametrize("form", [f for f in LATE if f != "npy padded"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_no_number_is_named(form, value, tmp_path, blocks):
    bad = matrices()
    bad[5][2, 4] = value
    found = opened(*write_late(form, tmp_path, "d", IDS, bad))
    with pytest.raises(UserError, match="document f: NaN or infinity in a vector; expected finite"):
        found.load()


def test_many_bad_vectors_are_counted(tmp_path):
    bad = np.full((9, 2), np.nan, dtype=np.float32)
    np.savez(tmp_path / "x.npz", ids=np.array([f"d{i}" for i in range(9)]), vectors=bad)
    with pytest.raises(UserError, match="document d0, d1, d2, d3, d4 and 4 more: NaN"):
        opened(tmp_path / "x.npz").load()


def test_a_content_without_vectors_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", ids=np.array(["a", "b"]), vectors=np.ones((1, 2)), offsets=np.array([0, 1, 1]))
    np.save(tmp_path / "x.npy", np.stack([np.ones((2, 3)), np.zeros((2, 3))]))
    table = pa.table({"id": ["a", "b"], "vector": pa.array([[[1.0]], []], pa.list_(pa.list_(pa.float32())))})
    pq.write_table(table, tmp_path / "x.parquet")
    for name, ids in (("x.npz", None), ("x.npy", id_file(tmp_path, "x", "ab")), ("x.parquet", None)):
        with pytest.raises(UserError, match="document b: no vector; expected one or more each"):
            opened(tmp_path / name, ids).load()


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


ONES = np.ones((2, 3), dtype=np.float32)
WRONG_NPZ = {
    "twice": ({"ids": ["a", "a"], "vectors": ONES}, "1 document ids occur more than once: a; expected each id once"),
    "number": ({"ids": ["a"], "vectors": ONES}, "holds 2 vectors for 1 ids; expected one id each, in the same order"),
    "none": ({"ids": np.zeros(0, "U1"), "vectors": ONES[:0]}, "is empty; expected at least one document"),
    "empty id": ({"ids": ["a", ""], "vectors": ONES}, r"document 1 \(counted from 0\) has an empty id"),
    "no ids": ({"vectors": ONES}, "holds no ids; add an array `ids`, or --document-ids FILE"),
    "no vectors": ({"ids": ["a"], "x": ONES}, "holds ids, x; expected vectors, ids and maybe offsets"),
    "ids of floats": ({"ids": [0.5, 1.5], "vectors": ONES}, r"ids are float64\[2\]; expected text or whole numbers"),
    "whole numbers": ({"ids": ["a", "b"], "vectors": ONES.astype(int)}, r"vectors: int64\[2, 3\]; expected float16"),
    "three axes": (
        {"ids": ["a", "b"], "vectors": np.ones((2, 2, 3))},
        r"float64\[2, 2, 3\]; expected .*\[n, dim\], or",
    ),
    "no dims": ({"ids": ["a", "b"], "vectors": ONES[:, :0]}, r"float32\[2, 0\]; expected"),
    "offsets": (
        {"ids": ["a"], "vectors": ONES, "offsets": [0, 1]},
        r"offsets int64\[2\] do not cut 2 vectors; expected",
    ),
    "falling": ({"ids": ["a"] * 3, "vectors": ONES, "offsets": [0, 2, 1, 2]}, "rise from 0 to 2"),
    "objects": ({"ids": np.array(["a", None], dtype=object), "vectors": ONES}, "cannot be read: Object arrays"),
}


@pytest.mark.parametrize("case", WRONG_NPZ)
def test_wrong_arrays(case, tmp_path):
    arrays, message = WRONG_NPZ[case]
    path = npz(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        opened(path)
    assert path in str(error.value)


FLOATS = pa.list_(pa.float32())
WRONG_PARQUET = {
    "no vector": ({"id": ["a"], "vec": [[1.0]]}, "has the columns id, vec; expected id and vector"),
    "text": ({"id": ["a"], "vector": ["x"]}, r"the column vector is string; expected list<float>"),
    "whole numbers": ({"id": ["a"], "vector": [[1]]}, r"vector is list<.*int64>; expected"),
    "null vector": ({"id": ["a", "b"], "vector": pa.array([[1.0], None], FLOATS)}, r"b has no vector \(null\)"),
    "null number": ({"id": ["a"], "vector": pa.array([[None]], FLOATS)}, "a number in a vector of rows 0 to 0 is null"),
    "null id": ({"id": ["a", None], "vector": [[1.0], [1.0]]}, "1 rows have no id"),
    "two dims": ({"id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}, "b has 2 dimensions, a has 1; expected one dim"),
    "no numbers": ({"id": ["a"], "vector": pa.array([[]], FLOATS)}, "a has a vector of no numbers"),
    "twice": ({"id": ["a", "b", "a"], "vector": [[1.0]] * 3}, "1 document ids occur more than once: a"),
    "none": ({"id": pa.array([], pa.string()), "vector": pa.array([], FLOATS)}, "is empty; expected at least one"),
}


@pytest.mark.parametrize("case", WRONG_PARQUET)
@pytest.mark.parametrize("size", [None, 1], ids=["one block", "many blocks"])
def test_wrong_parquet(case, size, tmp_path, monkeypatch):
    if size is not None:
        monkeypatch.setattr(formats, "BLOCK_BYTES", size)
    columns, message = WRONG_PARQUET[case]
    with pytest.raises(UserError, match=message):
        opened(parquet(tmp_path / "x.parquet", **columns)).load()


def test_wrong_hdf5(tmp_path):
    def file(**items):
        with h5py.File(tmp_path / "x.h5", "w") as stream:
            for name, value in items.items():
                stream[name] = value
        return tmp_path / "x.h5"

    with pytest.raises(UserError, match="b has 2 dimensions, a has 3; expected one dim"):
        opened(file(a=np.ones(3), b=np.ones(2)))
    with pytest.raises(UserError, match=r"a: int64\[3\]; expected float16.*\[dim\] or \[tokens, dim\]"):
        opened(file(a=np.ones(3, dtype=int)))
    with pytest.raises(UserError, match="one data set per id; leave --document-ids out"):
        opened(file(a=np.ones(3)), id_file(tmp_path, "x", "a"))
    with pytest.raises(UserError, match="holds 2 vectors for 1 ids"):
        opened(file(ids=["a"], vectors=ONES))
    with pytest.raises(UserError, match="is empty; expected at least one document"):
        opened(file())
    with h5py.File(tmp_path / "x.h5", "w") as stream:
        stream.create_group("pages")["a"] = ONES
    with pytest.raises(UserError, match="pages is a group; expected a data set"):
        opened(tmp_path / "x.h5")
    (tmp_path / "x.h5").write_bytes(b"no hdf5")
    with pytest.raises(UserError, match=r"x\.h5 cannot be read: "):
        opened(tmp_path / "x.h5")


def test_wrong_files(tmp_path):
    np.save(tmp_path / "x.npy", ONES)
    ids = id_file(tmp_path, "x", ["a", "b"])
    np.savez(tmp_path / "x.npz", vectors=ONES, ids=np.array(["a", "b"]))
    for name in ("broken.npy", "broken.npz", "broken.parquet", "x.pkl"):
        (tmp_path / name).write_bytes(b"nothing")
    for path, ids_path, message in [
        ("x.npy", None, "holds vectors alone; add --document-ids FILE"),
        ("x.npy", id_file(tmp_path, "three", "abc"), "holds 2 vectors for 3 ids"),
        ("x.npy", id_file(tmp_path, "none", ""), r"ids .*none\.txt is empty"),
        ("x.npy", str(tmp_path / "gone.txt"), r"ids .*gone\.txt cannot be read"),
        ("x.npy", str(tmp_path / "gone.npy"), r"ids .*gone\.npy cannot be read"),
        ("x.npz", ids, "has its own ids; leave --document-ids out"),
        ("broken.npy", ids, r"broken\.npy cannot be read"),
        ("broken.npz", None, r"broken\.npz cannot be read"),
        ("broken.parquet", None, r"broken\.parquet is no Parquet file"),
        ("x.pkl", None, r"the form is not known; expected a name that ends in \.npy, \.npz, \.parquet"),
        ("gone.npy", ids, r"document vectors .*gone\.npy do not exist"),
    ]:
        with pytest.raises(UserError, match=message):
            opened(tmp_path / path, ids_path)


def test_ids_from_arrays_and_text(tmp_path):
    np.save(tmp_path / "n.npy", np.array([10, 2]))
    np.save(tmp_path / "b.npy", np.array(["ä".encode(), b"b"]))
    assert read_ids(str(tmp_path / "n.npy")) == ["10", "2"] and read_ids(str(tmp_path / "b.npy")) == ["ä", "b"]
    (tmp_path / "t.txt").write_bytes("a b\r\n c\u2028d \n".encode())
    assert read_ids(str(tmp_path / "t.txt")) == ["a b", "c\u2028d"]
    np.save(tmp_path / "l.npy", np.array([b"\xff"]))
    with pytest.raises(UserError, match="an id is no UTF-8 text"):
        read_ids(str(tmp_path / "l.npy"))
