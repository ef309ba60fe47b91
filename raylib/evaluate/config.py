"""The settings of `raylib evaluate`: its flags, its YAML keys and the keyword arguments of `raylib.evaluate`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from raylib.errors import UserError
from raylib.models.protocol import ModelSpec
from raylib.search.options import SearchOptions

_LISTS = ("model", "benchmarks", "tasks", "languages", "splits")
_SPEC_OPTIONS = (
    "revision",
    "adapter",
    "dtype",
    "pooling",
    "embedding_dim",
    "max_pixels",
    "device",
    "trust_remote_code",
)


@dataclass
class EvaluateConfig:
    """Score embedding models on MTEB tasks and benchmarks, sharded over Ray.

    Every distinct content is encoded once per model and kept in the store, so a second run, a run with more tasks
    and a run that was killed encode only what is missing.
    """

    model: list[str] = field(default_factory=list)
    """Models: a hub or MTEB name, a local directory, or module:factory. Comma-separated or repeated."""

    benchmarks: list[str] = field(default_factory=list)
    """Benchmarks, e.g. "ViDoRe(v2)" or StdlibPages. See: raylib list benchmarks."""

    tasks: list[str] = field(default_factory=list)
    """Single tasks, besides those of the benchmarks. See: raylib list tasks."""

    languages: list[str] = field(default_factory=list)
    """Only these languages of multilingual tasks, e.g. eng,fra. All by default."""

    splits: list[str] = field(default_factory=list)
    """Only these splits. The task's own by default."""

    data_root: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Read every task from DIR/<org>/<repo> instead of the hub. Results are then marked as not official."""

    output_folder: str = field(default="results", metadata={"metavar": "DIR"})
    """Where results, run summaries and the leaderboard go."""

    store: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where embeddings are kept. <output-folder>/store by default; several runs may share one."""

    revision: str | None = None
    """Commit, branch or tag of the model on the hub."""

    adapter: str | None = field(default=None, metadata={"metavar": "DIR"})
    """A peft adapter directory to put on the model."""

    dtype: str | None = None
    """float32, float16 or bfloat16."""

    pooling: str | None = None
    """How tokens become one vector (last, mean, cls), for families that have a choice."""

    embedding_dim: int | None = None
    """Cut vectors to this many dimensions before they are normalised (Matryoshka)."""

    max_pixels: int | None = None
    """Scale images down to at most this many pixels, for families with a visual token budget."""

    device: str | None = None
    """cpu or cuda. By default cuda on workers that hold a GPU."""

    trust_remote_code: bool = False
    """Run code that comes with a model."""

    batch_size: int = 32
    """Contents per forward. Halved by itself where memory is short."""

    workers: int | None = None
    """Most actors that hold the model. By default one per GPU, or per CPU on a cluster without GPUs."""

    min_workers: int = 1
    """Fewest actors while there is work."""

    gpus_per_worker: float | None = None
    """GPUs of one actor; a fraction shares a GPU. 1 by default where the cluster has GPUs, else 0."""

    cpus_per_worker: int = 1
    """CPUs, and torch threads, of one actor."""

    parallel_models: int | None = None
    """Models that are encoded side by side. By default as many as the cluster has room for."""

    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """A Ray cluster to join. By default RAY_ADDRESS, or Ray is started on this machine."""

    local: bool = False
    """Run in this process, without Ray."""

    limit: int | None = None
    """Only the first N queries and documents of every subset (and what is relevant to those queries). Not official."""

    index: str | None = field(default=None, metadata={"metavar": "FACTORY"})
    """Search dense vectors through this FAISS index, e.g. IVF4096,Flat; its recall is measured and reported. By default
    every document is scored exactly."""

    candidates: str = field(default="float32", metadata={"metavar": "TYPE"})
    """Choose late-interaction candidates in float32, bfloat16, int8 or binary; they are scored again in float32."""

    oversample: int = 4
    """Candidates per result that are scored again exactly, with --index or --candidates."""

    token_pooling: int = 1
    """Keep one token of late-interaction documents in so many (hierarchical pooling)."""

    exact_mteb: bool = False
    """Batches, padding and search exactly as MTEB has them, bit for bit; slower, and without the store."""

    keep_rankings: int = 100
    """Documents per query that are kept for raylib inspect-run and compare; 0 keeps none."""

    allow_errors: int = 0
    """Score a model without up to N contents that cannot be encoded."""

    overwrite: bool = False
    """Score tasks again that have a result for the same model, data and settings."""

    dry_run: bool = False
    """Print what would be encoded and how much is stored already, and stop."""

    quiet: bool = False
    """No progress, only problems and the leaderboard."""

    def __post_init__(self) -> None:
        """Split comma lists and check what can be checked without loading anything. Raises UserError."""
        for name in _LISTS:
            value = getattr(self, name)
            value = [value] if isinstance(value, str) else list(value or [])
            setattr(self, name, [part.strip() for item in value for part in _split(str(item)) if part.strip()])
        for name in ("data_root", "output_folder", "store"):
            value = getattr(self, name)
            setattr(self, name, value.removeprefix("file://") if value is not None else None)
        for name in ("batch_size", "workers", "min_workers", "cpus_per_worker", "limit", "parallel_models"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; expected at least 1")
        if self.allow_errors < 0:
            raise UserError(f"--allow-errors is {self.allow_errors}; expected 0 or more")
        if self.keep_rankings < 0:
            raise UserError(f"--keep-rankings is {self.keep_rankings}; expected 0 or more")
        if self.exact_mteb and not self.search_options().exact:
            raise UserError("--exact-mteb searches as MTEB does; leave out --index, --candidates and --token-pooling")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise UserError(f"--gpus-per-worker is {self.gpus_per_worker}; expected 0 or more")
        self.search_options()
        if self.local and self.address:
            raise UserError("--local runs without Ray and --address names a cluster; leave one of them out")

    def check_complete(self) -> None:
        """Raises UserError unless there is something to evaluate on something."""
        if not self.model:
            raise UserError("no model was given; add --model NAME (see: raylib list models)")
        if not self.benchmarks and not self.tasks:
            raise UserError('nothing to evaluate on; add --benchmarks "ViDoRe(v2)" or --tasks NAME')

    def specs(self) -> list[ModelSpec]:
        """One spec per model, without repeats, all with the same options."""
        options = {name: getattr(self, name) for name in _SPEC_OPTIONS}
        return [ModelSpec(name, **options) for name in dict.fromkeys(self.model)]

    def search_options(self) -> SearchOptions:
        """Raises UserError for values that cannot be."""
        options: dict[str, Any] = {name: getattr(self, name) for name in SearchOptions.__dataclass_fields__}
        return SearchOptions(**options)

    def experiment(self) -> dict[str, Any]:
        """What of this run changes scores, for the folder its results are filed under; empty for the plain run."""
        return {**({"limit": self.limit} if self.limit else {}), **self.search_options().changed()}

    @property
    def store_folder(self) -> str:
        return self.store or f"{self.output_folder.rstrip('/')}/store"

    def as_dict(self) -> dict[str, Any]:
        """What was set, for the run summary."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and v is not False and v != []}


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses: "ViDoRe(v1),MTEB(eng, v2)" is two names."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]
