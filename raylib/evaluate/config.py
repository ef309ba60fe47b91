"""The settings of `raylib evaluate`: its flags, its YAML keys and the keyword arguments of `raylib.evaluate`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.options import EncodeOptions
from raylib.placement import at_least_one, name_list
from raylib.search.options import SearchOptions
from raylib.tasks.mmeb_table import MmebOptions

_LISTS = ("model", "benchmarks", "tasks", "languages", "splits")


@dataclass
class EvaluateConfig(EncodeOptions):
    """Score embedding models on MTEB tasks and benchmarks, sharded over Ray.

    Every distinct content is encoded once per model and kept in the store, so a second run, a run with more tasks
    and a run that was killed encode only what is missing.
    """

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

    parallel_models: int | None = None
    """Models that are encoded side by side. By default as many as the cluster has room for."""

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

    target_prefix: bool = False
    """MMEB: put B3's prefixes before targets ("Represent the class label: " and others), as its --tgt_prefix_mod."""

    candidate_pool: str = field(default="row", metadata={"metavar": "row|subset"})
    """MMEB: rank the candidates of each row, or those of all rows of a subset."""

    image_dir: str | None = field(default=None, metadata={"metavar": "DIR|ZIP"})
    """MMEB: where its images are. By default images, eval_images or images.zip in the data set's folder."""

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
            setattr(self, name, name_list(getattr(self, name)))
        for name in ("data_root", "output_folder", "store", "image_dir"):
            value = getattr(self, name)
            setattr(self, name, storage.as_path(value) if value is not None else None)
        at_least_one(self, ("limit", "parallel_models"))
        self.check_encoding()
        if self.allow_errors < 0:
            raise UserError(f"--allow-errors is {self.allow_errors}; expected 0 or more")
        if self.keep_rankings < 0:
            raise UserError(f"--keep-rankings is {self.keep_rankings}; expected 0 or more")
        if self.exact_mteb and self.batch_size == "auto":
            raise UserError("--exact-mteb needs MTEB's own batches; give --batch-size as a number")
        if self.exact_mteb and not self.search_options().exact:
            raise UserError("--exact-mteb searches as MTEB does; leave out --index, --candidates and --token-pooling")
        self.search_options()
        self.mmeb_options()

    def check_complete(self) -> None:
        """Raises UserError unless there is something to evaluate on something."""
        if not self.model:
            raise UserError("no model was given; add --model NAME (see: raylib list models)")
        if not self.benchmarks and not self.tasks:
            raise UserError('nothing to evaluate on; add --benchmarks "ViDoRe(v2)" or --tasks NAME')

    def search_options(self) -> SearchOptions:
        """Raises UserError for values that cannot be."""
        options: dict[str, Any] = {name: getattr(self, name) for name in SearchOptions.__dataclass_fields__}
        return SearchOptions(**options)

    def mmeb_options(self) -> MmebOptions:
        """Raises UserError for values that cannot be."""
        return MmebOptions(self.target_prefix, self.candidate_pool, self.image_dir)

    def experiment(self) -> dict[str, Any]:
        """What of this run changes scores, for the folder its results are filed under; empty for the plain run."""
        limit = {"limit": self.limit} if self.limit else {}
        return {**limit, **self.search_options().changed(), **self.mmeb_options().changed()}

    @property
    def store_folder(self) -> str:
        return self.store or f"{self.output_folder.rstrip('/')}/store"

    def as_dict(self) -> dict[str, Any]:
        """What was set, for the run summary."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and v is not False and v != []}
