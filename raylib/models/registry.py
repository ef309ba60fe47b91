"""From what a user writes after --model to an encoder: a factory, a directory, a name that raylib or MTEB knows."""

from __future__ import annotations

import importlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib.errors import UnknownNameError, UnsupportedOptionError, UserError
from raylib.models.exported import check_runtime, exported
from raylib.models.families import FAMILIES
from raylib.models.family import Family
from raylib.models.intern_heads import HEADS, base_model, heads_file
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.weights import hub_folder, local_folder, resolve_revision, snapshot, weights_digest

if TYPE_CHECKING:
    from raylib.models.bridge import SearchModel

__all__ = ["resolve", "resolve_revision", "weights_digest"]

SENTENCE, BGE_M3 = "sentence-transformers", "bge-m3"


def resolve(spec: ModelSpec) -> Encoder | SearchModel:
    """The model that `spec` names. Loads no weights; a factory may be called, once per process.

    With an endpoint, the encoder that asks it. Else in this order: `module:factory`; a directory, local or in a bucket,
    or a file of ColIntern heads; a name in raylib's table; a name in MTEB's registry; a model in the local hub cache
    whose config.json selects a family. With a runtime that runs graphs, the encoder that exports what that gives.
    Raises UnknownNameError with the nearest names, UnsupportedOptionError for an option that the model does not have,
    UserError for a damaged or missing directory.
    """
    spec = spec.here()
    if check_runtime(spec) and spec.endpoint is None:
        return exported(spec, resolve)
    if spec.endpoint is not None:
        from raylib.models.endpoint import served

        return served(spec, _known_locally)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", spec.name):
        return _from_factory(spec)
    if os.path.isdir(spec.name):
        return _from_directory(spec, Path(spec.name))
    if os.path.isfile(spec.name):
        return _from_heads(spec, Path(spec.name))
    if _looks_like_path(spec.name):
        raise UserError(f"model directory {spec.name} does not exist; expected a folder with a model's files")
    if spec.family is not None:
        return _make(spec, _asked_family(spec.family))
    for entry in FAMILIES:
        if spec.name in entry.members:
            return _make(replace(spec, revision=spec.revision or entry.members[spec.name].revision), entry)
    return _from_elsewhere(spec)


def _known_locally(spec: ModelSpec) -> Encoder | SearchModel | None:
    """What `resolve` would give for a name that a server was started with; None for one that is known nowhere here.
    A server may well name its models like paths or factories of this machine's."""
    if spec.family is not None:
        return _make(spec, _asked_family(spec.family))
    if not os.path.isdir(spec.name) and (_looks_like_path(spec.name) or ":" in spec.name):
        return None
    try:
        return resolve(spec)
    except UnknownNameError:
        return None


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~", "\\")) or name.count("/") > 1 or name.endswith("/")


def _make(spec: ModelSpec, entry: Family) -> Any:
    if entry.name == BGE_M3 or (entry.name == SENTENCE and spec.mode is not None):
        spec, entry = _in_mode(spec, entry)
    module, name = entry.encoder.split(":")
    return getattr(importlib.import_module(module), name)(spec, entry)


def _in_mode(spec: ModelSpec, entry: Family) -> tuple[ModelSpec, Family]:
    """What runs a model under --mode, of which "dense" is what it gives unasked. A model without heads stays what it
    is, and refuses the option."""
    from raylib.models.bge_m3 import has_heads

    if entry.name != BGE_M3 and not has_heads(spec, local_folder(spec.name, spec.revision)):
        return spec, entry
    if spec.mode in (None, "dense") and spec.mode_weights is None:
        return replace(spec, mode=None), _family(SENTENCE)
    return spec, _family(BGE_M3)


def _family(name: str) -> Family:
    return next(entry for entry in FAMILIES if entry.name == name)


def _asked_family(name: str) -> Family:
    """The family of --family; raises UnknownNameError with the nearest names."""
    known = [entry.name for entry in FAMILIES]
    if name not in known:
        raise UnknownNameError("family", name, known, hint="See the column family of raylib list models.")
    return _family(name)


def _from_factory(spec: ModelSpec) -> Encoder | SearchModel:
    import inspect

    from raylib.models.mteb_source import FactorySource, find_factory, made_by_factory

    factory = find_factory(spec.name)
    if not inspect.isclass(factory) or issubclass(factory, Encoder):
        made = made_by_factory(spec)
        if isinstance(made, Encoder):
            _refuse_options(spec)
            return made
    return _bridged(spec, FactorySource(spec))


def _refuse_options(spec: ModelSpec) -> None:
    """A finished encoder has its options already."""
    if spec.given():
        raise UnsupportedOptionError(
            f"{spec.name}: its factory gives a finished encoder, without {spec.flags()}. Leave it out."
        )


def _bridged(spec: ModelSpec, source: Any) -> Encoder | SearchModel:
    from raylib.models.bridge import BridgeEncoder, SearchModel

    return SearchModel(spec, source) if source.searches else BridgeEncoder(spec, source)


# Directories.


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError naming the file when it cannot be read as a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); the checkpoint is damaged, copy it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__}; expected a JSON object. Copy the checkpoint again.")
    return found


