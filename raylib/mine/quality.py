"""How hard the batches of a plan are, and how many of their negatives are suspect."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.mine.comparison import Comparison
from raylib.mine.graph import Graph
from raylib.mine.plans import NO_EXAMPLE, random_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

_HARDEST = 10


@dataclass(frozen=True)
class Quality:
    """Of the batches of a plan. A negative of a query is the document of another example of its batch that is no
    duplicate of it; it is suspect where it scores at least `suspect_above` of what the query's own document scores.

    hardness: mean of the ten highest similarities to negatives that are not suspect, over examples. hardest float32
    [examples]: that of each. similarity: mean over all negatives. suspects: share of negatives. examples_with_suspects:
    share of examples. duplicates: pairs (query, document) of duplicates in one batch, which a trainer must mask.
    group_purity: share of pairs in a batch that are of one group, 1 without groups.
    """

    n_batches: int
    n_examples: int
    hardness: float
    similarity: float
    suspects: float
    examples_with_suspects: float
    duplicates: int
    group_purity: float
    suspect_above: float
    hardest: np.ndarray

    def numbers(self) -> dict[str, float | int]:
        """All but the array, for JSON."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, np.ndarray)}


@dataclass(frozen=True)
class ClusterQuality:
    """cut: share of mutual edges between clusters. wanted: neighbours of the wanted ranks that an example meets in its
    cluster; excluded: members of its cluster whose document is among its excluded first ranks; means over examples."""

    cut: float
    wanted: float
    excluded: float
    smallest: int
    largest: int


def batch_quality(
    batches: np.ndarray,
    comparison: Comparison,
    positives: np.ndarray,
    same: np.ndarray,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    suspect_above: float = 0.95,
    most_batches: int = 256,
    seed: int = 0,
) -> Quality:
    """batches int64 [n_batches, batch_size], -1 for no example; positives int64 [n]; same int64 [n]: duplicates have
    one number. Plans of more than most_batches are judged by so many of them, drawn by the seed: of a million examples
    in batches of 1,024, 256 are a quarter."""
    kinds = np.zeros(len(positives), dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    chosen = np.arange(len(batches))
    if len(batches) > most_batches:
        chosen = np.sort(np.random.default_rng(seed).choice(len(batches), most_batches, replace=False))
    judged = [
        _judge(batch[batch != NO_EXAMPLE], comparison, positives, same, kinds, suspect_above)
        for batch in batches[chosen]
    ]
    hardest = np.concatenate([j.hardest for j in judged])
    negatives = max(1, sum(j.negatives for j in judged))
    known = hardest[~np.isnan(hardest)]
    return Quality(
        n_batches=len(batches),
        n_examples=int((batches != NO_EXAMPLE).sum()),
        hardness=float(known.mean()) if len(known) else float("nan"),
        similarity=sum(j.similarity for j in judged) / negatives,
        suspects=sum(j.suspects for j in judged) / negatives,
        examples_with_suspects=sum(j.with_suspects for j in judged) / max(1, len(hardest)),
        duplicates=sum(j.duplicates for j in judged),
        group_purity=sum(j.one_group for j in judged) / max(1, sum(j.pairs for j in judged)),
        suspect_above=suspect_above,
        hardest=hardest.astype(np.float32),
    )


@dataclass(frozen=True)
class _Judged:
    """Sums over a batch."""

    hardest: np.ndarray
    negatives: int
    similarity: float
    suspects: int
    with_suspects: int
    duplicates: int
    one_group: int
    pairs: int


def _judge(
    batch: np.ndarray,
    comparison: Comparison,
    positives: np.ndarray,
    same: np.ndarray,
    kinds: np.ndarray,
    suspect_above: float,
) -> _Judged:
    scores = comparison.block(batch, positives[batch])
    own = np.diagonal(scores).copy()
    negative = same[batch][:, None] != same[batch]
    suspect = negative & (scores >= suspect_above * own[:, None])
    kept = np.where(negative & ~suspect, scores, -np.inf)
    top = -np.partition(-kept, min(_HARDEST, len(batch)) - 1, axis=1)[:, :_HARDEST]
    there = np.isfinite(top)
    count = there.sum(axis=1)
    hardest = np.where(count > 0, np.where(there, top, 0).sum(axis=1) / np.maximum(count, 1), np.nan)
    pairs = len(batch) * (len(batch) - 1)
    return _Judged(
        hardest=hardest,
        negatives=int(negative.sum()),
        similarity=float(scores[negative].sum(dtype=np.float64)),
        suspects=int(suspect.sum()),
        with_suspects=int(suspect.any(axis=1).sum()),
        duplicates=pairs - int(negative.sum()),
        one_group=int((kinds[batch][:, None] == kinds[batch]).sum()) - len(batch),
        pairs=pairs,
    )


def random_quality(
    batches: np.ndarray,
    comparison: Comparison,
    positives: np.ndarray,
    same: np.ndarray,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: int = 0,
    **settings: Any,
) -> Quality:
    """That of batches by chance of the same examples, size and groups; arguments as for `batch_quality`."""
    examples = np.sort(batches[batches != NO_EXAMPLE])
    size = min(batches.shape[1], len(examples))
    of_examples = None if groups is None else np.asarray(groups)[examples]
    places = random_batches(len(examples), batch_size=size, seed=seed, groups=of_examples)
    drawn = np.where(places == NO_EXAMPLE, NO_EXAMPLE, examples[places])
    return batch_quality(drawn, comparison, positives, same, groups=groups, seed=seed, **settings)


def cluster_quality(clusters: np.ndarray, graph: Graph, excluded: np.ndarray, positives: np.ndarray) -> ClusterQuality:
    """clusters int64 [n], -1 for none; graph of n nodes; excluded int64 [n, p]: documents, -1 for none; positives int64
    [n]."""
    sizes = np.bincount(clusters[clusters >= 0])
    sources = graph.sources
    inside = (clusters[sources] == clusters[graph.indices]) & (clusters[sources] >= 0)
    n_documents = int(max(positives.max(initial=0), excluded.max(initial=0))) + 1
    here = np.sort(clusters * n_documents + positives)
    wanted = clusters[:, None] * n_documents + excluded
    at = np.minimum(np.searchsorted(here, wanted.ravel()), len(here) - 1).reshape(wanted.shape)
    met = (here[at] == wanted) & (excluded >= 0) & (excluded != positives[:, None]) & (clusters[:, None] >= 0)
    n = max(1, int((clusters >= 0).sum()))
    return ClusterQuality(
        graph.cut(clusters), float(inside.sum() / n), float(met.sum() / n), int(sizes.min()), int(sizes.max())
    )


def histograms(plans: dict[str, Quality]) -> bytes:
    """A PNG: for each plan by name the distribution of hardness over examples."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    values = {name: quality.hardest[~np.isnan(quality.hardest)] for name, quality in plans.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=60)
    # Okabe and Ito (2008): told apart with any kind of colour vision.
    for (name, hardest), colour in zip(values.items(), _COLOURS * len(values), strict=False):
        label = f"{name}: mean {plans[name].hardness:.3f}, suspects {plans[name].suspects:.2%}"
        ax.hist(
            hardest,
            bins=bins.tolist(),
            density=len(hardest) > 0,
            histtype="stepfilled",
            alpha=0.45,
            color=colour,
            label=label,
        )
    ax.set_xlabel("mean similarity of an example's ten hardest negatives in its batch, suspects left out")
    ax.set_ylabel("density of examples")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=2)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
