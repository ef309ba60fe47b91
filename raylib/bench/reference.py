"""What all runtimes of a model are given and held against: texts of exact lengths, and PyTorch's vectors in float32.

Made once by a process of its own and kept in the cache, so that no other runtime's process has PyTorch in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raylib import storage
from raylib.bench.inputs import exact_texts, limit_of, longest_texts, photos, token_counter
from raylib.bench.protocol import Target
from raylib.bench.runtimes.torch_runtime import TorchRuntime
from raylib.errors import UserError
from raylib.models.protocol import Encoder
from raylib.models.registry import resolve
from raylib.types import Batch

ABOUT, GATE, VECTORS = "about.json", "gate.json", "vectors.npy"
TEXTS = 64
"""Of each length; batches take them in turn."""
GATE_LENGTHS = (3, 9, 24, 60)
LONGEST_WINDOW = 2048
"""A wider sliding window is not gone past: texts that long take minutes to embed on a CPU."""
_GATE_PHOTOS = 4
_VERSION = 2
"""Raised when the same model would be given other contents than before."""


def make_reference(target: Target, lengths: Sequence[int]) -> dict[str, Any]:
    """The folder of the contents, the encoder's fingerprint, and holes: length → why no text can have it; or only why
    PyTorch itself cannot run this. Raises ModelError for a model that cannot be loaded."""
    reason = TorchRuntime().hole(target)
    if reason is not None:
        return {"hole": reason}
    encoder: Any = resolve(target.spec)
    told = [_VERSION, encoder.fingerprint, target.tower, *(lengths if target.tower == "text" else ())]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
    folder = target.cache / "inputs" / digest
    if not (folder / ABOUT).is_file():
        _make(folder, encoder, target, lengths)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return {"folder": str(folder), "fingerprint": encoder.fingerprint, **about}


def _make(folder: Path, encoder: Encoder, target: Target, lengths: Sequence[int]) -> None:
    runner = TorchRuntime().load(target)
    holes: dict[str, str] = {}
    texts: list[str] = []
    tokens: list[int] = []
    if target.tower == "text":
        count = token_counter(encoder)
        for n in lengths:
            try:
                made = exact_texts(count, n, TEXTS)
            except UserError as error:
                holes[str(n)] = str(error)
                continue
            limit = limit_of(encoder, made[0], n)
            if limit is None:
                storage.write_text(folder / texts_file(n), json.dumps(made))
            else:
                holes[str(n)] = f"the model reads {limit} tokens of a text, and not {n}"
        longest = max((n for n in lengths if str(n) not in holes), default=0)
        texts = longest_texts(count, [*GATE_LENGTHS, *past_windows(runner.encoder.model), longest])
        tokens = [count(text) for text in texts]
    found = [runner.embed(batch) for batch in gate_batches(texts, target.tower)]
    with storage.atomic_write(folder / VECTORS) as stream:
        np.save(stream, np.concatenate(found))
    storage.write_text(folder / GATE, json.dumps(texts))
    storage.write_text(
        folder / ABOUT, json.dumps({"holes": holes, "dim": int(found[0].shape[1]), "gate_tokens": tokens})
    )


def texts_file(tokens: int) -> str:
    return f"texts-{tokens}.json"


def past_windows(model: Any) -> list[int]:
    """Lengths past the reach of every sliding window in a torch model."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    windows = {getattr(config, "sliding_window", None) for config in configs}
    found = sorted(w for w in windows if isinstance(w, int) and 0 < w <= LONGEST_WINDOW)
    return [n for w in found for n in (w + w // 2, 2 * w + 3)]


def gate_batches(texts: Sequence[str], tower: str) -> list[Batch]:
    """Every text alone; three of one length; all in one batch, padded to the longest; and the short ones among
    themselves."""
    if tower == "image":
        pictures: list[Any] = list(photos(_GATE_PHOTOS))
        return [{"image": pictures[:1]}, {"image": pictures}]
    short = list(texts[: len(GATE_LENGTHS)])
    alone = [{"text": [text]} for text in texts]
    return [*alone, {"text": [short[-1]] * 3}, {"text": list(texts)}, {"text": short[::-1]}]
