"""`raylib.RayModel(..., exact_mteb=True)` on real Ray: every metric is MTEB's own, however many actors there are."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from raylib.cluster.exact_mteb import ActorRunner, ray_exact_model
from raylib.cluster.session import MAX_ATTEMPTS, Workers
from raylib.errors import ModelError, UserError
from raylib.evaluate.exact_calls import Call, Cut, cuts_of
from raylib.evaluate.exact_models import exact_source
from raylib.evaluate.exact_mteb import ExactModel
from raylib.models.protocol import ModelSpec
from tests import exact_toys
from tests.cluster import watched_toys
from tests.evaluate.compare import scores_of
from tests.evaluate.mock_tasks import IMAGE_MOCKS, TEXT_MOCKS, grown_task
from tests.exact_toys import LATE_MOCKS, unequal

pytestmark = pytest.mark.cluster

BATCH_SIZE = 16

QUICK = (
    "MockAny2AnyRetrievalT2ITask",
    "MockImageTextPairClassificationTask",
    "MockInstructionReranking",
    "MockMultilabelClassification",
    "MockMultilingualRetrievalTask",
    "MockSTSTask",
    "MockZeroShotClassificationTask",
)


def tasks(names: tuple[str, ...]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def one_thread():
    """As many as an actor has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_at_a_time(cluster):
    """name, how to make it → what holds actors; what was held before is given up, because the cluster has room for one
    such group."""
    held: dict[Any, Any] = {}

    def give_up() -> None:
        for other in held.values():
            other.close()
        held.clear()

    def hold(name: Any, make: Callable[[], Any]) -> Any:
        if name not in held:
            give_up()
            held[name] = make()
        return held[name]

    yield hold
    give_up()


@pytest.fixture(scope="module")
def models(one_at_a_time):
    """(toy, workers) → its RayModel."""
    import raylib

    def model(toy: str, workers: int) -> Any:
        name = f"tests.exact_toys:{toy}"
        return one_at_a_time((toy, workers), lambda: raylib.RayModel(name, workers=workers, exact_mteb=True))

    return model


@cache
def plain_scores(toy: str, task: str) -> dict[str, Any]:
    return scores_of(getattr(exact_toys, toy)(), grown_task(task), BATCH_SIZE)


def assert_exact(model: Any, toy: str, task: str) -> None:
    assert isinstance(model, ExactModel)
    assert unequal(scores_of(model, grown_task(task), BATCH_SIZE), plain_scores(toy, task)) == []


@pytest.mark.parametrize("task", tasks((*TEXT_MOCKS, *IMAGE_MOCKS)))
def test_every_metric_of_a_dense_model_on_two_actors(task, models):
    assert_exact(models("batch_mean", 2), "batch_mean", task)


@pytest.mark.parametrize("task", tasks(LATE_MOCKS))
def test_every_metric_of_a_zero_padding_model_on_three_actors(task, models):
    assert_exact(models("padded", 3), "padded", task)


@pytest.mark.slow
@pytest.mark.parametrize("task", (*TEXT_MOCKS, *IMAGE_MOCKS))
def test_every_metric_of_a_dense_model_on_three_actors(task, models):
    assert_exact(models("batch_mean", 3), "batch_mean", task)


@pytest.mark.slow
@pytest.mark.parametrize("task", LATE_MOCKS)
def test_every_metric_of_a_zero_padding_model_on_two_actors(task, models):
    assert_exact(models("padded", 2), "padded", task)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    from tests.models.test_sentence import save_sentence

    folder = tmp_path_factory.mktemp("sentences")
    save_sentence(folder, "qwen")
    return folder / "model"


@pytest.fixture
def sentence_model(one_at_a_time, sentences):
    return one_at_a_time("sentences", lambda: ray_exact_model(ModelSpec(str(sentences), device="cpu"), Workers(2)))


