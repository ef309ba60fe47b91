"""FAISS (Johnson, Douze and Jégou, 2017) for dense vectors: the nearest by inner product, and indexes that look at a
part of the corpus. Whatever it finds are candidates; their scores are computed again (see `raylib.search.engine`).
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import numpy as np

from raylib.errors import UserError

_MOST_ON_GPU = 2048
"""FAISS's kernels select at most so many."""

_PER_CENTROID = 40
"""Training vectors of each list of an inverted file."""

_LISTS_PER_VISITED, _LEAST_LISTS = 8, 16
"""Who says no nprobe wants scores that are nearly right before the last factor in speed. Measured over 200,000 to a
million vectors of low intrinsic dimension, 256 to 4,096 lists: an eighth of them holds .97 to 1.0 of the best 100, in a
fifth to a third of the time of comparing all; the square root, which is usual, .84 to .91 in about a tenth. Of few
lists an eighth is too few (64 lists, 20,000 vectors: 8 hold .53 to .92 of the best 100, 16 .71 to .98)."""

_SKYLAKE_X = {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}


@functools.lru_cache(maxsize=1)
def load_faiss() -> Any:
    """The faiss module. It brings an OpenBLAS of its own, which takes AMD's cores with AVX512 for older ones and then
    runs at half their speed; which kernels it uses is decided while it is loaded."""
    name = "OPENBLAS_CORETYPE"
    choose = name not in os.environ and _amd_with_avx512()
    if choose:
        os.environ[name] = "SKYLAKEX"
    try:
        import faiss
    finally:
        if choose:
            del os.environ[name]
    return faiss


def _amd_with_avx512() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            text = stream.read(16384)
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return "AuthenticAMD" in text and flags is not None and set(flags.group(1).split()) >= _SKYLAKE_X


def nearest(query_QD: np.ndarray, document_ND: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(inner products [n_queries, k] float32, best first, and positions [n_queries, k] int64), every document compared;
    k is at most their number. On a GPU where there is one, else on as many threads as torch may use. The last bits of
    a product depend on what it is computed beside."""
    faiss = _faiss_with_threads()
    query_QD, document_ND = np.ascontiguousarray(query_QD), np.ascontiguousarray(document_ND)
    if k <= _MOST_ON_GPU and faiss.get_num_gpus() > 0:
        return faiss.knn_gpu(_gpu(), query_QD, document_ND, k, metric=faiss.METRIC_INNER_PRODUCT)
    return faiss.knn(query_QD, document_ND, k, metric=faiss.METRIC_INNER_PRODUCT)


def _faiss_with_threads() -> Any:
    import torch

    faiss = load_faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


@functools.lru_cache(maxsize=1)
def _gpu() -> Any:
    return load_faiss().StandardGpuResources()


class Index:
    """A FAISS index by factory string: "IVF4096,Flat", "HNSW32", "OPQ64,IVF1024,PQ64".

    After a semicolon come search parameters as FAISS names them: "IVF4096,Flat;nprobe=128". Without, an inverted file
    visits an eighth of its lists, at least 16, and a graph keeps as many candidates as are asked for.
    Vectors are compared by inner product; their positions are counted in the order in which they are added. Raises
    UserError for a string that FAISS does not know.
    """

    def __init__(self, factory: str, dim: int) -> None:
        self.faiss = _faiss_with_threads()
        self.factory = factory
        kind, _, self._parameters = factory.partition(";")
        try:
            self._index = self.faiss.index_factory(dim, kind.strip(), self.faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise UserError(
                f"--index {factory!r} is no FAISS index for vectors of {dim} dimensions ({_reason(error)}); expected a "
                'factory string, e.g. "IVF4096,Flat", "HNSW32" or "OPQ64,IVF1024,PQ64", whose PQ divides the dimensions'
            ) from error
        self._lists = _lists(self.faiss, self._index)
        if self._lists is not None and not self._parameters:
            self._set(f"nprobe={min(self._lists.nlist, max(_LEAST_LISTS, self._lists.nlist // _LISTS_PER_VISITED))}")
        elif self._parameters:
            self._set(self._parameters)

    def _set(self, parameters: str) -> None:
        try:
            self.faiss.ParameterSpace().set_index_parameters(self._index, parameters)
        except RuntimeError as error:
            raise UserError(
                f"--index {self.factory!r}: this index has no parameters {parameters!r} ({_reason(error)}); expected "
                'names and numbers as FAISS has them, e.g. "nprobe=64" or "efSearch=128"'
            ) from error

    @property
    def training_vectors(self) -> int:
        """How many to train on, 0 where it needs none: FAISS wants 39 for each of its centroids, 256 of them in a
        codebook of eight bits."""
        if self._index.is_trained:
            return 0
        return max(_PER_CENTROID * self._lists.nlist if self._lists is not None else 0, 25_600)

    def train(self, sample_ND: np.ndarray) -> None:
        """Raises UserError where the corpus has too few vectors for this index."""
        try:
            self._index.train(np.ascontiguousarray(sample_ND))
        except RuntimeError as error:
            numbers = re.search(r"training points \((\d+)\).*?clusters \((\d+)\)", str(error))
            needs = f"it needs at least {numbers.group(2)}" if numbers else _reason(error)
            raise UserError(
                f"--index {self.factory!r} cannot be trained on {len(sample_ND)} vectors: {needs}. "
                "Use fewer lists or smaller codes, or leave --index out: so few are searched exactly in no time."
            ) from error

    def add(self, vectors_ND: np.ndarray) -> None:
        self._index.add(np.ascontiguousarray(vectors_ND))

    def search(self, query_QD: np.ndarray, k: int) -> np.ndarray:
        """[n_queries, k] int64 positions of candidates, -1 where it found fewer."""
        _faiss_with_threads()
        graph = getattr(self.faiss.downcast_index(self._index), "hnsw", None)
        if graph is not None and "efSearch" not in self._parameters:
            graph.efSearch = max(64, k)
        return self._index.search(np.ascontiguousarray(query_QD), k)[1]

    @property
    def bytes_per_vector(self) -> float:
        """What the index holds of a vector, centroids and codebooks shared out."""
        sizes: list[int] = []
        writer = self.faiss.PyCallbackIOWriter(lambda piece: sizes.append(len(piece)))
        self.faiss.write_index(self._index, writer)
        return sum(sizes) / max(1, self._index.ntotal)


def _lists(faiss: Any, index: Any) -> Any:
    """The inverted file inside an index, or None."""
    return faiss.try_extract_index_ivf(index)


def _reason(error: Exception) -> str:
    """The last words of FAISS's own message, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^(Error in .*? at \S+: )?(.*?Error: )?", "", " ".join(lines)).replace("'", "")[:200]
