"""Settings that both commands of mining have: data, teacher, how neighbours are found, and where the result goes."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from raylib import storage
from raylib.errors import UnknownNameError, UserError
from raylib.evaluate.batching import BatchLimits
from raylib.examples.options import DataOptions
from raylib.mine.options import SearchMethod
from raylib.models.options import ModelOptions
from raylib.models.protocol import ModelSpec
from raylib.placement import Placement, at_least_one, name_list

SEARCHING = ("search", "recall", "candidates")
"""Settings that decide which neighbours are found."""


@dataclass
class MineConfig(DataOptions, Placement, ModelOptions, ABC):
    """Training data, the teacher whose vectors it is mined with, and where the result goes."""

    output: str | None = field(default=None, metadata={"metavar": "FILE"})
    """What is written; its summary and its errors go beside it."""

    store: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where the teacher's embeddings are kept between runs. By default store, beside the output."""

    search: SearchMethod = field(default="auto", metadata={"metavar": "auto|exact|ivf"})
    """How neighbours of dense teachers are found: all compared, or an inverted file where there are many."""

    recall: float = field(default=0.99, metadata={"metavar": "X"})
    """The share of the exact neighbours that an inverted file must find; what it finds is measured and told."""

    candidates: int | None = None
    """Late-interaction teachers: score by MaxSim only so many documents a query, the nearest by mean vectors. By
    default all; the recall of the shortcut is measured and told."""

    encode_batch_size: int | Literal["auto"] | None = field(default=None, metadata={"metavar": "N|auto"})
    """Contents per forward of the teacher, 32 by default; auto tries the longest and keeps what fits."""

    max_batch_tokens: int | None = None
    """Tokens per forward of the teacher, padding included."""

    seed: int = 0
    """Of everything by chance."""

    allow_errors: int = 0
    """Go on without up to N contents that cannot be encoded, and the examples that need them."""

    overwrite: bool = False
    """Replace the output of another run."""

    dry_run: bool = False
    """Print what would be encoded and how much is stored already, and stop."""

    quiet: bool = False
    """No progress and no table, only problems."""

    def __post_init__(self) -> None:
        """Split comma lists and check what can be checked without loading anything. Raises UserError."""
        self.model = name_list(self.model)
        self.take_data()
        for name in ("output", "store"):
            value = getattr(self, name)
            setattr(self, name, storage.as_path(value) if value is not None else None)
        self.check_placement()
        at_least_one(self, ("limit", "candidates", "max_batch_tokens"))
        if self.encode_batch_size != "auto":
            at_least_one(self, ("encode_batch_size",))
        elif self.max_batch_tokens is not None:
            raise UserError("--encode-batch-size auto finds the bound on tokens itself; leave out --max-batch-tokens")
        if not 0 < self.recall <= 1:
            raise UserError(f"--recall is {self.recall}; expected a share above 0 and up to 1")
        if self.search not in get_args(SearchMethod):
            raise UnknownNameError("search", self.search, get_args(SearchMethod), hint=one_of(get_args(SearchMethod)))
        if self.allow_errors < 0:
            raise UserError(f"--allow-errors is {self.allow_errors}; expected 0 or more")

    def check_complete(self) -> None:
        """Raises UserError unless there is data, one teacher, and a place for the result."""
        if not self.data and self.hub_name is None:
            raise UserError("there is no training data; add --data FILE, or --hub-name OWNER/NAME")
        if not self.model and self.needs_teacher:
            raise UserError("no teacher was given; add --model NAME (see: raylib list models)")
        if len(dict.fromkeys(self.model)) > 1:
            raise UserError(f"--model names {len(self.model)} models; data is mined with one teacher")
        if not self.output:
            raise UserError("no place for the result; add --output FILE")
        suffix = os.path.splitext(self.output)[1].lower()
        if suffix not in self.suffixes:
            raise UserError(f"--output {self.output}: expected a file that ends with {' or '.join(self.suffixes)}")

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """What the name of the output may end with."""

    @abstractmethod
    def deciding(self) -> dict[str, Any]:
        """All that decides a result besides the examples and the teacher's vectors; as JSON holds it."""

    @property
    def needs_teacher(self) -> bool:
        return True

    @property
    def spec(self) -> ModelSpec:
        return self.specs()[0].on_gpus(self.gpus_per_worker)

    @property
    def limits(self) -> BatchLimits | None:
        """Of one forward; None where they are to be found by trying."""
        if self.encode_batch_size == "auto":
            return None
        return BatchLimits.of(self.encode_batch_size, self.max_batch_tokens)

    @property
    def output_file(self) -> str:
        assert self.output, "check_complete comes first"
        return self.output

    def beside(self, suffix: str) -> str:
        """A file beside the output with its name and another suffix."""
        return os.path.splitext(self.output_file)[0] + suffix

    @property
    def store_folder(self) -> str:
        folder = os.path.dirname(self.output_file)
        return self.store or (f"{folder}/store" if folder else "store")

    def as_dict(self) -> dict[str, Any]:
        """What was set, for the summary."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and v is not False and v != []}


def one_of(names: Sequence[str]) -> str:
    return f"Expected one of {', '.join(names)}."
