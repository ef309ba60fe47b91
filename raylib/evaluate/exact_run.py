"""A model of `--exact-mteb` in the evaluate job: nothing is planned or stored, MTEB runs it task by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raylib.models.protocol import Encoder, ModelSpec

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

    from raylib.models.bridge import SearchModel

ExactModelMaker = Callable[[ModelSpec], Any]
"""spec → what `mteb.evaluate` takes: the real model here, or an ExactModel over the actors of a cluster."""


class ExactRunModel:
    """What the job needs to know of it. It is loaded in the process that scores, once for all its tasks."""

    def __init__(self, model: Encoder | SearchModel, make: ExactModelMaker) -> None:
        self.spec, self.fingerprint = model.spec, f"exact-mteb {model.fingerprint}"
        self._model, self._make = model, make
        self._loaded: Any = None

    def load(self) -> Any:
        """Raises UserError for an option that MTEB's model does not have, ModelError where it cannot be loaded."""
        self._loaded = self._make(self.spec)
        return self._loaded

    def model_meta(self) -> ModelMeta | None:
        return self._model.model_meta()

    def close(self) -> None:
        """Give up its actors."""
        if hasattr(self._loaded, "close"):
            self._loaded.close()
        self._loaded = None
