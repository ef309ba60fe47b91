"""ONNX Runtime through C++ and through Rust against PyTorch, on tiny checkpoints of the five architectures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.bench.protocol import Runner, Target
from raylib.bench.runtimes import native_library, ort_rust
from raylib.bench.runtimes.exported_runtime import OnnxRuntime
from raylib.bench.runtimes.native_library import NativeSession, compiled, compiler
from raylib.bench.runtimes.ort_native import NativeRunner, OrtNativeRuntime
from raylib.bench.runtimes.ort_rust import OrtRustRuntime
from raylib.errors import ModelError
from raylib.models.untrained import build_clip
from tests.models.graphs import shared_folder
from tests.models.helpers import save_sentence, save_siglip

from .foreign import SHORT, assert_torchs, target

onnxruntime = pytest.importorskip("onnxruntime")
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is here")

Models = Callable[[str], Path]
SENTENCE = ("gemma", "qwen", "bge-m3")
TEXT = [*SENTENCE, "siglip", "clip"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The same checkpoints, to the byte, as of the tests of exported encoders: their graphs are shared."""

    @cache
    def built(shape: str) -> Path:
        folder = tmp_path_factory.mktemp(shape)
        if shape in SENTENCE:
            save_sentence(folder, shape)
            return folder / "model"
        build_clip(folder) if shape == "clip" else save_siglip(folder)
        return folder

    return built


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the benchmark, beside the graphs of all tests of a session."""
    root = shared_folder(tmp_path_factory).parent
    monkeypatch.setenv("RAYLIB_CACHE", str(root))
    return root / "bench"


def loaded(runtime: Any, asked: Target) -> Runner:
    assert runtime.hole(asked) is None
    runtime.build(asked)
    return runtime.load(asked)


# C++.


@needs_compiler
@pytest.mark.parametrize("shape", TEXT)
def test_cpp_gives_torchs_vectors_of_texts(models: Models, home: Path, shape: str) -> None:
    asked = target(models(shape), home)
    assert_torchs(loaded(OrtNativeRuntime(), asked), asked)


@needs_compiler
@pytest.mark.parametrize("shape", ["siglip", "clip"])
def test_cpp_gives_torchs_vectors_of_images(models: Models, home: Path, shape: str) -> None:
    asked = target(models(shape), home, "image")
    assert_torchs(loaded(OrtNativeRuntime(), asked), asked)


@needs_compiler
def test_cpp_runs_the_graph_of_python_to_the_bit(models: Models, home: Path) -> None:
    for precision in ("fp32", "int8"):
        asked = target(models("bge-m3"), home, precision=precision)
        native, python = loaded(OrtNativeRuntime(), asked), loaded(OnnxRuntime(), asked)
        tensors = native.prepare({"text": SHORT})
        assert tensors is not None
        assert np.array_equal(native.run(tensors), python.run(tensors))
        assert native.disk_bytes == python.disk_bytes > 0


@needs_compiler
def test_cpp_uses_the_library_of_the_package(models: Models, home: Path) -> None:
    runner = loaded(OrtNativeRuntime(), target(models("bge-m3"), home))
    assert isinstance(runner, NativeRunner) and runner.session.version == onnxruntime.__version__
    assert runner.session.inputs == ["attention_mask", "input_ids"]


@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_cpp_has_the_threads_that_are_asked_for(models: Models, home: Path) -> None:
    runner = loaded(OrtNativeRuntime(), target(models("bge-m3"), home))
    assert isinstance(runner, NativeRunner)
    graph = runner.encoder.graph(runner.prepare({"text": ["a"]}))

    def started(threads: int) -> int:
        before = len(os.listdir("/proc/self/task"))
        session = NativeSession(compiled(home), graph, threads)
        more = len(os.listdir("/proc/self/task")) - before
        session.close()
        return more

    assert [started(threads) for threads in (1, 2, 4)] == [0, 1, 3], "the caller's is one of them"


@needs_compiler
def test_cpp_in_several_threads(models: Models, home: Path) -> None:
    runner = loaded(OrtNativeRuntime(), target(models("bge-m3"), home))
    tensors = [runner.prepare({"text": [text]}) for text in SHORT]
    alone = [runner.run(one) for one in tensors if one is not None]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(runner.run, tensors * 5), alone * 5, strict=True):
            assert np.array_equal(found, expected)


@needs_compiler
def test_cpp_tells_what_onnx_runtime_says(models: Models, home: Path, tmp_path: Path) -> None:
    runner = loaded(OrtNativeRuntime(), target(models("bge-m3"), home))
    tensors = runner.prepare({"text": SHORT})
    assert tensors is not None
    with pytest.raises(ModelError, match="Unexpected input data type"):
        runner.run({name: array.astype(np.float32) for name, array in tensors.items() if array.ndim == 2})
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"ONNX Runtime: .*bad.onnx"):
        NativeSession(compiled(home), bad, 1)


def test_cpp_holes(models: Models, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = target(models("bge-m3"), home)
    runtime = OrtNativeRuntime()
    assert "CPUs only" in (runtime.hole(target(models("bge-m3"), home, device="cuda")) or "")
    assert "bfloat16" in (runtime.hole(target(models("bge-m3"), home, precision="bf16")) or "")
    monkeypatch.setattr(native_library, "runtime_library", lambda: None)
    assert "no shared library" in (runtime.hole(asked) or "")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    assert "no C++ compiler" in (runtime.hole(asked) or "")


def test_a_compiler_that_fails_is_a_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = tmp_path / "fails"
    fails.write_text("#!/bin/sh\necho this is no compiler >&2\nexit 1\n")
    fails.chmod(0o755)
    monkeypatch.setenv("CXX", str(fails))
    with pytest.raises(ModelError, match=r"does not compile with .*fails: this is no compiler"):
        compiled(tmp_path)
    assert not list(tmp_path.glob("native/*/*.so"))


def test_the_source_ships_with_the_package() -> None:
    assert native_library.SOURCE.is_file() and "raylib" in native_library.SOURCE.parts


# Rust.


@pytest.mark.parametrize("shape", TEXT)
def test_rust_gives_torchs_vectors(models: Models, home: Path, shape: str) -> None:
    pytest.importorskip("embed_anything")
    asked = target(models(shape), home)
    assert_torchs(loaded(OrtRustRuntime(), asked), asked)


def test_rust_in_int8(models: Models, home: Path) -> None:
    pytest.importorskip("embed_anything")
    asked = target(models("bge-m3"), home, precision="int8")
    found, expected = (loaded(one, asked).embed({"text": SHORT[:1]}) for one in (OrtRustRuntime(), OnnxRuntime()))
    assert np.abs(found - expected).max() <= 1e-6


def test_rust_leaves_the_graph_of_python_alone(models: Models, home: Path) -> None:
    """The onnx package, which makes int8 of it, refuses weights that have a second name."""
    pytest.importorskip("embed_anything")
    asked = target(models("bge-m3"), home)
    OrtRustRuntime().build(asked)
    encoder = OnnxRuntime()._encoder(asked)
    graph = encoder.graph(encoder.preprocess({"text": ["a"]}, encoder.context(None, None)))
    names = {path.name: path.stat().st_nlink for path in graph.parent.iterdir()}
    assert names == {"model.onnx": 1, "model.onnx.data": 1}


def test_rust_takes_no_images(models: Models, home: Path) -> None:
    assert OrtRustRuntime().hole(target(models("clip"), home, "image")) == (
        "embed_anything's ONNX Runtime classes take text only"
    )


def test_rust_gives_half_of_the_cores(models: Models, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("embed_anything")
    monkeypatch.setattr(ort_rust, "_available", lambda: 5)
    assert [ort_rust.threads_given(n) for n in (1, 2, 3, 8)] == [1, 2, 2, 2]
    asked = target(models("bge-m3"), home)
    many = Target(asked.spec, "text", "fp32", 3, home)
    assert "2 threads at most here, and not 3" in (OrtRustRuntime().hole(many) or "")
    assert OrtRustRuntime().hole(asked) is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are chosen on Linux only")
def test_fewer_cores_while_it_loads() -> None:
    before = os.sched_getaffinity(0)
    with ort_rust._cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_rust_without_the_package(models: Models, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_rust, "find_spec", lambda name: None)
    assert "raylib-cluster[candle]" in (OrtRustRuntime().hole(target(models("bge-m3"), home)) or "")


def test_rust_loads_what_is_built_alone(models: Models, tmp_path: Path) -> None:
    pytest.importorskip("embed_anything")
    with pytest.raises(ModelError, match="build it first"):
        OrtRustRuntime().load(target(models("bge-m3"), tmp_path))
