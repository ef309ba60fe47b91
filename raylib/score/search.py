"""The search of `raylib score`: vectors of two sides to a run."""

from __future__ import annotations

from typing import Any, Literal

from raylib.errors import UserError
from raylib.metrics.runs import Run
from raylib.score.vectors import Vectors
from raylib.search.exact import search
from raylib.search.options import SearchOptions
from raylib.search.topk import tie_ranks
from raylib.types import Similarity


def resolve_similarity(
    asked: Literal["auto", "cosine", "dot", "maxsim"], queries: Vectors, documents: Vectors
) -> Similarity:
    """What "auto" means: what the model of the store uses, else maxsim where a content may have several vectors, else
    cosine. Raises UserError for sides that cannot be compared so."""
    if queries.dim != documents.dim:
        raise UserError(
            f"queries ({queries.path}) have {queries.dim} dimensions, documents ({documents.path}) {documents.dim}; "
            "encode both with one model"
        )
    sides = (queries, documents)
    encoders = {side.described["fingerprint"]: side.path for side in sides if "fingerprint" in side.described}
    if len(encoders) > 1:
        raise UserError(f"{' and '.join(encoders.values())} hold vectors of two models; give both sides of one model")
    late = [side for side in sides if side.late]
    usual: Similarity = "maxsim" if late else "cosine"
    found = (queries.similarity or documents.similarity or usual) if asked == "auto" else asked
    if late and found != "maxsim":
        raise UserError(f"{late[0].path} has several vectors a content, {found} compares one; use --similarity maxsim")
    return found


def find(
    queries: Vectors, documents: Vectors, similarity: Similarity, k: int, options: SearchOptions
) -> tuple[Run, dict[str, Any]]:
    """The k best documents of each query, ties by document id, descending; and what the search says about itself."""
    k = min(k, len(documents.ids))
    loaded = queries.load()
    found, scores = search(loaded, documents.load(), similarity, k, tie_ranks(documents.ids), documents.owners)
    run: Run = {}
    for query, content in zip(queries.ids, queries.owners.tolist(), strict=True):
        pairs = zip(found[content].tolist(), scores[content].tolist(), strict=True)
        run[query] = {documents.ids[d]: s for d, s in pairs}
    return run, {}
