"""Batches by tokens, and the batch that is found by trying."""

import json

import numpy as np
import pytest
from datasets import Dataset

from raylib.errors import ModelError, UserError
from raylib.evaluate import auto_batch
from raylib.evaluate.auto_batch import auto_limits, largest_of, longest_of
from raylib.evaluate.batching import BatchLimits, cut, sample_by_length, tokens_by_length, within_tokens
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import encode_locally
from raylib.evaluate.plan import Plan
from raylib.store.embeddings import Shelf
from raylib.types import EncodeContext
from tests.evaluate.made import Letters

CONTEXT = EncodeContext("document")


class Tokens(Letters):
    """A token a word, at most `longest`. padded: contents × longest of every forward. fits: what it has memory for."""

    def __init__(self, fits=None, longest=1000):
        super().__init__()
        self.fits_tokens, self.longest, self.padded = fits, longest, []

    def preprocess(self, batch, context):
        counts = [min(self.longest, len(text.split())) for text in batch["text"]]
        mask = np.zeros((len(counts), max(counts)), dtype=np.int64)
        for row, count in zip(mask, counts, strict=True):
            row[:count] = 1
        return {**super().preprocess(batch, context), "attention_mask": mask}

    def forward(self, tensors):
        import torch

        mask = tensors["attention_mask"]
        size = len(mask) * int(mask.sum(axis=1).max())
        if self.fits_tokens is not None and size > self.fits_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.padded.append(size)
        return super().forward({name: tensors[name] for name in ("counts", "n")})


def plan_of(encoder, texts):
    plan = Plan(encoder)
    plan.add(Source("T", [str(i) for i in range(len(texts))], Dataset.from_dict({"text": texts})), CONTEXT)
    return plan


def words(*counts):
    return [" ".join(f"w{i}" for _ in range(n)) for i, n in enumerate(counts)]


@pytest.mark.parametrize(
    ("lengths", "limits", "sizes"),
    [
        ([9, 5, 4, 1, 1], BatchLimits(2), [2, 2, 1]),
        ([9, 5, 4, 1, 1], BatchLimits(10, 10), [1, 2, 2]),
        ([9, 5, 4, 1, 1], BatchLimits(10, 4), [1, 1, 1, 2]),
        ([0, 0, 0], BatchLimits(2, 1), [1, 1, 1]),
        ([], BatchLimits(2, 1), []),
    ],
)
def test_pieces_hold_what_the_limits_say(lengths, limits, sizes):
    assert [piece.stop - piece.start for piece in cut(np.array(lengths), limits)] == sizes


def test_estimates_run_straight_between_the_sample_and_never_fall():
    lengths = np.array([10, 20, 30, 40, 50])
    assert tokens_by_length(lengths, [0, 2, 4], np.array([2, 10, 8])).tolist() == [2, 6, 10, 10, 10]
    assert tokens_by_length(np.zeros(3), [0, 1], np.array([4, 7])).tolist() == [7, 7, 7]
    assert sample_by_length(np.array([5, 1, 9, 3]), 2) == [1, 2] and sample_by_length(np.arange(3), 9) == [0, 1, 2]


def test_no_forward_holds_more_padded_tokens_than_allowed(tmp_path):
    random = np.random.default_rng(0)
    encoder = Tokens()
    plan = plan_of(encoder, words(*random.integers(1, 60, 200)))
    shelf = Shelf(str(tmp_path), encoder.fingerprint)
    batches = plan.batches(BatchLimits(100, 120))
    report = encode_locally(encoder, batches, plan.sources, shelf)
    assert report.encoded == 200 and max(encoder.padded) <= 120
    assert len({len(batch) for batch in batches}) > 5, "short contents share larger batches"
    assert sum(encoder.padded) < 1.2 * sum(len(t.split()) for t in encoder.texts[-200:])


def test_a_worker_cuts_what_was_estimated_too_short():
    tensors = {"a": np.arange(5), "attention_mask": np.ones((5, 4))}
    pieces = within_tokens(tensors, np.array([2, 4, 1, 1, 1]), 4)
    assert [piece["a"].tolist() for piece in pieces] == [[0], [1], [2, 3, 4]]
    assert within_tokens(tensors, np.array([2, 4, 1, 1, 1]), None) == [tensors]
    assert within_tokens(tensors, None, 4) == [tensors]


def test_vectors_do_not_depend_on_the_bound(tmp_path):
    texts = [f"{'a' * (i % 3)} {'b ' * (i % 7)} c" for i in range(40)]
    found = []
    for number, limits in enumerate((BatchLimits(8), BatchLimits(1024, 16))):
        encoder = Tokens()
        plan = plan_of(encoder, texts)
        shelf = Shelf(str(tmp_path / str(number)), encoder.fingerprint)
        encode_locally(encoder, plan.batches(limits), plan.sources, shelf)
        shelf.refresh()
        found.append(shelf.get(plan.keys()).dense())
    np.testing.assert_array_equal(*found)


