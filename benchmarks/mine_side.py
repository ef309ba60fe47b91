"""One measured process of `benchmarks/mine.py`: everything that it asks of raylib and of FAISS stands here.

    python benchmarks/mine_side.py JOB '{"folder": …}'

prints a line "MEASURED {…}": wall and CPU seconds of each stage, the most memory the process held, what came out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import peak_memory
from raylib.mine.assemble import assemble
from raylib.mine.b3 import plan_batches
from raylib.mine.comparison import DenseComparison
from raylib.mine.graph import Graph, either_graph, mutual_graph, wanted_window
from raylib.mine.neighbours import nearest, neighbours, ranked_documents
from raylib.mine.partition import partition
from raylib.mine.plans import filled, random_batches, sequential_batches
from raylib.mine.quality import batch_quality, cluster_quality
from raylib.mine.vectors import Vectors
from raylib.search.dense import load_faiss
from raylib.search.quality import recall

SKIP, NEIGHBOURS, CLUSTER = 30, 100, 32
JUDGED = 96
"""Batches that hardness is measured on: as many as there are at 100,000 examples."""

K, RECALL, SAMPLED = SKIP + NEIGHBOURS + 1, 0.99, 500

_QUERIES, _PER_LIST = 16_384, 40
"""Of FAISS alone, as raylib has them: queries that are searched at a time, training vectors of each list."""

Measured = dict[str, Any]


class Stages:
    """Wall and CPU seconds of this process, by stage; what is between them is not counted."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def timed(self, stage: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        self.wall[stage] = round(self.wall.get(stage, 0.0) + time.perf_counter() - wall, 3)
        self.cpu[stage] = round(self.cpu.get(stage, 0.0) + time.process_time() - cpu, 3)
        return found

    def numbers(self) -> Measured:
        return {"wall s": self.wall, "cpu s": self.cpu}


def sides(folder: Path, most: int | None = None) -> tuple[Vectors, Vectors]:
    """Queries, `most` of them at most, and documents, memory-mapped."""
    queries, documents = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("queries", "documents"))
    return Vectors.of(queries[:most], "query"), Vectors.of(documents, "document")


def truth(folder: Path, job: Measured) -> Measured:
    """The exact neighbours of some queries by chance, other ones than raylib measures its recall on."""
    queries, documents = sides(folder)
    chosen = np.sort(np.random.default_rng(12).choice(len(queries), min(SAMPLED, len(queries)), replace=False))
    np.savez(folder / "truth.npz", queries=chosen, found=nearest(queries[chosen], documents, K, method="exact")[1])
    return {}


def recall_of(folder: Path, ranked: np.ndarray) -> float:
    """ranked [n, K]: of the first n queries, of which those that were sampled are looked at."""
    with np.load(folder / "truth.npz") as known:
        there = known["queries"] < len(ranked)
        return _share(ranked[known["queries"][there]], known["found"][there])


def _share(found: np.ndarray, expected: np.ndarray) -> float:
    return recall(found, expected)[expected.shape[1]]


def knn_raylib(folder: Path, job: Measured) -> Measured:
    """The whole search as a plan has it: lists trained and filled, their number tuned, the ranking held."""
    stages = Stages()
    queries, documents = sides(folder, job["most"])
    method = job["method"]
    search = stages.timed("search ready", lambda: neighbours(queries, documents, K, method=method, recall=RECALL))
    ranked = stages.timed("searched", lambda: ranked_documents(search, len(queries), len(documents)))
    if job["keep"]:
        np.save(folder / "ranking.npy", ranked)
    facts = {"lists": search.facts.lists, "visited": search.facts.visited, "recall found": search.facts.recall}
    return {**stages.numbers(), **facts, "recall": recall_of(folder, ranked)}


def knn_faiss(folder: Path, job: Measured) -> Measured:
    """FAISS alone, over the same memory maps; how many lists it visits is the least that reaches the recall on the very
    queries that it is judged by, and is found outside of what is timed."""
    faiss = load_faiss()
    faiss.omp_set_num_threads(job["cores"])
    stages = Stages()
    queries, documents = (side.values for side in sides(folder, job["most"]))
    kind = f"IVF{job['lists']},Flat" if job["method"] == "ivf" else "Flat"
    index = faiss.index_factory(documents.shape[1], kind, faiss.METRIC_INNER_PRODUCT)

    def build() -> None:
        if job["method"] == "ivf":
            count = min(len(documents), _PER_LIST * job["lists"])
            chosen = np.sort(np.random.default_rng(0).choice(len(documents), count, replace=False))
            index.train(np.ascontiguousarray(documents[chosen]))
        for first in range(0, len(documents), _QUERIES):
            index.add(np.ascontiguousarray(documents[first : first + _QUERIES]))

    def search() -> np.ndarray:
        ranked = np.empty((len(queries), K), dtype=np.int32)
        for first in range(0, len(queries), _QUERIES):
            ranked[first : first + _QUERIES] = index.search(np.ascontiguousarray(queries[first : first + _QUERIES]), K)[
                1
            ]
        return ranked

    stages.timed("search ready", build)
    visited = _least_visited(index, queries, folder, job["lists"]) if job["method"] == "ivf" else 0
    ranked = stages.timed("searched", search)
    return {**stages.numbers(), "lists": job["lists"], "visited": visited, "recall": recall_of(folder, ranked)}


