"""What every encoder that runs on torch shares: number format, device, LoRA adapter, and the way out to numpy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import ModelError, RaylibError, UserError
from raylib.models.protocol import ModelSpec
from raylib.types import Batch

if TYPE_CHECKING:
    import torch
    from PIL import Image

DTYPES = ("float32", "float16", "bfloat16")


def dtype_name(spec: ModelSpec, default: str = "float32") -> str:
    """The number format that the model runs in; raises UserError for one that is not in DTYPES."""
    name = spec.dtype or default
    if name not in DTYPES:
        raise UserError(f"--dtype is {name!r}; expected one of {', '.join(DTYPES)}")
    return name


def check_embedding_dim(spec: ModelSpec, width: int | None) -> None:
    """Raises UserError for an --embedding-dim below 1 or above `width`, the model's own, where that is known."""
    if spec.embedding_dim is not None and not 0 < spec.embedding_dim <= (width or spec.embedding_dim):
        expected = f"1 to {width}, the width of its vectors" if width else "1 or more"
        raise UserError(f"--embedding-dim is {spec.embedding_dim}; {spec.name} has {expected}")


ATTENTION = ("sdpa", "eager", "flash_attention_2")


def check_attention(spec: ModelSpec) -> None:
    """Raises UserError for a kind of attention that is not in ATTENTION, and for flash attention in float32."""
    if spec.attention is None:
        return
    if spec.attention not in ATTENTION:
        raise UserError(f"--attention is {spec.attention!r}; expected one of {', '.join(ATTENTION)}")
    if spec.attention == "flash_attention_2" and dtype_name(spec) == "float32":
        raise UserError("--attention flash_attention_2 computes in half precision; add --dtype bfloat16 or float16")


def device_name(spec: ModelSpec) -> str:
    """Where inputs go: spec.device, else "cuda" where there is one, else "cpu"; of a model that is spread over several
    GPUs ("auto"), the first. Asked where the forward runs, not in the driver.

    Raises ModelError when the device asked for is not here.
    """
    import torch

    name = spec.device if spec.device not in (None, "auto") else ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise UserError(f"--device is {name!r}; expected cpu, cuda, cuda:N or auto") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"{spec.name}: device {name!r} was asked for and this process sees no GPU. Use --device cpu.")
    return name


def to_numpy(vectors: torch.Tensor, dtype: str) -> np.ndarray:
    """Any shape, any float format, any device → numpy float32 where the model ran in float32, float16 otherwise."""
    import torch

    target = torch.float32 if dtype == "float32" else torch.float16
    return vectors.detach().to(device="cpu", dtype=target).numpy()


@contextmanager
def model_failure(spec: ModelSpec, what: str) -> Iterator[None]:
    """Whatever fails inside becomes a ModelError that names the model; raylib's own errors stay what they are."""
    try:
        yield
    except RaylibError:
        raise
    except Exception as error:  # upstream loaders and users' factories raise anything from KeyError to RuntimeError
        reason = " ".join(str(error).split())[:400]
        raise ModelError(f"{spec.name}: {what}: {type(error).__name__}: {reason}") from error


def placed(model: Any, spec: ModelSpec, dtype: str) -> Any:
    """`model`, loaded in host memory, in its number format and where it runs: on `device_name`, or with --device auto
    in layers over all GPUs that this process sees (the method of accelerate's `device_map`). Compiled where asked."""
    import torch

    model = _in_format(model, getattr(torch, dtype)).eval()
    if spec.device == "auto" and torch.cuda.device_count() > 1:
        from accelerate import dispatch_model

        model = dispatch_model(model, device_map=split_over_gpus(model))
    else:
        model = model.to(device_name(spec))
    return compiled(model) if spec.compile else model


def _in_format(model: Any, dtype: Any) -> Any:
    """`model` with weights of `dtype`. What it computes for itself stays as it is, as where transformers loads a model
    in that format: rotary frequencies lose their far positions in bfloat16, and Llama 4's are complex numbers, of
    which `model.to` would keep the real part only."""
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if weight.is_floating_point():
                weight.data = weight.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to(dtype))
    return model


