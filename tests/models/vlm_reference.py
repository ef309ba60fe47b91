"""GME and VLM2Vec as MTEB runs them: its own wrapper classes, over the models of today's transformers.

They were written for transformers 4. What they use of it is given here: the text model and the vision tower as two
attributes, and the positions that transformers 4 computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np


def load(folder: Path, **pixels: int) -> tuple[Any, Any]:
    """The model with its head, and the whole processor, which scales images to min_pixels … max_pixels."""
    import transformers as t

    model = t.AutoModelForImageTextToText.from_pretrained(folder).eval()
    images = t.Qwen2VLImageProcessor(
        size={"shortest_edge": pixels.get("min_pixels", 4 * 784), "longest_edge": pixels.get("max_pixels", 1280 * 784)}
    )
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    return model, t.Qwen2VLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=t.Qwen2VLVideoProcessor(), chat_template=""
    )


class _Visual:
    """The vision tower of transformers 4: it gave the merged patches themselves."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def get_dtype(self) -> Any:
        return self.model.dtype

    def __call__(self, pixels: Any, grid_thw: Any) -> Any:
        return self.model.model.visual(pixels, grid_thw=grid_thw).pooler_output


def gme(folder: Path, texts: Sequence[str | None], images: Sequence[Any], instruction: str | None = None) -> np.ndarray:
    """[n, dim] from MTEB's GME encoder, one content at a time."""
    import torch
    from mteb.models.model_implementations.gme_v_models import _encoder_class

    model, processor = load(folder)
    base: Any = SimpleNamespace(model=model.model.language_model, visual=_Visual(model), config=model.config)
    encoder: Any = _encoder_class()(base, processor, max_length=1800)
    with torch.inference_mode():
        pairs = zip(texts, images, strict=True)
        return torch.cat([encoder.embed([t], [i], "cpu", instruction=instruction) for t, i in pairs]).numpy()


def old_positions(ids: list[int], grid: Any, config: Any) -> np.ndarray:
    """[3, tokens] of one content, by the rule of transformers 4: an image is the image tokens right after a token that
    opens one; all other tokens are counted."""
    merge, places, row = config.vision_config.spatial_merge_size, [], 0
    position = 0
    while row < len(ids):
        opened = row > 0 and ids[row - 1] == config.vision_start_token_id
        if opened and ids[row] == config.image_token_id:
            height, width = int(grid[1]) // merge, int(grid[2]) // merge
            places += [(position, position + y, position + x) for y in range(height) for x in range(width)]
            row, position = row + height * width, position + max(height, width)
        else:
            places.append((position,) * 3)
            row, position = row + 1, position + 1
    return np.array(places).T


class _Model:
    """A model with the positions of transformers 4, called with one content."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, input_ids: Any, attention_mask: Any, **inputs: Any) -> Any:
        import torch

        assert attention_mask.all() and len(input_ids) == 1
        grid = inputs.get("image_grid_thw", [None])[0]
        positions = torch.from_numpy(old_positions(input_ids[0].tolist(), grid, self.model.config))[:, None]
        return self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, **inputs)


def vlm2vec(folder: Path, task: Any, role: str, **columns: list[Any]) -> np.ndarray:
    """[n, dim] from MTEB's wrapper of VLM2Vec 2, one content at a time, with its prompts for that task."""
    from mteb.models.model_implementations.vlm2vec_models import VLM2VEC2Wrapper
    from mteb.types import PromptType

    wrapper: Any = VLM2VEC2Wrapper.__new__(VLM2VEC2Wrapper)
    model, wrapper.processor = load(folder)
    wrapper.model, wrapper.device = _Model(model), "cpu"
    n = len(next(iter(columns.values())))
    batches = [{name: [column[i]] for name, column in columns.items()} for i in range(n)]

    class Loader(list):
        dataset = SimpleNamespace(features=columns)

    found = wrapper.encode(
        Loader(batches),
        task_metadata=task,
        hf_split="test",
        hf_subset="default",
        prompt_type=PromptType(role),
        show_progress_bar=False,
    )
    return found.numpy()
