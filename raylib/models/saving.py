"""Trained weights as files: adapters in peft's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftModel

_BARE = "base_model.model."


def save_adapter(folder: str, peft: PeftModel, prefix: str = "") -> None:
    """adapter_config.json and adapter_model.safetensors, as peft saves them. prefix: of the names of modules, where the
    adapter is on a part of the model that it is loaded onto."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    Path(folder).mkdir(parents=True, exist_ok=True)
    found: Any = get_peft_model_state_dict(peft, save_embedding_layers=False)
    renamed = {_BARE + prefix + name.removeprefix(_BARE): tensor.cpu().contiguous() for name, tensor in found.items()}
    save_file(renamed, str(Path(folder, "adapter_model.safetensors")), metadata={"format": "pt"})
    config: Any = peft.peft_config["default"].to_dict()
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    settings |= {"inference_mode": True, "task_type": None}
    text = json.dumps(settings, indent=2, default=str)
    Path(folder, "adapter_config.json").write_text(text, encoding="utf-8")
