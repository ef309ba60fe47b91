"""Molmo (https://huggingface.co/allenai/Molmo-7B-O-0924), whose code comes with the checkpoint.

Its processor writes the whole prompt and says at which tokens which of the image's features are added (`process`,
image_input_idx); its decoder is run without the head and, for answers, by a loop of our own: its generate_from_batch
was written for transformers 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import ModelError
from raylib.evaluate.contents import BadContentError
from raylib.extract.anatomy import Anatomy
from raylib.extract.collate import PreparedRow, Side
from raylib.extract.reader import Prompt, Reader
from raylib.types import Tensors

if TYPE_CHECKING:
    import torch
    from PIL import Image


class MolmoReader(Reader):
    """Tensors of a row: input_ids, attention_mask [1, tokens]; images [1, crops, patches, pixels], image_masks [1,
    crops, patches], image_input_idx [1, crops, features], the token of each feature, below 0 for one that is not used.
    """

    @cached_property
    def marks(self) -> list[str]:
        return ["<|image|>", "<im_patch>", "<im_start>", "<im_end>", "<im_col>"]

    def prompt(self, question: str, image: Image.Image) -> Prompt:
        try:
            found = self.thread_processor.process(images=[image], text=question)
        except Exception as error:  # the model's own code raises anything
            raise BadContentError(f"the processor refused it: {type(error).__name__}: {error}") from error
        tensors = {name: np.asarray(value)[None] for name, value in found.items() if value is not None}
        tensors["input_ids"] = tensors["input_ids"].astype(np.int64)
        tensors["attention_mask"] = np.ones_like(tensors["input_ids"])
        tensors["image_input_idx"] = tensors["image_input_idx"].astype(np.int64)
        places = np.unique(tensors["image_input_idx"])
        image_positions = places[places >= 0]
        if not len(image_positions):
            raise ModelError(f"{self.spec.name}: its processor gave no token for the image (image_input_idx)")
        return Prompt(tensors, image_positions, tensors["input_ids"].shape[1])

    def collate(self, rows: Sequence[PreparedRow], side: Side) -> Tensors:
        batch = dict(super().collate(rows, side))
        if side == "left":
            longest = max(row.tokens for row in rows)
            moved = np.array([longest - row.tokens for row in rows]).reshape(-1, 1, 1)
            batch["image_input_idx"] = np.where(batch["image_input_idx"] < 0, -1, batch["image_input_idx"] + moved)
        return batch

    def run(self, model: Any, anatomy: Anatomy, inputs: dict[str, torch.Tensor], side: Side) -> None:
        del model, side
        anatomy.body(**inputs, use_cache=False, last_logits_only=True)

    def generate(self, model: Any, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> torch.Tensor:
        import torch

        mask, end = inputs["attention_mask"], self.tokenizer.eos_token_id
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        step: dict[str, Any] = dict(inputs)
        ended = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        said: list[torch.Tensor] = []
        while len(said) < max_new_tokens and not ended.all():
            step |= {"attention_mask": mask, "position_ids": positions}
            output = model.model(**step, use_cache=True, last_logits_only=True)
            words = output.logits[:, -1].argmax(dim=-1).masked_fill(ended, self.pad_token)
            said.append(words)
            ended = ended | (words == end)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            positions = positions[:, -1:] + 1
            step = {"input_ids": words[:, None], "past_key_values": output.attn_key_values}
        return torch.stack(said, dim=1)
