"""What is asked of a node, in which order, and what comes of it: every step for real, in this process."""

from __future__ import annotations

from collections import Counter

import pytest

from raylib.bench.book import Book
from raylib.bench.config import BenchConfig
from raylib.bench.measure import closed_loop
from raylib.bench.model_run import ModelRun
from raylib.bench.result_files import read_results
from raylib.evaluate.progress import QuietReporter

WRONG, PAIRS, MISSING, TWIN = (
    f"tests.bench.fakes:{name}" for name in ("WrongPooling", "NoPairs", "NotInstalled", "Twin")
)


@pytest.fixture
def bench(node, tmp_path, tiny, monkeypatch):
    """Runs the cells of a tiny CLIP (or of another family's model) as one run of the command would, of few calls."""
    monkeypatch.setattr("raylib.bench.measure.LEAST_CONTENTS", 20)
    monkeypatch.setattr("raylib.bench.measure.LEAST_CALLS", 4)

    def run(family="clip", tower="text", **settings):
        small = {"runtimes": ["torch"], "batch_sizes": [1], "sequence_lengths": [8], "rounds": 1, "duration": 0.001}
        config = BenchConfig(model=[str(tiny(family))], output_folder=str(tmp_path / "out"), **{**small, **settings})
        node.jobs.clear()
        book = Book(config.output_folder)
        return ModelRun(config, config.specs()[0], tower, node, book, QuietReporter()).run()

    return run


def test_flags_are_what_a_process_sees(bench):
    results = bench(batch_sizes=[4], sequence_lengths=[8, 24], threads=[1, 2])
    seen = [(r.cell, r.rounds[0].observed) for r in results]
    assert len(seen) == 4
    for cell, observed in seen:
        assert observed["batch"] == cell.batch
        assert observed["tokens"] == [cell.tokens, cell.tokens]
        assert observed["padded"] == cell.tokens
        assert observed["torch_threads"] == cell.threads
    assert {r.dim for r in results} == {64}
    assert all(r.disk_bytes and r.disk_bytes > 50_000 for r in results)
    assert all(r.parity and r.parity.cosine > 0.999999 for r in results)
    one = results[0].rounds[0]
    assert one.peak_rss_mb >= one.loaded_rss_mb > 50
    assert one.load_s > 0 and one.first_call_s > 0 and one.cpu_ms_per_call > 0
    assert one.tensor_in is not None and one.tensor_in["p50"]
    assert results[0].machine["versions"]["torch"]


def test_what_is_counted_follows_from_the_calls(bench):
    one, many = bench(batch_sizes=[1, 16])
    assert one.rounds[0].calls == 20  # the least number of contents
    assert many.rounds[0].calls == 4  # of calls
    for result in (one, many):
        found = result.rounds[0]
        assert found.contents_per_s == pytest.approx(found.calls * result.cell.batch / found.seconds)
        assert found.latency_ms["p99"] is None


def test_a_longer_duration_is_more_calls(bench):
    (short,) = bench()
    (long,) = bench(duration=0.6)
    assert short.rounds[0].calls == 20
    assert long.rounds[0].seconds >= 0.6
    assert (short.protocol["duration_s"], long.protocol["duration_s"]) == (0.001, 0.6)


def test_clients_and_load_are_measured_as_such(bench, monkeypatch):
    loops = []

    def loop(call, contents, until, clients=1):
        loops.append((getattr(call, "__name__", ""), clients))
        return closed_loop(call, contents, until, clients)

    monkeypatch.setattr("raylib.bench.timing.closed_loop", loop)
    results = bench(concurrency=[4], load=[0.5])
    _, clients, load = (r.rounds[0] for r in results)
    # With one client, and behind the tokenizer; with four; and, before calls arrive by chance, with one again.
    assert loops == [("embed", 1), ("run", 1), ("embed", 4), ("embed", 1)]
    assert [r.cell.clients for r in results] == [1, 4, 1]
    assert load.observed["offered_per_s"] == pytest.approx(0.5 * load.observed["capacity_per_s"])
    assert load.observed["seed"]
    assert load.calls == 20
    assert clients.tensor_in is None and load.tensor_in is None


def test_images_have_no_length(bench):
    results = bench("clip", "image", batch_sizes=[3])
    assert [(r.cell.tokens, r.status, r.rounds[0].observed["batch"]) for r in results] == [(None, "measured", 3)]
    assert results[0].rounds[0].tensor_in["p50"] < results[0].rounds[0].latency_ms["p50"]  # without the resizing


def test_a_tower_that_pads_to_its_full_length_computes_it(bench):
    short, long = bench("siglip", sequence_lengths=[8, 20])
    assert short.rounds[0].observed["padded"] == 16
    assert (long.status, long.reason) == ("hole", "the model reads 16 tokens of a text, and not 20")


def test_every_process_has_the_time_that_it_is_given(bench, node):
    bench(timeout=77.0)
    assert node.timeouts == {77.0}


