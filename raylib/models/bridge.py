"""Any MTEB model as an encoder: by its name in MTEB's registry, or from a factory of the user's.

The model's own `encode` runs, on one batch at a time, with what MTEB would tell it. Models that search by themselves
(BM25, cross-encoders, own indices) are no encoders: they are a `SearchModel`, which MTEB runs whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.family import Family
from raylib.models.mteb_source import ModelSource
from raylib.models.protocol import Encoder, ModelSpec
from raylib.types import Batch, Embeddings, EncodeContext, Role, Similarity, Tensors

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta

BRIDGE = Family(name="mteb", encoder="raylib.models.bridge:BridgeEncoder", kind="dense", modalities=("text", "image"))

_TOLD = "\0told"
"""The column of `Tensors` that carries what `encode` is told besides the rows; no data set has a column so named."""


class BridgeEncoder(Encoder):
    """`preprocess` only carries the rows (object arrays): an MTEB model has no separate CPU half."""

    supported_options: ClassVar[frozenset[str]] = frozenset({"embedding_dim"})
    fields: ClassVar[tuple[str, ...] | None] = None
    ENCODING_VERSION: ClassVar[int] = 1

    def __init__(self, spec: ModelSpec, source: ModelSource) -> None:
        super().__init__(spec, BRIDGE)
        self.source = source
        check_options(spec, source)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "family": "mteb",
            "version": self.ENCODING_VERSION,
            **self.source.identity,
            "dim": self.spec.embedding_dim,
            "trust_remote_code": self.spec.trust_remote_code,
        }

    @property
    def similarity(self) -> Similarity:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the model's metadata; cosine where it names none, as MTEB's AbsEncoder does.

        Raises UserError for a similarity that raylib's search does not have."""
        scoring = self.source.meta.similarity_fn_name if self.source.meta is not None else None
        name = getattr(scoring, "value", scoring) or "cosine"
        known: dict[str, Similarity] = {"cosine": "cosine", "dot": "dot", "MaxSim": "maxsim"}
        if name not in known:
            raise UserError(f"{self.spec.name} compares by {name}; raylib searches by {', '.join(known)}")
        return known[name]

    @property
    def modalities(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        named = self.source.meta.modalities if self.source.meta is not None else ["text"]
        return frozenset(named) & {"text", "image"}

    @property
    def fuses(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.modalities == {"text", "image"}

    def context(
        self, task: TaskMetadata | None, role: Role | None, *, split: str | None = None, subset: str | None = None
    ) -> EncodeContext:
        """prompt: a canonical text of all that the vector may depend on besides content and role."""
        told = {"task_metadata": task.name if task else None, "prompt_type": role}
        told |= {"hf_split": split, "hf_subset": subset}
        decides = {name: value for name, value in told.items() if name in self.source.reads}
        prompt = json.dumps(decides, sort_keys=True) if decides else ""
        return EncodeContext(role, prompt, task=(task, split, subset))

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Every column as an object array [n], and one that holds (task metadata, split, subset, role)."""
        told = (*(context.task or (None, None, None)), context.role)
        n = len(next(iter(batch.values()))) if batch else 0
        return {name: _objects(values) for name, values in {**batch, _TOLD: [told] * n}.items()}

    @cached_property
    def model(self) -> Any:
        model = self.source.load()
        if not hasattr(model, "encode"):
            raise ModelError(
                f"{self.spec.name} gave a {type(model).__name__}, which has no encode(); expected an MTEB encoder"
            )
        return model

    def load(self) -> None:
        _ = self.model

    def forward(self, tensors: Tensors) -> Embeddings:
        from mteb._create_dataloaders import _custom_collate_fn
        from mteb.types import PromptType
        from torch.utils.data import DataLoader

        task, split, subset, role = tensors[_TOLD][0]
        rows = Rows({name: list(values) for name, values in tensors.items() if name != _TOLD})
        loader: Any = DataLoader(rows, batch_size=len(rows), collate_fn=_custom_collate_fn)  # pyright: ignore[reportArgumentType]
        found = self.model.encode(
            loader,
            task_metadata=task,
            hf_split=split,
            hf_subset=subset,
            prompt_type=PromptType(role) if role else None,
            batch_size=len(rows),
            show_progress_bar=False,
        )
        return as_embeddings(found, self.spec.name)

    def model_meta(self) -> ModelMeta | None:
        return self.source.meta

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "model"}


class SearchModel:
    """A model with its own search, or a cross-encoder: no vectors to share, so MTEB runs it task by task."""

    def __init__(self, spec: ModelSpec, source: ModelSource) -> None:
        self.spec, self.source = spec, source
        if spec.given():
            raise UnsupportedOptionError(
                f"{spec.name} searches by itself and has no option {spec.flags()}. Leave it out."
            )
        check_options(spec, source)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what identifies the model, 64 hex digits."""
        import hashlib

        text = json.dumps({"family": "mteb-search", **self.source.identity}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self) -> Any:
        """The MTEB model, with `index` and `search`, or with `predict`."""
        return self.source.load()

    def model_meta(self) -> ModelMeta | None:
        return self.source.meta


def check_options(spec: ModelSpec, source: ModelSource) -> None:
    """Raises UnsupportedOptionError for a dimension that the model does not offer, UserError for code from the hub."""
    offered = source.dims
    if spec.embedding_dim is not None and spec.embedding_dim not in offered:
        have = ", ".join(map(str, offered)) or "none to choose"
        raise UnsupportedOptionError(f"{spec.name} has no --embedding-dim {spec.embedding_dim}; it has: {have}")
    if source.runs_hub_code and not spec.trust_remote_code:
        raise UserError(
            f"{spec.name} runs code from its hub repository. Read it, then pass --trust-remote-code to allow that."
        )


class Rows(Sequence):
    """One batch as the data set that MTEB's models expect behind their DataLoader."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns
        self.column_names = list(columns)
        self.features = dict.fromkeys(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, index: Any) -> Any:
        """A row as a dict; a column as a list for its name."""
        if isinstance(index, str):
            return self.columns[index]
        return {name: values[index] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))


def _objects(values: Sequence[Any]) -> np.ndarray:
    """[n] object array; numpy would take images and lists apart if it were left to it."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def as_embeddings(found: Any, name: str) -> Embeddings:
    """What an MTEB model's `encode` may return → Embeddings; float16 stays, all else becomes float32.

    2-D is dense; a list of 2-D is late interaction, as it is; 3-D is late interaction padded with zeros, whose
    all-zero token rows are dropped (one stays where a content has no other). Raises ModelError for anything else.
    """
    if isinstance(found, list | tuple):
        items = [_array(item) for item in found]
        shapes = {item.ndim for item in items}
        if shapes == {1}:
            return Embeddings.from_dense(np.stack(items))
        if shapes == {2}:
            return Embeddings.from_list(items)
        raise ModelError(f"{name} gave a list of arrays with {sorted(shapes)} axes; expected 1 or 2 axes each")
    array = _array(found)
    if array.ndim == 2:
        return Embeddings.from_dense(array)
    if array.ndim == 3:
        return Embeddings.from_list([_without_padding(matrix) for matrix in array])
    raise ModelError(f"{name} gave an array of shape {list(array.shape)}; expected [n, dim] or [n, tokens, dim]")


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, sparse for some models, of a format numpy may not have
        value = value.detach().to_dense() if value.is_sparse else value.detach()
        value = (value if str(value.dtype) == "torch.float16" else value.float()).cpu().numpy()
    array = np.asarray(value)
    return array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)


def _without_padding(matrix: np.ndarray) -> np.ndarray:
    real = matrix[np.any(matrix != 0, axis=1)]
    return real if len(real) else matrix[:1]
