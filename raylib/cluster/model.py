"""`raylib.RayModel`: any model of raylib as an MTEB model whose work runs on the cluster."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from raylib.cluster.pool import PoolStage
from raylib.cluster.search import RaySearch
from raylib.cluster.session import Workers, start, started_here
from raylib.errors import UserError
from raylib.evaluate.batching import BatchLimits
from raylib.evaluate.model import StoreModel
from raylib.evaluate.search import search_locally
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.search.options import SearchOptions
from raylib.store.embeddings import Shelf

if TYPE_CHECKING:
    from raylib.evaluate.exact_mteb import ExactModel


class RayModel(StoreModel):
    """An MTEB model: `mteb.evaluate(raylib.RayModel("google/siglip2-base-patch16-256", workers=4), tasks)`.

    model: a name, a directory, "module:factory" or a ModelSpec; the other options of a ModelSpec (dtype, pooling,
    embedding_dim, adapter, …) go by keyword. workers: actors that hold the model; they start with the first request
    and live until `close`. store: a folder where vectors are kept; a temporary one by default, which goes with this
    object. The fields of SearchOptions (index, candidates, oversample, token_pooling) go by keyword too; what they lose
    is in `quality` after a search. Joins the Ray cluster at `address` or in RAY_ADDRESS, or starts Ray here.

    exact_mteb=True gives another kind of object (an `ExactModel`): MTEB's own model in the actors and MTEB's own
    search, bit for bit what MTEB gives; without a store, and with the batch size of `mteb.evaluate`'s encode_kwargs.
    """

    def __new__(cls, *model: Any, exact_mteb: bool = False, **settings: Any) -> Any:
        if not exact_mteb:
            return super().__new__(cls)  # also where a copy is made, without arguments
        return _exact(*model, **settings)

    def __init__(
        self,
        model: str | ModelSpec,
        *,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
        cpus_per_worker: int = 1,
        batch_size: int | None = None,
        max_batch_tokens: int | None = None,
        store: str | None = None,
        address: str | None = None,
        exact_mteb: bool = False,
        **options: Any,
    ) -> None:
        del exact_mteb  # see __new__
        start(address, kind="model")
        placing = Workers(workers, 1, gpus_per_worker, cpus_per_worker).resolve()
        search = SearchOptions(
            **{name: options.pop(name) for name in SearchOptions.__dataclass_fields__ & options.keys()}
        )
        spec = ModelSpec(model, **options) if isinstance(model, str) else model
        encoder = resolve(spec.on_gpus(gpus_per_worker))
        if not isinstance(encoder, Encoder):
            raise UserError(
                f"{spec.name} searches but has no vectors; give it to mteb.evaluate or raylib evaluate as it is"
            )
        self._temporary = tempfile.TemporaryDirectory(prefix="raylib-store-") if store is None else None
        root = store or self._temporary.name  # pyright: ignore[reportOptionalMemberAccess]
        shared = store is not None or started_here()  # a temporary folder is not seen from other machines
        super().__init__(
            encoder,
            Shelf(root, encoder.fingerprint),
            PoolStage(placing),
            limits=BatchLimits.of(batch_size, max_batch_tokens),
            experiment=search.changed(),
            search_stage=RaySearch(placing) if shared else search_locally,
            search_options=search,
        )

    def close(self) -> None:
        """Give up the actors and the temporary store."""
        stage = self.stage
        if isinstance(stage, PoolStage):
            stage.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def _exact(
    model: str | ModelSpec,
    *,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int = 1,
    address: str | None = None,
    batch_size: int | None = None,
    store: str | None = None,
    **options: Any,
) -> ExactModel:
    from raylib.cluster.exact_mteb import ray_exact_model
    from raylib.evaluate.exact_mteb import ExactModel

    if store is not None or batch_size is not None:
        raise UserError(
            "exact_mteb=True takes no store, and its batch size from MTEB: "
            'mteb.evaluate(model, tasks, encode_kwargs={"batch_size": 32})'
        )
    start(address, kind="model")
    spec = ModelSpec(model, **options) if isinstance(model, str) else model
    exact = ray_exact_model(spec, Workers(workers, 1, gpus_per_worker, cpus_per_worker))
    if not isinstance(exact, ExactModel):
        raise UserError(f"{spec.name} searches by itself and has no calls to spread; give it to mteb.evaluate as it is")
    return exact
