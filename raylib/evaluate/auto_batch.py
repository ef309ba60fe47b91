"""--batch-size auto: the largest batch that fits, found by trying the real forward on the longest contents of a plan.

What was found is kept beside the vectors it is for, by device, so that the next run of the same model does not try
again. On a CPU, where memory seldom ends first, a batch grows only as long as that makes it faster.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylib.errors import ModelError
from raylib.evaluate.batching import MAX_CONTENTS, BatchLimits, MicroBatch
from raylib.evaluate.contents import Rows
from raylib.evaluate.encode import free_device_memory, is_out_of_memory
from raylib.evaluate.prepare import prepare
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf
from raylib.types import Tensors

_HEADROOM = 0.8
"""Of the memory that is there, what a batch may use: others vary, and so do allocators."""

_WORTH_DOUBLING = 1.05
"""How much faster, in contents a second, a doubled batch must be on a CPU."""

_NOTE = "batch_sizes.json"


LimitsFinder = Callable[
    [Encoder, Mapping[tuple[str, ...], Sequence[MicroBatch]], Sequence[Any], Shelf], dict[tuple[str, ...], BatchLimits]
]
"""`auto_limits`, here or on a worker."""


@dataclass(frozen=True)
class Longest:
    """The longest content found in a sample. tensors: of one content; tokens: its number, None where unknown."""

    tensors: Tensors
    tokens: int | None

    @property
    def weight(self) -> tuple[int, int]:
        """What makes one content longer than another: bytes of its tensors, then tokens."""
        return sum(array.nbytes for array in self.tensors.values()), self.tokens or 0


def longest_of(encoder: Encoder, samples: Sequence[MicroBatch], sources: Sequence[Rows]) -> Longest | None:
    """The longest of single contents after their CPU half; None when none of them can be used."""
    found: list[Longest] = []
    for batch in samples:
        tensors = prepare(encoder, batch, sources).tensors
        if tensors is not None:
            counts = encoder.token_counts(tensors)
            found.append(Longest(tensors, None if counts is None else int(counts[0])))
    return max(found, key=lambda content: content.weight, default=None)


def auto_limits(
    encoder: Encoder,
    samples: Mapping[tuple[str, ...], Sequence[MicroBatch]],
    sources: Sequence[Rows],
    shelf: Shelf,
) -> dict[tuple[str, ...], BatchLimits]:
    """By the fields that are read: the limits of a forward here, on this device. Runs where the model is to run.

    samples: single contents to try with, see `Plan.samples`. What was found earlier, for contents as long as these,
    is taken from the store. Raises ModelError where not even one content fits.
    """
    device = device_title(encoder)
    known: dict[str, dict[str, int]] = shelf.recall(_NOTE)
    limits = {}
    for fields, batches in samples.items():
        longest = longest_of(encoder, batches, sources)
        if longest is None:
            limits[fields] = BatchLimits()
            continue
        name = f"{device} | {' + '.join(fields)}"
        size, nbytes = known.get(name, {}), longest.weight[0]
        if not size or size["bytes_of_longest"] < nbytes:
            size = {"contents": largest_of(encoder, longest.tensors), "bytes_of_longest": nbytes}
            known = {**shelf.recall(_NOTE), name: size}
            shelf.remember(_NOTE, known)
        if longest.tokens is None:
            limits[fields] = BatchLimits(size["contents"])
        else:  # short contents fit in larger numbers
            limits[fields] = BatchLimits(MAX_CONTENTS, size["contents"] * longest.tokens)
    return limits


def device_title(encoder: Encoder) -> str:
    """The device of an encoder's forward, as far as it bounds a batch: a GPU's name, or a CPU's threads."""
    import torch

    device = str(getattr(encoder, "device", "cpu"))
    if device.startswith("cuda"):
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(torch.device(device))}"
    return f"cpu, {torch.get_num_threads()} threads"


def largest_batch(
    model: str,
    device: str,
    forward: Callable[[int], object],
    most: int = MAX_CONTENTS,
    headroom: float = _HEADROOM,
) -> int:
    """How many contents fit into a forward, doubling from 1 and then half way up to what did not fit.

    forward: runs so many of the longest contents on `device`. headroom: the share of a GPU's memory that it may fill.
    Raises ModelError where one does not fit alone; any other failure goes through.
    """
    meter = _GpuMeter(headroom) if device.startswith("cuda") else _CpuMeter()
    fits, size = 0, 1
    while size <= most and _try(forward, size, meter):
        fits, size = size, 2 * size
    if fits == 0:
        raise ModelError(
            f"{model}: one content alone does not fit in memory. Use a smaller --max-pixels, --dtype bfloat16, or a "
            "larger device."
        )
    between = fits + fits // 2
    if fits < between <= most and meter.bounded_by_memory and _try(forward, between, meter):
        return between
    return meter.chosen(fits)


def largest_of(encoder: Encoder, tensors: Tensors) -> int:
    """tensors: of one content."""
    encoder.load()

    def forward(size: int) -> object:
        return encoder.forward({name: np.repeat(array, size, axis=0) for name, array in tensors.items()})

    return largest_batch(encoder.spec.name, str(getattr(encoder, "device", "cpu")), forward)


def _try(forward: Callable[[int], object], size: int, meter: _Meter) -> bool:
    """Whether a forward of that many contents fits, and is worth it."""
    try:
        return meter.worth(size, lambda: forward(size))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_device_memory()  # outside the handler, which holds the failed forward's tensors alive
    meter.bounded_by_memory = True
    return False


class _Meter(ABC):
    """Runs a forward and says whether the next larger one should be tried."""

    bounded_by_memory = False

    @abstractmethod
    def worth(self, size: int, forward: Callable[[], object]) -> bool:
        """Run it; False where a batch of `size` is already too large."""

    def chosen(self, fits: int) -> int:
        """The size to take, of those up to `fits` that were worth it."""
        return fits


class _GpuMeter(_Meter):
    """As long as the peak stays within the headroom."""

    def __init__(self, headroom: float) -> None:
        self._headroom = headroom

    def worth(self, size: int, forward: Callable[[], object]) -> bool:
        import torch

        free, total = torch.cuda.mem_get_info()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        forward()
        room = free + torch.cuda.memory_reserved() - held
        fits = torch.cuda.max_memory_allocated() - held <= self._headroom * min(room, total)
        self.bounded_by_memory = self.bounded_by_memory or not fits
        return fits


class _CpuMeter(_Meter):
    """As long as it becomes faster; a doubling in vain may be noise, two are not. The second run of two counts: the
    first one warms up."""

    def __init__(self) -> None:
        self._best, self._rate = 0, 0.0

    def worth(self, size: int, forward: Callable[[], object]) -> bool:
        times = []
        for _ in range(2):
            start = time.perf_counter()
            forward()
            times.append(time.perf_counter() - start)
        rate = size / min(times)
        if rate >= _WORTH_DOUBLING * self._rate:
            self._best, self._rate = size, rate
        return size < 4 * self._best

    def chosen(self, fits: int) -> int:
        del fits
        return self._best
