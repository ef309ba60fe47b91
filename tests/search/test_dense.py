"""FAISS: loaded so that it is fast, with the threads that the user gave torch; indexes by factory string."""

import os
import subprocess
import sys

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.search import dense
from raylib.search.dense import Index, nearest

RNG = np.random.default_rng(0)
CORPUS = RNG.normal(size=(2000, 8)).astype(np.float32)


def test_nearest_is_a_sort_in_float64():
    queries = RNG.normal(size=(40, 8)).astype(np.float32)
    table = queries.astype(np.float64) @ CORPUS.T.astype(np.float64)
    scores, found = nearest(queries, CORPUS, 15)
    assert np.array_equal(found, np.argsort(-table, axis=1)[:, :15])
    np.testing.assert_allclose(scores, -np.sort(-table, axis=1)[:, :15], rtol=1e-5)


def test_faiss_has_the_threads_of_torch():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        for n in (3, 1):
            torch.set_num_threads(n)
            nearest(CORPUS[:1], CORPUS, 2)
            assert dense.load_faiss().omp_get_max_threads() == n
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("flags", "chosen"), [(True, "SKYLAKEX"), (False, None)])
def test_openblas_is_told_the_core_while_faiss_is_loaded(flags, chosen, tmp_path):
    """A module of that name writes down what it sees; afterwards the environment is as it was."""
    (tmp_path / "faiss.py").write_text("import os\nseen = os.environ.get('OPENBLAS_CORETYPE')\n")
    code = (
        "import os\nfrom raylib.search import dense\n"
        f"dense._amd_with_avx512 = lambda: {flags}\n"
        "print(dense.load_faiss().seen, 'OPENBLAS_CORETYPE' in os.environ)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    environment.pop("OPENBLAS_CORETYPE", None)
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(chosen), "False"]


@pytest.mark.parametrize(
    ("factory", "nprobe"),
    [("IVF64,Flat", 16), ("IVF256,Flat", 32), ("IVF4096,Flat", 512), ("IVF4,Flat", 4), ("OPQ4,IVF64,PQ4x4", 16)],
)
def test_an_inverted_file_visits_an_eighth_of_its_lists(factory, nprobe):
    assert Index(factory, 8)._lists.nprobe == nprobe


def test_parameters_come_after_a_semicolon():
    assert Index("IVF64,Flat;nprobe=33", 8)._lists.nprobe == 33
    with pytest.raises(UserError, match="this index has no parameters 'nprobe=oops'"):
        Index("IVF64,Flat;nprobe=oops", 8)


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW16", "Flat", "PQ4x6", "OPQ4,IVF16,PQ4x6"])
def test_an_index_gives_what_is_near(factory):
    index = Index(factory, 8)
    if index.training_vectors:
        index.train(CORPUS)
    index.add(CORPUS[:900])
    index.add(CORPUS[900:])
    found = index.search(CORPUS[:50], 20)
    best = np.argsort(-(CORPUS[:50] @ CORPUS.T), axis=1)
    assert found.shape == (50, 20) and (found >= -1).all()
    assert np.mean([best[q, 0] in found[q] for q in range(50)]) > 0.8
    assert 3 < index.bytes_per_vector < 400


def test_what_an_index_takes():
    flat = Index("Flat", 8)
    flat.add(CORPUS)
    assert flat.bytes_per_vector == pytest.approx(4 * 8, rel=0.01)
    assert flat.training_vectors == 0 and Index("IVF1000,Flat", 8).training_vectors == 40_000


@pytest.mark.parametrize("factory", ["Ivf", "PQ3", ""])
def test_a_string_that_faiss_does_not_know(factory):
    with pytest.raises(
        UserError, match=r"is no FAISS index for vectors of 8 dimensions \(.*\); expected a factory string"
    ):
        Index(factory, 8)


@pytest.mark.parametrize(("factory", "needs"), [("IVF512,Flat", 512), ("PQ4", 256)])
def test_too_few_vectors_to_train_on(factory, needs):
    with pytest.raises(UserError, match=f"cannot be trained on 100 vectors: it needs at least {needs}"):
        Index(factory, 8).train(CORPUS[:100])
