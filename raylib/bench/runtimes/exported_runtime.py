"""ONNX Runtime and OpenVINO through Python: the encoders that `raylib evaluate --runtime` runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from raylib.bench.inputs import photos
from raylib.bench.protocol import Runtime, Target
from raylib.bench.runtimes.torch_runtime import EncoderRunner, TorchRuntime
from raylib.errors import UserError
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.store.manifests import versions
from raylib.types import Batch, EncodeContext


class _ExportedRuntime(Runtime):
    packages: ClassVar[tuple[str, ...]]

    def spec(self, target: Target) -> ModelSpec:
        options: dict[str, Any] = {"runtime": self.name, "precision": target.precision}
        return replace(target.spec, **options)

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
        """Export the graph of this tower: it is named by what goes into it, which the first content shows."""
        encoder: Any = resolve(self.spec(target))
        encoder.encode(_one(target), EncodeContext(None))

    def load(self, target: Target) -> EncoderRunner:
        import torch

        torch.set_num_threads(target.threads)  # the session takes as many
        encoder: Any = resolve(self.spec(target))
        encoder.load()
        return EncoderRunner(encoder, encoder.disk_bytes)

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


def _one(target: Target) -> Batch:
    return {"text": ["one text"]} if target.tower == "text" else {"image": list(photos(1))}
