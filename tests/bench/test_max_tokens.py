"""A runtime that cuts texts before the model does: judged on shorter ones, and measured on no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from raylib.bench.gate import parity_of
from raylib.bench.protocol import Runner, Target
from raylib.bench.reference import make_reference
from raylib.bench.runtimes.torch_runtime import EncoderRunner, TorchRuntime

from .foreign import target
from .tiny_towers import build

LIMIT = 20


class Cuts(TorchRuntime):
    name = "cuts"

    def max_tokens(self, asked: Target) -> int | None:
        return LIMIT

    def load(self, asked: Target) -> EncoderRunner:
        runner = super().load(asked)
        runner.encoder.processor.max_seq_length = LIMIT
        return runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen", tmp_path_factory.mktemp("model"))


def test_texts_past_the_limit_are_not_judged(folder: Path, tmp_path: Path) -> None:
    asked = target(folder, tmp_path)
    reference = make_reference(asked, [16, 32])
    assert max(reference["gate_tokens"]) > LIMIT
    runner: Runner = Cuts().load(asked)
    whole, _ = parity_of(runner, reference["folder"], "text")
    short, _ = parity_of(runner, reference["folder"], "text", LIMIT)
    assert whole.cosine < 0.9999 and short.cosine >= 0.99999
    kept = sum(n <= LIMIT for n in reference["gate_tokens"])
    assert 0 < short.contents < whole.contents and kept >= 2


def test_lengths_past_the_limit_are_holes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raylib.bench.book import Book
    from raylib.bench.config import BenchConfig
    from raylib.bench.model_run import ModelRun
    from raylib.bench.process import run_job
    from raylib.evaluate.progress import QuietReporter
    from raylib.models.protocol import ModelSpec

    class Here:
        type = None

        def run(self, job, timeout_s: float):
            return run_job(job)

    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "cache"))
    runtimes = ["torch", f"{__name__}:Cuts"]
    config = BenchConfig(
        model=[str(folder)],
        runtimes=runtimes,
        sequence_lengths=["16", "32"],
        batch_sizes=["2"],
        concurrency=["1"],
        rounds=1,
        duration=0.01,
    )
    run = ModelRun(config, ModelSpec(str(folder)), "text", Here(), Book(str(tmp_path / "out")), QuietReporter())
    found = {(r.cell.runtime, r.cell.tokens, r.cell.batch): (r.status, r.reason) for r in run.run()}
    assert found["torch", 32, 2][0] == "measured"
    assert found[runtimes[1], 16, 2][0] == "measured"
    assert found[runtimes[1], 32, 2] == ("hole", f"it cuts texts at {LIMIT} tokens")
