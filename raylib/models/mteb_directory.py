"""The model that MTEB itself would run for a name or a directory, where it has one: what `--exact-mteb` runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylib.models.loading import device_name, model_failure
from raylib.models.mteb_source import FactorySource, ModelSource, RegistrySource
from raylib.models.protocol import ModelSpec

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

_DIRECTORY_LOADERS = {
    "clip": "openai/clip-vit-base-patch32",
    "siglip": "google/siglip-base-patch16-224",
    "colpali": "vidore/colpali-v1.3",
    "colqwen2": "vidore/colqwen2-v1.0",
    "colqwen2.5": "vidore/colqwen2.5-v0.2",
    "colidefics3": "vidore/colSmol-256M",
    "colmodernvbert": "ModernVBERT/colmodernvbert",
}
"""raylib's family of a directory → the name in MTEB's registry whose loader, with its settings, runs such models."""


class DirectorySource(ModelSource):
    """A checkpoint on disk through the loader that MTEB has for models of its kind.

    family: a key of _DIRECTORY_LOADERS, or "sentence-transformers", which MTEB loads from any directory.
    """

    def __init__(self, spec: ModelSpec, directory: str, family: str) -> None:
        self.spec, self.directory, self.family = spec, directory, family
        if family == "sentence-transformers" and spec.embedding_dim is not None:
            self.dims = (spec.embedding_dim,)

    @property
    def identity(self) -> Mapping[str, Any]:
        from importlib.metadata import version

        from raylib.models.weights import weights_digest

        return {"directory": weights_digest(self.directory), "family": self.family, "mteb": version("mteb")}

    @property
    def meta(self) -> ModelMeta:
        """Of the checkpoint: its name, and of the loader's own models only what holds for every checkpoint."""
        from mteb.models.model_meta import ModelMeta

        known: dict[str, Any] = {"name": "local/" + os.path.basename(os.path.abspath(self.directory))}
        like = self._like
        if like is not None:
            shared = ("loader", "framework", "similarity_fn_name", "modalities", "model_type")
            known.update({name: getattr(like, name) for name in shared})
        return ModelMeta.create_empty(known)

    @property
    def _like(self) -> ModelMeta | None:
        from mteb.models.model_implementations import MODEL_REGISTRY

        return MODEL_REGISTRY[_DIRECTORY_LOADERS[self.family]] if self.family in _DIRECTORY_LOADERS else None

    @property
    def candidates(self) -> list[Any]:
        from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

        return [self._like.loader if self._like is not None else SentenceTransformerEncoderWrapper]

    def load(self) -> Any:
        with model_failure(self.spec, "MTEB cannot load it"):
            model = self._load(device_name(self.spec) if self.spec.device else None)
        if self._like is not None:  # a wrapper of sentence-transformers has asked the checkpoint itself
            model.mteb_model_meta = self.meta
        return model

    def _load(self, device: str | None) -> Any:
        from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

        if self._like is not None:
            here = {"name": self.directory, "revision": None, "extra_requirements_groups": None}
            return self._like.model_copy(deep=True, update=here).load_model(device=device)
        settings: dict[str, Any] = {"embed_dim": self.spec.embedding_dim}
        if self.spec.trust_remote_code:
            settings["trust_remote_code"] = True
        return SentenceTransformerEncoderWrapper(self.directory, device=device, **settings)


def mteb_source(spec: ModelSpec) -> ModelSource | None:
    """The way to the model that MTEB itself would run; None for a model that only raylib has: an Encoder of a user's
    factory, a family without a loader in MTEB, an adapter, the untrained and the shipped ones.

    Raises what `raylib.models.registry.resolve` raises.
    """
    from mteb.models.get_model_meta import _MODEL_RENAMES
    from mteb.models.model_implementations import MODEL_REGISTRY

    from raylib.models.registry import resolve
    from raylib.models.weights import local_folder

    name = _MODEL_RENAMES.get(spec.name, spec.name)
    if name in MODEL_REGISTRY and not os.path.isdir(spec.name):
        return RegistrySource(dataclasses.replace(spec, name=name))
    model = resolve(spec)
    source = getattr(model, "source", None)
    if isinstance(source, RegistrySource | FactorySource):
        return source
    family = getattr(getattr(model, "family", None), "name", "")
    place = local_folder(spec.name, spec.revision)
    if place is None or model.spec.adapter or family not in (*_DIRECTORY_LOADERS, "sentence-transformers"):
        return None
    return DirectorySource(spec, str(place), family)
