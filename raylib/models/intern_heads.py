"""The trained part of a ColIntern, `colintern_heads_*.pt`: two projections and, where it was trained, a LoRA.

The format is the one that the ColIntern trainer saves (https://github.com/athrael-soju/colinternv0.1): proj_img and
proj_txt (state dicts of Linear layers without bias), proj_dim, model_id, dtype, step, lora_enabled, and with a LoRA
lora_state (peft's tensors, of the language model) and lora_config (r, alpha, dropout, targets).
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

HEADS = "colintern_heads_*.pt"
"""How the trainer names its files; the star is stepN, epochN or latest."""

_COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module's tensors."""


@dataclass(frozen=True)
class Lora:
    """A LoRA of the language model. state: tensor name, without the model's own prefixes → tensor."""

    state: Mapping[str, torch.Tensor]
    r: int
    alpha: float
    dropout: float
    targets: list[str] | str


@dataclass(frozen=True)
class Heads:
    """image, text: the weights of the two projections, [dim, hidden] float32. base: the model they were trained on."""

    image: torch.Tensor
    text: torch.Tensor
    base: str | None
    lora: Lora | None


def heads_file(place: str | Path) -> Path:
    """The file of heads that `place` is, or the newest in the folder `place`: of the highest step.

    Raises UserError when there is none, or when several do not tell their steps.
    """
    found = Path(place)
    if found.is_file():
        return found
    files = sorted(found.glob(HEADS))
    if not files:
        raise UserError(f"{place} holds no {HEADS}; expected a file of ColIntern heads, or a folder with some")
    if len(files) == 1:
        return files[0]
    steps = {file: _saved(file).get("step") for file in files}
    unknown = [file for file, step in steps.items() if not isinstance(step, int)]
    if unknown:
        raise UserError(f"{unknown[0]} does not tell its step; name one of the files in {place} instead of the folder")
    return max(files, key=lambda file: (steps[file], file.name))


def base_model(file: Path) -> str:
    """The model under these heads: the folder they lie in where that holds one, else the one they were trained on.

    A checkpoint of OpenGVLab in the format of InternVL's own code has its twin in that of transformers under the name
    with "-HF" (InternVL3: "-hf"). Raises UserError when the file names none.
    """
    if (file.parent / "config.json").is_file():
        return str(file.parent)
    name = _saved(file).get("model_id")
    if not isinstance(name, str) or not name:
        raise UserError(f"{file} names no base model; pass the base as --model and this file as --adapter")
    if os.path.isdir(name):
        return name
    return transformers_twin(name)


def transformers_twin(name: str) -> str:
    """The hub name of the same weights in the format of transformers; `name` itself where it has no such twin."""
    found = re.fullmatch(r"OpenGVLab/InternVL3(_5)?-.*(?<!-hf)(?<!-HF)", name)
    return name if found is None else name + ("-HF" if found[1] else "-hf")


def read_heads(file: Path) -> Heads:
    """Reads only tensors and plain values, never code. Raises UserError for a file that holds anything else, or whose
    tensors are missing or do not fit each other."""
    import torch

    saved = _saved(file)
    image, text = (_projection(file, saved, name) for name in ("proj_img", "proj_txt"))
    dim = saved.get("proj_dim", image.shape[0])
    for name, weight in (("proj_img", image), ("proj_txt", text)):
        if weight.shape != (dim, image.shape[1]):
            raise UserError(
                f"{file}: {name}.weight is {list(weight.shape)}; expected {[dim, image.shape[1]]} "
                f"(proj_dim {dim}, and one hidden size for both). The file is damaged; save it again."
            )
    lora = _lora(file, saved) if saved.get("lora_enabled") or saved.get("lora_state") else None
    # Copies: what stays mapped to a file breaks the process when a trainer writes the file anew.
    image, text = (weight.to(torch.float32, copy=True) for weight in (image, text))
    return Heads(image, text, saved.get("model_id"), lora)


def _saved(file: Path) -> Mapping[str, Any]:
    """The file's content, tensors left on disk until they are used. Unpickling is restricted to weights."""
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # what torch raises for a file that is no checkpoint differs by its first bytes
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} cannot be read as weights alone ({type(error).__name__}: {reason}); expected heads saved by the "
            "ColIntern trainer. A file with other objects in it could run code and is not opened."
        ) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{file} holds {type(found).__name__}; expected a dict with proj_img and proj_txt")
    return found


