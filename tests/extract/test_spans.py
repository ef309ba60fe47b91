"""Where the image is in a prompt, and where HALP's scripts took it to be."""

import numpy as np
import pytest

from raylib.errors import ModelError
from raylib.extract.spans import LEGACY_POSITIONS, find_image, span_of


def prompt(tokens, image, **others):
    """A prompt of that many tokens, whose image tokens (7) are at these positions."""
    ids = np.ones((1, tokens), dtype=np.int64)
    ids[0, list(image)] = 7
    return {"input_ids": ids, **others}


def find_span(tensors, image_token, model, legacy=None):
    image = find_image(tensors["input_ids"], image_token, model)
    return span_of(image, tensors["input_ids"].shape[1], tensors, legacy)


def test_the_span_is_found_in_the_expanded_prompt():
    span = find_span(prompt(12, (3, 4, 6, 7)), 7, "some/model")
    assert span.image.tolist() == [3, 4, 6, 7]
    assert (span.vision, span.query, span.bounds) == (7, 11, (3, 8))


def test_a_prompt_without_its_image_is_the_models_fault():
    with pytest.raises(ModelError, match="some/model: no token 7, its image token, in a prompt of 5 tokens"):
        find_span(prompt(5, ()), 7, "some/model")


GRID = {"image_grid_thw": np.array([[1, 20, 30]])}


@pytest.mark.parametrize(
    ("family", "tokens", "others", "position"),
    [
        ("gemma3", 300, {}, 150),  # half of the prompt
        ("gemma3", 1000, {}, 255),
        ("qwen2_5_vl", 2000, GRID, 600),  # patches before they are merged
        ("qwen2_5_vl", 200, GRID, 100),
        ("qwen2_5_vl", 90, {}, 30),
        ("smolvlm", 900, {}, 225),
        ("smolvlm", 5000, {}, 800),
        ("smolvlm", 205, {}, 195),  # at least 200, but ten before the end
        ("smolvlm", 5, {}, 1),
        ("llava_next", 900, {}, 400),
        ("llava_next", 3000, {}, 1000),
        ("llava_next", 9000, {}, 1500),
        ("mllama", 50, {}, 9),
        ("phi4_multimodal", 50, {}, 9),
        ("molmo", 50, {}, 10),
        ("molmo", 10, {}, 9),  # never past the prompt
        ("fast_vlm", 50, {}, 2),
        ("llava_qwen2", 50, {}, 2),
    ],
)
def test_legacy_positions_are_those_of_the_scripts(family, tokens, others, position):
    inputs = prompt(tokens, range(2, min(10, tokens)), **others)
    span = find_span(inputs, 7, "some/model", LEGACY_POSITIONS[family])
    assert span.vision == position
    assert span.query == tokens - 1 and span.image[0] == 2, "only the vision token moves"
