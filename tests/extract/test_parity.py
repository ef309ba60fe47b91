"""Every architecture against the plain procedure, row by row: the same states whatever batch, padding and layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raylib.extract.extractor import Extractor
from raylib.models.protocol import ModelSpec
from raylib.store.representations import KINDS, Representation

from .checkpoints import ALL_BUILDERS
from .checkpoints.remote import BUILDERS_REMOTE
from .made import rows
from .references import ReferenceRow, reference

TOLERANCE = 1e-4
"""Of states that reach 30: rounding differs with the shapes of a batch, and with where its padding is."""


def spec_of(name, folder, **options):
    return ModelSpec(str(folder), trust_remote_code=name in BUILDERS_REMOTE, **options)


def expected_states(row: ReferenceRow, layer: int) -> dict[str, np.ndarray]:
    """By kind: what the definitions say, from all hidden states of a layer."""
    hidden = row.layers[layer]
    image = np.zeros(len(hidden), dtype=bool)
    image[row.image_positions] = True
    return {
        "vision_only": row.vision_only,
        "vision_token": hidden[max(row.image_positions)],
        "query_token": hidden[row.query_position],
        "multimodal": hidden.mean(axis=0),
        "image_mean": hidden[image].mean(axis=0),
        "text_mean": hidden[~image].mean(axis=0),
    }


@pytest.mark.parametrize("name", ALL_BUILDERS)
def test_a_batch_of_mixed_rows_equals_the_rows_alone(name, checkpoint):
    folder = checkpoint(name)
    extractor = Extractor(spec_of(name, folder), "0,1/4,1/2,3/4,-1")
    prepared = [extractor.prepare(row.question, row.image) for row in rows()]
    alone = [reference(name, folder, row.image, row.question, extractor.layers) for row in rows()]
    assert len({row.tokens for row in prepared}) > 3, "the rows differ in length, so that there is padding"
    assert [(list(row.span.image), row.span.query) for row in prepared] == [
        (row.image_positions, row.query_position) for row in alone
    ]
    for side in ("right", "left"):
        check(extractor.forward(prepared, side).values, alone, extractor.layers, f"padding on the {side}")
    one_by_one = [extractor.forward([row]).values for row in prepared]
    joined = {key: np.concatenate([values[key] for values in one_by_one]) for key in one_by_one[0]}
    check(joined, alone, extractor.layers, "batches of one")


def check(values, alone, layers, what):
    assert {key.kind for key in values} == set(KINDS)
    for key, found in values.items():
        wanted = np.stack([expected_states(row, key.layer or layers[0])[key.kind] for row in alone])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE, err_msg=f"{what}: {key.path}")


@pytest.mark.parametrize("name", ALL_BUILDERS)
def test_fewer_layers_give_the_same_states_from_a_shorter_forward(name, checkpoint):
    everything = Extractor(spec_of(name, checkpoint(name)), "all")
    some = Extractor(spec_of(name, checkpoint(name)), "0,1/2")
    prepared = [everything.prepare(row.question, row.image) for row in rows()[:3]]
    whole, part = everything.forward(prepared).values, some.forward(prepared).values
    assert {key.layer for key in part} == {None, 0, everything.depth // 2}
    for key, found in part.items():
        np.testing.assert_array_equal(found, whole[key])
    ran = []
    hook = some.anatomy.blocks[-1].register_forward_hook(lambda *_: ran.append(1))
    some.forward(prepared)
    hook.remove()
    assert not ran, "no block after the last asked one is run"


def test_the_query_token_of_different_questions_differs(checkpoint):
    extractor = Extractor(ModelSpec(str(checkpoint("gemma3"))), "-1")
    image = rows()[0].image
    values = extractor.forward([extractor.prepare(text, image) for text in ("Why?", "How?")]).values
    last = values[Representation("query_token", extractor.depth - 1)]
    assert abs(last[0] - last[1]).max() > 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ALL_BUILDERS)
def test_a_gpu_gives_the_states_of_the_cpu(name, dtype, checkpoint):
    """In bfloat16 by direction: its numbers have 8 bits."""
    on_gpu = Extractor(spec_of(name, checkpoint(name), dtype=dtype, device="cuda"), "0,-1")
    on_cpu = Extractor(spec_of(name, checkpoint(name), device="cpu"), "0,-1")
    prepared = [on_cpu.prepare(row.question, row.image) for row in rows()]
    found, wanted = on_gpu.forward(prepared).values, on_cpu.forward(prepared).values
    for key, states in wanted.items():
        if dtype == "float32":
            np.testing.assert_allclose(found[key], states, rtol=0, atol=1e-2, err_msg=key.path)
        cosine = (found[key] * states).sum(axis=1) / np.linalg.norm(found[key], axis=1) / np.linalg.norm(states, axis=1)
        assert cosine.min() > (0.99 if dtype == "bfloat16" else 0.99999), key.path