def test_a_graph_of_the_wrong_pooling_is_refused_and_not_timed(bench, node):
    results = bench("sentence-transformers", runtimes=["torch", WRONG])
    right, wrong = results
    assert (right.status, wrong.status) == ("measured", "refused")
    assert wrong.parity and wrong.parity.cosine < 0.999
    assert "its vectors are not PyTorch's" in wrong.reason
    assert not wrong.rounds
    assert [job["runtime"] for job in node.jobs if job["kind"] == "measure"] == ["torch"]


def test_a_panic_costs_its_own_cell(bench):
    results = bench(runtimes=[PAIRS, "torch"], batch_sizes=[1, 2])
    assert [(r.cell.batch, r.status) for r in results] == [
        (1, "measured"),
        (2, "failed"),
        (1, "measured"),
        (2, "measured"),
    ]
    assert results[1].reason == "PanicError: two are too many"


def test_a_failed_cell_is_not_tried_in_later_rounds(bench, node):
    results = bench(runtimes=[PAIRS], batch_sizes=[1, 2], rounds=3)
    assert [len(r.rounds) for r in results] == [3, 0]
    assert Counter(job["batch"] for job in node.jobs if job["kind"] == "measure") == {1: 3, 2: 1}


def test_what_cannot_be_run_is_a_hole_with_a_reason(bench, node):
    results = bench(runtimes=[MISSING, "torch"], sequence_lengths=[8, 100])
    assert [(r.cell.tokens, r.status, r.reason) for r in results] == [
        (8, "hole", "it has no fp32; install toy"),
        (100, "hole", "it has no fp32; install toy"),
        (8, "measured", None),
        (100, "hole", "the model reads 77 tokens of a text, and not 100"),
    ]
    assert results[0].language == "toy"


def test_a_tower_that_a_model_has_not_is_a_hole(bench, node):
    (result,) = bench("sentence-transformers", tower="image")
    assert (result.status, node.kinds()) == ("hole", ["reference"])
    assert "reads no images" in result.reason


def test_runtimes_take_turns_and_another_one_begins_each_round(bench, node):
    bench(runtimes=["torch", TWIN], batch_sizes=[1, 4], rounds=2)
    measured = [(job["batch"], job["runtime"]) for job in node.jobs if job["kind"] == "measure"]
    assert measured == [
        *[(1, "torch"), (1, TWIN), (4, "torch"), (4, TWIN)],
        *[(1, TWIN), (1, "torch"), (4, TWIN), (4, "torch")],
    ]


def test_number_formats_are_reported_beside_the_speed(bench):
    fp32, bf16, int8 = bench(precision=["fp32", "bf16", "int8"])
    assert fp32.parity.cosine > bf16.parity.cosine > 0.99
    assert fp32.parity.cosine > int8.parity.cosine > 0.9
    assert {r.status for r in (fp32, bf16, int8)} == {"measured"}


def test_a_finished_cell_is_not_run_again_and_missing_rounds_are(bench, node, tmp_path):
    first = bench(batch_sizes=[1])
    again = bench(batch_sizes=[1, 2])
    assert [job["batch"] for job in node.jobs if job["kind"] == "measure"] == [2]
    assert again[0] == first[0]
    bench(batch_sizes=[1, 2])
    assert node.kinds() == ["reference", "prepare"]
    more = bench(batch_sizes=[1, 2], rounds=2)
    assert node.kinds() == ["reference", "prepare", "measure", "measure"]
    assert more[0].rounds[0] == first[0].rounds[0] and len(more[0].rounds) == 2
    assert sorted(read_results(str(tmp_path / "out")), key=lambda r: r.cell.batch) == more


@pytest.mark.parametrize("changed", [{"duration": 0.002}, {"overwrite": True}])
def test_other_settings_are_another_measurement(bench, node, changed):
    first = bench()
    again = bench(**changed)
    assert node.kinds() == ["reference", "prepare", "gate", "measure"]
    assert len(again[0].rounds) == 1
    assert again[0].rounds != first[0].rounds


def test_a_reference_that_fails_costs_its_model(bench, node, monkeypatch):
    monkeypatch.setattr(node, "run", lambda job, timeout_s: {"failed": "no memory"})
    assert [(r.status, r.reason) for r in bench(batch_sizes=[1, 2])] == [("failed", "no memory")] * 2


def test_the_quality_of_a_task_is_asked_for_once_a_number_format(bench, node, monkeypatch):
    asked = []

    def ndcg(spec, task, store):
        asked.append((spec.dtype, task))
        return 0.25

    monkeypatch.setattr("raylib.bench.quality.ndcg_at_5", ndcg)
    results = bench(precision=["fp32", "bf16", "int8"], batch_sizes=[1, 2], quality_task="StdlibPages")
    assert asked == [(None, "StdlibPages"), ("bfloat16", "StdlibPages")]  # raylib evaluate has no int8 with torch
    assert [r.ndcg_at_5 for r in results] == [0.25] * 4 + [None] * 2