@pytest.mark.parametrize("shipping", ["path", "value"], indirect=True)
def test_sentence_transformers_bits_from_a_data_set_on_disk(shipping, sentence_model, sentences, tmp_path):
    import datasets
    from mteb._create_dataloaders import create_dataloader

    del shipping
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["key", "value", "größe", "table"], int(rng.integers(1, 41)))) for _ in range(150)]
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(tmp_path / "texts"))
    rows = datasets.load_from_disk(str(tmp_path / "texts"))
    metadata = grown_task("MockSTSTask").metadata
    where: dict[str, Any] = {"hf_split": "test", "hf_subset": "default", "task_metadata": metadata}

    loader = create_dataloader(rows, task_metadata=metadata, batch_size=8)
    got = sentence_model.encode(loader, batch_size=8, **where)

    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(sentences), device="cpu")
    how: dict[str, Any] = {"batch_size": 8, "prompt": "similar: "}
    assert got.tobytes() == library.encode(texts, **how).tobytes()
    naive = np.concatenate([library.encode(texts[:75], **how), library.encode(texts[75:], **how)])
    assert (naive != got).any(axis=1).mean() > 0.2


# Faults.


def slices_of(texts: list[str]) -> tuple[Any, Any, list[Any]]:
    """(call, rows, cuts of four rows) of one encode call over `texts`."""
    import datasets
    from torch.utils.data import default_collate

    call = Call(grown_task("MockSTSTask").metadata, "test", "default", None, {}, 4, default_collate)
    rows = datasets.Dataset.from_dict({"text": texts})
    return call, rows, cuts_of(len(texts), 4, 64, images=False)


@pytest.fixture
def runner(request, one_at_a_time, watched):
    source = exact_source(ModelSpec(f"tests.cluster.watched_toys:{request.param}"))
    return one_at_a_time(request.param, lambda: ActorRunner(source, Workers(2)))


@pytest.mark.parametrize("runner", ["slow"], indirect=True)
def test_a_killed_actor_costs_time_only(runner):
    watched_toys.forget("slow")
    call, rows, cuts = slices_of([f"text number {i}" for i in range(80)])

    def kill_the_first_that_works() -> None:
        deadline = time.monotonic() + 120
        while len(watched_toys.forwards("slow")) < 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(watched_toys.forwards("slow")[0][0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first_that_works)
    killer.start()
    found = np.concatenate(runner.run(call, rows, cuts))
    killer.join()

    assert not os.path.exists(f"/proc/{watched_toys.forwards('slow')[0][0]}")
    assert len(watched_toys.forwards("slow")) < 2 * 80, "a kill must not start the work again"
    expected = exact_toys.ToyModel().encode([{"text": rows["text"][:]}], task_metadata=None, hf_split="", hf_subset="")
    assert found.tobytes() == expected.tobytes()
    watched_toys.forget("slow")
    for _ in range(3):
        (again,) = runner.run(call, rows, [Cut(0, 8)])
        assert again.tobytes() == expected[:8].tobytes()
    assert len({pid for pid, _ in watched_toys.forwards("slow")}) == 1, "calls that are not cut go to one actor"


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["poisoned"], indirect=True)
def test_rows_that_kill_their_actor_are_named(runner):
    texts = [f"text {i:02d}" for i in range(40)]
    texts[21] = "poison"

    with pytest.raises(ModelError, match=f"poisoned: .* died {MAX_ATTEMPTS} times over rows 20 to 24 of MockSTSTask"):
        runner.run(*slices_of(texts))


def test_weights_that_cannot_be_loaded_are_the_models_fault(cluster, sentences, tmp_path):
    import shutil

    shutil.copytree(sentences, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    model = ray_exact_model(ModelSpec(str(tmp_path / "bare"), device="cpu"), Workers(2))

    with pytest.raises(ModelError, match="bare: MTEB cannot load it: OSError") as error:
        _ = model.mteb_model_meta

    assert type(error.value) is ModelError and "\n" not in str(error.value)
    model.close()


def test_what_exact_mode_has_no_place_for(cluster):
    import raylib

    with pytest.raises(UserError, match="takes no store"):
        raylib.RayModel("tests.exact_toys:padded", exact_mteb=True, store="s")
    with pytest.raises(UserError, match="searches by itself"):
        raylib.RayModel("raylib/bm25", exact_mteb=True)


def test_the_plain_model_can_still_be_copied():
    """Python makes copies through __new__, without arguments."""
    import copy

    from raylib.cluster.model import RayModel

    plain: Any = RayModel.__new__(RayModel)
    plain.limits = 7
    assert type(copy.copy(plain)) is RayModel and copy.copy(plain).limits == 7
