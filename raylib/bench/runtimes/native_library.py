"""raylib/bench/native/ort_runner.cpp, compiled on this machine and called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raylib.bench.protocol import Target
from raylib.bench.runtimes.exported_runtime import OnnxRuntime
from raylib.errors import ModelError
from raylib.models.export import written_once
from raylib.models.protocol import ModelSpec
from raylib.types import Tensors

SOURCE = Path(__file__).parents[1] / "native" / "ort_runner.cpp"
COMPILERS = ("c++", "g++", "clang++")
_OPTIONS = ("-std=c++17", "-O2", "-shared", "-fPIC")
_ONNX_TYPES = {np.float32: 1, np.int32: 6, np.int64: 7, np.bool_: 9, np.float16: 10, np.float64: 11}


def compiler() -> str | None:
    """The path of $CXX, or of the first of COMPILERS that is here."""
    asked = os.environ.get("CXX")
    return next((path for path in map(shutil.which, [asked] if asked else COMPILERS) if path), None)


def runtime_library() -> Path | None:
    """The shared library in the onnxruntime package: the one that its Python binding is of."""
    spec = find_spec("onnxruntime")
    folder = Path((spec.origin if spec else None) or "nowhere").parent / "capi"
    found = [path for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib") for path in folder.glob(pattern)]
    return min(found, default=None)


def compiled(cache: Path) -> Path:
    """The library, once for each compiler. Raises ModelError with what the compiler said."""
    path = compiler()
    assert path is not None, "hole has asked for it"
    told = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    digest = hashlib.sha256("\0".join((SOURCE.read_text("utf-8"), path, told, *_OPTIONS)).encode()).hexdigest()[:24]

    def write(folder: Path) -> None:
        command = [path, *_OPTIONS, "-o", str(folder / "ort_runner.so"), str(SOURCE)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            raise ModelError(f"{' '.join(command)} does not run: {error}") from error
        if done.returncode:
            raise ModelError(f"{SOURCE.name} does not compile with {path}: {done.stderr.strip()[-400:]}")

    written_once(cache / "native" / digest, write)
    return cache / "native" / digest / "ort_runner.so"


class OtherOnnxRuntime(OnnxRuntime):
    """The library of the onnxruntime package, called from another language than Python, on CPUs. who: calls it."""

    who: ClassVar[str]

    def spec(self, target: Target) -> ModelSpec:
        return replace(target.spec, runtime=OnnxRuntime.name, precision=target.precision, device="cpu")

    def hole(self, target: Target) -> str | None:
        if (target.spec.device or "cpu") != "cpu":
            return f"{self.who} runs ONNX Runtime on CPUs only; leave --device out"
        reason = super().hole(target)
        if reason is None and runtime_library() is None:
            return "the onnxruntime package has no shared library beside its binding; install its wheel from PyPI"
        return reason

    def encoder_spec(self, target: Target) -> ModelSpec | None:
        """None: `raylib evaluate` runs the same graph through Python, and gives the quality of "onnx"."""
        return None


class NativeSession:
    """A graph that is loaded. Safe in several threads, which run at once: the interpreter's lock is released."""

    def __init__(self, library: Path, path: Path, threads: int) -> None:
        """library: `compiled`; path: of the graph. Raises ModelError with ONNX Runtime's reason."""
        self._library = _declared(ctypes.CDLL(str(library)))
        runtime = runtime_library()
        assert runtime is not None, "hole has asked for it"
        self._runtime = ctypes.CDLL(str(runtime))
        version = ctypes.c_char_p()
        start = ctypes.cast(self._runtime.OrtGetApiBase, ctypes.c_void_p)
        self._check(self._library.raylib_start(start, ctypes.byref(version)))
        self.version = (version.value or b"").decode()
        self._loaded = ctypes.c_void_p()
        self._check(self._library.raylib_open(os.fsencode(path), threads, ctypes.byref(self._loaded)))
        self.inputs: list[str] = []
        while (name := self._library.raylib_input(self._loaded, len(self.inputs))) is not None:
            self.inputs.append(name.decode())

    def run(self, tensors: Tensors) -> np.ndarray:
        """[n, dim] float32 from the graph's inputs, by name. Raises ModelError where ONNX Runtime fails."""
        arrays = [np.ascontiguousarray(tensors[name]) for name in self.inputs]
        n = len(arrays)
        shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        value, matrix, shape = ctypes.c_void_p(), ctypes.POINTER(ctypes.c_float)(), (ctypes.c_int64 * 2)()
        error = self._library.raylib_run(
            self._loaded,
            (ctypes.c_void_p * n)(*(array.ctypes.data for array in arrays)),
            (ctypes.c_size_t * n)(*(array.nbytes for array in arrays)),
            (ctypes.c_void_p * n)(*map(ctypes.addressof, shapes)),
            (ctypes.c_size_t * n)(*(array.ndim for array in arrays)),
            (ctypes.c_int * n)(*(_ONNX_TYPES[array.dtype.type] for array in arrays)),
            ctypes.byref(value),
            ctypes.byref(matrix),
            shape,
        )
        self._check(error)
        try:
            return np.ctypeslib.as_array(matrix, tuple(shape)).copy()
        finally:
            self._library.raylib_release(value)

    def close(self) -> None:
        if self._loaded:
            self._library.raylib_close(self._loaded)
            self._loaded = ctypes.c_void_p()

    def __del__(self) -> None:
        if hasattr(self, "_loaded"):
            self.close()

    def _check(self, error: int | None) -> None:
        if error is None:
            return
        reason = (ctypes.string_at(error)).decode(errors="replace")
        self._library.raylib_free(error)
        raise ModelError(f"ONNX Runtime: {reason}")


def _declared(library: Any) -> Any:
    """Return and argument types: without them a pointer would be cut to an int."""
    pointer = ctypes.c_void_p
    functions = {
        "raylib_free": (None, [pointer]),
        "raylib_start": (pointer, [pointer, pointer]),
        "raylib_open": (pointer, [ctypes.c_char_p, ctypes.c_int, pointer]),
        "raylib_close": (None, [pointer]),
        "raylib_input": (ctypes.c_char_p, [pointer, ctypes.c_size_t]),
        "raylib_run": (pointer, [pointer] * 9),
        "raylib_release": (None, [pointer]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
