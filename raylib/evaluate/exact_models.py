"""Which MTEB model `--exact-mteb` runs: the one that `mteb.evaluate` would run, or raylib's encoder dressed as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.similarity_functions import _upcast_low_precision

from raylib.errors import UnsupportedOptionError
from raylib.evaluate.meta import model_meta
from raylib.evaluate.plan import readable_fields
from raylib.models.bridge import check_options
from raylib.models.mteb_directory import mteb_source
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.search.blocks import check_dims
from raylib.types import Embeddings, Role, compares_vectors

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

_WHOLE = frozenset({"LLM2VecModel", "VllmEncoderWrapper", "CDEWrapper"})
"""Classes of MTEB that order or pack a call's texts in a way that cannot be had piece by piece, or remember calls."""


@dataclass(frozen=True)
class ExactSource:
    """A model to load, here or on a worker: an MTEB model, or an encoder of raylib's that MTEB does not have.

    searches: it is no encoder (own search, cross-encoder), so MTEB runs it whole. None where only loading tells.
    """

    spec: ModelSpec
    source: Any
    searches: bool | None

    def load(self) -> Any:
        """The MTEB model, ready to run. Raises ModelError with the model's name."""
        if isinstance(self.source, Encoder):
            self.source.load()
            return EncoderModel(self.source)
        from mteb.evaluate import _sanitize_model

        # A bare sentence-transformers model is wrapped as `mteb.evaluate` wraps it.
        return _sanitize_model(self.source.load())[0]


def exact_source(spec: ModelSpec) -> ExactSource:
    """Loads no weights; a factory may be called. In this order: `module:factory`; a name in MTEB's registry; a local
    directory or a hub copy that MTEB has a loader for; raylib's own encoder.

    Raises UserError for a name or a directory that cannot be right, UnsupportedOptionError for an option that MTEB's
    model does not have.
    """
    if spec.endpoint is not None:
        raise UnsupportedOptionError(
            f"{spec.name}: --exact-mteb runs the model as MTEB loads it, at no --endpoint. Leave out one of the two."
        )
    source = mteb_source(spec)
    if source is None:
        model = resolve(spec)
        if isinstance(model, Encoder):
            if spec.mode is not None or not compares_vectors(model.similarity):
                raise UnsupportedOptionError(
                    f"{spec.name}: --exact-mteb has MTEB compare contents, by one vector each. Leave it out, or --mode."
                )
            return ExactSource(spec, model, searches=False)
        return ExactSource(spec, model, searches=True)
    other = spec.flags(besides=("embedding_dim",))
    if other:
        raise UnsupportedOptionError(
            f"{spec.name}: --exact-mteb runs the model as MTEB loads it, without {other}. Leave out one of the two."
        )
    check_options(spec, source)
    classes = [candidate for candidate in source.candidates if isinstance(candidate, type)]
    if not classes:
        return ExactSource(spec, source, searches=None)
    return ExactSource(spec, source, searches=any(not _encodes(candidate) for candidate in classes))


def _encodes(model: Any) -> bool:
    """Whether MTEB would take vectors from it, rather than run its own search or its `predict`."""
    return hasattr(model, "encode") and not hasattr(model, "search") and not hasattr(model, "predict")


def check_widths(first: Any, second: Any) -> None:
    """`check_dims` of arrays or tensors; vectors of late interaction may come in lists, which are left alone."""
    if hasattr(first, "shape") and hasattr(second, "shape"):
        check_dims(first.shape[-1], second.shape[-1])


