"""The files of a model that is benchmarked: its folder, its modules, and what they say without the weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylib.bench.protocol import Target
from raylib.errors import ModelError
from raylib.models.registry import read_json, resolve
from raylib.models.torch_encoder import TorchEncoder
from raylib.models.weights import model_location, snapshot


class Unsupported(Exception):  # noqa: N818 - it is an answer: the reason of a hole
    """What a runtime has no way to run, in one sentence."""


@dataclass
class Checkpoint:
    """encoder: raylib's own over `folder`, by which the runtime's vectors are judged."""

    encoder: TorchEncoder
    folder: Path

    @property
    def modules(self) -> list[tuple[str, Path]]:
        """The modules of a sentence-transformers folder, class and place; [] of another checkpoint."""
        path = self.folder / "modules.json"
        if not path.is_file():
            return []
        import json

        return [(m["type"].rpartition(".")[2], self.folder / m["path"]) for m in json.loads(path.read_text("utf-8"))]

    @property
    def trunk(self) -> Path:
        """The folder with the transformer's own config.json and weights."""
        return self.modules[0][1] if self.modules else self.folder

    def config(self) -> Any:
        """The transformer's configuration, as transformers reads it."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.trunk, trust_remote_code=self.encoder.spec.trust_remote_code)

    def named(self, kind: str) -> list[tuple[Path, dict[str, Any]]]:
        """Place and config.json of the modules of one class."""
        return [(place, read_json(place / "config.json")) for name, place in self.modules if name == kind]


def checkpoint(target: Target) -> Checkpoint:
    """Raises Unsupported for a model that has no folder here, or that raylib runs by other means than torch."""
    spec = target.spec
    place = model_location(spec)
    folder = Path(place) if os.path.isdir(place) else snapshot(place, spec.revision)
    if folder is None:
        raise Unsupported(f"{spec.name} is not in the local hub cache; download it, or give its folder")
    original = resolve(spec)
    if not isinstance(original, TorchEncoder):
        raise Unsupported(f"{spec.name} is run by {type(original).__name__}, which has no torch model to take over")
    family = original.family.name
    encoder = resolve(replace(spec, name=str(folder), revision=None, family=family))
    if not isinstance(encoder, TorchEncoder):
        raise ModelError(f"{spec.name}: {folder} is another model than the name")
    return Checkpoint(encoder, folder)
