"""Models of transformers whose checkpoint may be a peft adapter (LoRA, DoRA) over another model.

Published adapters have the weights' names of transformers 4. transformers' own `load_adapter` maps them to today's,
which peft alone cannot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylib.errors import ModelError, UserError
from raylib.models.protocol import ModelSpec
from raylib.models.weights import local_folder, source_identity


def adapter_config(place: str, revision: str | None) -> dict[str, Any] | None:
    """The peft configuration of a checkpoint that is an adapter over another model; None for a whole model."""
    folder = local_folder(place, revision)
    path = folder / "adapter_config.json" if folder else None
    if path is not None and path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    if folder is not None:
        return None
    from transformers.utils.peft_utils import find_adapter_config_file

    found = find_adapter_config_file(place, revision=revision)
    return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))


def base_identity(place: str, revision: str | None) -> dict[str, Any] | None:
    """Which weights an adapter checkpoint stands on; None for a whole model."""
    config = adapter_config(place, revision)
    if config is None:
        return None
    return source_identity(ModelSpec(config["base_model_name_or_path"], revision=config.get("revision")))


def place_of(file: str, place: str, revision: str | None) -> tuple[str, str | None]:
    """Name or folder, and revision, to read `file` from: the checkpoint, or the base of an adapter that lacks it."""
    folder = local_folder(place, revision)
    if folder is None or (folder / file).is_file():
        return place, revision
    config = adapter_config(place, revision)
    return (place, revision) if config is None else (config["base_model_name_or_path"], config.get("revision"))


def load_with_adapter(
    upstream: Any, spec: ModelSpec, place: str, *, adapter_names: Mapping[str, str] | None = None, **options: Any
) -> Any:
    """`upstream.from_pretrained(place, **options)` with its adapter: the one that `place` is, or spec.adapter; merged
    unless spec.merge is off.

    upstream: a model class of transformers. adapter_names: pattern → name, of weights of an adapter that transformers
    does not map by itself. Raises UserError for an adapter on an adapter and for a folder that is none, ModelError
    where weights of either are missing: they would be random.
    """
    adapter, revision, from_hub = spec.adapter, spec.revision, {}
    config = adapter_config(place, revision)
    if config is not None:  # the revision asked for is the adapter's; the base has its own
        if adapter is not None:
            raise UserError(f"--adapter {adapter}: {place} is an adapter itself; name its base as --model")
        adapter, from_hub = place, {"revision": revision}
        place, revision = config["base_model_name_or_path"], config.get("revision")
    model, report = upstream.from_pretrained(place, revision=revision, output_loading_info=True, **options)
    missing = [key for key in report["missing_keys"] if not key.endswith("lm_head.weight")]
    _refuse(spec, missing, f"weights of {type(model).__name__} are not in the checkpoint: they would be random")
    if adapter is not None:
        _add_adapter(spec, model, adapter, from_hub, adapter_names)
    return model.eval()


def _add_adapter(
    spec: ModelSpec, model: Any, adapter: str, from_hub: dict[str, Any], names: Mapping[str, str] | None
) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    if os.path.isdir(adapter) and not (Path(adapter) / "adapter_config.json").is_file():
        raise UserError(f"--adapter {adapter}: no adapter_config.json there; expected a folder that peft saved")
    # peft saves DoRA's magnitudes without the ".weight" of the module that holds them; transformers leaves them so.
    magnitudes = WeightRenaming(r"lora_magnitude_vector\.default$", "lora_magnitude_vector.default.weight")
    mapping = [*get_model_conversion_mapping(model, key_mapping=dict(names) if names else None), magnitudes]
    report = model.load_adapter(adapter, adapter_kwargs=from_hub, weight_mapping=mapping)
    missing = [*report.missing_keys, *report.mismatched_keys]
    _refuse(spec, missing, f"weights of the adapter {adapter} are missing")
    _refuse(
        spec, [k for k in report.unexpected_keys if "lora_" in k], f"weights of the adapter {adapter} have no place"
    )
    for layer in model.modules():
        if spec.merge and isinstance(layer, BaseTunerLayer):
            layer.merge()


def _refuse(spec: ModelSpec, keys: list[Any], what: str) -> None:
    if keys:
        shown = ", ".join(str(key) for key in sorted(keys, key=str)[:3])
        raise ModelError(f"{spec.name}: {len(keys)} {what} ({shown}). It was made for another model.")
