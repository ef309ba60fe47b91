"""ONNX Runtime through C++: the graph and the settings of the runtime "onnx", without Python's binding between.

It shows what that binding costs. Texts are tokenised, and images brought to size, in Python, as for "onnx": `embed` is
that and one call into C++, `run` the call alone, which copies nothing in and one matrix out. The library of the
onnxruntime package is used, so that both rows are of one build; its C API is declared in the source, see there.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from raylib.bench.protocol import Target, folder_bytes, unit_vectors
from raylib.bench.runtimes.exported_runtime import content_tensors
from raylib.bench.runtimes.native_library import (
    COMPILERS,
    SOURCE,
    NativeSession,
    OtherOnnxRuntime,
    compiled,
    compiler,
)
from raylib.bench.runtimes.torch_runtime import EncoderRunner
from raylib.models.exported import ExportedEncoder
from raylib.types import Tensors


class OrtNativeRuntime(OtherOnnxRuntime):
    name: ClassVar[str] = "ort-native"
    language: ClassVar[str] = "c++"
    who: ClassVar[str] = "the C++ program"

    def hole(self, target: Target) -> str | None:
        reason = super().hole(target)
        if reason is None and compiler() is None:
            return f"no C++ compiler is here to compile {SOURCE.name} with; install one of {', '.join(COMPILERS)}"
        return reason

    def build(self, target: Target) -> None:
        super().build(target)
        compiled(target.cache)

    def load(self, target: Target) -> NativeRunner:
        encoder = self._encoder(target)
        path = encoder.graph(content_tensors(encoder, target))
        return NativeRunner(encoder, path, NativeSession(compiled(target.cache), path, target.threads))


class NativeRunner(EncoderRunner):
    def __init__(self, encoder: ExportedEncoder, path: Path, session: NativeSession) -> None:
        super().__init__(encoder, folder_bytes(path.parent))
        self.session = session

    def run(self, tensors: Tensors) -> np.ndarray:
        return unit_vectors(self.session.run(tensors))
