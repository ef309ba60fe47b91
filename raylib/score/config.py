"""The settings of `raylib score` and `raylib compare`: their flags and YAML keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from raylib.errors import UserError
from raylib.search.options import SearchOptions


@dataclass
class ScoreConfig:
    """Score vectors that are already there, or a run file, against judgements; no model is loaded.

    Vectors come from .npy, .npz, Parquet or HDF5 files, or from the store by way of details/<Task>/contents.parquet.
    """

    queries: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Vectors of the queries: .npy, .npz, .parquet, .h5, an output folder of raylib encode, or a contents.parquet that
    names vectors in the store."""

    documents: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Vectors of the documents, in any of these forms."""

    qrels: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Judgements: TREC (query 0 document grade), BEIR (.tsv with a header) or Parquet."""

    run: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Score this TREC run file instead of vectors."""

    query_ids: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Ids of a queries file that holds none: a text file, one id a line, or .npy."""

    document_ids: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Ids of a documents file that holds none."""

    split: str | None = None
    """Which split of a contents.parquet, where it has several."""

    subset: str | None = None
    """Which subset of a contents.parquet, where it has several."""

    store: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where the store is now, if it has moved since contents.parquet was written."""

    similarity: Literal["auto", "cosine", "dot", "maxsim"] = field(
        default="auto", metadata={"metavar": "auto|cosine|dot|maxsim"}
    )
    """auto: what the model of the store or of raylib encode uses; else maxsim for contents of several vectors and
    cosine for single vectors."""

    top_k: int = 1000
    """Documents that are kept for each query."""

    index: str | None = field(default=None, metadata={"metavar": "FACTORY"})
    """Search single vectors through this FAISS index, e.g. IVF4096,Flat; its recall is measured and reported."""

    candidates: str = field(default="float32", metadata={"metavar": "TYPE"})
    """Choose candidates in float32, bfloat16, int8 or binary; they are scored again in float32."""

    oversample: int = 4
    """Candidates per result that are scored again exactly, with --index or --candidates."""

    token_pooling: int = 1
    """Keep one token of late-interaction documents in so many (hierarchical pooling)."""

    metrics: list[str] = field(default_factory=list)
    """Measures as MTEB spells them, e.g. ndcg_at_5,recall_at_100. A set of common ones by default."""

    complete: bool = False
    """With --run: judged queries that the run lacks count as 0 (trec_eval's -c). By default they are left out."""

    output_folder: str = field(default="score", metadata={"metavar": "DIR"})
    """Where run.trec, queries.parquet and summary.json go."""

    run_name: str = "raylib"
    """The last column of run.trec."""

    def __post_init__(self) -> None:
        self.metrics = [name.strip() for text in self.metrics for name in text.split(",") if name.strip()]
        if self.top_k < 1:
            raise UserError(f"--top-k is {self.top_k}; expected at least 1")
        if not self.run_name or any(c.isspace() for c in self.run_name):
            raise UserError(f"--run-name is {self.run_name!r}; expected one word, for a column of run.trec")
        self.search_options()

    def check_complete(self) -> None:
        """Raises UserError unless there is something to score, in one way."""
        if self.qrels is None:
            raise UserError("no judgements were given; add --qrels FILE")
        if self.run is not None:
            given = [f"--{n}" for n in ("queries", "documents") if getattr(self, n) is not None]
            if given:
                raise UserError(f"--run scores a ranking that is there, {' and '.join(given)} make one; leave one out")
            return
        missing = [f"--{n} FILE" for n in ("queries", "documents") if getattr(self, n) is None]
        if missing:
            raise UserError(f"no vectors were given; add {' and '.join(missing)}, or --run FILE for a run file")

    def search_options(self) -> SearchOptions:
        """Raises UserError for values that cannot be."""
        options: dict[str, Any] = {name: getattr(self, name) for name in SearchOptions.__dataclass_fields__}
        return SearchOptions(**options)


@dataclass
class CompareConfig:
    """Compare two runs query by query: how far a measure differs, how sure that is, what changed most.

    Each side is an output folder of `raylib score`, a TREC run file (with --qrels), the result folder of a model, or
    an output folder of `raylib evaluate` with --model.
    """

    a: str = field(metadata={"positional": True})
    """The first side."""

    b: str | None = field(default=None, metadata={"positional": True})
    """The second side; may be left out where --model names two models of one output folder."""

    model: list[str] = field(default_factory=list)
    """Models of the output folder(s): two names, or one that is in both folders."""

    qrels: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Judgements for sides that are run files."""

    measure: str | None = None
    """What to compare. By default ndcg_at_5, or the first measure that both sides have."""

    tasks: list[str] = field(default_factory=list)
    """Only these tasks. By default all that both sides have."""

    changed: int = 10
    """How many of the queries that changed most are listed, over all tasks."""

    resamples: int = 10_000
    """Bootstrap resamples of the queries."""

    seed: int = 0
    """Of the bootstrap."""

    output: list[str] = field(default_factory=list, metadata={"metavar": "FILE"})
    """Write the comparison to FILE.json or FILE.md as well; may be repeated."""

    def __post_init__(self) -> None:
        for name in ("model", "tasks", "output"):
            setattr(self, name, [n.strip() for text in getattr(self, name) for n in text.split(",") if n.strip()])
        if self.changed < 0:
            raise UserError(f"--changed is {self.changed}; expected at least 0")
        if self.resamples < 100:
            raise UserError(f"--resamples is {self.resamples}; expected at least 100")
        for path in self.output:
            if not path.endswith((".json", ".md")):
                raise UserError(f"--output is {path!r}; expected a name that ends in .json or .md")
