"""raylib: train and judge retrieval embedding models on a Ray cluster.

Public names are imported on first use, so that `import raylib` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "RayModel": "raylib.cluster.model",
    "bench": "raylib.api",
    "encode": "raylib.api",
    "evaluate": "raylib.api",
    "extract": "raylib.api",
    "mine_batches": "raylib.api_training",
    "mine_negatives": "raylib.api_training",
    "probe": "raylib.api",
    "train": "raylib.api_training",
    "BenchConfig": "raylib.bench.config",
    "EncodeConfig": "raylib.encode.config",
    "EvaluateConfig": "raylib.evaluate.config",
    "BatchesConfig": "raylib.mine.config",
    "ExtractConfig": "raylib.extract.config",
    "NegativesConfig": "raylib.mine.config",
    "ProbeConfig": "raylib.probe.config",
    "TrainConfig": "raylib.train.config",
    "ModelSpec": "raylib.models.protocol",
    "SearchOptions": "raylib.search.options",
    "Embeddings": "raylib.types",
    "maxsim": "raylib.search.maxsim",
}

__all__ = [
    "BatchesConfig",
    "BenchConfig",
    "Embeddings",
    "EncodeConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "ModelSpec",
    "NegativesConfig",
    "ProbeConfig",
    "RayModel",
    "SearchOptions",
    "TrainConfig",
    "__version__",
    "bench",
    "encode",
    "evaluate",
    "extract",
    "maxsim",
    "mine_batches",
    "mine_negatives",
    "probe",
    "train",
]

if TYPE_CHECKING:
    from raylib.api import bench as bench
    from raylib.api import encode as encode
    from raylib.api import evaluate as evaluate
    from raylib.api import extract as extract
    from raylib.api import probe as probe
    from raylib.api_training import mine_batches as mine_batches
    from raylib.api_training import mine_negatives as mine_negatives
    from raylib.api_training import train as train
    from raylib.bench.config import BenchConfig as BenchConfig
    from raylib.cluster.model import RayModel as RayModel
    from raylib.encode.config import EncodeConfig as EncodeConfig
    from raylib.evaluate.config import EvaluateConfig as EvaluateConfig
    from raylib.extract.config import ExtractConfig as ExtractConfig
    from raylib.mine.config import BatchesConfig as BatchesConfig
    from raylib.mine.config import NegativesConfig as NegativesConfig
    from raylib.models.protocol import ModelSpec as ModelSpec
    from raylib.probe.config import ProbeConfig as ProbeConfig
    from raylib.search.maxsim import maxsim as maxsim
    from raylib.search.options import SearchOptions as SearchOptions
    from raylib.train.config import TrainConfig as TrainConfig
    from raylib.types import Embeddings as Embeddings


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'raylib' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
