"""Rows that share an image: it is decoded and processed once while it is at hand, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from raylib.extract.extractor import Extractor
from raylib.extract.plan import Lengths, Part, cut_batches
from raylib.extract.recent import Recent
from raylib.extract.rows import VqaRow
from raylib.models.protocol import ModelSpec

from .checkpoints import BUILDERS
from .made import rows


def test_what_was_used_last_is_kept_as_far_as_it_fits():
    recent, made = Recent(most_bytes=10), []

    def get(key, size):
        return recent.get(key, lambda: made.append(key) or key * 2, lambda value: size)

    assert [get("a", 4), get("b", 4), get("a", 4)] == ["aa", "bb", "aa"]
    get("c", 4)  # b was used longest ago
    get("a", 4)
    get("b", 4)
    assert made == ["a", "b", "c", "b"]
    get("too large", 11)
    get("too large", 11)
    get("b", 4)
    assert made == ["a", "b", "c", "b", "too large", "too large"]


@pytest.mark.parametrize("name", BUILDERS)
def test_an_image_is_loaded_and_processed_once_for_all_its_questions(name, checkpoint, monkeypatch):
    extractor = Extractor(ModelSpec(str(checkpoint(name))), "0")
    images = type(extractor.reader.processor.image_processor)
    processed, loaded = [], []
    plain = images.preprocess

    def preprocess(self, *arguments, **options):
        processed.append(1)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(images, "preprocess", preprocess)

    def prepared(question, row):
        return extractor.prepare_named(question, row.image_name, lambda: loaded.append(1) or row.image)

    first, second = rows()[1], rows()[2]
    found = [prepared("Why?", first), prepared("And how many of them are there?", first), prepared("Why?", second)]
    found.append(prepared("Why not?", first))
    assert (len(loaded), len(processed)) == (2, 2)
    alone = [("Why?", first), ("And how many of them are there?", first), ("Why?", second), ("Why not?", first)]
    for row, (question, source) in zip(found, alone, strict=True):
        expected = extractor.prepare(question, source.image)
        assert row.tensors.keys() == expected.tensors.keys()
        for key, array in expected.tensors.items():
            np.testing.assert_array_equal(row.tensors[key], array)
    assert len(processed) == 2 + 4, "an image without a name is not remembered"


class Place:
    """An image that is not read."""


def test_rows_of_one_image_follow_one_another_where_they_are_nearly_as_long():
    """Lengths of 102 to 106 tokens are one step, 200 another."""
    marks, tokens = "abcabcab", [102, 103, 104, 105, 106, 102, 200, 200]
    part = Part(1, [VqaRow(i, f"q{i}", "", "?", "", {}, Place(), mark) for i, mark in enumerate(marks)])
    batches = list(cut_batches(part, Lengths(dict(enumerate(tokens)), None), 3, "settings"))
    order = [row.number for batch in batches for row in batch.rows]
    assert order == [6, 7, 3, 0, 4, 1, 2, 5], "longest first, then by image, longer questions first"
    assert [len(batch.rows) for batch in batches] == [3, 3, 2]
    assert len({batch.name for batch in batches}) == 3


def test_grey_and_transparent_images_are_decoded_as_alone(checkpoint):
    extractor = Extractor(ModelSpec(str(checkpoint("gemma3"))), "0")
    image = Image.new("LA", (30, 20), (90, 10))
    named, plain = extractor.prepare_named("Why?", "x", lambda: image), extractor.prepare("Why?", image)
    np.testing.assert_array_equal(named.tensors["pixel_values"], plain.tensors["pixel_values"])
