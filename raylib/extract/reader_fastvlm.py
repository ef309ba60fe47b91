"""FastVLM (https://huggingface.co/apple/FastVLM-7B), whose code comes with the checkpoint and has no processor.

A prompt holds one id, -200, for the image; the model itself puts the image's features in its place, so that its decoder
sees more tokens than the prompt has. What the tower wants of an image is in its code, not in a file: it is built here
from the config, so that the CPU half needs no weights, and compared with the tower's once that is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import ModelError
from raylib.evaluate.contents import BadContentError
from raylib.extract.anatomy import Anatomy
from raylib.extract.collate import PreparedRow, Side
from raylib.extract.reader import GREEDY, Prompt, Reader
from raylib.types import Tensors

if TYPE_CHECKING:
    import torch
    from PIL import Image

_IMAGE = -200
_MARK = "<image>"
_STRIDE = 64
"""Pixels to a token, each way."""


class _TextAndImages:
    """The tokenizer, and what the tower wants of an image, which travel to a thread together."""

    def __init__(self, tokenizer: Any, images: Any) -> None:
        self.tokenizer, self.images = tokenizer, images


class FastVlmReader(Reader):
    """Tensors of a row: input_ids, attention_mask [1, tokens before the image is put in]; images [1, 3, side, side]."""

    @cached_property
    def side(self) -> int:
        """Pixels to a side of the image, from the tower's name (mobileclip_l_1024)."""
        name = str(getattr(self.config, "mm_vision_tower", ""))
        found = re.search(r"_(\d+)$", name)
        if found is None:
            raise ModelError(f"{self.spec.name}: its mm_vision_tower is {name!r}; expected one that ends in its pixels")
        return int(found.group(1))

    @property
    def image_tokens(self) -> int:
        return (self.side // _STRIDE) ** 2

    def _load_processor(self) -> Any:
        from transformers import AutoTokenizer, CLIPImageProcessor

        images = CLIPImageProcessor(
            size={"shortest_edge": self.side},
            crop_size={"height": self.side, "width": self.side},
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
        )
        return _TextAndImages(AutoTokenizer.from_pretrained(self.spec.name, config=self.config, **self.place), images)

    @cached_property
    def marks(self) -> list[str]:
        return [_MARK]

    @property
    def longest(self) -> int | None:
        """The model cuts what is longer than its tokenizer_model_max_length."""
        known = (super().longest, getattr(self.config, "tokenizer_model_max_length", None))
        return min((length for length in known if length), default=None)

    def prompt(self, question: str, image: Image.Image) -> Prompt:
        processor = self.thread_processor
        turn = [{"role": "user", "content": f"{_MARK}\n{question}"}]
        text = processor.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        before, after = (processor.tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split(_MARK))
        ids = np.array([[*before, _IMAGE, *after]], dtype=np.int64)
        try:
            pixels = np.asarray(processor.images(images=image, return_tensors="pt")["pixel_values"])
        except Exception as error:  # as the others do, for an image that is too narrow
            raise BadContentError(f"the processor refused it: {type(error).__name__}: {error}") from error
        image_positions = np.arange(len(before), len(before) + self.image_tokens, dtype=np.int64)
        tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids), "images": pixels}
        return Prompt(tensors, image_positions, ids.shape[1] - 1 + self.image_tokens)

    def collate(self, rows: Sequence[PreparedRow], side: Side) -> Tensors:
        """Padding here is only for the shape: the model takes it out, and puts its own where its config says."""
        del side
        most = max(row.tensors["input_ids"].shape[1] for row in rows)
        batch = {}
        for name, value in (("input_ids", self.pad_token), ("attention_mask", 0)):
            arrays = [row.tensors[name] for row in rows]
            padded = [np.pad(a, ((0, 0), (0, most - a.shape[1])), constant_values=value) for a in arrays]
            batch[name] = np.concatenate(padded)
        return {**batch, "images": np.concatenate([row.tensors["images"] for row in rows])}

    def check(self, model: Any) -> None:
        """That the tower wants the images that the CPU half makes, and gives as many tokens."""
        tower = model.get_vision_tower()
        ours, theirs = self.processor.images.to_dict(), tower.image_processor.to_dict()
        other = [name for name in ("size", "crop_size", "image_mean", "image_std") if ours[name] != theirs[name]]
        if tower.num_patches != self.image_tokens or other:
            raise ModelError(
                f"{self.spec.name}: its vision tower gives {tower.num_patches} tokens from {theirs['crop_size']}; "
                f"expected {self.image_tokens} from {self.side} pixels, as in the published FastVLM"
                + (f" (other {', '.join(other)})" if other else "")
            )

    def run(self, model: Any, anatomy: Anatomy, inputs: dict[str, torch.Tensor], side: Side) -> None:
        model.config.tokenizer_padding_side = side
        ids, mask, images = (inputs[name] for name in ("input_ids", "attention_mask", "images"))
        positions = mask.cumsum(dim=1) - 1  # of the unexpanded prompt: only where there are some are others given back
        _, positions, mask, _, embedded, _ = model.prepare_inputs_labels_for_multimodal(
            ids, positions, mask, None, None, images
        )
        anatomy.body(inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False)

    def generate(self, model: Any, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> torch.Tensor:
        model.config.tokenizer_padding_side = "left"
        options: dict[str, Any] = {**GREEDY, "max_new_tokens": max_new_tokens, "pad_token_id": self.pad_token}
        return model.generate(
            inputs=inputs["input_ids"], attention_mask=inputs["attention_mask"], images=inputs["images"], **options
        )