class EncoderModel(AbsEncoder):
    """An encoder of raylib's as a plain MTEB model: batches as MTEB makes them, late interaction padded with zeros to
    the longest content of the call, as MTEB's ColPali wrappers do. Runs in one process, without a store."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.mteb_model_meta = model_meta(encoder)
        self.model = None  # AbsEncoder would ask it for similarities; the metadata's similarity function answers first

    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Any:
        """[n, dim] float32 array; for late interaction [n, tokens, dim] float32 tensor."""
        role: Role | None = prompt_type.value if prompt_type is not None else None
        context = self.encoder.context(task_metadata, role, split=hf_split, subset=hf_subset)
        parts: list[Embeddings] = []
        for batch in inputs:
            columns: dict[str, list[Any]] = {name: list(values) for name, values in batch.items()}
            parts.append(self.encoder.encode(self._readable(columns), context).astype(np.float32))
        found = Embeddings.concatenate(parts)
        if self.encoder.similarity != "maxsim":
            return np.array(found.dense())
        import torch

        return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(np.array(m)) for m in found], batch_first=True)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """MTEB's own. Raises UserError for sides of different dims."""
        check_widths(embeddings1, embeddings2)
        return super().similarity(embeddings1, embeddings2)

    def _readable(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The columns that the encoder reads, as in runs with the store. Raises UserError when it can read none."""
        source: Any = SimpleNamespace(fields=[name for name in columns if name != "id"])
        return {name: columns[name] for name in readable_fields(self.encoder, source)}


@dataclass(frozen=True)
class Traits:
    """What a loaded MTEB model says of itself, for a driver without weights.

    encodes: it gives vectors. sorts_texts: it is sentence-transformers underneath, which runs texts in order of length.
    pads_apart: where contents are text and image together, it pads the texts of a call and its images each for
    themselves, as MTEB's ColPali wrappers do. whole: its calls cannot be cut. cuda: its process sees a GPU.
    similarities: `similarity` and `similarity_pairwise` where they are plain functions that need no model.
    """

    meta: ModelMeta
    encodes: bool
    sorts_texts: bool = False
    pads_apart: bool = False
    whole: bool = False
    cuda: bool = False
    similarities: dict[str, Callable[[Any, Any], Any]] = field(default_factory=dict)


def traits_of(model: Any) -> Traits:
    import torch
    from mteb.models.model_implementations.colpali_models import ColPaliEngineWrapper

    meta = model.mteb_model_meta
    if not _encodes(model):
        return Traits(meta, encodes=False)
    found = {name: _portable(model, name) for name in ("similarity", "similarity_pairwise")}
    inner: Any = getattr(model, "model", None)
    sorts = _is_sentence_transformer(inner)
    # With flash attention it mixes long and short texts instead, in an order that a batch alone does not give.
    whole = (sorts and inner._can_flatten_inputs()) or "API" in (getattr(meta, "framework", None) or [])
    return Traits(
        meta,
        encodes=True,
        sorts_texts=sorts,
        pads_apart=type(model).encode is ColPaliEngineWrapper.encode,
        whole=bool(whole or _WHOLE & {c.__name__ for c in type(model).__mro__}),
        cuda=torch.cuda.is_available(),
        similarities={name: function for name, function in found.items() if function is not None},
    )


def _is_sentence_transformer(inner: Any) -> bool:
    if not any(base.__module__.startswith("sentence_transformers.") for base in type(inner).__mro__):
        return False  # without importing it
    from sentence_transformers.base.model import BaseModel

    return isinstance(inner, BaseModel)


@dataclass(frozen=True)
class _ByMeta:
    """AbsEncoder's own comparison, which asks the metadata for the function."""

    name: str
    mteb_model_meta: ModelMeta | None
    model: None = None

    def __call__(self, first: Any, second: Any) -> Any:
        return getattr(AbsEncoder, self.name)(self, first, second)


@dataclass(frozen=True)
class _BySentenceTransformers:
    """What a SentenceTransformer compares by, called as MTEB's wrapper calls it. function: its name there."""

    name: str
    function: str

    def __call__(self, first: Any, second: Any) -> Any:
        from sentence_transformers import SimilarityFunction

        pairwise = self.name == "similarity_pairwise"
        find = SimilarityFunction.to_similarity_pairwise_fn if pairwise else SimilarityFunction.to_similarity_fn
        return find(self.function)(_upcast_low_precision(first), _upcast_low_precision(second))


def _portable(model: Any, name: str) -> Callable[[Any, Any], Any] | None:
    """The model's comparison as a function that a process without the weights can run; None where there is none."""
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    owner = getattr(type(model), name, None)
    inner: Any = getattr(model, "model", None)
    by_meta = owner in (getattr(AbsEncoder, name), getattr(EncoderModel, name))
    named = model.mteb_model_meta is not None and model.mteb_model_meta.similarity_fn_name is not None
    if by_meta and (named or not callable(getattr(inner, name, None))):
        return _ByMeta(name, model.mteb_model_meta)
    as_wrapped = by_meta or owner is getattr(SentenceTransformerEncoderWrapper, name)
    if as_wrapped and getattr(type(inner), name, None) is getattr(SentenceTransformer, name):
        return _BySentenceTransformers(name, inner.similarity_fn_name)
    return None
