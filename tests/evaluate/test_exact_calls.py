"""Cutting one `encode` call and putting its results together."""

from __future__ import annotations

import numpy as np
import pytest

from raylib.errors import ModelError
from raylib.evaluate.exact_calls import (
    Call,
    Cut,
    ItemRows,
    cuts_of,
    encode_rows,
    in_memory,
    join,
    length_order,
    same_bits,
    take,
)


def test_cuts_keep_batches_together():
    cuts = cuts_of(70, 16, 2, images=False)

    assert cuts == [Cut(0, 16), Cut(16, 32), Cut(32, 48), Cut(48, 64), Cut(64, 70)]


def test_cuts_are_a_few_for_each_worker():
    cuts = cuts_of(16 * 80, 16, 2, images=False)

    assert [cut.stop - cut.start for cut in cuts] == [160] * 8
    assert max(cut.stop - cut.start for cut in cuts_of(10**6, 16, 2, images=True)) == 8 * 16


def test_dense_pieces_are_put_one_below_the_other():
    import torch

    array = np.arange(12, dtype=np.float16).reshape(6, 2)

    assert same_bits(join([array[:4], array[4:]]), array)
    tensor = torch.from_numpy(array).bfloat16()
    assert same_bits(join([tensor[:4], tensor[4:]]), tensor)


def test_padded_pieces_are_padded_to_the_longest_of_all():
    import torch

    first, second = np.ones((1, 1, 2), np.float32), np.full((2, 3, 2), 2, np.float32)
    expected = [[[1, 1], [0, 0], [0, 0]], *[[[2, 2]] * 3] * 2]

    assert join([first, second]).tolist() == expected
    joined = join([torch.from_numpy(first), torch.from_numpy(second)])
    assert isinstance(joined, torch.Tensor) and joined.tolist() == expected


def test_lists_stay_lists():
    parts = [[np.ones((1, 2)), np.ones((3, 2))], [np.zeros((2, 2))]]

    joined = join(parts)

    assert isinstance(joined, list) and [len(item) for item in joined] == [1, 3, 2]


def test_sparse_pieces_stay_sparse():
    import torch

    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])

    joined = join([dense[:2].to_sparse(), dense[2:].to_sparse()])

    assert joined.is_sparse and joined.to_dense().tolist() == dense.tolist()
    assert take(joined, np.array([2, 0])).to_dense().tolist() == [[0, 3], [0, 1]]


def test_pieces_of_two_kinds_are_an_error():
    with pytest.raises(ModelError, match=r"list\[1\], ndarray\[1, 2\]"):
        join([np.ones((1, 2)), [np.ones(2)]])


def test_bits_count_and_not_values():
    import torch

    assert same_bits(np.array([[np.nan]]), np.array([[np.nan]]))
    assert not same_bits(np.array([[0.0]]), np.array([[-0.0]]))
    assert not same_bits(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float64))
    assert not same_bits(np.zeros((1, 2), np.float32), torch.zeros(1, 2))
    assert not same_bits([np.zeros(2)], [np.zeros(3)])


def test_the_order_is_that_of_sentence_transformers():
    assert length_order(["aa", "a", "aaaa", "aaa"]).tolist() == [2, 3, 0, 1]


def test_rows_in_memory_hold_their_files(tmp_path):
    import datasets
    from PIL import Image

    path = tmp_path / "page.png"
    Image.new("RGB", (3, 2), "red").save(path)
    rows = datasets.Dataset.from_dict({"id": ["a", "b", "c"], "image": [str(path)] * 3})
    rows = rows.cast_column("image", datasets.Image())
    picked = in_memory(rows.select([2, 1]))
    path.unlink()

    assert picked["id"][:] == ["c", "b"]
    assert picked.features == rows.features and picked.num_rows == 2
    assert picked.data.nbytes < 2_000, "only these rows travel"
    assert picked[0]["image"].getpixel((0, 0)) == (255, 0, 0)


def test_rows_that_are_no_data_set_can_be_cut():
    rows = ItemRows([{"image": i} for i in range(5)], {"image": []})

    piece = in_memory(rows.select(range(2, 4)))

    assert len(piece) == 2 and piece[1] == {"image": 3}
    assert piece.column_names == ["image"] and "image" in piece.features


def backwards(texts):
    """The longest first, and of one length the last first: as unstable as a sort can be."""
    return np.lexsort([-np.arange(len(texts)), [-len(text) for text in texts]])


class Sorting:
    """Runs texts as sentence-transformers does, in the order of such a sort, and gives each its place in it."""

    def encode(self, inputs, **kwargs):
        texts = [text for batch in inputs for text in batch["text"]]
        return np.argsort(backwards(texts))[:, None].astype(np.float32)


def test_texts_of_one_length_keep_their_places_in_a_batch(monkeypatch):
    """The library sorts each batch once more; numpy's sort, on some processors, moves equals."""
    import datasets
    from torch.utils.data import default_collate

    monkeypatch.setattr("raylib.evaluate.exact_calls.length_order", backwards)
    rng = np.random.default_rng(1)
    texts = ["x" * int(rng.integers(1, 20)) for _ in range(96)]
    rows = datasets.Dataset.from_dict({"text": texts}).select(backwards(texts))
    call = Call(None, "test", "default", None, {}, 32, default_collate)

    got = encode_rows(Sorting(), call, rows, Cut(0, 96, per_call=32))

    assert got[:, 0].tolist() == list(range(32)) * 3