def test_a_model_that_cannot_count_refuses_a_bound():
    with pytest.raises(UserError, match="made/letters does not tell how many tokens text have; bound its batches by"):
        plan_of(Letters(), ["a", "b"]).batches(BatchLimits(8, 100))


# Found by trying.


class MemoryOnly(auto_batch._Meter):
    """As on a GPU: speed does not count."""

    def worth(self, size, forward):
        return forward() is not None


@pytest.mark.parametrize(("fits", "expected"), [(70, 6), (80, 8), (10, 1), (125, 12), (160, 16)])
def test_the_largest_batch_is_found_by_doubling_and_half_way(fits, expected, monkeypatch):
    monkeypatch.setattr(auto_batch, "_CpuMeter", MemoryOnly)
    encoder = Tokens(fits)
    (batch,) = plan_of(encoder, words(10)).batches(1)
    longest = longest_of(encoder, [batch], plan_of(encoder, words(10)).sources)
    assert longest is not None and largest_of(encoder, longest.tensors) == expected
    assert max(encoder.padded) == expected * 10


def test_what_does_not_fit_alone_is_an_error():
    encoder = Tokens(9)
    plan = plan_of(encoder, words(10))
    with pytest.raises(ModelError, match=r"one content alone does not fit in memory. Use a smaller --max-pixels"):
        auto_limits(encoder, plan.samples(), plan.sources, Shelf("/nowhere", encoder.fingerprint))


def test_a_batch_grows_on_a_cpu_while_that_makes_it_faster(monkeypatch):
    """Seconds of a forward: half a second whatever its size up to 8 contents, then in proportion."""
    clock = [0.0]
    monkeypatch.setattr(auto_batch.time, "perf_counter", lambda: clock[0])
    encoder = Tokens()
    original = Tokens.forward

    def slow(self, tensors):
        clock[0] += max(0.5, len(tensors["n"]) / 16)
        return original(self, tensors)

    monkeypatch.setattr(Tokens, "forward", slow)
    plan = plan_of(encoder, words(3))
    longest = longest_of(encoder, next(iter(plan.samples().values())), plan.sources)
    assert longest is not None and largest_of(encoder, longest.tensors) == 8
    assert max(encoder.padded) == 32 * 3, "it is tried twice in vain"


def test_it_is_tried_once_per_device_and_length_and_kept_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(auto_batch, "_CpuMeter", MemoryOnly)
    encoder = Tokens(100)
    shelf = Shelf(str(tmp_path), encoder.fingerprint)
    plan = plan_of(encoder, words(2, 10, 4))
    assert auto_limits(encoder, plan.samples(), plan.sources, shelf) == {("text",): BatchLimits(1024, 80)}
    (kept,) = json.loads((tmp_path / encoder.fingerprint[:16] / "batch_sizes.json").read_text().strip() or "{}").items()
    assert kept[0].startswith("cpu, ") and kept[0].endswith(" threads | text") and kept[1]["contents"] == 8
    tried = len(encoder.padded)

    shorter = plan_of(encoder, words(3))
    assert auto_limits(encoder, shorter.samples(), shorter.sources, shelf) == {("text",): BatchLimits(1024, 24)}
    assert len(encoder.padded) == tried, "what was found for longer contents holds"

    longer = plan_of(encoder, words(25))
    assert auto_limits(encoder, longer.samples(), longer.sources, shelf) == {("text",): BatchLimits(1024, 100)}
    assert len(encoder.padded) > tried


def test_a_run_that_continues_finds_the_limits_of_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(auto_batch, "_CpuMeter", MemoryOnly)
    encoder = Tokens(100)
    shelf = Shelf(str(tmp_path), encoder.fingerprint)
    plan = plan_of(encoder, words(2, 10, 4))
    undisturbed = auto_limits(encoder, plan.samples(), plan.sources, shelf)
    longest = {plan.keys()[1]}
    assert auto_limits(encoder, plan.samples(longest), plan.sources, shelf) == undisturbed
    assert plan.samples(set(plan.keys())) == {}, "there is nothing to try for"


# Settings.


def test_a_bound_on_tokens_leaves_the_number_open():
    assert EvaluateConfig().limits == BatchLimits(32)
    assert EvaluateConfig(batch_size=4, max_batch_tokens=9).limits == BatchLimits(4, 9)
    assert EvaluateConfig(max_batch_tokens=9).limits == BatchLimits(1024, 9)
    assert EvaluateConfig(batch_size="auto").limits is None and EvaluateConfig(batch_size="auto").contents == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": "auto", "max_batch_tokens": 9}, "leave out --max-batch-tokens"),
        ({"batch_size": "auto", "exact_mteb": True}, "give --batch-size as a number"),
        ({"max_batch_tokens": 0}, "--max-batch-tokens is 0; expected at least 1"),
        ({"batch_size": 0}, "--batch-size is 0; expected at least 1"),
    ],
)
def test_bounds_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        EvaluateConfig(**settings)
