"""Which models a job runs, and how: flags that every job with an encoder has, and the specs they make."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from raylib.models.protocol import ModelSpec


@dataclass
class ModelChoice:
    """Which models, and how they turn a content into a vector. What computes that is not in it, for `raylib bench`
    compares it. Each field is an option of a ModelSpec, under the same name; the rest are at their defaults."""

    model: list[str] = field(default_factory=list)
    """Models: a hub or MTEB name, a local directory, or module:factory. Comma-separated or repeated."""

    revision: str | None = None
    """Commit, branch or tag of the model on the hub."""

    family: str | None = None
    """The family that runs the model, where its files do not tell. See: raylib list models."""

    adapter: str | None = field(default=None, metadata={"metavar": "PATH"})
    """What to put on the model: a peft adapter directory, or ColIntern heads (a file, or a directory of them)."""

    merge: bool = True
    """An adapter is merged into the weights, which is faster; --no-merge runs it beside them."""

    pooling: str | None = None
    """How tokens become one vector (last, mean, cls), for families that have a choice."""

    embedding_dim: int | None = None
    """Cut vectors to this many dimensions before they are normalised (Matryoshka)."""

    max_pixels: int | None = None
    """Scale images down to at most this many pixels, for families with a visual token budget."""

    attention: str | None = None
    """sdpa, eager or flash_attention_2 (which must be installed). The library's choice by default."""

    device: str | None = None
    """cpu, cuda, or auto, which spreads the weights over all GPUs of a worker. By default cuda on workers that hold a
    GPU, and auto where --gpus-per-worker is 2 or more."""

    trust_remote_code: bool = False
    """Run code that comes with a model."""

    def specs(self) -> list[ModelSpec]:
        """One spec per model, without repeats, all with the same options."""
        return _specs(self, ModelChoice)


@dataclass
class ModelOptions(ModelChoice):
    """One field per option of a ModelSpec, under the same name, and the models they are for."""

    dtype: str | None = None
    """float32, float16 or bfloat16."""

    fusion: str | None = None
    """How a content with text and image becomes one (sum, mean, concat), for families that have a choice."""

    mode: str | None = None
    """Which vectors of a model that has several (dense, sparse, multi-vector, hybrid)."""

    mode_weights: str | None = field(default=None, metadata={"metavar": "W,W,W"})
    """Weights of the dense, sparse and multi-vector scores in --mode hybrid."""

    query_prompt: str | None = field(default=None, metadata={"metavar": "TEXT"})
    """Put before every query, in place of the prompt of the task and of the model."""

    document_prompt: str | None = field(default=None, metadata={"metavar": "TEXT"})
    """Put before every document, in place of the prompt of the task and of the model."""

    compile: bool = False
    """Compile the model's layers with torch.compile: slower to start, faster over many batches."""

    runtime: str | None = field(default=None, metadata={"metavar": "NAME"})
    """What runs the model: torch (the default), onnx or openvino, for dense models that become a graph."""

    precision: str | None = field(default=None, metadata={"metavar": "NAME"})
    """With --runtime onnx or openvino: fp32 (the default), bf16 (openvino) or int8."""

    endpoint: str | None = field(default=None, metadata={"metavar": "URL"})
    """Ask an OpenAI-compatible server (vLLM, TEI, OpenAI) for the vectors, e.g. http://localhost:8000/v1. The key is
    read from RAYLIB_ENDPOINT_KEY, else OPENAI_API_KEY."""

    def specs(self) -> list[ModelSpec]:
        """One spec per model, without repeats, all with the same options."""
        return _specs(self, ModelOptions)


def _specs(settings: ModelChoice, kind: type[ModelChoice]) -> list[ModelSpec]:
    """kind: whose fields are options of the specs; a job may have others of such names."""
    options = {f.name: getattr(settings, f.name) for f in dataclasses.fields(kind) if f.name != "model"}
    return [ModelSpec(name, **options) for name in dict.fromkeys(settings.model)]
