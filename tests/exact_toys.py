"""Toy MTEB models whose vectors or scores depend on what else is in the call: what `--exact-mteb` must reproduce."""

from __future__ import annotations

from typing import Any

import numpy as np
from mteb.models.model_meta import ScoringFunction

from tests.toys import DIM, ToyModel, meta


class PaddedLate(ToyModel):
    """Late interaction as MTEB's ColPali wrappers give it: one tensor a call, padded with zeros to its longest content.

    Every token is a unit vector, and tokens of queries point away from the others' common direction: many maxima are
    negative, and there a padding token, which scores 0, wins. So a score depends on the longest document of the call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mteb_model_meta = meta("padded", ScoringFunction.MAX_SIM)

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ):
        import torch

        del task_metadata, hf_split, hf_subset, kwargs
        side = -1.0 if prompt_type is not None and prompt_type.value == "query" else 1.0
        common = side * np.full(DIM, 0.12, np.float32)
        matrices = [torch.from_numpy(matrix + common) for matrix in self._matrices(inputs)]
        return torch.nn.utils.rnn.pad_sequence(matrices, batch_first=True)


class BatchMean(ToyModel):
    """Dense; each vector holds a little of its batch's mean, as batch normalisation would have it."""

    def __init__(self) -> None:
        super().__init__()
        self.mteb_model_meta = meta("batch-mean", ScoringFunction.COSINE)

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ):
        del task_metadata, hf_split, hf_subset, prompt_type, kwargs
        parts = []
        for batch in inputs:
            vectors = np.stack([matrix.mean(axis=0) for matrix in self._matrices([batch])])
            parts.append(vectors + 0.5 * vectors.mean(axis=0) + np.float32(0.001 * len(vectors)))
        return np.concatenate(parts)


class CallMean(ToyModel):
    """Dense; each vector holds a little of the whole call's mean: it cannot be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.mteb_model_meta = meta("call-mean", ScoringFunction.COSINE)

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ):
        del task_metadata, hf_split, hf_subset, prompt_type, kwargs
        vectors = np.stack([matrix.mean(axis=0) for matrix in self._matrices(inputs)])
        return vectors + vectors.mean(axis=0)


def padded() -> PaddedLate:
    return PaddedLate()


def batch_mean() -> BatchMean:
    return BatchMean()


def call_mean() -> CallMean:
    return CallMean()


LATE_MOCKS = (
    "MockAny2AnyRetrievalI2TTask",
    "MockAny2AnyRetrievalT2ITask",
    "MockBitextMiningTask",
    "MockInstructionReranking",
    "MockInstructionRetrieval",
    "MockMultiChoiceTask",
    "MockMultilingualBitextMiningTask",
    "MockMultilingualInstructionReranking",
    "MockMultilingualInstructionRetrieval",
    "MockMultilingualMultiChoiceTask",
    "MockMultilingualParallelBitextMiningTask",
    "MockMultilingualRerankingTask",
    "MockMultilingualRetrievalTask",
    "MockRerankingTask",
    "MockRetrievalDialogTask",
    "MockRetrievalTask",
    "MockTextZeroShotClassificationTask",
)
"""What MTEB itself can do with padded token matrices."""


def unequal(got: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Where two runs differ by anything at all; NaN equals NaN."""
    if got.keys() != expected.keys():
        return [f"only one run has {sorted(got.keys() ^ expected.keys())}"]
    same = {k: got[k] == expected[k] or (got[k] != got[k] and expected[k] != expected[k]) for k in expected}
    return [f"{k}: {got[k]}, expected {expected[k]}" for k in expected if not same[k]]
