"""Which contents share a forward."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from raylib.examples.examples import read_examples
from raylib.train.feed import ContentFeed, Piece

from .made_runs import encoder_of

WORDS = (3, 1, 8, 2, 8, 5, 1)
"""Of the documents, in the order of the data; a word is one letter."""


def feed_of(model: str, rows: list[dict[str, str]], folder: Path, micro: int | None) -> ContentFeed:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ContentFeed(encoder_of(model), read_examples(str(data), root=str(folder)), micro)


def texts() -> list[dict[str, str]]:
    return [{"query": f"q{i}", "pos": " ".join("abcdefg"[i] * n)} for i, n in enumerate(WORDS)]


def positions(pieces: list[Piece]) -> list[list[int]]:
    return [piece.positions.tolist() for piece in pieces]


def test_texts_of_about_one_length_share_a_piece(tiny: Mapping[str, str], tmp_path: Path) -> None:
    feed = feed_of(tiny["dense"], texts(), tmp_path, 3)
    numbers = feed.examples.positive
    pieces = feed.pieces("document", numbers)
    assert positions(pieces) == [[2, 4, 5], [0, 3, 1], [6]], "the longest first, the same order for equal ones"
    for piece in pieces:
        alone = [feed.pieces("document", numbers[[at]])[0].tensors["input_ids"][0] for at in piece.positions]
        for row, expected in zip(piece.tensors["input_ids"], alone, strict=True):
            np.testing.assert_array_equal(row[: len(expected)], expected)
    widths = [piece.tensors["input_ids"].shape[1] for piece in pieces]
    assert widths == [widths[2] + 7, widths[2] + 2, widths[2]], "nothing is padded further than its piece needs"


def test_texts_of_one_forward_stay_in_order(tiny: Mapping[str, str], tmp_path: Path) -> None:
    for micro in (None, 7):
        feed = feed_of(tiny["dense"], texts(), tmp_path, micro)
        assert positions(feed.pieces("document", feed.examples.positive)) == [[0, 1, 2, 3, 4, 5, 6]]


def test_pages_stay_in_order_and_apart_from_texts(tiny: Mapping[str, str], tmp_path: Path) -> None:
    rows = texts()
    for i in (0, 2, 3, 5):
        Image.new("RGB", (40 + 8 * i, 60), (40 * i, 90, 0)).save(tmp_path / f"{i}.png")
        rows[i]["pos"] = f"{i}.png"
    feed = feed_of(tiny["dense"], rows, tmp_path, 2)
    pieces = feed.pieces("document", feed.examples.positive)
    of = {name: [piece for piece in pieces if name in piece.tensors] for name in ("pixel_values", "input_ids")}
    assert positions(of["pixel_values"]) == [[0, 2], [3, 5]]
    assert positions(of["input_ids"]) == [[4, 1], [6]]
