"""One measured process of `benchmarks/search.py`, and the corpora that it searches.

    python benchmarks/search_side.py raylib|faiss|late '{"root": …}'

prints a line "MEASURED {…}". Timed is the search alone; for raylib that holds the reading of the store, for plain FAISS
the vectors lie in memory, normalised, before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

from benchmarks.common import peak_memory
from raylib.evaluate.search import Found, SearchRequest, finish, rank_locally, search_locally
from raylib.search.options import SearchOptions
from raylib.search.topk import tie_ranks
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings

_PART_ROWS = 32768
_FINGERPRINT = "benchmark" * 8


def key(side: str, number: int) -> bytes:
    return f"{side}{number:09d}".encode().ljust(32, b".")


def write_dense(root: str, documents: int, dim: int, queries: int) -> None:
    """Float16 vectors around a thousand centres, in parts of 64 MiB at 1,024 dimensions."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, dim), dtype=np.float32)

    def around(n: int) -> Embeddings:
        noise = rng.standard_normal((n, dim), dtype=np.float32)
        return Embeddings.from_dense((centres[rng.integers(0, len(centres), n)] + noise).astype(np.float16))

    shelf = Shelf(root, _FINGERPRINT)
    shelf.describe({})
    shelf.write([key("q", i) for i in range(queries)], around(queries))
    for first in range(0, documents, _PART_ROWS):
        last = min(first + _PART_ROWS, documents)
        shelf.write([key("d", i) for i in range(first, last)], around(last - first))


def write_late(root: str, pages: int, queries: int, dim: int = 128) -> None:
    """Pages of 100 to 700 tokens of length 1, float16. A page is about thirty things of two hundred that there are, and
    shows each in many tokens, as patches do; a query has twenty tokens near some things of one page."""
    rng = np.random.default_rng(1)
    things = rng.standard_normal((200, dim), dtype=np.float32)

    def unit(tokens: np.ndarray) -> np.ndarray:
        return (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).astype(np.float16)

    items, asked = [], []
    for number in range(pages):
        own = things[rng.choice(200, 30, replace=False)] + 0.6 * rng.standard_normal((30, dim), dtype=np.float32)
        n = int(rng.integers(100, 700))
        items.append(unit(own[rng.integers(0, 30, n)] + 0.5 * rng.standard_normal((n, dim), dtype=np.float32)))
        if number < queries:
            asked.append(unit(own[rng.integers(0, 30, 20)] + 1.2 * rng.standard_normal((20, dim), dtype=np.float32)))
    shelf = Shelf(root, _FINGERPRINT)
    shelf.describe({})
    shelf.write([key("q", i) for i in range(len(asked))], Embeddings.from_list(asked))
    shelf.write([key("d", i) for i in range(pages)], Embeddings.from_list(items))


def request(root: str, queries: int, documents: int, similarity: Any, k: int, options: SearchOptions) -> SearchRequest:
    return SearchRequest(
        Shelf(root, _FINGERPRINT),
        [key("q", i) for i in range(queries)],
        [key("d", i) for i in range(documents)],
        np.arange(documents),
        tie_ranks([f"{i:09d}" for i in range(documents)]),
        similarity,
        k,
        options,
    )


def search(job: dict[str, Any], similarity: str) -> tuple[Found, dict[str, Any]]:
    """Through raylib; the seconds are without those that measuring the recall takes. Late interaction and an
    index a second time, which is what a second language over the same corpus costs."""
    names = ("index", "candidates", "token_pooling")
    options = SearchOptions(**{name: job[name] for name in names if name in job})
    late = similarity == "maxsim"
    n_queries, n = (min(100, job["queries"]), job["pages"]) if late else (job["queries"], job["documents"])
    asked = request(f"{job['root']}/{'late' if late else 'dense'}", n_queries, n, similarity, job["k"], options)
    warm_up(asked)
    measured = timed(lambda: rank_locally(asked))
    ranked, of_index = measured.pop("value")
    found = finish(asked, ranked, of_index, search_locally)
    if late or options.index is not None:
        again = timed(lambda: rank_locally(asked))
        measured["seconds_again"], measured["cpu_again"] = again["seconds"], again["cpu"]
    return found, {**measured, "quality": found.quality}


def warm_up(asked: SearchRequest) -> None:
    """What is measured once a process (which kernel is faster) and loaded on first use."""
    import torch

    from raylib.search.dense import load_faiss

    load_faiss()
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))
    if asked.similarity == "maxsim":
        from raylib.search.maxsim import maxsim

        queries = Embeddings.from_dense(np.ones((2, 128), np.float32))
        maxsim(queries, queries)


def plain_faiss(job: dict[str, Any]) -> tuple[Found, dict[str, Any]]:
    """IndexFlatIP over the same vectors, in memory as float32."""
    import faiss

    faiss.omp_set_num_threads(job["cores"])
    shelf = Shelf(f"{job['root']}/dense", _FINGERPRINT)

    def unit(vectors: np.ndarray) -> np.ndarray:
        wide = vectors.astype(np.float32)
        faiss.normalize_L2(wide)
        return wide

    queries = unit(shelf.get([key("q", i) for i in range(job["queries"])]).values)
    index = faiss.IndexFlatIP(queries.shape[1])
    places = []
    for positions, vectors in shelf.scan([key("d", i) for i in range(job["documents"])]):
        index.add(unit(vectors.values))  # pyright: ignore[reportCallIssue]
        places.append(positions)
    measured = timed(lambda: index.search(queries, job["k"]))  # pyright: ignore[reportCallIssue]
    scores, found = measured.pop("value")
    return Found(np.concatenate(places)[found], scores), measured


def timed(work: Any) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    value = work()
    return {"value": value, "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}


def main() -> int:
    side, job = sys.argv[1], json.loads(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["cores"]])
    import torch

    torch.set_num_threads(job["cores"])
    before = peak_memory() / 1e6
    if side == "faiss":
        found, measured = plain_faiss(job)
    else:
        found, measured = search(job, "maxsim" if side == "late" else "cosine")
    measured["peak_mb"] = peak_memory() / 1e6
    measured["peak_mb_of_imports"] = before
    np.savez(job["out"], documents=found.documents_QK, scores=found.scores_QK)
    print("MEASURED " + json.dumps({n: round(v, 3) if isinstance(v, float) else v for n, v in measured.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
