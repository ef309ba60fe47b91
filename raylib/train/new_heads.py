"""New projections for an InternVL that has none, so that a ColIntern can be trained from its backbone."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import replace
from pathlib import Path

from raylib import storage
from raylib.errors import UserError
from raylib.models.intern_heads import HEADS, write_heads
from raylib.models.protocol import ModelSpec
from raylib.models.weights import local_folder

_FAMILY = "colintern"


def with_heads(spec: ModelSpec, *, dim: int, seed: int) -> ModelSpec:
    """Of `--family colintern` without heads beside the model or as an adapter: the same with new ones, [dim, hidden],
    from `seed`; any other spec as it is. They are the same on every machine and lie in raylib's cache."""
    if spec.family != _FAMILY or spec.adapter is not None or os.path.isfile(spec.name):
        return spec
    folder = local_folder(spec.name, spec.revision)
    if folder is not None and any(folder.glob(HEADS)):
        return spec
    return replace(spec, adapter=str(_new_heads(spec, dim, seed)))


def _new_heads(spec: ModelSpec, dim: int, seed: int) -> Path:
    """As torch.nn.Linear begins: uniform in ±1 / sqrt(hidden)."""
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(spec.name, revision=spec.revision)
    except OSError as error:
        raise UserError(
            f"{spec.name} is not on this machine, and the hub does not answer; download it first, or give a directory"
        ) from error
    if not hasattr(config, "text_config"):
        raise UserError(f"{spec.name} is a {config.model_type}; --family colintern expects an InternVL of transformers")
    hidden = config.text_config.hidden_size
    name = hashlib.sha256(f"{spec.name}|{spec.revision}|{dim}|{hidden}|{seed}".encode()).hexdigest()[:16]
    file = Path(storage.cache_folder(), "new-heads", name, "colintern_heads_step0.pt")
    if not file.exists():
        generator = torch.Generator().manual_seed(seed)
        image, text = (
            (2 * torch.rand(dim, hidden, generator=generator) - 1) / math.sqrt(hidden) for _ in ("image", "text")
        )
        aside = file.with_name(f"{os.getpid()}")
        write_heads(aside, image=image, text=text, base=spec.name, dtype="float32", step=0)
        os.replace(aside, file)
    return file
