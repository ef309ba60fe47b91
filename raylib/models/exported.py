"""An encoder whose forward is an exported graph, in ONNX Runtime or OpenVINO, instead of torch.

Graphs are exported on first use, once on each machine, and lie in raylib's cache. Where they are there, torch loads
no weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib import storage
from raylib.errors import UnknownNameError, UnsupportedOptionError, UserError
from raylib.models.export import EXPORT_VERSION, Function, graph, written_once
from raylib.models.graph_session import RUNTIMES, Session
from raylib.models.loading import model_failure
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.torch_encoder import DenseEncoder
from raylib.types import Batch, Embeddings, EncodeContext, Role, Tensors

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta

PRECISIONS = ("fp32", "bf16", "int8")
TORCH = "torch"


def check_runtime(spec: ModelSpec) -> bool:
    """Whether an exported graph is to run the model. Raises UserError for a runtime or a precision that is not known,
    and for options of torch's with another runtime, or the other way around."""
    if spec.runtime in (None, TORCH):
        if spec.precision is not None:
            raise UserError(
                f"--precision {spec.precision} is for --runtime onnx or openvino; torch has --dtype (bfloat16, float16)"
            )
        return False
    if spec.runtime not in RUNTIMES:
        raise UnknownNameError(
            "runtime", spec.runtime, [TORCH, *RUNTIMES], f"There are {', '.join([TORCH, *RUNTIMES])}."
        )
    if spec.precision not in (None, *PRECISIONS):
        raise UserError(f"--precision is {spec.precision!r}; expected one of {', '.join(PRECISIONS)}")
    if spec.dtype is not None:
        raise UnsupportedOptionError(
            f"--dtype {spec.dtype} is torch's; with --runtime {spec.runtime} give --precision fp32, bf16 or int8"
        )
    for flag, given in {"--attention": spec.attention, "--compile": spec.compile, "--no-merge": not spec.merge}.items():
        if given:
            raise UnsupportedOptionError(f"{flag} is torch's; leave it out with --runtime {spec.runtime}")
    return True


def exported(spec: ModelSpec, find: Callable[[ModelSpec], Any]) -> ExportedEncoder:
    """The encoder of a spec with a runtime that runs graphs. find: the model that torch runs.

    Raises UserError for packages that are missing, UnsupportedOptionError for what cannot be exported.
    """
    assert spec.runtime is not None
    RUNTIMES[spec.runtime].check(spec, spec.precision or PRECISIONS[0])
    inner = find(replace(spec, runtime=None, precision=None))
    if isinstance(inner, DenseEncoder) and inner.similarity in ("cosine", "dot"):
        return ExportedEncoder(inner, spec.runtime, spec.precision)
    what = (
        f"family {inner.family.name}, {inner.family.kind}" if isinstance(inner, Encoder) else "which searches by itself"
    )
    mode = f", --mode {spec.mode}" if spec.mode else ""
    raise UnsupportedOptionError(
        f"{spec.name} ({what}{mode}) is not exported: --runtime {spec.runtime} runs dense models of the families "
        "sentence-transformers, qwen3-embedding, clip and siglip. Leave --runtime out, which runs it with torch."
    )


class ExportedEncoder(Encoder):
    """preprocess is the inner encoder's. Vectors are float32, of length 1 where the model is compared by cosine."""

    supported_options: ClassVar[frozenset[str]] = frozenset(
        {"adapter", "query_prompt", "document_prompt", "pooling", "embedding_dim", "fusion", "runtime", "precision"}
    )

    def __init__(self, inner: DenseEncoder, runtime: str, precision: str | None = None) -> None:
        """inner: has checked the other options of the spec. precision: fp32 unless told."""
        precision = precision or PRECISIONS[0]
        named = None if precision == PRECISIONS[0] else precision  # spelled out or not, it is the same run
        super().__init__(replace(inner.spec, runtime=runtime, precision=named), inner.family)
        self.inner, self.precision, self.runtime = inner, precision, RUNTIMES[runtime]
        self.needs_device = self.runtime.uses_gpus
        self.similarity, self.modalities, self.fuses = inner.similarity, inner.modalities, inner.fuses
        self.native_resolution = inner.native_resolution
        self.threads: int | None = None
        """Of a session; torch's number where it is None."""
        self.folder = storage.join(storage.cache_folder(), "exports")
        """Where graphs are kept."""
        self._sessions: dict[tuple[Any, ...], Session] = {}

    @property
    def fields(self) -> tuple[str, ...] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.fields

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            **self.inner.identity,
            "runtime": self.runtime.name,
            "precision": self.precision,
            "export": EXPORT_VERSION,
        }

    def context(
        self, task: TaskMetadata | None, role: Role | None, *, split: str | None = None, subset: str | None = None
    ) -> EncodeContext:
        return self.inner.context(task, role, split=split, subset=subset)

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        return self.inner.preprocess(batch, context)

    def token_counts(self, tensors: Tensors) -> np.ndarray | None:
        return self.inner.token_counts(tensors)

    def model_meta(self) -> ModelMeta | None:
        return self.inner.model_meta()

    def forward(self, tensors: Tensors) -> Embeddings:
        session = self.session(tensors)
        with model_failure(self.spec, f"its graph fails in {self.runtime.name}"):
            return Embeddings.from_dense(np.asarray(session.run(tensors), dtype=np.float32))

    def load(self) -> None:
        """The processor, and of a model that reads one kind of contents its graph; of others which graphs are asked
        for is not known before the first batch."""
        _ = self.inner.processor
        if self.modalities == {"text"}:
            self.session(self.preprocess({"text": ["a"]}, self.context(None, None)))

    def session(self, tensors: Tensors) -> Session:
        """What runs a batch of these inputs; loaded once in a process, exported once on a machine."""
        function = Function.of(self.inner, tensors)
        name = (function.inputs, function.constants)
        if name not in self._sessions:
            self._sessions[name] = self._open(self.graph(tensors), self.precision)
        return self._sessions[name]

    def graph(self, tensors: Tensors) -> Path:
        """The file that runs a batch of these inputs, alone with its weights in a folder; exported unless it is there.
        Raises ModelError for a model that does not become a graph."""
        function = Function.of(self.inner, tensors)
        if self.precision != "int8":
            return self._fp32(function)
        folder = Path(self.folder, function.key(f"int8 {self.runtime.name}"))
        target = folder / self.runtime.int8_file
        if not folder.is_dir():
            source = self._fp32(function)
            with model_failure(self.spec, "its graph cannot be brought to int8"):
                written_once(folder, lambda aside: self.runtime.convert(source, aside / target.name))
        return target

    def _fp32(self, function: Function) -> Path:
        found = graph(function, self.folder, lambda path, sample: self._open(path, "fp32").run(sample))
        gc.collect()
        return found

    def _open(self, path: Path, precision: str) -> Session:
        import torch

        threads = self.threads or torch.get_num_threads()
        with model_failure(self.spec, f"its graph does not load in {self.runtime.name}"):
            return self.runtime.session(path, precision, threads, self.device)

    @cached_property
    def device(self) -> str:
        return self.runtime.device(self.spec)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "device"} | {"_sessions": {}}
