"""Hard negatives beside the batches: B3++ (Thirukovalluru et al., 2025, arXiv 2505.11293).

A hard negative of one example is a negative of the whole cluster, for the batch shares its documents. So it comes from
what the cluster prefers, without whatever may answer any of its members.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 2**20
"""Documents of windows looked at at a time: about 150 MB of temporary arrays."""


def cluster_negatives(
    clusters: np.ndarray,
    window: np.ndarray,
    excluded: np.ndarray,
    positives: np.ndarray,
    same: np.ndarray,
    n_negatives: int,
    *,
    seed: int = 0,
) -> np.ndarray:
    """int64 [n, n_negatives]: for each example those whose positives are its hard negatives, -1 where the set of its
    cluster holds fewer, or the example is in none. No document comes twice in a row.

    clusters int64 [n], -1 for none. window int32 [n, w]: documents of the wanted ranks, best first; excluded int32
    [n, p]: those of the first ranks; both -1 where there are fewer. positives int64 [n]: documents. same int64 [n]:
    duplicates have one number. Documents that are nobody's positive do not occur; one of several examples is named by
    the first of them.

    The set of a cluster: the windows of its members, without the excluded documents of any member, the positives of its
    members, and the positives of duplicates of its members. Each member gets
    1. from its own window, best rank first, what no other member has. Members take turns, one document a turn; of two
       that want the same document next, one by chance has it, and in the next turn the other comes first;
    2. where its window holds no more: documents of the set that no member has, first those in the windows of most
       members, ties by chance;
    3. where the set holds no more, so that members have to share: its own window, best rank first; then the rest of
       the set as in 2.
    The same arguments give the same negatives. Memory beyond the arguments and the result: about 40 bytes for each
    example or document, and 300 MB.
    """
    n = len(clusters)
    same = np.unique(same, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    found = np.full((n, n_negatives), -1, dtype=np.int64)
    n_documents = 1 + max(int(part.max(initial=-1)) for part in (window, excluded, positives))
    held, first = np.unique(positives, return_index=True)
    owner = np.full(n_documents, -1, dtype=np.int64)
    owner[held] = first
    tie = rng.permutation(n_documents)
    order = np.lexsort((rng.permutation(n), clusters))  # in a cluster by chance: who comes first in a turn
    order = order[clusters[order] >= 0]
    # Where members share, each is offered the set of its cluster, of which everyone has n_negatives at most.
    offers = n_negatives * len(order) // max(1, len(np.unique(clusters[order])))
    for rows in _blocks(clusters, order, _BLOCK // max(1, window.shape[1], offers)):
        cluster = np.unique(clusters[rows], return_inverse=True)[1]
        wishes = _wishes(cluster, window[rows], excluded[rows], positives[rows], same, rows, owner)
        chosen = _share_out(wishes, n_negatives, tie)
        place = np.nonzero(chosen >= 0)
        found[rows[place[0]], place[1]] = owner[wishes.documents[chosen[place]]]
    return found


def _blocks(clusters: np.ndarray, order: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Parts of `order` of whole clusters: as many as are no more than so many rows, one at least."""
    bounds = np.append(np.flatnonzero(np.diff(clusters[order], prepend=-1)), len(order))
    first = 0
    while first < len(order):
        fits = np.searchsorted(bounds, first + rows, side="right") - 1
        stop = int(bounds[max(fits, np.searchsorted(bounds, first) + 1)])
        yield order[first:stop]
        first = stop


@dataclass(frozen=True)
class _Wishes:
    """What the members of some clusters may be given. Members and clusters are counted from 0; clusters ascend with
    members.

    cluster int64 [members]. documents, of_cluster, wanted int64 [items]: the sets of all clusters one after another,
    each item a document of one cluster, and how many members want it. free bool [items]: whether it may be given; the
    others are excluded. items int64 [wishes]: member m wants items[starts[m]:starts[m + 1]], best first; all are free.
    """

    cluster: np.ndarray
    documents: np.ndarray
    of_cluster: np.ndarray
    wanted: np.ndarray
    free: np.ndarray
    items: np.ndarray
    starts: np.ndarray


def _wishes(
    cluster: np.ndarray,
    window: np.ndarray,
    excluded: np.ndarray,
    positives: np.ndarray,
    same: np.ndarray,
    rows: np.ndarray,
    owner: np.ndarray,
) -> _Wishes:
    """window, excluded, positives: of the members, whose examples are `rows`; same: of all examples."""
    n_documents = len(owner)
    known = window >= 0
    known &= owner[window] >= 0
    keys = (cluster[:, None] * n_documents + window)[known]
    numbers, items, wanted = np.unique(keys, return_inverse=True, return_counts=True)
    of_cluster, documents = numbers // n_documents, numbers % n_documents
    never = np.concatenate(
        [(cluster[:, None] * n_documents + excluded)[excluded >= 0], cluster * n_documents + positives]
    )
    n_labels = int(same.max(initial=0)) + 1
    free = ~_among(numbers, never)
    free &= ~_among(of_cluster * n_labels + same[owner[documents]], cluster * n_labels + same[rows])
    kept = free[items]
    member = np.repeat(np.arange(len(window)), known.sum(axis=1))[kept]
    starts = np.concatenate([[0], np.cumsum(np.bincount(member, minlength=len(window)))])
    return _Wishes(cluster, documents, of_cluster, wanted, free, items[kept], starts)


