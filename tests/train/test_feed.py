"""Which contents of a batch are forwarded together."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raylib.examples.examples import read_examples
from raylib.train.feed import ContentFeed

from .made_runs import encoder_of


def feed_of(tiny: Mapping[str, str], path: Path, words: list[int], micro: int | None) -> ContentFeed:
    """Over documents of so many words."""
    rows = [{"query": f"page {i}", "pos": f"{'list ' * n}{i}"} for i, n in enumerate(words)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ContentFeed(encoder_of(tiny["dense"]), read_examples(str(path)), micro)


def test_pieces_hold_texts_of_about_one_length(tiny: Mapping[str, str], tmp_path: Path) -> None:
    feed = feed_of(tiny, tmp_path / "pairs.jsonl", [9, 1, 40, 2, 7, 3], micro=2)
    asked = np.array([5, 0, 3, 2, 1])  # of 3, 9, 2, 40 and 1 words
    pieces = feed.pieces("document", asked)
    assert [piece.positions.tolist() for piece in pieces] == [[4, 2], [0, 1], [3]]
    masks = [piece.tensors["attention_mask"] for piece in pieces]
    assert [mask.shape[1] for mask in masks] == [int(mask.sum(axis=1).max()) for mask in masks]
    for piece, ids in zip(pieces, (piece.tensors["input_ids"] for piece in pieces), strict=True):
        for position, row, mask in zip(piece.positions, ids, piece.tensors["attention_mask"], strict=True):
            alone = feed.pieces("document", asked[position : position + 1])[0].tensors["input_ids"][0]
            np.testing.assert_array_equal(row[mask.astype(bool)], alone)


def test_what_is_forwarded_at_once_and_texts_of_one_length_stay_in_order(
    tiny: Mapping[str, str], tmp_path: Path
) -> None:
    whole = feed_of(tiny, tmp_path / "whole.jsonl", [9, 1, 4, 2], micro=None)
    for feed in (whole, feed_of(tiny, tmp_path / "fits.jsonl", [9, 1, 4, 2], micro=4)):
        assert [p.positions.tolist() for p in feed.pieces("document", np.arange(4))] == [[0, 1, 2, 3]]
    even = feed_of(tiny, tmp_path / "even.jsonl", [5, 5, 5], micro=2)
    assert [p.positions.tolist() for p in even.pieces("document", np.arange(3))] == [[0, 1], [2]]
