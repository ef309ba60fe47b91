"""Batches whose texts lie end to end in rows: vectors are those of padding, and padding is what is saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from raylib.models.packed import can_pack, packing_of

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99}
ROBERTA = {**SIZES, "pad_token_id": 1, "max_position_embeddings": 202}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SIZES, max_position_embeddings=200)),
    "roberta": lambda: RobertaModel(RobertaConfig(**ROBERTA)),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**ROBERTA)),
}


def batch(lengths, width=None):
    """Random ids of these lengths; padding is 1, as RoBERTa's is."""
    width = width or max(lengths)
    ids = torch.ones(len(lengths), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 99, (length,))
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lengths", [[3, 9, 1, 30, 7], [40, 5, 6, 7, 8, 9, 60, 11, 2], [130, 4, 5, 150, 6]])
def test_states_are_those_of_the_padded_batch(name, lengths):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    inputs = batch(lengths)
    assert can_pack(model)
    packing = packing_of(model, inputs)
    assert packing is not None
    rows, width = packing.inputs["input_ids"].shape
    assert rows * width < 0.9 * len(lengths) * max(lengths)
    with torch.inference_mode():
        expected = model(**inputs).last_hidden_state * inputs["attention_mask"].unsqueeze(-1)
        found = packing.unpack(model(**packing.inputs).last_hidden_state)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_little_padding_a_lone_text_and_padding_on_the_left_are_left_as_they_are():
    model = MODELS["bert"]()
    assert packing_of(model, batch([20, 20, 19])) is None
    assert packing_of(model, batch([5], width=50)) is None
    flipped = {name: value.flip(1) for name, value in batch([3, 9, 1, 30]).items()}
    assert packing_of(model, flipped) is None


def test_models_of_other_positions_or_masks_are_not_packed():
    eager = BertModel(BertConfig(**SIZES, attn_implementation="eager"))
    assert not can_pack(eager)
    distil = DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=32, vocab_size=99))
    decoder = BertModel(BertConfig(**SIZES, is_decoder=True))
    assert not can_pack(distil) and not can_pack(decoder) and not can_pack(torch.compile(MODELS["bert"]()))
