"""The settings of `raylib bench`: its flags, its YAML keys and the keyword arguments of `raylib.bench`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, get_args

from raylib import storage
from raylib.bench.protocol import Precision, Tower
from raylib.bench.runtimes.table import RUNTIMES, check_name
from raylib.errors import UnknownNameError, UserError
from raylib.models.options import ModelChoice
from raylib.models.protocol import ModelSpec
from raylib.placement import at_least_one, name_list

Number = TypeVar("Number", int, float)

_LISTS: dict[str, tuple[str, ...]] = {
    "model": (),
    "runtimes": tuple(RUNTIMES),
    "precision": ("fp32",),
    "towers": (),
    "batch_sizes": ("1", "8", "32"),
    "sequence_lengths": ("16", "128", "512"),
    "threads": ("1",),
    "concurrency": (),
    "load": (),
    "node_types": (),
}
"""What each is by default: a list of flags adds to what is there, so the defaults of the class are empty."""


@dataclass
class BenchConfig(ModelChoice):
    """Time one model on several runtimes, each only after its vectors have proved to be PyTorch's.

    Every cell (a runtime, precision, batch and length) is measured in fresh processes, over rounds in which the
    runtimes take turns. A finished cell is not measured again, so the same command continues a run that was stopped.
    """

    device: str | None = field(default=None, metadata={"metavar": "cpu|cuda"})
    """Where the model runs. By default cpu."""

    runtimes: list[str] = field(default_factory=list)
    """What runs the model: torch, torch-compile, onnx, openvino, candle, ort-rust, ort-native, or module:class. By
    default all of them; what one cannot run is a named hole in the table."""

    precision: list[str] = field(default_factory=list, metadata={"metavar": "fp32|bf16|int8"})
    """Number formats, comma-separated: fp32, bf16, int8. By default fp32."""

    towers: list[str] = field(default_factory=list, metadata={"metavar": "text|image"})
    """What is encoded: text, image. By default what the model reads."""

    batch_sizes: list[str] = field(default_factory=list, metadata={"metavar": "N,N,…"})
    """Contents of one call. By default 1,8,32."""

    sequence_lengths: list[str] = field(default_factory=list, metadata={"metavar": "N,N,…"})
    """Tokens of every text, special ones among them. By default 16,128,512."""

    threads: list[str] = field(default_factory=list, metadata={"metavar": "N,N,…"})
    """Threads of the runtime. By default 1."""

    rounds: int = 3
    """Processes that measure each cell; the table has their medians."""

    concurrency: list[str] = field(default_factory=list, metadata={"metavar": "N,N,…"})
    """Clients that call at the same time, each with a batch of one. By default there is one, with every batch."""

    load: list[str] = field(default_factory=list, metadata={"metavar": "X,X,…"})
    """Also let calls of one content arrive by chance (Poisson), at these shares of what one client gets through: 0.5 is
    half of that."""

    duration: float = field(default=10.0, metadata={"metavar": "SECONDS"})
    """Least time to measure a cell in each round."""

    timeout: float = field(default=1800.0, metadata={"metavar": "SECONDS"})
    """Longest time of any process: an export, a check, a round of a cell. One that takes longer is ended and costs its
    own cell."""

    quality_task: str | None = field(default=None, metadata={"metavar": "TASK"})
    """Also score every runtime that raylib evaluate has on this task or benchmark, e.g. StdlibPages."""

    skip_on_error: bool = False
    """Exit status 0 though cells failed or were refused; they are in the table either way."""

    output_folder: str = field(default="results/bench", metadata={"metavar": "DIR"})
    """Where results, tables, figures and the report go."""

    csv: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Also write the table as CSV."""

    summary_only: bool = False
    """Measure nothing: build tables, figures and report from the results in the output folder."""

    price_table: str | None = field(default=None, metadata={"metavar": "FILE"})
    """YAML of node types and their USD per hour, for the price of a million embeddings."""

    node_types: list[str] = field(default_factory=list)
    """Measure on one node of each of these types of the cluster. With --local, what this machine is called in the
    tables and in the price table."""

    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """A Ray cluster to join. By default RAY_ADDRESS, or Ray is started on this machine."""

    local: bool = False
    """Run on this machine, without Ray."""

    overwrite: bool = False
    """Measure again what is finished."""

    quiet: bool = False
    """No progress, only problems."""

    def __post_init__(self) -> None:
        """Split comma lists and check what can be checked without loading anything. Raises UserError."""
        for name, default in _LISTS.items():
            given = getattr(self, name)
            names = name_list([given] if isinstance(given, int | float) else given)
            setattr(self, name, list(dict.fromkeys(names or default)))
        for name in self.runtimes:
            check_name(name)
        self._one_of("precision", get_args(Precision))
        self._one_of("towers", get_args(Tower))
        for name in ("batch_sizes", "sequence_lengths", "threads", "concurrency"):
            self.numbers(name, int)
        self.numbers("load", float)
        at_least_one(self, ("rounds",))
        for name in ("duration", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name} is {getattr(self, name)}; expected seconds, more than 0")
        if self.device is not None and self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise UserError(f"--device is {self.device!r}; expected cpu or cuda: a cell is measured on one device")
        if self.local and self.address:
            raise UserError("--local runs without Ray and --address names a cluster; leave one of them out")
        if self.local and len(self.node_types) > 1:
            raise UserError(f"--local measures this machine, and --node-types names {len(self.node_types)}; give one")
        self.output_folder = storage.as_path(self.output_folder)

    def check_complete(self) -> None:
        """Raises UserError unless there is something to measure, or --summary-only."""
        if not self.model and not self.summary_only:
            raise UserError("no model was given; add --model NAME (see: raylib list models)")

    def numbers(self, name: str, kind: Callable[[str], Number]) -> list[Number]:
        """The numbers in a list of them. Raises UserError for what is none, or not above 0."""
        found = []
        for word in getattr(self, name):
            try:
                number = kind(word)
            except ValueError:
                number = None
            if number is None or not 0 < number < math.inf:
                what = "a whole number, 1 or more" if kind is int else "a number above 0"
                raise UserError(f"--{name.replace('_', '-')} has {word!r}; expected {what}")
            found.append(number)
        return list(dict.fromkeys(found))

    def specs(self) -> list[ModelSpec]:
        """As PyTorch runs them in float32, on a device that is named, so that no runtime takes another one."""
        return [replace(spec, device=spec.device or "cpu") for spec in super().specs()]

    def protocol(self) -> dict[str, Any]:
        """What decides a measurement besides its cell."""
        return {"duration_s": self.duration, "device": self.device or "cpu"}

    def _one_of(self, name: str, known: tuple[str, ...]) -> None:
        for given in getattr(self, name):
            if given not in known:
                raise UnknownNameError(name.rstrip("s"), given, known, hint=f"There are: {', '.join(known)}.")
