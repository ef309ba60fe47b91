"""`raylib.RayModel`: any model of raylib as an MTEB model whose work runs on the cluster."""

from __future__ import annotations

import tempfile
from typing import Any

from raylib.cluster.pool import PoolStage
from raylib.cluster.session import Workers, start
from raylib.errors import UserError
from raylib.evaluate.model import StoreModel
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.store.embeddings import Shelf


class RayModel(StoreModel):
    """An MTEB model: `mteb.evaluate(raylib.RayModel("google/siglip2-base-patch16-256", workers=4), tasks)`.

    model: a name, a directory, "module:factory" or a ModelSpec; the other options of a ModelSpec (dtype, pooling,
    embedding_dim, adapter, …) go by keyword. workers: actors that hold the model; they start with the first request
    and live until `close`. store: a folder where vectors are kept; a temporary one by default, which goes with this
    object. Joins the Ray cluster at `address` or in RAY_ADDRESS, or starts Ray here.
    """

    def __init__(
        self,
        model: str | ModelSpec,
        *,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
        cpus_per_worker: int = 1,
        batch_size: int = 32,
        store: str | None = None,
        address: str | None = None,
        **options: Any,
    ) -> None:
        start(address)
        placing = Workers(workers, 1, gpus_per_worker, cpus_per_worker).resolve()
        spec = ModelSpec(model, **options) if isinstance(model, str) else model
        encoder = resolve(spec)
        if not isinstance(encoder, Encoder):
            raise UserError(
                f"{spec.name} searches but has no vectors; give it to mteb.evaluate or raylib evaluate as it is"
            )
        self._temporary = tempfile.TemporaryDirectory(prefix="raylib-store-") if store is None else None
        root = store or self._temporary.name  # pyright: ignore[reportOptionalMemberAccess]
        super().__init__(encoder, Shelf(root, encoder.fingerprint), PoolStage(placing), batch_size=batch_size)

    def close(self) -> None:
        """Give up the actors and the temporary store."""
        stage = self.stage
        if isinstance(stage, PoolStage):
            stage.close()
        if self._temporary is not None:
            self._temporary.cleanup()