def _from_directory(spec: ModelSpec, directory: Path) -> Encoder | SearchModel:
    if not (directory / "config.json").is_file() and any(directory.glob(HEADS)):
        return _from_heads(spec, directory)
    if spec.family is not None:
        return _make(spec, _asked_family(spec.family))
    marked = _marked_family(directory)
    if marked is not None:
        return _make(spec, marked)
    if (directory / "modules.json").is_file():
        return _make(spec, _family(SENTENCE))
    if (directory / "config.json").is_file():
        return _make(spec, _family_of(directory / "config.json", spec))
    if (directory / "adapter_config.json").is_file():
        return _from_adapter(spec, directory)
    raise UserError(
        f"{directory} holds no model: expected config.json, modules.json (sentence-transformers), "
        f"adapter_config.json (peft) or {HEADS} in it"
    )


def _marked_family(directory: Path) -> Family | None:
    """The family that a file beside config.json gives away: GME's config.json may be that of plain Qwen2-VL."""
    return next((entry for entry in FAMILIES if any((directory / mark).is_file() for mark in entry.marks)), None)


def _family_of(config: Path, spec: ModelSpec) -> Family:
    """The family that config.json selects, by the classes of the folder's own code, architectures or model_type."""
    found = read_json(config)
    own = [str(name).rpartition(".")[2] for name in (found.get("auto_map") or {}).values()]
    named = [*own, *(found.get("architectures") or []), found.get("model_type")]
    for name in named:
        for entry in FAMILIES:
            if name in entry.architectures:
                return entry
    known = sorted({a for entry in FAMILIES for a in entry.architectures})
    raise UserError(
        f"{spec.name}: no family runs {' / '.join(map(str, named))} ({config}); expected one of {', '.join(known)}, or "
        "a sentence-transformers folder with modules.json"
    )


def _from_adapter(spec: ModelSpec, directory: Path) -> Encoder | SearchModel:
    """A folder that peft saved: its base model, with the folder as the adapter."""
    config = directory / "adapter_config.json"
    base = read_json(config).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{config} names no base model; pass the base as --model and this folder as --adapter")
    return _on_base(replace(spec, revision=None), str(base), directory)


def _from_heads(spec: ModelSpec, place: Path) -> Encoder | SearchModel:
    """A file of ColIntern heads, or a folder with some: the model they were trained on, with them as the adapter."""
    file = heads_file(place)
    return _on_base(spec, base_model(file), file)


def _on_base(spec: ModelSpec, base: str, adapter: Path) -> Encoder | SearchModel:
    """The model `base` with `adapter`, by which the user named it."""
    if spec.adapter is not None:
        raise UserError(f"--adapter {spec.adapter}: the model {adapter} is an adapter itself; name its base as --model")
    advice = f"{adapter} is an adapter of {base!r}, which is not here"
    if _looks_like_path(base) and not os.path.isdir(base):
        raise UserError(f"{advice}; pass its base as --model and this as --adapter")
    try:
        return resolve(replace(spec, name=base, adapter=str(adapter)))
    except UnknownNameError as error:
        raise UserError(f"{advice} ({error})") from error


# Names.


def _from_elsewhere(spec: ModelSpec) -> Encoder | SearchModel:
    """A name that raylib's table does not have: MTEB's registry, then the local hub cache."""
    from mteb.models.get_model_meta import _MODEL_RENAMES
    from mteb.models.model_implementations import MODEL_REGISTRY

    name = _MODEL_RENAMES.get(spec.name, spec.name)
    if name in MODEL_REGISTRY:
        return _from_mteb(replace(spec, name=name))
    cached = snapshot(spec.name, spec.revision)
    if cached is not None:
        family = _marked_family(cached) or (_family(SENTENCE) if (cached / "modules.json").is_file() else None)
        if family is not None or (cached / "config.json").is_file():
            return _make(spec, family or _family_of(cached / "config.json", spec))
    known = [name for entry in FAMILIES for name in entry.members] + list(MODEL_REGISTRY)
    hint = "`raylib list models --match WORD` lists the known ones; a local directory or module:factory works too."
    if hub_folder(spec.name).is_dir():
        hint = f"The local hub cache has no complete copy of it at this revision. {hint}"
    raise UnknownNameError("model", spec.name, known, hint)


def _from_mteb(spec: ModelSpec) -> Encoder | SearchModel:
    """Models that MTEB runs through its plain sentence-transformers wrapper get raylib's CPU and GPU halves; every
    other one runs as MTEB runs it."""
    from raylib.models.bridge import check_options
    from raylib.models.mteb_source import RegistrySource

    source = RegistrySource(spec)
    if not _plain_sentence_model(source):
        return _bridged(spec, source)
    check_options(replace(spec, embedding_dim=None), source)
    family = _family(SENTENCE)
    prompts = source.meta.loader_kwargs.get("model_prompts")
    return _make(
        replace(spec, revision=source.meta.revision),
        replace(family, settings={**family.settings, "prompts": prompts} if prompts else family.settings),
    )


def _plain_sentence_model(source: Any) -> bool:
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    meta = source.meta
    settings = set(meta.loader_kwargs) - {"model_prompts", "trust_remote_code"}
    return meta.loader is SentenceTransformerEncoderWrapper and not settings and set(meta.modalities) == {"text"}
