"""ONNX Runtime through Rust: the crate `ort` in embed_anything, with the graph of the runtime "onnx".

As with Candle, `embed` is what a Python user of it calls: tokenising and normalising are in Rust. It takes texts alone.
The library is that of the onnxruntime package here, so that all rows of ONNX Runtime are of one build. A session has
as many threads as half of the cores that the process may use; fewer are had by letting it use fewer while it loads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raylib.bench.protocol import Runner, Target, folder_bytes, unit_vectors
from raylib.bench.runtimes.candle import MISSING, TOKENIZER, check_tokenizer, tokenizer_json
from raylib.bench.runtimes.checkpoints import Checkpoint, Unsupported, checkpoint
from raylib.bench.runtimes.exported_runtime import content_tensors
from raylib.bench.runtimes.hub_layout import NAME, Layout, embed_texts, hub_home, panics_told
from raylib.bench.runtimes.native_library import OtherOnnxRuntime, runtime_library
from raylib.bench.runtimes.rust_graph import wrap_graph
from raylib.models.export import EXPORT_VERSION
from raylib.placement import usable_cpus
from raylib.store.manifests import versions
from raylib.types import Batch

LAYOUT_VERSION = 1
"""Raised when the same graph would be written otherwise than before."""


class OrtRustRuntime(OtherOnnxRuntime):
    name: ClassVar[str] = "ort-rust"
    language: ClassVar[str] = "rust"
    who: ClassVar[str] = "this"

    def hole(self, target: Target) -> str | None:
        if target.tower == "image":
            return "embed_anything's ONNX Runtime classes take text only"
        if find_spec("embed_anything") is None:
            return MISSING
        reason = super().hole(target)
        if reason is not None:
            return reason
        given = threads_given(target.threads)
        if given != target.threads:
            return (
                "embed_anything gives ONNX Runtime half of the cores, which is "
                f"{given} thread{'s' if given > 1 else ''} at most here, and not {target.threads}; lower --threads"
            )
        try:
            check_tokenizer(checkpoint(target))
        except Unsupported as why:
            return str(why)
        return None

    def build(self, target: Target) -> None:
        encoder = self._encoder(target)
        found, source = checkpoint(target), encoder.graph(content_tensors(encoder, target))
        _layout(target).fill(lambda folder: _write(folder, found, source))

    def load(self, target: Target) -> Runner:
        layout = _layout(target)
        folder = layout.built(target.spec.name, self.name)
        os.environ["ORT_DYLIB_PATH"] = str(runtime_library())
        with hub_home(layout.home), _cores(2 * target.threads), panics_told(target.spec.name, "ort cannot load it"):
            import embed_anything

            ea: Any = embed_anything  # its own type stubs forget that these are static
            model = ea.EmbeddingModel.from_pretrained_onnx(
                ea.WhichModel.Bert,
                model_name=ea.ONNXModel.BGESmallENV15,  # one that pools by the first token
                hf_model_id=NAME,
                revision=layout.commit,
                path_in_repo="model.onnx",
            )
        return OrtRustRunner(target, model, folder_bytes(folder))

    def versions(self) -> Mapping[str, str]:
        return {**super().versions(), **versions(("embed_anything",))}


class OrtRustRunner(Runner):
    def __init__(self, target: Target, model: Any, disk_bytes: int) -> None:
        self.name, self.model, self.disk_bytes = target.spec.name, model, disk_bytes

    def embed(self, contents: Batch) -> np.ndarray:
        with panics_told(self.name, "ort cannot embed it"):
            return unit_vectors(embed_texts(self.model, contents["text"]))


def threads_given(wanted: int) -> int:
    """Of a session, where the process may use 2 · wanted cores, or all that there are."""
    return max(1, min(_available(), 2 * wanted) // 2)


def _available() -> int:
    """Cores that Rust counts: those that the process may use, and no more than a container's quota."""
    cores = usable_cpus()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max"
        return cores


@contextmanager
def _cores(n: int) -> Iterator[None]:
    """This thread may use n cores of its own at most; what it starts inside keeps to them."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before)[:n])
        yield
    finally:
        os.sched_setaffinity(0, before)


def _layout(target: Target) -> Layout:
    built_with = versions(("torch", "transformers"))
    return Layout.of(target, OrtRustRuntime.name, LAYOUT_VERSION, EXPORT_VERSION, built_with)


def _write(folder: Path, found: Checkpoint, source: Path) -> None:
    tokenizer = found.encoder.processor.tokenizer
    wrap_graph(source, folder, tokenizer.pad_token_id)
    (folder / "config.json").write_text("{}")
    (folder / TOKENIZER).write_text(tokenizer_json(found, None))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": found.max_tokens}))
