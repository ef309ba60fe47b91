"""PyTorch, as raylib runs a model everywhere else: eager and compiled."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raylib.bench.protocol import Runner, Runtime, Target, unit_vectors
from raylib.errors import ModelError, UserError
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.models.torch_encoder import TorchEncoder
from raylib.models.weights import local_folder, model_location
from raylib.store.manifests import versions
from raylib.types import Batch, EncodeContext, Tensors

_COMPILERS = ("c++", "g++", "clang++", "cl")


class EncoderRunner(Runner):
    """A raylib encoder. Tokenizers are no good in two threads at once, so clients take turns at them."""

    def __init__(self, encoder: Encoder, disk_bytes: int) -> None:
        self.encoder: Any = encoder
        self.disk_bytes = disk_bytes
        self._one_at_a_time = threading.Lock()

    def embed(self, contents: Batch) -> np.ndarray:
        return self.run(self.prepare(contents))

    def prepare(self, contents: Batch) -> Tensors:
        with self._one_at_a_time:
            return self.encoder.preprocess(contents, EncodeContext(None))

    def run(self, tensors: Tensors) -> np.ndarray:
        return unit_vectors(self.encoder.forward(tensors).dense())


class TorchRuntime(Runtime):
    """bf16: weights and arithmetic. int8: weights of linear layers, and what goes into them by the range of each call
    (dynamic quantisation), on CPUs only."""

    name: ClassVar[str] = "torch"

    def spec(self, target: Target) -> ModelSpec:
        return replace(target.spec, dtype="bfloat16") if target.precision == "bf16" else target.spec

    def hole(self, target: Target) -> str | None:
        try:
            encoder = resolve(self.spec(target))
        except UserError as error:
            return str(error)
        if not isinstance(encoder, TorchEncoder) or encoder.similarity not in ("cosine", "dot"):
            return f"{target.spec.name} is no model of torch with one vector a content; bench measures such"
        if target.tower not in encoder.modalities:
            return f"{target.spec.name} reads no {target.tower}s"
        if target.precision == "int8" and (target.spec.device or "cpu") != "cpu":
            return "PyTorch's dynamic quantisation runs on CPUs only; leave int8 or --device out"
        return None

    def build(self, target: Target) -> None:
        """Nothing: PyTorch reads the model's own files."""

    def load(self, target: Target) -> EncoderRunner:
        import torch

        torch.set_num_threads(target.threads)
        encoder: Any = resolve(self.spec(target))
        if target.precision == "int8":
            quantise(encoder)
        encoder.load()
        return EncoderRunner(encoder, weights_bytes(target.spec))

    def encoder_spec(self, target: Target) -> ModelSpec | None:
        return self.spec(target) if target.precision != "int8" else None

    def versions(self) -> Mapping[str, str]:
        return versions(("raylib-cluster", "torch", "transformers", "sentence-transformers"))


class TorchCompileRuntime(TorchRuntime):
    """The layers of the model compiled, each for any length, as `--compile` has them elsewhere in raylib."""

    name: ClassVar[str] = "torch-compile"

    def spec(self, target: Target) -> ModelSpec:
        return replace(super().spec(target), compile=True)

    def hole(self, target: Target) -> str | None:
        import shutil

        if target.precision == "int8":
            return "layers that PyTorch has quantised dynamically are not compiled; use torch for int8"
        if (target.spec.device or "cpu") == "cpu" and not any(map(shutil.which, _COMPILERS)):
            return f"torch.compile needs a C++ compiler on a CPU; install one of {', '.join(_COMPILERS[:3])}"
        return super().hole(target)


def quantise(encoder: Any) -> None:
    """Replace the linear layers of an encoder's model by PyTorch's dynamically quantised ones."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it moves to another package one day, and says so at every call
        encoder.model = torch.ao.quantization.quantize_dynamic(encoder.model, {torch.nn.Linear}, dtype=torch.qint8)


def weights_bytes(spec: ModelSpec) -> int:
    """Of the files of weights of a model, and of its adapter. Raises ModelError where they are not on this disk."""
    folder = local_folder(model_location(spec), spec.revision)
    if folder is None:
        raise ModelError(f"{spec.name} is neither a folder nor in the local hub cache")
    folders = [folder] + ([Path(spec.adapter)] if spec.adapter is not None else [])
    files = [path for where in folders for path in where.rglob("*") if path.is_file()]
    for suffixes in ((".safetensors",), (".bin", ".pt")):  # where both are there, the first is read
        sizes = [path.stat().st_size for path in files if path.suffix in suffixes]
        if sizes:
            return sum(sizes)
    raise ModelError(f"{folder} holds no weights; copy the model again")
