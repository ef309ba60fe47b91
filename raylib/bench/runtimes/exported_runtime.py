"""ONNX Runtime and OpenVINO through Python: the encoders that `raylib evaluate --runtime` runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from raylib.bench.inputs import photos
from raylib.bench.protocol import Runner, Runtime, Target, folder_bytes
from raylib.bench.runtimes.torch_runtime import EncoderRunner, TorchRuntime
from raylib.errors import UserError
from raylib.models.exported import ExportedEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.store.manifests import versions
from raylib.types import Batch, EncodeContext, Tensors


class _ExportedRuntime(Runtime):
    packages: ClassVar[tuple[str, ...]]

    def spec(self, target: Target) -> ModelSpec:
        return replace(target.spec, runtime=self.name, precision=target.precision)

    def hole(self, target: Target) -> str | None:
        reason = TorchRuntime().hole(replace(target, precision="fp32"))
        if reason is not None:
            return reason
        try:
            resolve(self.spec(target))
        except UserError as error:
            return str(error)
        return None

    def build(self, target: Target) -> None:
        """Export the graph of this tower, whose inputs the first content shows."""
        encoder = self._encoder(target)
        encoder.graph(content_tensors(encoder, target))

    def load(self, target: Target) -> Runner:
        encoder = self._encoder(target)
        tensors = content_tensors(encoder, target)
        encoder.session(tensors)
        return EncoderRunner(encoder, folder_bytes(encoder.graph(tensors).parent))

    def _encoder(self, target: Target) -> ExportedEncoder:
        encoder = resolve(self.spec(target))
        assert isinstance(encoder, ExportedEncoder), "hole has asked for it"
        encoder.threads = target.threads
        return encoder

    def encoder_spec(self, target: Target) -> ModelSpec | None:
        return self.spec(target)

    def versions(self) -> Mapping[str, str]:
        return versions(("raylib-cluster", *self.packages))


class OnnxRuntime(_ExportedRuntime):
    name: ClassVar[str] = "onnx"
    packages = ("onnxruntime", "onnx", "torch")


class OpenVinoRuntime(_ExportedRuntime):
    name: ClassVar[str] = "openvino"
    packages = ("openvino", "nncf", "onnx", "torch")


def content_tensors(encoder: ExportedEncoder, target: Target) -> Tensors:
    one: Batch = {"text": ["one text"]} if target.tower == "text" else {"image": list(photos(1))}
    return encoder.preprocess(one, EncodeContext(None))
