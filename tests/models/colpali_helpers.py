"""colpali-engine called by hand, and what its output is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raylib.models.colpali import ColPaliEngineEncoder
from raylib.models.families_colpali import COLPALI_ENGINE
from raylib.models.family import Family
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.types import Batch, Embeddings, Role

DOCUMENT: Role = "document"
QUERY: Role = "query"
FAMILY: Mapping[str, Family] = {entry.settings["model"]: entry for entry in COLPALI_ENGINE}

MAX_DIFFERENCE = 1e-6
"""Of a component of a unit vector in float32, between a batch of four and a batch of one."""

PROCESSOR = {
    "ColPali": "ColPaliProcessor",
    "BiPali": "ColPaliProcessor",
    "ColQwen2": "ColQwen2Processor",
    "ColQwen2_5": "ColQwen2_5_Processor",
    "BiQwen2": "BiQwen2Processor",
    "BiQwen2_5": "BiQwen2_5_Processor",
    "ColQwen3": "ColQwen3Processor",
    "BiQwen3": "BiQwen3Processor",
    "ColQwen3_5": "ColQwen3_5Processor",
    "BiQwen3_5": "BiQwen3_5Processor",
    "ColIdefics3": "ColIdefics3Processor",
    "BiIdefics3": "BiIdefics3Processor",
    "ColModernVBert": "ColModernVBertProcessor",
    "BiModernVBert": "BiModernVBertProcessor",
}
PREFIX = dict.fromkeys(("ColPali", "ColQwen2", "ColQwen2_5", "ColIdefics3"), "Query: ")
"""What MTEB's wrappers put before a text; the others put nothing."""


def upstream_model(upstream: str, folder: Path) -> tuple[Any, Any]:
    """Model and processor as colpali-engine loads them. The key mapping goes round a bug in its Bi classes."""
    import colpali_engine.models as models

    options = {"key_mapping": {}} if upstream in ("BiQwen2", "BiQwen2_5") else {}
    model = getattr(models, upstream).from_pretrained(str(folder), **options)
    return model.eval(), getattr(models, PROCESSOR[upstream]).from_pretrained(str(folder))


def encode(encoder: Encoder, batch: Batch, role: Role) -> Embeddings:
    """Both halves, with the prompt that the model takes where neither task nor user gives one."""
    return encoder.encode(batch, encoder.context(None, role))


def run(model: Any, inputs: Mapping[str, Any], **options: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(**options, **{name: value for name, value in inputs.items() if name != "labels"}).numpy()


def query_inputs(upstream: str, processor: Any, texts: list[str]) -> Any:
    """As MTEB's ColPaliEngineWrapper."""
    suffix = processor.query_augmentation_token * 10
    return processor.process_texts([PREFIX.get(upstream, "") + text + suffix for text in texts])


def ours(upstream: str, folder: Path, **options: Any) -> ColPaliEngineEncoder:
    encoder = resolve(ModelSpec(str(folder), **options))
    assert isinstance(encoder, ColPaliEngineEncoder) and encoder.family is FAMILY[upstream]
    return encoder


def assert_same(got: Embeddings, expected: list[np.ndarray], tolerance: float = MAX_DIFFERENCE) -> None:
    """The same number of vectors for every content, each in the same direction and none further off than tolerance."""
    assert got.token_counts.tolist() == [len(item) for item in expected]
    wanted = np.concatenate(expected)
    cosines = (got.values * wanted).sum(1) / np.linalg.norm(got.values, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() >= 0.9999
    assert np.abs(got.values - wanted).max() <= tolerance


def rows(output: np.ndarray) -> np.ndarray:
    """[tokens, dim] of a batch of one: dense output is one row, and nothing is padding."""
    return output if output.ndim == 2 else output[0]