def _projection(file: Path, saved: Mapping[str, Any], name: str) -> torch.Tensor:
    """The weight [dim, hidden] of one projection."""
    import torch

    state = saved.get(name)
    if not isinstance(state, Mapping):
        raise UserError(f"{file} has no {name}; it has {', '.join(map(str, saved)) or 'nothing'}")
    tensors = {key.replace(_COMPILED, ""): tensor for key, tensor in state.items()}
    if set(tensors) != {"weight"}:
        have = ", ".join(f"{name}.{key}" for key in sorted(tensors)) or "nothing"
        raise UserError(f"{file} has {have}; expected {name}.weight alone, of a Linear without bias")
    weight = tensors["weight"]
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise UserError(f"{file}: {name}.weight is no matrix of floats [proj_dim, hidden]")
    return weight


def _lora(file: Path, saved: Mapping[str, Any]) -> Lora:
    state, config = saved.get("lora_state"), saved.get("lora_config")
    if not state or not isinstance(config, Mapping):
        missing = "lora_config" if state else "lora_state"
        raise UserError(f"{file} was trained with a LoRA and has no {missing}; save it again")
    absent = [name for name in ("r", "alpha", "targets") if config.get(name) is None]
    if absent:
        raise UserError(f"{file}: lora_config has no {', '.join(absent)}; expected r, alpha, dropout and targets")
    targets = config["targets"] if isinstance(config["targets"], str) else sorted(config["targets"])
    tensors = {_bare(name): tensor for name, tensor in state.items()}
    return Lora(tensors, int(config["r"]), float(config["alpha"]), float(config.get("dropout") or 0.0), targets)


def _bare(name: str) -> str:
    """base_model.model.model.layers.0… of a language model with its head, or base_model.model.layers.0… of one
    without → layers.0…"""
    return re.sub(r"^base_model\.model\.(model\.)?", "", name.replace(_COMPILED, ""))


def write_heads(
    file: Path,
    *,
    image: torch.Tensor,
    text: torch.Tensor,
    base: str,
    dtype: str,
    step: int,
    peft: PeftModel | None = None,
) -> None:
    """Write a file of heads as the ColIntern trainer does. image, text: [dim, hidden]; peft: the LoRA of the language
    model, where there is one."""
    import torch

    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "proj_img": {"weight": image.detach().cpu().float().clone()},
        "proj_txt": {"weight": text.detach().cpu().float().clone()},
        "proj_dim": image.shape[0],
        "model_id": base,
        "dtype": dtype,
        "step": step,
        "lora_enabled": peft is not None,
    }
    if peft is not None:
        from peft import get_peft_model_state_dict

        config: Any = peft.peft_config["default"]
        state: Any = get_peft_model_state_dict(peft, save_embedding_layers=False)
        found["lora_state"] = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        targets = config.target_modules
        found["lora_config"] = {
            "r": config.r,
            "alpha": config.lora_alpha,
            "dropout": config.lora_dropout,
            "targets": targets if isinstance(targets, str) else sorted(targets),
        }
    torch.save(found, file)


def with_lora(language_model: Any, lora: Lora, file: str | Path, *, merge: bool = True) -> Any:
    """`language_model` (without its head) with the LoRA merged into its weights, or beside them.

    Works in the number format that the model is in: merge in float32, cast down after it.
    Raises UserError naming the first tensor that is missing, has no place or has another shape.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    alpha: Any = lora.alpha  # need not be whole, whatever peft's annotation says
    config = LoraConfig(r=lora.r, lora_alpha=alpha, lora_dropout=lora.dropout, bias="none", target_modules=lora.targets)
    try:
        adapted: Any = get_peft_model(language_model, config)
    except ValueError as error:
        raise UserError(f"{file}: its LoRA does not fit {type(language_model).__name__} ({error})") from error
    random = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    names = {_bare(name): name for name in random}
    shapes = {name: random[names[name]].shape for name in names}
    wrong = [f"{name} is missing" for name in sorted(set(shapes) - set(lora.state))]
    wrong += [f"{name} has no place in it" for name in sorted(set(lora.state) - set(shapes))]
    wrong += [
        f"{name} is {list(lora.state[name].shape)}, expected {list(shape)}"
        for name, shape in shapes.items()
        if name in lora.state and lora.state[name].shape != shape
    ]
    if wrong:
        raise UserError(
            f"{file}: {len(wrong)} tensors of its LoRA do not fit {type(language_model).__name__} ({wrong[0]}). "
            "Use the base model that it was trained on."
        )
    set_peft_model_state_dict(adapted, {names[name]: tensor for name, tensor in lora.state.items()})
    return (adapted.merge_and_unload() if merge else adapted.base_model.model).eval()
