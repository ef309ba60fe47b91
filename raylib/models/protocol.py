"""What turns contents into vectors: the encoder protocol and the spec that names one encoder.

An encoder has two halves. `preprocess` runs on CPU workers and needs the tokenizer or image processor only;
`forward` runs where the weights are. Nothing is loaded when an encoder is made: a driver asks for fingerprints,
prompts and costs without touching weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.copies import local_copy
from raylib.errors import UnsupportedOptionError
from raylib.storage import is_remote
from raylib.types import Batch, Embeddings, EncodeContext, Role, Similarity, Tensors

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from PIL import Image

    from raylib.models.family import Family


@dataclass(frozen=True)
class ModelSpec:
    """One encoder, by name and options. Plain data: it travels to workers and into result files.

    An option left at its default takes the family's choice. An option that the family does not have is refused
    when the encoder is made, not when it runs. What each means: `raylib.models.options`.
    """

    name: str
    revision: str | None = None
    family: str | None = None
    adapter: str | None = None
    merge: bool = True
    dtype: str | None = None
    pooling: str | None = None
    fusion: str | None = None
    mode: str | None = None
    mode_weights: str | None = None
    embedding_dim: int | None = None
    max_pixels: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    attention: str | None = None
    compile: bool = False
    device: str | None = None
    trust_remote_code: bool = False
    runtime: str | None = None
    precision: str | None = None
    endpoint: str | None = None
    copied: tuple[tuple[str, str], ...] = ()
    """(option, URL) of each that was given as a folder in a bucket: the option is then the path of this node's copy,
    which a spec that arrives on another node has there."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.update({option: local_copy(url) for option, url in self.copied})

    def here(self) -> ModelSpec:
        """The same with copies of what is in a bucket. Raises what `local_copy` raises."""
        given = {option: getattr(self, option) for option in ("name", "adapter")}
        remote = {option: url for option, url in given.items() if url is not None and is_remote(url)}
        if not remote or self.endpoint is not None:
            return self
        copies: dict[str, Any] = {option: local_copy(url) for option, url in remote.items()}
        return dataclasses.replace(self, **copies, copied=tuple(remote.items()))

    @property
    def asked(self) -> str:
        """The name as a user wrote it."""
        return dict(self.copied).get("name", self.name)

    def settings(self) -> dict[str, Any]:
        """The name and every option, as a job on this node is given them: without what says where copies are from."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "copied"}

    def given(self) -> dict[str, Any]:
        """The options that were set and that a family may not have, by name."""
        general = ("name", "revision", "family", "device", "trust_remote_code", "endpoint", "copied")
        values = {f.name: (getattr(self, f.name), f.default) for f in dataclasses.fields(self)}
        values["runtime"] = (None if self.runtime == "torch" else self.runtime, None)
        return {name: value for name, (value, default) in values.items() if name not in general and value != default}

    def options(self) -> dict[str, Any]:
        """The options that were set and that change vectors or scores: what tells two runs of one model apart."""
        found = {name: value for name, value in self.given().items() if name not in ("merge", "attention", "compile")}
        return found | ({"endpoint": self.endpoint} if self.endpoint else {})

    def on_gpus(self, per_worker: float | None) -> ModelSpec:
        """The same, spread over the GPUs of a worker that holds two or more, unless a device was asked for."""
        spread = self.device is None and (per_worker or 0) > 1
        return dataclasses.replace(self, device="auto") if spread else self

    def flags(self, besides: Collection[str] = ()) -> str:
        """The options that were set, but for those, as a user wrote them; "" for none."""
        return ", ".join(option_flag(name) for name in sorted(set(self.given()) - set(besides)))


def option_flag(name: str) -> str:
    """The flag of an option; of one that is on by default, the flag that says no."""
    return ("--no-" if name == "merge" else "--") + name.replace("_", "-")


@dataclass(frozen=True)
class TokenGrid:
    """Where a page's patches are among the vectors of its content.

    tokens [rows, columns] int64: the index of each patch's vector, from the top left; the patches tile the page.
    """

    tokens: np.ndarray


class Encoder(ABC):
    """Contents → vectors, for one model under one set of options.

    An instance is cheap to make and picklable before anything is loaded. `preprocess` loads the processor on first
    use, `forward` the weights; both keep them. Subclasses set the class attributes, `identity` and the two halves.
    """

    supported_options: ClassVar[frozenset[str]] = frozenset({"dtype"})
    """The names of ModelSpec options that this family has."""

    fields: ClassVar[tuple[str, ...] | None] = ("text", "image")
    """The columns of a content that decide its vector; None means all but the id."""

    similarity: Similarity = "cosine"
    modalities: frozenset[str] = frozenset({"text"})
    """Of "text", "image": what one content may hold. Both together only where `fuses` is set."""

    native_resolution: bool = False
    """True when a larger image has more tokens: contents are then sorted by pixels, too."""

    fuses: bool = False
    """True when one content may hold text and image together."""

    needs_device: bool = True
    """False where `forward` runs no model of its own: on a cluster it is then given no GPU."""

    side_by_side: int = 1
    """How many batches one process may have under way at a time; above 1, both halves are safe in several threads."""

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        self.spec = spec
        self.family = family
        unknown = spec.flags(besides=self.supported_options)
        if unknown:
            have = ", ".join(option_flag(name) for name in sorted(self.supported_options)) or "none"
            raise UnsupportedOptionError(
                f"{spec.name} (family {family.name}) has no option {unknown}; it has: {have}. Leave it out."
            )

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that decides a vector besides role, prompt and content: weights digest or commit, adapter, dtype,
        pooling, dim, preprocessing. JSON-able. Two encoders of one identity give the same vectors."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`, 64 hex digits."""
        text = json.dumps(self.identity, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def context(
        self, task: TaskMetadata | None, role: Role | None, *, split: str | None = None, subset: str | None = None
    ) -> EncodeContext:
        """The prompt this model uses for this side of this task: the user's, else the task's or the model's own."""
        del split, subset
        asked = {"query": self.spec.query_prompt, "document": self.spec.document_prompt, None: None}[role]
        return EncodeContext(role, asked if asked is not None else self.default_prompt(task, role) or "")

    def default_prompt(self, task: TaskMetadata | None, role: Role | None) -> str | None:
        """The prompt where the user gives none: what the task asks for, else what the model was trained with."""
        del task, role
        return None

    @abstractmethod
    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """CPU half: tokenise, resize, patch. Needs no weights. Images arrive as decoded PIL images of any mode."""

    def token_counts(self, tensors: Tensors) -> np.ndarray | None:
        """[n] int64: tokens that the forward sees of each content, without padding; None where tensors do not tell.

        By default the sum of every attention mask [n, tokens] among them."""
        masks = [array for name, array in tensors.items() if name.split(".")[-1] == "attention_mask"]
        if not masks:
            return None
        return np.stack([(mask != 0).sum(axis=1) for mask in masks]).sum(axis=0)

    @abstractmethod
    def forward(self, tensors: Tensors) -> Embeddings:
        """Accelerator half: the model's forward, pooling, truncation, normalisation; without gradient.

        Gives float32, or float16 where the model runs in half precision, one entry per content in order."""

    def encode(self, batch: Batch, context: EncodeContext) -> Embeddings:
        """Both halves in one process, for tests and small uses."""
        return self.forward(self.preprocess(batch, context))

    def served(self, text: str | None, image: Image.Image | None, prompt: str = "") -> list[str | list[dict[str, Any]]]:
        """What a server of this model is sent for one content, so that it reads what the local model would: a plain
        text, or the parts of a user's chat turn, {"type": "text", "text": …} and {"type": "image", "image": RGB image}.
        Two of these are two vectors, which `fuse` makes one. The prompt is in `text` already; it is told for families
        that say it to an image, too.

        Raises UnsupportedOptionError for contents that a server cannot be given so that it gives the same vectors.
        """
        del text, image, prompt
        raise UnsupportedOptionError(
            f"{self.spec.name}: a server cannot stand for family {self.family.name}; leave --endpoint out"
        )

    def fuse(self, text: Embeddings, image: Embeddings) -> Embeddings:
        """The vectors of contents that hold text and image, from those of their parts: by default the sum."""
        return Embeddings.from_dense(text.dense() + image.dense())

    def token_grid(self, batch: Batch) -> list[TokenGrid | None]:
        """Per content, the grid of its page's patches; None without one. Needs no weights. Depends on the size of the
        image and on the text beside it, never on pixels."""
        return [None] * len(next(iter(batch.values())))

    def token_texts(self, batch: Batch) -> list[list[str] | None]:
        """Per content, what the token of each of its vectors says; None where that is not known. Needs no weights."""
        return [None] * len(next(iter(batch.values())))

    def load(self) -> None:
        """Load weights and processor now rather than with the first batch. Idempotent."""
        return

    def model_meta(self) -> ModelMeta | None:
        """MTEB's metadata of this model where MTEB knows it; None otherwise (the caller builds one)."""
        return None
