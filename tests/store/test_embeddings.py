"""The embedding store: what is written is read, from however many parts and processes, and damage is named."""

import json
import multiprocessing
import os
import pickle
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib import storage
from raylib.errors import StoreError, UserError
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings

FINGERPRINT = "0123456789abcdef" + "0" * 48


def key(number, first_bytes=b"12345678"):
    """32 bytes; all keys share their first eight, the hardest case of the index."""
    return first_bytes + number.to_bytes(24, "big")


def dense(*rows):
    return Embeddings.from_dense(np.array(rows, dtype=np.float32))


def random_ragged(counts, dim=6, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return Embeddings.from_list([rng.normal(size=(n, dim)).astype(dtype) for n in counts], dim)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(str(tmp_path), FINGERPRINT)


def fresh(shelf):
    """A reader that has seen nothing yet."""
    reader = Shelf(os.path.dirname(shelf.folder), FINGERPRINT)
    reader.refresh()
    return reader


def test_batches_of_two_widths_are_two_parts(shelf):
    narrow, wide = dense([1, 2], [3, 4]), dense([5, 6, 7, 8])
    shelf.write_batches([key(i) for i in range(4)], [narrow, wide, dense([9, 10])])
    reader = fresh(shelf)
    assert reader.get([key(3), key(0), key(1)]).values.tolist() == [[9, 10], [1, 2], [3, 4]]
    assert reader.get([key(2)]).values.tolist() == [[5, 6, 7, 8]]
    assert sorted(len(found.positions) for found in reader.locate([key(i) for i in range(4)])) == [1, 3]
    with pytest.raises(UserError, match=r"have 2 and 4 dimensions; under --fusion concat .* take sum or mean"):
        reader.get([key(1), key(2)])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_ragged_vectors_come_back_bit_by_bit(shelf, dtype):
    made = random_ragged([3, 1, 7, 1, 2], dtype=dtype)
    shelf.write([key(i) for i in range(5)], made)

    reader = fresh(shelf)

    found = reader.get([key(i) for i in range(5)])
    assert found.values.dtype == dtype and found.offsets.tolist() == [0, 3, 4, 11, 12, 14]
    assert found.values.tobytes() == made.values.tobytes()
    some = reader.get([key(4), key(0), key(4)])
    assert some.token_counts.tolist() == [2, 3, 2] and (some[1] == made[0]).all() and (some[2] == made[4]).all()


def test_dense_vectors_come_back_in_the_order_asked_for(shelf):
    shelf.write([key(1), key(2), key(3)], dense([1, 0], [2, 0], [3, 0]))
    assert fresh(shelf).get([key(3), key(1), key(3), key(2)]).dense()[:, 0].tolist() == [3, 1, 3, 2]


def test_order_holds_over_many_parts(shelf):
    for start in range(0, 40, 8):
        shelf.write([key(i) for i in range(start, start + 8)], dense(*([i, 1] for i in range(start, start + 8))))
    wanted = np.random.default_rng(0).permutation(40).tolist()
    assert fresh(shelf).get([key(i) for i in wanted]).dense()[:, 0].tolist() == wanted


def test_scan_gives_every_part_once_with_the_positions_it_answers(shelf):
    shelf.write([key(0), key(1)], dense([0, 0], [1, 0]))
    shelf.write([key(2)], dense([2, 0]))
    wanted = [2, 0, 1, 0]
    pieces = list(fresh(shelf).scan([key(i) for i in wanted]))
    assert len(pieces) == 2
    answers = {int(p): v[0] for positions, found in pieces for p, v in zip(positions, found.dense(), strict=True)}
    assert answers == {0: 2.0, 1: 0.0, 2: 1.0, 3: 0.0}


def test_a_content_that_was_stored_twice_is_read_once(shelf):
    shelf.write([key(1), key(2)], dense([1, 1], [2, 2]))
    shelf.write([key(2), key(3)], dense([2, 2], [3, 3]))
    shelf.write([key(2)], dense([2, 2]))
    reader = fresh(shelf)
    assert len(reader) == 5
    assert reader.get([key(2), key(3), key(1)]).dense().tolist() == [[2, 2], [3, 3], [1, 1]]


def test_contains_knows_keys_with_one_beginning_apart(shelf):
    shelf.write([key(i) for i in range(0, 20, 2)], dense(*([i, 0] for i in range(10))))
    reader = fresh(shelf)
    asked = [key(0), key(1), key(18), key(19), key(2, b"00000000"), key(2, b"zzzzzzzz")]
    assert reader.contains(asked).tolist() == [True, False, True, False, False, False]
    assert reader.contains([]).tolist() == []


def test_what_another_writer_adds_shows_after_a_refresh(shelf):
    shelf.write([key(1)], dense([1, 0]))
    reader = fresh(shelf)
    shelf.write([key(2)], dense([2, 0]))
    assert reader.contains([key(1), key(2)]).tolist() == [True, False]
    assert reader.get([key(2)]).dense().tolist() == [[2, 0]], "a reader looks again before it gives up"
    assert len(reader) == 2


def test_unknown_keys_are_counted(shelf):
    shelf.write([key(1)], dense([1, 0]))
    with pytest.raises(StoreError, match=rf"2 of 3 contents are not in {shelf.folder}; encode them first"):
        shelf.get([key(1), key(7), key(8)])


def test_asking_for_nothing_is_a_mistake(shelf):
    with pytest.raises(ValueError, match="no keys"):
        shelf.get([])


def test_keys_and_vectors_must_match(shelf):
    with pytest.raises(ValueError, match="2 keys for 1 contents"):
        shelf.write([key(1), key(2)], dense([1, 0]))
    assert storage.list_files(shelf.folder) == []


def test_any_parquet_reader_can_open_a_part(shelf):
    made = random_ragged([2, 1], dim=3, dtype=np.float16)
    table = pq.read_table(shelf.write([key(1), key(2)], made))
    assert table.column_names == ["key", "tokens", "vector"]
    assert table.column("key").to_pylist() == [key(1), key(2)] and table.column("tokens").to_pylist() == [2, 1]
    assert table.column("vector").to_pylist() == [made[0].tobytes(), made[1].tobytes()]
    assert table.schema.metadata == {b"dim": b"3", b"dtype": b"float16", b"fingerprint": FINGERPRINT.encode()}


def broken_part(shelf, damage):
    """A good part and a damaged one; the damaged one's path."""
    shelf.write([key(1)], dense([1, 0]))
    path = shelf.write([key(i) for i in range(2, 300)], random_ragged([5] * 298))
    data = bytearray(Path(path).read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data.clear()
    elif damage == "flipped":
        data[len(data) * 3 // 4] ^= 0xFF  # within the vectors, which are most of the file
    elif damage == "text":
        data[:] = b"not Parquet at all"
    Path(path).write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_part_that_cannot_be_opened_is_named(shelf, damage):
    path = broken_part(shelf, damage)
    with pytest.raises(StoreError, match=rf"{os.path.basename(path)}.*Delete the file"):
        fresh(shelf)


def test_a_part_with_a_flipped_byte_is_named_and_never_read_as_vectors(shelf):
    path = broken_part(shelf, "flipped")
    with pytest.raises(StoreError, match=rf"{os.path.basename(path)}.*Delete the file"):
        fresh(shelf).get([key(i) for i in range(2, 300)])


def test_without_the_damaged_part_the_rest_is_read(shelf):
    path = broken_part(shelf, "truncated")
    os.unlink(path)
    assert fresh(shelf).contains([key(1), key(2)]).tolist() == [True, False]


def test_a_part_that_went_away_is_named(shelf):
    path = shelf.write([key(1)], dense([1, 0]))
    reader = fresh(shelf)
    os.unlink(path)
    with pytest.raises(StoreError, match=os.path.basename(path)):
        reader.get([key(1)])


@pytest.mark.parametrize(
    "columns",
    [
        {"id": ["a", "b"], "score": [1.0, 2.0]},
        {"key": ["a", "b"]},
        {"key": pa.array([None, None], pa.binary(32)), "tokens": [1, 1], "vector": [b"", b""]},
        {"key": [1, 2]},
    ],
    ids=["other columns", "short keys", "no keys", "numbers"],
)
def test_a_parquet_file_of_something_else_is_named(shelf, columns):
    storage.make_folder(shelf.folder)
    pq.write_table(pa.table(columns), storage.join(shelf.folder, "foreign.parquet"))
    with pytest.raises(StoreError, match=r"foreign\.parquet.*Delete the file"):
        fresh(shelf)


@pytest.mark.parametrize("metadata", [{}, {"dim": "3", "dtype": "float32"}, {"dim": "2", "dtype": "nonsense"}])
def test_a_part_whose_vectors_have_no_known_shape_is_named(shelf, metadata):
    storage.make_folder(shelf.folder)
    schema = pa.schema([("key", pa.binary(32)), ("tokens", pa.int32()), ("vector", pa.large_binary())], metadata)
    vector = np.ones(2, np.float32).tobytes()
    pq.write_table(pa.table([[key(1)], [1], [vector]], schema=schema), storage.join(shelf.folder, "odd.parquet"))
    with pytest.raises(StoreError, match=r"odd\.parquet is no part of an embedding store.*Delete the file"):
        fresh(shelf).get([key(1)])


def test_a_part_whose_token_counts_do_not_fit_its_vectors_is_named(shelf):
    good = pq.read_table(shelf.write([key(1), key(2)], random_ragged([2, 1])))
    os.unlink(storage.list_files(shelf.folder)[0])
    wrong = good.set_column(1, "tokens", pa.array([1, 1], pa.int32()))
    pq.write_table(wrong, storage.join(shelf.folder, "wrong.parquet"))
    with pytest.raises(StoreError, match=r"wrong\.parquet is no part"):
        fresh(shelf).get([key(1)])


def test_dims_are_told_without_the_vectors(shelf, monkeypatch):
    shelf.write([key(1), key(2)], dense([1, 0], [2, 0]))
    shelf.write([key(3)], dense([1, 0, 4]))
    monkeypatch.setattr("raylib.store.embeddings._read_part", None)
    assert fresh(shelf).dims([key(3), key(1), key(3), key(2)]).tolist() == [3, 2, 3, 2]


def test_a_part_that_names_no_dim_is_named(shelf):
    path = shelf.write([key(1)], dense([1, 0]))
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    with pytest.raises(StoreError, match=r"part-.*\.parquet is no part of an embedding store \(it names no dim\)"):
        fresh(shelf).dims([key(1)])


def test_encoder_json_says_whose_vectors_these_are(shelf):
    shelf.describe({"family": "clip", "dim": 512})
    written = json.loads(Path(shelf.folder, "encoder.json").read_text())
    assert written == {"fingerprint": FINGERPRINT, "identity": {"family": "clip", "dim": 512}}
    shelf.describe({"family": "ignored, for it is described already"})
    assert json.loads(Path(shelf.folder, "encoder.json").read_text()) == written


def test_the_folder_of_another_encoder_is_refused(shelf, tmp_path):
    other = Shelf(str(tmp_path), FINGERPRINT[:16] + "f" * 48)
    assert other.folder == shelf.folder, "a collision of the first 16 digits"
    shelf.describe({})
    with pytest.raises(StoreError, match=rf"belongs to encoder {FINGERPRINT}, not {other.fingerprint}"):
        other.describe({})


@pytest.mark.parametrize("text", ["{", "[1]", '"text"'])
def test_an_encoder_json_that_cannot_be_read_is_named(shelf, text):
    storage.write_text(storage.join(shelf.folder, "encoder.json"), text)
    with pytest.raises(StoreError, match=r"encoder\.json cannot be read.*Delete"):
        shelf.describe({})


def test_shelves_of_two_encoders_do_not_meet(tmp_path):
    one, two = Shelf(str(tmp_path), "1" * 64), Shelf(str(tmp_path), "2" * 64)
    one.write([key(1)], dense([1, 0]))
    two.refresh()
    assert not two.contains([key(1)]).any()


def test_a_full_disk_leaves_the_store_as_it_was(shelf, monkeypatch):
    shelf.write([key(1)], dense([1, 0]))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("raylib.storage.os.fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            shelf.write([key(2)], dense([2, 0]))
    reader = fresh(shelf)
    assert reader.contains([key(1), key(2)]).tolist() == [True, False]
    assert len(os.listdir(shelf.folder)) == 1


def test_a_pickled_shelf_reads_for_itself(shelf):
    shelf.write([key(1)], dense([1, 2]))
    shelf.refresh()
    size_before = len(pickle.dumps(Shelf(os.path.dirname(shelf.folder), FINGERPRINT)))
    data = pickle.dumps(shelf)
    assert len(data) == size_before, "its index stays at home"
    copy = pickle.loads(data)
    assert not copy.contains([key(1)]).any()
    assert copy.get([key(1)]).dense().tolist() == [[1, 2]]


def test_a_store_may_lie_in_an_object_store():
    root = f"memory://store-{uuid.uuid4().hex}"
    shelf = Shelf(root, FINGERPRINT)
    shelf.describe({"family": "clip"})
    shelf.write([key(1), key(2)], random_ragged([2, 3]))
    reader = Shelf(root, FINGERPRINT)
    reader.describe({})
    assert (reader.get([key(2)])[0] == random_ragged([2, 3])[1]).all()


def write_many(root, first):
    shelf = Shelf(root, FINGERPRINT)
    shelf.describe({"family": "many"})
    for i in range(first, first + 20):
        shelf.write([key(i), key(1000)], dense([i, 0], [1000, 0]))


def test_two_processes_write_at_once_without_a_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(str(tmp_path), first)) for first in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    shelf = Shelf(str(tmp_path), FINGERPRINT)
    found = shelf.get([key(i) for i in [*range(40), 1000]]).dense()[:, 0]
    assert found.tolist() == [*range(40), 1000]
