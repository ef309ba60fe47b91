"""How to search, where the default (every document, exactly) costs too much. Each choice reports its own recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from raylib.errors import UserError
from raylib.types import Similarity, compares_vectors

Candidates = Literal["float32", "bfloat16", "int8", "binary"]
"""In which numbers the candidates are chosen. What is returned is always scored again exactly."""


@dataclass(frozen=True)
class SearchOptions:
    """index: a FAISS factory string for dense vectors, e.g. "IVF4096,Flat"; None scores every document.

    candidates: numbers of the first pass of MaxSim. oversample: with fewer bits or an index, candidates per result
    that are scored again exactly. token_pooling: late-interaction documents keep one token in so many (hierarchical
    pooling; Clavié et al., 2024). Raises UserError for values that cannot be.
    """

    index: str | None = None
    candidates: Candidates = "float32"
    oversample: int = 4
    token_pooling: int = 1

    def __post_init__(self) -> None:
        if self.candidates not in get_args(Candidates):
            raise UserError(f"--candidates is {self.candidates!r}; expected one of {', '.join(get_args(Candidates))}")
        for name in ("oversample", "token_pooling"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")

    @property
    def exact(self) -> bool:
        """Whether the result is that of scoring every document exactly, as it is stored."""
        return self == SearchOptions(oversample=self.oversample)

    def check(self, similarity: Similarity) -> None:
        """Raises UserError for an option that this similarity does not have."""
        if not compares_vectors(similarity) and not self.exact:
            raise UserError(
                f"{self._flag()} is for vectors, and this model gives token weights, which are always compared "
                "exactly; leave it out, or use --mode dense or multi-vector"
            )
        if similarity == "maxsim" and self.index is not None:
            raise UserError(
                f"--index {self.index!r} is for dense vectors, and this model's are late interaction; use --candidates "
                "int8 or binary, or --token-pooling, to search those faster"
            )
        if similarity != "maxsim" and (self.candidates != "float32" or self.token_pooling > 1):
            raise UserError(
                f"{self._flag()} is for late-interaction vectors, and this model's are dense; use --index, or leave it "
                "out"
            )

    def _flag(self) -> str:
        """The first option that is not exact, as it was given."""
        if self.candidates != "float32":
            return f"--candidates {self.candidates}"
        return "--token-pooling" if self.token_pooling > 1 else f"--index {self.index!r}"

    def changed(self) -> dict[str, Any]:
        """What can change a result, for the name under which it is filed; empty for exact search."""
        default = SearchOptions()
        names = () if self.exact else ("index", "candidates", "oversample", "token_pooling")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}
