"""`--exact-mteb`: the vectors of MTEB's own model, bit for bit, made on many workers.

`ExactModel` has MTEB's `encode` and no search of its own, so that MTEB searches, pads and ranks as it always does. A
call is cut at batch borders, the real MTEB model runs the pieces, and the results are put together as one call would
have given them. No store and no deduplication: both would change which contents share a batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from raylib.errors import ModelError
from raylib.evaluate.exact_calls import (
    Call,
    Cut,
    cuts_of,
    encode_rows,
    join,
    join_apart,
    length_order,
    rows_of,
    same_bits,
    take,
)
from raylib.evaluate.exact_models import ExactSource, Traits, check_widths, exact_source, traits_of
from raylib.models.protocol import ModelSpec

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

Way = Literal["aligned", "sorted", "apart", "whole"]
"""How calls of one kind are cut: at multiples of the batch size; in order of length, one batch at a time; at multiples
of the batch size, texts and images for themselves; not at all."""


class Runner(Protocol):
    """Where the real model runs: here, or in the actors of a cluster."""

    workers: int
    """How many pieces run side by side."""

    def traits(self) -> Traits:
        """What the loaded model says of itself."""
        ...

    def run(self, call: Call, rows: Any, cuts: Sequence[Cut]) -> list[Any]:
        """What the model gives for each cut of `rows`, in the order of `cuts`."""
        ...

    def similarity(self, name: str, first: Any, second: Any) -> Any:
        """The model's `similarity` or `similarity_pairwise`, where the model is."""
        ...

    def close(self) -> None: ...


class LocalRunner:
    """The model in this process. workers: as how many to cut for."""

    def __init__(self, source: ExactSource, workers: int = 1) -> None:
        self.workers = workers
        self.model = source.load()

    def traits(self) -> Traits:
        return traits_of(self.model)

    def run(self, call: Call, rows: Any, cuts: Sequence[Cut]) -> list[Any]:
        return [encode_rows(self.model, call, rows.select(range(cut.start, cut.stop)), cut) for cut in cuts]

    def similarity(self, name: str, first: Any, second: Any) -> Any:
        return getattr(self.model, name)(first, second)

    def close(self) -> None:
        return


class ExactModel:
    """An MTEB model (`mteb.evaluate(model, tasks)`) whose vectors are those of the real one, bit for bit.

    Whether the real model's batches can be cut is not taken on trust: the first call of each kind (columns, role, batch
    size) encodes three batches together and one by one, and where a single bit differs, calls of this kind run whole
    on one worker. ways: what was found, by kind.
    """

    def __init__(self, name: str, runner: Runner) -> None:
        self.name, self.runner = name, runner
        self.ways: dict[tuple[Any, ...], Way] = {}
        self._traits: Traits | None = None

    @property
    def traits(self) -> Traits:
        if self._traits is None:
            self._traits = self.runner.traits()
            if not self._traits.encodes:
                raise ModelError(f"{self.name} has no encode(); MTEB runs it by its own search, which is not cut")
        return self._traits

    @property
    def mteb_model_meta(self) -> ModelMeta:
        return self.traits.meta

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
        """What the real model's `encode` gives: same type, shape, number format and bits; tensors are on the CPU."""
        size = inputs.batch_size or 1
        call = Call(task_metadata, hf_split, hf_subset, prompt_type, kwargs, size, inputs.collate_fn)
        rows = rows_of(inputs.dataset)
        return self._cut(call, rows, self._way(call, rows))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        return self._compare("similarity", embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        return self._compare("similarity_pairwise", embeddings1, embeddings2)

    def close(self) -> None:
        """Give up the workers."""
        self.runner.close()

    def _compare(self, name: str, first: Any, second: Any) -> Any:
        """By a plain function here where the model has one and this process sees the kind of device that it runs on;
        with the model itself, where it is, otherwise."""
        import torch

        check_widths(first, second)
        function = self.traits.similarities.get(name)
        if function is not None and self.traits.cuda == torch.cuda.is_available():
            return function(first, second)
        return self.runner.similarity(name, first, second)

    def _way(self, call: Call, rows: Any) -> Way:
        columns = sorted(rows.features)
        ways: tuple[Way, ...] = ("aligned",)
        if self.traits.sorts_texts and "text" in columns and not {"image", "audio", "video"} & set(columns):
            ways = ("sorted", "aligned")
        elif self.traits.pads_apart and {"text", "image"} <= set(columns):
            ways = ("apart",)
        # `precision` other than float32 takes the range of the whole call.
        if self.traits.whole or call.kwargs.get("precision") not in (None, "float32"):
            return "whole"
        if len(rows) <= _unit(call, ways[-1]):
            return "whole"
        kind = (*columns, call.prompt_type, call.loader_batch_size, call.encode_batch_size)
        if kind in self.ways:
            return self.ways[kind]
        lengths = [len(text) for text in rows["text"]] if "text" in columns else None
        way = self._proven(call, rows, ways, lengths)
        if lengths is None or min(lengths) < max(lengths):  # texts of one length show no sorting by length
            self.ways[kind] = way
        return way

    def _proven(self, call: Call, rows: Any, ways: Sequence[Way], lengths: list[int] | None) -> Way:
        """The first of `ways` that gives the bits of one call over a few batches of `rows`, else "whole"."""
        unit = _unit(call, ways[-1])
        last = (len(rows) - 1) // unit
        batches = {0, last // 2, last}
        if lengths is not None:
            batches = {int(np.argmin(lengths)) // unit, int(np.argmax(lengths)) // unit, last}
        chosen = [np.arange(unit * i, min(unit * (i + 1), len(rows))) for i in sorted(batches)]
        probe = rows.select(np.concatenate(chosen))
        together = self._cut(call, probe, "whole")
        # Padded texts before padded images: the border between the two moves with the longest text of the call.
        if getattr(together, "ndim", 0) == 3 and {"text", "image"} <= set(rows.features):
            ways = [way for way in ways if way == "apart"]
        for way in ways:
            if same_bits(together, self._cut(call, probe, way)):
                return way
        if "whole" not in self.ways.values():
            logger.warning("%s: its vectors depend on the whole call; such calls run on one worker each", self.name)
        return "whole"

    def _cut(self, call: Call, rows: Any, way: Way) -> Any:
        if way == "whole":
            return self.runner.run(call, rows, [Cut(0, len(rows))])[0]
        unit, images = _unit(call, way), "image" in rows.features
        workers = self.runner.workers
        if way == "aligned":
            return join(self.runner.run(call, rows, cuts_of(len(rows), unit, workers, images=images)))
        if way == "apart":
            return join_apart(self.runner.run(call, rows, cuts_of(len(rows), unit, workers, images=True, apart=True)))
        order = length_order(list(rows["text"]))
        cuts = cuts_of(len(rows), unit, workers, images=images, per_call=unit)
        return take(join(self.runner.run(call, rows.select(order), cuts)), np.argsort(order))


def _unit(call: Call, way: Way) -> int:
    """Rows that must stay together. Some wrappers take the loader's batches, some collect the call and cut it by
    `batch_size`: a border must be one for both."""
    return call.encode_batch_size if way == "sorted" else math.lcm(call.loader_batch_size, call.encode_batch_size)


def local_exact_model(spec: ModelSpec) -> Any:
    """The real MTEB model in this process: `mteb.evaluate` runs it as it would without raylib.

    Raises UserError for a name or an option that cannot be, ModelError where the model cannot be loaded.
    """
    return exact_source(spec).load()
