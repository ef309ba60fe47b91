"""VLM2Vec over LLaVA-NeXT (https://llava-vl.github.io/blog/2024-01-30-llava-next/): the page once as a whole and once
in tiles, each of the vision tower's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.models.adapters import place_of
from raylib.models.torch_encoder import TorchEncoder
from raylib.models.vlm import Vlm2VecEncoder
from raylib.types import Tensors

if TYPE_CHECKING:
    import torch
    from PIL import Image


class LlavaNextEncoder(Vlm2VecEncoder):
    """Text and prompts as Vlm2VecEncoder; the number of an image's tokens follows from its shape and has no option."""

    supported_options: ClassVar[frozenset[str]] = TorchEncoder.supported_options | {"pooling"}

    def _pixels(self) -> list[int]:
        return []

    def fit(self, image: Image.Image) -> Image.Image:
        return image

    def load_processor(self) -> Any:
        """The whole processor, which knows how many tokens an image takes; told by the model's configuration how the
        tower cuts it, since older checkpoints say that nowhere else."""
        from transformers import AutoConfig, LlavaNextProcessor

        parts = super().load_processor()
        place, revision = place_of("config.json", self.location, self.spec.revision)
        config = AutoConfig.from_pretrained(place, revision=revision)
        return LlavaNextProcessor(
            image_processor=parts.image_processor,
            tokenizer=parts.tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=self.family.settings["image_token"],
            num_additional_image_tokens=int(config.vision_config.model_type == "clip_vision_model"),
        )

    def process_images(self, images: Sequence[Image.Image | None]) -> tuple[Tensors, list[int]]:
        """pixel_values [n, tiles, 3, height, width], padded to the most tiles, and image_sizes [n, 2] (height, width),
        zero for a content without an image."""
        given = [image for image in images if image is not None]
        if not given:
            return {}, [0] * len(images)
        found = self.processor.image_processor(images=given, do_convert_rgb=False, return_tensors="np")
        mark = self.family.settings["image_token"]
        lengths = [len(self.processor.replace_image_token(found, i)) // len(mark) for i in range(len(given))]
        present = np.array([image is not None for image in images])
        tensors: Tensors = {}
        for name in ("pixel_values", "image_sizes"):
            array = np.asarray(found[name])
            tensors[name] = np.zeros((len(images), *array.shape[1:]), dtype=array.dtype)
            tensors[name][present] = array
        counts = np.zeros(len(images), dtype=np.int64)
        counts[present] = lengths
        return tensors, counts.tolist()

    def image_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if "image_sizes" not in inputs or not inputs["image_sizes"].any():
            return {}
        present = inputs["image_sizes"].any(dim=1)
        return {name: inputs[name][present] for name in ("pixel_values", "image_sizes")}
