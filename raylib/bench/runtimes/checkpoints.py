"""The files of a model that is benchmarked: its folder, its modules, and what they say without the weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylib.bench.protocol import Target
from raylib.models.protocol import ModelSpec
from raylib.models.registry import read_json, resolve
from raylib.models.torch_encoder import TorchEncoder
from raylib.models.weights import local_folder, model_location


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
        return [(m["type"].rpartition(".")[2], self.folder / m["path"]) for m in json.loads(path.read_text("utf-8"))]

    @property
    def trunk(self) -> Path:
        """The folder with the transformer's own config.json and weights."""
        return self.modules[0][1] if self.modules else self.folder

    @property
    def max_tokens(self) -> int:
        """Where the encoder cuts a text."""
        processor = self.encoder.processor
        found = processor.max_seq_length if self.modules else processor.tokenizer.model_max_length
        return int(found)

    def config(self) -> Any:
        """The transformer's configuration, as transformers reads it."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.trunk, trust_remote_code=self.encoder.spec.trust_remote_code)

    def named(self, kind: str) -> list[tuple[Path, dict[str, Any]]]:
        """Place and config.json of the modules of one class."""
        return [(place, read_json(place / "config.json")) for name, place in self.modules if name == kind]


def source_folder(spec: ModelSpec) -> Path:
    """Where a model's files are. Raises Unsupported for a model that has none here. Imports nothing heavy."""
    place = model_location(spec)
    folder = local_folder(place, spec.revision)
    if folder is None:
        raise Unsupported(f"{spec.name} is not in the local hub cache; download it, or give its folder")
    return folder


def checkpoint(target: Target) -> Checkpoint:
    """Raises Unsupported for a model that has no folder here, or that raylib runs by other means than torch."""
    spec = target.spec
    folder = source_folder(spec)
    original = resolve(spec)
    if not isinstance(original, TorchEncoder):
        raise Unsupported(f"{spec.name} is run by {type(original).__name__}, which has no torch model to take over")
    encoder = resolve(replace(spec, name=str(folder), revision=None, family=original.family.name))
    assert isinstance(encoder, TorchEncoder), "it is the same family's"
    return Checkpoint(encoder, folder)


def commit_of(target: Target, *told: object) -> str:
    """40 hex digits over a target but its threads, `told`, and where its files are, their sizes and times.

    Not over their contents, as elsewhere: what is written may link to these very files, and to read them would be in
    the time that a model takes to load."""
    folders = [source_folder(target.spec)] + ([Path(target.spec.adapter)] if target.spec.adapter else [])
    files = []
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        status = path.stat()
        files.append((str(path.resolve()), status.st_size, status.st_mtime_ns))
    about = [target.spec.settings(), target.tower, target.precision, files, told]
    return hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()[:40]
