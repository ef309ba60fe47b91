"""Which runtimes there are: names, and where each one is."""

from __future__ import annotations

import importlib
import re

from raylib.bench.protocol import Runtime
from raylib.errors import UnknownNameError, UserError

RUNTIMES: dict[str, str] = {
    "torch": "raylib.bench.runtimes.torch_runtime:TorchRuntime",
    "torch-compile": "raylib.bench.runtimes.torch_runtime:TorchCompileRuntime",
    "onnx": "raylib.bench.runtimes.exported_runtime:OnnxRuntime",
    "openvino": "raylib.bench.runtimes.exported_runtime:OpenVinoRuntime",
    "candle": "raylib.bench.runtimes.candle:CandleRuntime",
    "ort-rust": "raylib.bench.runtimes.ort_rust:OrtRustRuntime",
    "ort-native": "raylib.bench.runtimes.ort_native:OrtNativeRuntime",
}
"""Name → module:class. Nothing is imported until a process measures it."""

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_name(name: str) -> None:
    """Raises UnknownNameError, with the nearest names, for what is neither in the table nor module:class."""
    if name not in RUNTIMES and not _OWN.fullmatch(name):
        hint = f"There are: {', '.join(RUNTIMES)}; a runtime of your own is module:class."
        raise UnknownNameError("runtime", name, RUNTIMES, hint)


def load_runtime(name: str) -> Runtime:
    """The runtime of that name, or of that module:class. Raises UserError where it cannot be imported here."""
    check_name(name)
    module, _, attribute = RUNTIMES.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name} cannot be imported here: {error}") from error
    if not isinstance(found, Runtime):
        raise UserError(f"{name} is no runtime; expected a class derived from raylib.bench.protocol.Runtime")
    return found