def split_over_gpus(model: Any, memory: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Module name → GPU, about as many bytes on each; a block of the model is never cut.

    memory: GPU → bytes it may take; by default what is free. Raises ModelError for a model that does not fit.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    named = (getattr(module, "_no_split_modules", None) or () for module in model.modules())
    whole = sorted(_block_classes(model).union(*named))
    budget: Any = dict(memory) if memory is not None else get_balanced_memory(model, no_split_module_classes=whole)
    found = infer_auto_device_map(model, max_memory=budget, no_split_module_classes=whole)
    outside = sorted({str(place) for place in found.values()} - {str(gpu) for gpu in budget if gpu != "cpu"})
    if outside:
        raise ModelError(f"{type(model).__name__} does not fit the GPUs of one worker; raise --gpus-per-worker")
    return dict(found)


def _block_classes(model: Any) -> set[str]:
    """The classes of the blocks that a model repeats."""
    return {type(blocks[0]).__name__ for blocks in _repeated_blocks(model)}


def _repeated_blocks(model: Any) -> list[Any]:
    """The lists of modules that hold two or more of one class."""
    import torch

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return [blocks for blocks in lists if len(blocks) > 1 and len({type(block) for block in blocks}) == 1]


def compiled(model: Any) -> Any:
    """`model` with each of its repeated blocks compiled for any length: they share one compilation, where a whole model
    would take minutes and be compiled again for every shape (https://docs.pytorch.org/tutorials/recipes/
    regional_compilation.html)."""
    for blocks in _repeated_blocks(model):
        for block in blocks:
            block.compile(dynamic=True)
    return model


def with_adapter(model: Any, adapter: str | None, *, merge: bool = True) -> Any:
    """`model` with the peft adapter (LoRA) of that folder merged into its weights, or beside them; `model` itself for
    None.

    Works in the number format that the model is in: load the adapter before casting down.
    Raises UserError when the adapter was made for another architecture or another size, even for a part of it:
    peft itself only warns, and the missing part would stay random.
    """
    if adapter is None:
        return model
    from peft import PeftModel

    if not (Path(adapter) / "adapter_config.json").is_file():
        raise UserError(f"--adapter {adapter}: no adapter_config.json there; expected a folder that peft saved")
    advice = f"--adapter {adapter} does not fit {type(model).__name__}; use the base model it was trained from"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, adapter)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{advice} ({reason})") from error
    for warning in caught:
        text = str(warning.message)
        if "missing adapter keys" in text:
            raise UserError(f"{advice} ({text.splitlines()[0][:300]})")
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    unexpected = _unexpected_keys(adapted, adapter)
    if unexpected:
        raise UserError(f"{advice} (it has weights that the model has no place for, such as {unexpected[0]})")
    # The bare model either way: callers reach into it, and peft's own wrapper is in nobody's way then.
    found: Any = adapted.merge_and_unload() if merge else adapted.base_model.model  # pyright: ignore[reportCallIssue]
    return found.eval()


def _unexpected_keys(adapted: Any, adapter: str) -> list[str]:
    """LoRA weights of the saved adapter that the adapted model has no tensor for."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    have = set(get_peft_model_state_dict(adapted))
    return sorted(key for key in load_peft_weights(adapter, device="cpu") if "lora_" in key and key not in have)


def text_and_image(batch: Batch) -> tuple[list[str] | None, list[Any] | None]:
    """The batch's texts and images; None for a column that is absent or empty throughout.

    Raises UserError when there is neither, or when only some of the contents have one.
    """
    found: list[list[Any] | None] = []
    for name in ("text", "image"):
        values = batch.get(name)
        missing = 0 if values is None else sum(value is None for value in values)
        if values is None or missing == len(values):
            found.append(None)
            continue
        if missing:
            raise UserError(f"{missing} of {len(values)} contents of one batch have no {name}; expected all or none")
        found.append(list(values))
    if found[0] is None and found[1] is None:
        raise UserError(f"a batch with columns {sorted(batch)} has no text and no image; expected one of them")
    return found[0], found[1]


def rgb(image: Image.Image, *, over_white: bool = True) -> Image.Image:
    """Any PIL image → RGB as it would be shown: transparency over white, 16 bits scaled down to 8.

    PIL's own convert() clips 16-bit grey to white, and shows what colour a transparent pixel hides: over_white=False
    keeps the latter, for families whose published scores were made that way.
    """
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        if image.mode != "F" and grey.size and grey.max() > 255:
            grey = grey / 257
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if over_white and ("A" in image.getbands() or "transparency" in image.info):
        shown = image.convert("RGBA")
        page = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(page, shown).convert("RGB")
    return image.convert("RGB")