def _among(values: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Which of the values are listed (at least one is)."""
    listed = np.sort(listed)
    return listed[np.minimum(np.searchsorted(listed, values), len(listed) - 1)] == values


def _share_out(wishes: _Wishes, n_negatives: int, tie: np.ndarray) -> np.ndarray:
    """int64 [members, n_negatives]: items, -1 where there are fewer; see `cluster_negatives` for the rule."""
    chosen = np.full((len(wishes.cluster), n_negatives), -1, dtype=np.int64)
    filled = np.zeros(len(chosen), dtype=np.int64)
    taken = ~wishes.free
    _own(wishes, chosen, filled, taken)
    # The sets of the clusters where a member has too few, cluster by cluster, those first that most members want.
    lacking = np.zeros(wishes.cluster[-1] + 1, dtype=bool)
    lacking[wishes.cluster[filled < n_negatives]] = True
    sets = np.flatnonzero(wishes.free & lacking[wishes.of_cluster])
    sets = sets[np.lexsort((tie[wishes.documents[sets]], -wishes.wanted[sets], wishes.of_cluster[sets]))]
    _unclaimed(wishes, sets[~taken[sets]], chosen, filled)
    short = np.flatnonzero(filled < n_negatives)
    own = _ranges(wishes.starts[short], wishes.starts[short + 1])
    _shared(short[own.owner], wishes.items[own.place], chosen, filled)
    short = np.flatnonzero(filled < n_negatives)
    ends = np.searchsorted(wishes.of_cluster[sets], np.arange(wishes.cluster[-1] + 2))
    rest = _ranges(ends[wishes.cluster[short]], ends[wishes.cluster[short] + 1])
    _shared(short[rest.owner], sets[rest.place], chosen, filled)
    return chosen


def _own(wishes: _Wishes, chosen: np.ndarray, filled: np.ndarray, taken: np.ndarray) -> None:
    """Step 1 of the rule. All members propose at once; who is refused proposes what comes next in its window."""
    at, ends = wishes.starts[:-1].copy(), wishes.starts[1:]
    claim = np.empty(len(taken), dtype=np.int64)
    for turn in range(chosen.shape[1]):
        waiting = np.flatnonzero(at < ends)
        while len(waiting):
            item = wishes.items[at[waiting]]
            free = ~taken[item]
            asking, asked = waiting[free], item[free]
            # Of those who ask for one item, the last that is written has it.
            back = -1 if turn % 2 == 0 else 1
            claim[asked[::back]] = asking[::back]
            won = claim[asked] == asking
            winner, given = asking[won], asked[won]
            chosen[winner, filled[winner]] = given
            filled[winner] += 1
            taken[given] = True
            at[waiting] += 1
            refused = np.ones(len(waiting), dtype=bool)
            refused[np.flatnonzero(free)[won]] = False
            waiting = waiting[refused & (at[waiting] < ends[waiting])]


def _unclaimed(wishes: _Wishes, left: np.ndarray, chosen: np.ndarray, filled: np.ndarray) -> None:
    """Step 2 of the rule. left: the items that nobody has, cluster by cluster, best first. They are in the window of no
    member that still has room: it would have taken them."""
    member, place = np.nonzero(np.arange(chosen.shape[1]) >= filled[:, None])
    cluster = wishes.cluster[member]
    order = np.lexsort((member, place - filled[member], cluster))
    member, place, cluster = member[order], place[order], cluster[order]
    number = np.arange(len(cluster)) - np.searchsorted(cluster, cluster)
    starts = np.searchsorted(wishes.of_cluster[left], np.arange(wishes.cluster[-1] + 2))
    given = number < np.diff(starts)[cluster]
    chosen[member[given], place[given]] = left[starts[cluster[given]] + number[given]]
    filled += np.bincount(member[given], minlength=len(filled))


def _shared(member: np.ndarray, item: np.ndarray, chosen: np.ndarray, filled: np.ndarray) -> None:
    """Step 3 of the rule: give each member what it does not have yet, in this order, until it is full. member, item:
    int64 [offers], member ascending."""
    new = np.ones(len(member), dtype=bool)
    for column in chosen.T:
        new &= column[member] != item
    member, item = member[new], item[new]
    place = filled[member] + np.arange(len(member)) - np.searchsorted(member, member)
    given = place < chosen.shape[1]
    chosen[member[given], place[given]] = item[given]
    filled += np.bincount(member[given], minlength=len(filled))


@dataclass(frozen=True)
class _Ranges:
    """owner int64, which range each place is of; place int64."""

    owner: np.ndarray
    place: np.ndarray


def _ranges(starts: np.ndarray, ends: np.ndarray) -> _Ranges:
    """All numbers from starts[i] up to ends[i], one range after another."""
    sizes = ends - starts
    owner = np.repeat(np.arange(len(starts)), sizes)
    return _Ranges(owner, np.arange(len(owner)) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes))
