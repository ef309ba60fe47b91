"""Which weights these are: a digest of a directory's contents, or a hub name's commit.

A copied checkpoint keeps its identity and a retrained one in the same place loses it, so stored vectors are neither
lost nor mixed up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from raylib.errors import ModelError, UserError
from raylib.models import untrained
from raylib.models.protocol import ModelSpec

logger = logging.getLogger(__name__)

_DIGESTED = re.compile(
    r".*\.(safetensors|bin|pt|model|jinja|py)|[^/]*config[^/]*\.json|modules\.json|.*\.index\.json"
    r"|(tokenizer|special_tokens_map|added_tokens|vocab|chat_template|processor)[^/]*\.json|vocab\.txt|merges\.txt"
)
"""Files that decide a vector: weights, configurations, tokenizers, processors, a model's own code. Not a README."""

SHIPPED = {"raylib/page-retriever-tiny": Path(__file__).with_name("page_retriever_tiny")}
"""Registered name → the folder of a trained checkpoint that comes with this package."""

_file_digests: dict[tuple[str, int, int], str] = {}


def _file_digest(path: Path) -> str:
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _file_digests:
        with path.open("rb") as stream:
            _file_digests[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _file_digests[key]


def weights_digest(directory: str | Path, *, without: str = "") -> str:
    """SHA-256, 64 hex digits, over names and contents of the files in `directory` that decide a vector, but for those
    whose name matches the pattern `without`; of one file of weights, over its content.

    The path is not in it. A file is read once per process as long as its size and time stay.
    Raises UserError when there is no such directory or nothing in it that looks like a model.
    """
    root = Path(directory)
    if root.is_file():
        return _file_digest(root)
    if not root.is_dir():
        raise UserError(f"model directory {directory} does not exist; expected a folder with a model's files")
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file()
        and _DIGESTED.fullmatch(path.name)
        and not _hidden(path.relative_to(root))
        and not fnmatch(path.name, without)
    )
    if not names:
        raise UserError(f"{directory} holds no model: no config.json and no weights in it")
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{_file_digest(root / name)}\n".encode())
    return digest.hexdigest()


def _hidden(path: Path) -> bool:
    """True inside .git, .cache and training checkpoints kept beside the model."""
    return any(part.startswith((".", "checkpoint-")) for part in path.parts)


def resolve_revision(name: str, revision: str | None = None, cache_dir: str | None = None) -> str | None:
    """The commit that a hub name and revision mean here; None when neither the local cache (by default the hub client's
    own) nor the hub knows it.

    A full commit hash is itself. Otherwise the local cache's refs answer first where the hub is switched off
    (HF_HUB_OFFLINE), and the hub first where it is not, so that a moved branch is noticed.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        online = _hub_commit(name, revision)
        if online is not None:
            return online
    return _cached_commit(name, revision or "main", cache_dir)


def _hub_commit(name: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(name, revision=revision, timeout=10).sha
    except Exception as error:  # the client's network errors share no base class from one release to the next
        # Not the end: the cache may still know. A model that is nowhere fails by name in source_identity.
        logger.info("the hub does not say which commit of %s is meant: %s", name, error)
        return None


def hub_folder(name: str, cache_dir: str | None = None) -> Path:
    """Where the local hub cache keeps a model, whether it is there or not."""
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


def _cached_commit(name: str, revision: str, cache_dir: str | None) -> str | None:
    folder = hub_folder(name, cache_dir)
    reference = folder / "refs" / revision
    if reference.is_file():
        return reference.read_text().strip()
    snapshots = folder / "snapshots"
    if not snapshots.is_dir():
        return None
    found = sorted(entry.name for entry in snapshots.iterdir() if entry.name.startswith(revision))
    return found[0] if len(found) == 1 else None


def snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder in the local hub cache that holds this model at this revision; None when it is not there."""
    commit = resolve_revision(name, revision) if hub_folder(name).is_dir() else None
    folder = hub_folder(name) / "snapshots" / (commit or "")
    return folder if commit and folder.is_dir() else None


def local_folder(place: str, revision: str | None = None) -> Path | None:
    """The files of a directory, or of a hub name in the local cache; None where they are not on this machine."""
    return Path(place) if os.path.isdir(place) else snapshot(place, revision)


def model_location(spec: ModelSpec) -> str:
    """What a from_pretrained takes for this spec: its name or directory; the checkpoint of a model that is shipped or
    untrained."""
    if spec.name in SHIPPED:
        return str(SHIPPED[spec.name])
    return str(untrained.checkpoint(spec.name)) if spec.name in untrained.BUILDERS else spec.name


def source_identity(spec: ModelSpec, *, location: str | None = None, cache_dir: str | None = None) -> dict[str, Any]:
    """The part of an encoder's identity that says which weights: of the model, and of its adapter if it has one.

    location: where the weights are, when not where `model_location` says. cache_dir: the hub's, if not its own.
    Raises ModelError for a hub name whose commit cannot be known: its vectors could not be told from those of
    another commit.
    """
    place = location or model_location(spec)
    identity: dict[str, Any]
    if os.path.isdir(place):
        identity = {"weights": weights_digest(place)}
    else:
        commit = resolve_revision(place, spec.revision, cache_dir)
        if commit is None:
            raise ModelError(
                f"cannot find out which commit of {place} would run: it is not in the local hub cache and the hub does "
                "not answer. Download it first, give a full commit as --revision, or give a local directory."
            )
        identity = {"name": place, "commit": commit}
    if spec.adapter is not None:
        identity["adapter"] = weights_digest(spec.adapter)
    return identity


def adapter_base_identity(place: str, spec: ModelSpec) -> dict[str, Any] | None:
    """The identity of the base model, where `place` is itself a peft adapter beside which no base weights lie."""
    config = Path(place) / "adapter_config.json"
    if not config.is_file():
        return None
    try:
        base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{config} does not name its base model ({error}); save the adapter with peft again") from error
    return source_identity(replace(spec, name=base, revision=None, adapter=None))
