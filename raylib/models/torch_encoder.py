"""The base of encoders that run a torch model: lazy halves, pickling without weights, and what identifies them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.models.family import Family
from raylib.models.loading import check_attention, device_name, dtype_name, model_failure, placed, to_numpy
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.weights import model_location, source_identity
from raylib.types import Embeddings, Tensors

if TYPE_CHECKING:
    import torch
    from mteb.models.model_meta import ModelMeta
    from peft import PeftModel

    from raylib.models.token_vectors import TokenVectors


class TorchEncoder(Encoder):
    """Subclasses give `load_processor`, `load_model`, `preprocess`, `vectors`, and `settings` where they have any.

    `processor` and `model` are loaded on first use and left behind when the encoder is pickled.
    """

    supported_options: ClassVar[frozenset[str]] = frozenset(
        {"dtype", "adapter", "merge", "attention", "compile", "query_prompt", "document_prompt"}
    )
    ENCODING_VERSION: ClassVar[int] = 1
    """Raised when the same weights and settings would give other vectors than before."""

    _weights_name: str | None = None

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        self.dtype = dtype_name(spec)
        check_attention(spec)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Besides weights and dtype, what decides a vector: pooling, dim, preprocessing. JSON-able."""
        return {}

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "family": self.family.name,
            "version": self.ENCODING_VERSION,
            **source_identity(self.spec),
            # In half precision buffers stay in float32 (see `placed`); vectors from before that was so are others.
            "dtype": self.dtype if self.dtype == "float32" else f"{self.dtype}, float32 buffers",
            **({"weights in memory": self._weights_name} if self._weights_name else {}),
            **self.settings,
        }

    def name_weights(self, name: str | None) -> None:
        """Of weights that are in memory alone, as in training: part of the fingerprint. None: they are as loaded."""
        self._weights_name = name
        vars(self).pop("fingerprint", None)

    @abstractmethod
    def load_processor(self) -> Any:
        """The tokenizer or image processor, without weights; any failure becomes a ModelError."""

    @abstractmethod
    def load_model(self) -> Any:
        """The model in eval mode, in `self.load_dtype`, adapter and all, in host memory; any failure becomes a
        ModelError. `model` brings it to its number format and to its device."""

    @abstractmethod
    def vectors(self, tensors: Tensors) -> TokenVectors:
        """The model's forward, pooling, truncation and normalisation, on the device; with gradient where torch records
        one, so that the same lines train a model that judge it."""

    def forward(self, tensors: Tensors) -> Embeddings:
        import torch

        with torch.inference_mode():
            found = self.vectors(tensors)
            return Embeddings(to_numpy(found.values, self.dtype), found.offsets)

    @cached_property
    def processor(self) -> Any:
        with model_failure(self.spec, "its processor cannot be loaded"):
            return self.load_processor()

    @cached_property
    def model(self) -> Any:
        with model_failure(self.spec, "its weights cannot be loaded"):
            return placed(self.load_model(), self.spec, self.dtype)

    @cached_property
    def device(self) -> str:
        return device_name(self.spec)

    def load(self) -> None:
        _ = self.model, self.processor

    # What training asks of a family.

    @property
    def trunk(self) -> torch.nn.Module:
        """The module that holds the weights, but for heads that lie apart."""
        return self.model

    def heads(self) -> dict[str, torch.nn.Parameter]:
        """The projections on top of the backbone, by name; {} for a family that has none to train by themselves."""
        return {}

    @property
    def adapter_host(self) -> torch.nn.Module:
        """What a peft adapter of this family goes on."""
        return self.model

    adapter_prefix: ClassVar[str] = ""
    """What stands in an adapter's file before the names of `adapter_host`'s modules, where that is part of a model."""

    def save(self, folder: str, *, peft: PeftModel | None = None, whole: bool = True, step: int = 0) -> None:
        """Write into `folder` what `--model FOLDER` reads: the model and its processor, or the adapter on it alone.
        whole: not only heads have changed, of a family that can write them alone. step: of the training."""
        del whole, step
        from raylib.models.saving import save_adapter

        if peft is not None:
            save_adapter(folder, peft, self.adapter_prefix)
        else:
            self.save_model(folder)

    def save_model(self, folder: str) -> None:
        """Weights and processor; the weights in the number format that they are in."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def pretrained(self) -> dict[str, Any]:
        """Keyword arguments that every from_pretrained of this encoder takes; the name or folder is `location`."""
        return {"revision": self.spec.revision, "trust_remote_code": self.spec.trust_remote_code}

    def weights_options(self) -> dict[str, Any]:
        """Keyword arguments for from_pretrained of the weights, besides `pretrained`: number format and attention."""
        attention = {"attn_implementation": self.spec.attention} if self.spec.attention else {}
        return {"dtype": self.load_dtype, **attention}

    @property
    def load_dtype(self) -> torch.dtype:
        """float32 where an adapter is merged, which in half precision would lose its small updates; else self.dtype."""
        import torch

        return torch.float32 if self.adapted and self.spec.merge else getattr(torch, self.dtype)

    @property
    def adapted(self) -> bool:
        """Whether the weights are a base model's with an adapter on them."""
        return self.spec.adapter is not None

    @property
    def location(self) -> str:
        return model_location(self.spec)

    def on_device(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """Arrays → torch tensors where the model is; floats in the model's number format."""
        import torch

        moved = {}
        for name, array in tensors.items():
            tensor = torch.from_numpy(np.array(array)).to(self.device)  # a copy: arrays out of a store are read-only
            moved[name] = tensor.to(getattr(torch, self.dtype)) if tensor.is_floating_point() else tensor
        return moved

    def model_meta(self) -> ModelMeta | None:
        from mteb.models.model_implementations import MODEL_REGISTRY

        return MODEL_REGISTRY.get(self.spec.name)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("model", "processor", "device")}


