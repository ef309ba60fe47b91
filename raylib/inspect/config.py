"""The settings of `raylib inspect-run`: its flags and YAML keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from raylib import storage
from raylib.errors import UserError


@dataclass
class InspectConfig:
    """Write a page that shows a run's worst queries, what was found for each, and which patches matched.

    The page is one HTML file that needs nothing else. It reads the details that raylib evaluate keeps beside its
    results, the task's own data and, for heat maps, the embedding store.
    """

    results: str = field(metadata={"positional": True})
    """The output folder of raylib evaluate."""

    model: str = ""
    """The model, as the leaderboard names it. May be left out where there is one."""

    task: str = ""
    """The task. May be left out where there is one."""

    split: str | None = None
    """Only this split."""

    subset: str | None = None
    """Only this subset, such as a language."""

    measure: str | None = None
    """What tells good from bad, e.g. recall_at_10. The task's main score by default."""

    top_k: int = 5
    """Documents that are shown of every ranking."""

    queries: int = 50
    """Queries that are shown."""

    order: Literal["worst", "best", "changed"] = field(default="worst", metadata={"metavar": "worst|best|changed"})
    """Which queries come first: the worst, the best, or those that differ most from --compare-with."""

    compare_with: str | None = field(default=None, metadata={"metavar": "MODEL"})
    """Another model of the same folder whose measure and ranking are shown beside."""

    data_root: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Read the task from DIR/<org>/<repo> instead of the hub. By default from where the run read it."""

    output: str | None = field(default=None, metadata={"metavar": "FILE"})
    """The page to write. <results>/inspect/<model>_<task>.html by default."""

    heat_map: bool = True
    """Draw heat maps of which patches matched which token, for late interaction; --no-heat-map leaves them out."""

    max_bytes: int = 15_000_000
    """Most bytes of the page: heat maps, then whole queries, are left out from the end to stay below."""

    def __post_init__(self) -> None:
        for name in ("top_k", "queries", "max_bytes"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        if self.order == "changed" and self.compare_with is None:
            raise UserError("--order changed compares two models; add --compare-with MODEL")
        for name in ("results", "data_root", "output"):
            value = getattr(self, name)
            setattr(self, name, storage.as_path(value) if value is not None else None)
