"""The parity gate: a runtime is timed only after its vectors have proved to be PyTorch's.

PyTorch's own, in float32, are made once (see `raylib.bench.reference`). A runtime embeds the same batches: one text and
several, of one length and padded to the longest, past the reach of any sliding window.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from raylib.bench.protocol import Runner
from raylib.bench.records import Parity
from raylib.bench.reference import ABOUT, GATE, VECTORS, gate_batches

LEAST_COSINE = 0.99999
"""Of any fp32 vector with PyTorch's. bf16 and int8 are reported, and not judged by it."""
_UNIT = 1e-3
"""How far from 1 the length of an fp32 vector may be."""


def parity_of(runner: Runner, folder: str, tower: str, max_tokens: int | None = None) -> tuple[Parity, float]:
    """How near a runtime's vectors are to those in the folder, and the length that is furthest from 1. max_tokens:
    where the runtime cuts texts; longer ones are left out."""
    texts = json.loads(Path(folder, GATE).read_text(encoding="utf-8"))
    reference = np.load(Path(folder, VECTORS))
    if max_tokens is not None:
        tokens = json.loads(Path(folder, ABOUT).read_text(encoding="utf-8"))["gate_tokens"]
        alone = dict(zip(texts, reference, strict=False))
        texts = [text for text, n in zip(texts, tokens, strict=True) if n <= max_tokens]
        reference = np.stack([alone[text] for batch in gate_batches(texts, tower) for text in batch["text"]])
    found = [runner.embed(batch) for batch in gate_batches(texts, tower)]
    return compare(reference, np.concatenate(found))


def compare(reference: np.ndarray, found: np.ndarray) -> tuple[Parity, float]:
    """reference, found: [n, dim]. NaN in either makes the cosine NaN, and vectors of another width one of -1."""
    if reference.shape != found.shape:
        return Parity(cosine=-1.0, difference=float("inf"), contents=len(reference)), float("nan")
    ours, theirs = found.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1)
    cosines = (ours * theirs).sum(axis=1) / (lengths * np.linalg.norm(theirs, axis=1))
    parity = Parity(float(cosines.min()), float(np.abs(ours - theirs).max()), len(ours))
    return parity, float(lengths[np.argmax(np.abs(lengths - 1))])


def refusal(parity: Parity, length: float, precision: str) -> str | None:
    """Why cells of this runtime and precision are not measured; None where they may be."""
    if np.isnan(parity.cosine):
        return "it gives vectors with NaN where PyTorch does not"
    if parity.cosine == -1.0 and np.isinf(parity.difference):
        return "it gives another number of vectors, or of another width, than PyTorch"
    if precision != "fp32":
        return None
    if not parity.cosine >= LEAST_COSINE:
        return (
            f"its vectors are not PyTorch's: over {parity.contents} contents the lowest cosine is {parity.cosine:.6f} "
            f"(expected {LEAST_COSINE} or more), and components differ by up to {parity.difference:.2g}"
        )
    if abs(length - 1) > _UNIT:
        return f"it gives vectors of length {length:.4g}; expected 1"
    return None