class DenseEncoder(TorchEncoder):
    """One whose vectors are a function of tensors alone, so that a graph of it can be exported."""

    @abstractmethod
    def dense(self, inputs: Mapping[str, torch.Tensor], scalars: Mapping[str, str | int]) -> torch.Tensor:
        """[n, dim] in the model's number format, of the arrays of `preprocess` on the device; with gradient where torch
        records one. Torch only from end to end, and no step that depends on a value of a tensor."""

    def scalars(self, tensors: Tensors) -> dict[str, str | int]:
        """Those of the arrays of `preprocess` that say the same of every content of a batch, as that one value."""
        del tensors
        return {}

    def constants(self, scalars: Mapping[str, str | int]) -> dict[str, str | int]:
        """Those of the scalars on which a vector depends: a graph is of one value of each. Needs no weights."""
        return dict(scalars)

    def make_traceable(self) -> None:
        """Replace steps of the loaded model that depend on a value of a tensor by others that give the same."""
        return

    def vectors(self, tensors: Tensors) -> TokenVectors:
        from raylib.models.token_vectors import TokenVectors

        scalars = self.scalars(tensors)
        inputs = self.on_device({name: array for name, array in tensors.items() if name not in scalars})
        return TokenVectors.dense(self.dense(inputs, scalars))


class HeadedEncoder(TorchEncoder):
    """One whose backbone may have projections on top that can be trained by themselves: `heads` is {} for a checkpoint
    without any, and what is below is then not asked."""

    @abstractmethod
    def heads(self) -> dict[str, torch.nn.Parameter]:
        """The projections, by name."""

    @abstractmethod
    def features(self, tensors: Tensors) -> dict[str, TokenVectors]:
        """What the heads see, by part of the contents, "text" and "image": [tokens, hidden]."""

    @abstractmethod
    def projected(self, features: Mapping[str, TokenVectors]) -> TokenVectors:
        """What `vectors` gives where `features` gave that."""

    @property
    def backbone_identity(self) -> Mapping[str, Any]:
        """All that decides `features`."""
        return self.identity
