"""The path of an accelerator, its blocks run on the CPU; on CUDA where there is one."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.search.canonical import rounding_bound
from raylib.search.maxsim import maxsim
from raylib.search.maxsim_device import maxsim_on_device
from tests.search.test_maxsim import ragged

QUERIES, DOCUMENTS = ragged([25, 3, 1, 40], dim=64, seed=1), ragged([700, 1, 33, 90, 5], dim=64, seed=2)


def cuda_is_here():
    import torch

    return torch.cuda.is_available()


@pytest.mark.parametrize("memory", [2**28, 2**18, 1])
def test_blocks_of_any_size_agree(memory):
    scores = maxsim_on_device(QUERIES, DOCUMENTS, precision="float32", device="cpu", memory=memory)
    bound = rounding_bound(QUERIES, 1.0001, "maxsim")
    assert scores.dtype == np.float32
    assert (np.abs(scores - maxsim(QUERIES, DOCUMENTS)) <= bound[:, None]).all()


def test_negative_similarities_stay_negative():
    queries, documents = ragged([4, 2], shift=3.0, seed=6), ragged([1, 50, 2], shift=-3.0, seed=7)
    scores = maxsim_on_device(queries, documents, precision="float32", device="cpu", memory=2**20)
    np.testing.assert_allclose(scores, maxsim(queries, documents), atol=1e-5)
    assert (scores < -0.5).all()


def test_bfloat16_is_an_estimate():
    scores = maxsim_on_device(QUERIES, DOCUMENTS, precision="bfloat16", device="cpu", memory=2**28)
    assert (np.abs(scores - maxsim(QUERIES, DOCUMENTS)) <= 0.01 * QUERIES.token_counts[:, None]).all()


def test_a_users_choice_of_tf32_is_left_as_it_was():
    import torch

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        maxsim_on_device(QUERIES, DOCUMENTS, precision="float32", device="cpu", memory=2**28)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif("cuda_is_here()", reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match="torch sees no CUDA device"):
        maxsim(QUERIES, DOCUMENTS, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_cuda_agrees_with_the_cpu(dtype):
    if not cuda_is_here():
        pytest.skip("needs a CUDA device")
    queries, documents = QUERIES.astype(dtype), DOCUMENTS.astype(dtype)
    bound = rounding_bound(queries, 1.001, "maxsim")
    on_device = maxsim(queries, documents, device="cuda")
    assert (np.abs(on_device - maxsim(queries, documents)) <= bound[:, None]).all()
