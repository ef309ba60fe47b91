"""ONNX Runtime through C++: the graph and the settings of the runtime "onnx", without Python's binding between.

It shows what that binding costs. Texts are tokenised, and images brought to size, in Python, as for "onnx": `embed` is
that and one call into C++, `run` the call alone, which copies nothing in and one matrix out. The library of the
onnxruntime package is used, so that both rows are of one build; its C API is declared in the source, see there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from raylib.bench.protocol import Target
from raylib.bench.runtimes.exported_runtime import OnnxRuntime, content_tensors
from raylib.bench.runtimes.hub_layout import unit_vectors
from raylib.bench.runtimes.native_library import (
    COMPILERS,
    SOURCE,
    NativeSession,
    compiled,
    compiler,
    runtime_library,
)
from raylib.bench.runtimes.torch_runtime import EncoderRunner
from raylib.models.exported import ExportedEncoder
from raylib.models.protocol import ModelSpec
from raylib.types import Tensors


class OrtNativeRuntime(OnnxRuntime):
    name: ClassVar[str] = "ort-native"
    language: ClassVar[str] = "c++"

    def spec(self, target: Target) -> ModelSpec:
        return replace(target.spec, runtime=OnnxRuntime.name, precision=target.precision, device="cpu")

    def hole(self, target: Target) -> str | None:
        if (target.spec.device or "cpu") != "cpu":
            return "the C++ program runs ONNX Runtime on CPUs only; leave --device out"
        reason = super().hole(target)
        if reason is not None:
            return reason
        if runtime_library() is None:
            return "the onnxruntime package has no shared library beside its binding; install its wheel from PyPI"
        if compiler() is None:
            return f"no C++ compiler is here to compile {SOURCE.name} with; install one of {', '.join(COMPILERS)}"
        return None

    def build(self, target: Target) -> None:
        super().build(target)
        compiled(target.cache)

    def load(self, target: Target) -> NativeRunner:
        encoder = self._encoder(target)
        path = encoder.graph(content_tensors(encoder, target))
        return NativeRunner(encoder, path, NativeSession(compiled(target.cache), path, target.threads))

    def encoder_spec(self, target: Target) -> ModelSpec | None:
        """None: `raylib evaluate` runs the same graph through Python, and gives the quality of "onnx"."""
        return None


class NativeRunner(EncoderRunner):
    def __init__(self, encoder: ExportedEncoder, path: Path, session: NativeSession) -> None:
        super().__init__(encoder, sum(file.stat().st_size for file in path.parent.iterdir()))
        self.session = session

    def run(self, tensors: Tensors) -> np.ndarray:
        return unit_vectors(self.session.run(tensors), None)