def _least_visited(index: Any, queries: np.ndarray, folder: Path, lists: int) -> int:
    """Sets it on the index, too."""
    with np.load(folder / "truth.npz") as known:
        sample, expected = np.ascontiguousarray(queries[known["queries"]]), known["found"]
    low, high = 1, lists
    while low < high:
        index.nprobe = (low + high) // 2
        if _share(index.search(sample, K)[1], expected) >= RECALL:
            high = index.nprobe
        else:
            low = index.nprobe + 1
    index.nprobe = low
    return low


def graph(folder: Path, job: Measured) -> Measured:
    """The mutual edges of the saved ranking, kept for the plans of this size."""
    stages = Stages()
    ranked, same = np.load(folder / "ranking.npy"), np.load(folder / "same.npy")
    window = wanted_window(ranked, SKIP, NEIGHBOURS)
    made = stages.timed("graph", lambda: mutual_graph(window, np.arange(len(ranked)), same))
    np.save(folder / "indptr.npy", made.indptr)
    np.save(folder / "indices.npy", made.indices)
    return {**stages.numbers(), "edges of a node": 2 * made.n_edges / len(made)}


def plan(folder: Path, job: Measured) -> Measured:
    """Batches by one method from the saved graph, and their quality. split: the graph is cut in pieces of at most so
    many examples first."""
    stages, method = Stages(), job["method"]
    comparison = DenseComparison(*sides(folder))
    n = comparison.n_queries
    positives, same = np.arange(n), np.load(folder / "same.npy")
    excluded = np.load(folder / "ranking.npy", mmap_mode="r")[:, :SKIP]
    edges = Graph(np.load(folder / "indptr.npy"), np.load(folder / "indices.npy"))
    if method in ("random", "sequential"):
        make = random_batches if method == "random" else sequential_batches
        batches = stages.timed("assemble", lambda: make(n, batch_size=job["batch"]))
        clusters = np.empty(n, dtype=np.int64)
        clusters[batches[batches >= 0]] = np.arange(n) // CLUSTER
    else:
        more: Measured = {"split_above": job.get("split")}
        if method == "balanced-kmeans" or "split" in job:
            more["vectors"] = comparison.single("document")
        if method == "signed-growth":
            more["avoided"] = stages.timed("partition", lambda: either_graph(excluded, positives))
        part = stages.timed("partition", lambda: partition(edges, CLUSTER, method=method, **more))
        places, clusters = stages.timed(
            "assemble", lambda: assemble(edges, part, same, batch_size=job["batch"], seed=0)
        )
        batches = filled(places, job["batch"], "short")
    quality = stages.timed("quality", lambda: batch_quality(batches, comparison, positives, same, most_batches=JUDGED))
    of_clusters = cluster_quality(clusters, edges, np.asarray(excluded), positives)
    within = batch_quality(_as_batches(clusters), comparison, positives, same, most_batches=16 * JUDGED)
    found = {**quality.numbers(), **{f"cluster {name}": value for name, value in vars(of_clusters).items()}}
    return {**stages.numbers(), **found, "cluster similarity": within.similarity}


def _as_batches(clusters: np.ndarray) -> np.ndarray:
    """Whole clusters [n, 32]: their members, to be judged as batches are."""
    order = np.argsort(clusters, kind="stable")
    return order[np.bincount(clusters)[clusters[order]] == CLUSTER].reshape(-1, CLUSTER)


def whole(folder: Path, job: Measured) -> Measured:
    """A plan from vectors to batches in one process, as a user makes it; and how many of the planted duplicates it
    found."""
    stages = Stages()
    comparison = DenseComparison(*sides(folder))
    made = stages.timed("whole", lambda: plan_batches(comparison, None, batch_size=job["batch"]))
    planted = np.load(folder / "same.npy")
    copies = np.flatnonzero(planted != np.arange(len(planted)))
    found = int((made.same[copies] == made.same[planted[copies]]).sum())
    return {
        **stages.numbers(),
        "stages": {name: round(seconds, 2) for name, seconds in made.seconds.items()},
        "duplicates planted": len(copies),
        "duplicates found": found,
        "duplicates beyond": len(planted) - len(np.unique(made.same)) - found,
    }


JOBS: dict[str, Callable[[Path, Measured], Measured]] = {
    "truth": truth,
    "raylib": knn_raylib,
    "faiss": knn_faiss,
    "graph": graph,
    "plan": plan,
    "whole": whole,
}


def main() -> int:
    name, job = sys.argv[1], json.loads(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["cores"]])
    import torch

    torch.set_num_threads(job["cores"])
    small = np.random.default_rng(0).standard_normal((1024, 64), dtype=np.float32)
    nearest(small, small, 10)  # what is loaded and set up on first use, for every side
    of_imports = peak_memory() / 1e6
    measured = JOBS[name](Path(job["folder"]), job)
    memory = {"peak mb": round(peak_memory() / 1e6), "peak mb of imports": round(of_imports)}
    print("MEASURED " + json.dumps({**memory, **measured}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
