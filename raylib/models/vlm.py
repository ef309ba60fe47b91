"""Dense vectors of text, images and both from vision-language models: the hidden state of the last token.

GME (https://arxiv.org/abs/2412.16855), VLM2Vec 1 and 2 (https://arxiv.org/abs/2410.05160, 2507.04590) and B3
(https://arxiv.org/abs/2505.11293) write a content as one turn, text and image together, and take the final hidden
state at its last token, at length 1. A content with both goes through the model once.

**Positions.** These models were trained with plain positions 0, 1, 2 … also for the tokens of an image: VLM2Vec writes
the image token without the token that opens an image, by which transformers 4 found images, and GME calls the text
model itself. transformers 5 would find the image anyway and give it the positions of a grid, which is another model.
So positions are given here, counted over real tokens: nothing of a neighbour or of the batch before is in them.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.errors import UserError
from raylib.models.adapters import adapter_config, base_identity, load_with_adapter, place_of
from raylib.models.family import Family
from raylib.models.instructions import own_prompt, task_instruction
from raylib.models.loading import rgb
from raylib.models.pooling import normalise, pool
from raylib.models.protocol import ModelSpec
from raylib.models.torch_encoder import TorchEncoder
from raylib.types import Batch, EncodeContext, Role, Tensors

if TYPE_CHECKING:
    import torch
    from mteb.abstasks.task_metadata import TaskMetadata
    from PIL import Image

    from raylib.models.token_vectors import TokenVectors

POOLINGS = ("last", "eos")
"""Two names of one thing: the last real token."""

MMEB_PLACE = "<|image_1|>"
"""How MMEB's texts say where their image stands, whatever the model."""


class VlmEncoder(TorchEncoder):
    """What the families share, over the Qwen2-VL and Qwen2.5-VL models of transformers.

    family.settings: model (class name in transformers), image_token, max_tokens (longer contents lose their end); where
    images keep their shape, min_pixels and max_pixels (of an image, as the model sees it) and tile (side in pixels of
    one visual token).
    """

    supported_options: ClassVar[frozenset[str]] = TorchEncoder.supported_options | {"pooling", "max_pixels"}
    similarity = "cosine"

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        self.modalities = frozenset({"text", "image"})
        self.fuses = True
        self.native_resolution = True
        if spec.pooling not in (None, *POOLINGS):
            raise UserError(
                f"--pooling is {spec.pooling!r}; {spec.name} has {' and '.join(POOLINGS)} (the same): tokens see only "
                "those before them, so that no other one knows the whole content"
            )
        self.pixels = self._pixels()

    def _pixels(self) -> list[int]:
        """The fewest and the most pixels of an image. Raises UserError for a budget that holds no image, or no text."""
        asked, settings = self.spec.max_pixels, self.family.settings
        tile, room = settings["tile"] ** 2, (settings["max_tokens"] - 256) * settings["tile"] ** 2
        if asked is not None and not tile <= asked <= room:
            raise UserError(
                f"--max-pixels is {asked}; {self.family.name} takes {tile} (one visual token) to {room} (what its "
                f"{settings['max_tokens']} tokens have room for beside a text)"
            )
        most = asked or settings["max_pixels"]
        return [min(settings["min_pixels"], most), most]

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "pooling": "last",
            "pixels": self.pixels,
            "max_tokens": self.family.settings["max_tokens"],
            "base": base_identity(self.location, self.spec.revision),
        }

    # What a family writes.

    @abstractmethod
    def write(self, text: str | None, prompt: str, *, with_image: bool) -> str:
        """The content as the model reads it, with one image token where the image stands."""

    @abstractmethod
    def fit(self, image: Image.Image) -> Image.Image:
        """What is done to an RGB image before the image processor scales it."""

    # CPU half.

    def load_processor(self) -> Any:
        """The checkpoint's tokenizer and image processor. Not its whole processor, which wants a video processor too
        and whose truncation may cut an image in half."""
        from transformers import AutoImageProcessor, AutoTokenizer

        place, revision = place_of("preprocessor_config.json", self.location, self.spec.revision)
        images = AutoImageProcessor.from_pretrained(place, revision=revision)
        if self.pixels:
            images.size = dict(zip(("shortest_edge", "longest_edge"), self.pixels, strict=True))
        place, revision = place_of("tokenizer_config.json", self.location, self.spec.revision)
        return SimpleNamespace(
            image_processor=images, tokenizer=AutoTokenizer.from_pretrained(place, revision=revision)
        )

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Gives input_ids and attention_mask [n, tokens]; where there are images, pixel_values [n, patches, values],
        padded to the largest image, and image_grid_thw [n, 3], zero for a content without one.

        Raises UserError for a content with neither text nor image, and for one whose prompt and image are too long.
        """
        texts, images = _columns(batch)
        pictures = [None if image is None else self.fit(rgb(image, over_white=False)) for image in images]
        tensors, counts = self.process_images(pictures)
        mark = self.family.settings["image_token"]
        turns = [
            self.write(text, context.prompt, with_image=image is not None).replace(mark, mark * count, 1)
            for text, image, count in zip(texts, pictures, counts, strict=True)
        ]
        limit = self.family.settings["max_tokens"]
        tokens = self.processor.tokenizer(turns, padding=True, truncation=True, max_length=limit, return_tensors="np")
        found = (tokens["input_ids"] == self.processor.tokenizer.convert_tokens_to_ids(mark)).sum(axis=1)
        if (found != counts).any():
            raise UserError(
                f"{self.spec.name}: a prompt and an image of {max(counts)} tokens together are longer than {limit}; "
                f"shorten the prompt{' or lower --max-pixels' if self.pixels else ''}"
            )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], **tensors}

    def process_images(self, images: Sequence[Image.Image | None]) -> tuple[Tensors, list[int]]:
        """The images' arrays, the contents as their first axis, and how many tokens each content's image takes."""
        given = [image for image in images if image is not None]
        if not given:
            return {}, [0] * len(images)
        processor = self.processor.image_processor
        found = processor(images=given, do_convert_rgb=False, return_tensors="pt")
        grids = np.zeros((len(images), 3), dtype=np.int64)
        grids[[image is not None for image in images]] = found["image_grid_thw"].numpy()
        patches = grids.prod(axis=1)
        flat = found["pixel_values"].numpy()
        padded = np.zeros((len(images), patches.max(), flat.shape[1]), dtype=flat.dtype)
        padded[_first(patches)] = flat
        return {"pixel_values": padded, "image_grid_thw": grids}, (patches // processor.merge_size**2).tolist()

    # Accelerator half.

    def load_model(self) -> Any:
        """The model without the head that predicts words."""
        import transformers

        upstream = getattr(transformers, self.family.settings["model"])
        return load_with_adapter(upstream, self.spec, self.location, **self.weights_options()).model

    @property
    def adapted(self) -> bool:
        return super().adapted or adapter_config(self.location, self.spec.revision) is not None

    adapter_prefix: ClassVar[str] = "model."

    def save_model(self, folder: str) -> None:
        """Under the names of the whole model, whose head that predicts words is left out: it is not loaded either."""
        import torch
        import transformers

        with torch.device("meta"):
            whole = getattr(transformers, self.family.settings["model"])(self.model.config)
        whole.model, whole.lm_head = self.model, torch.nn.Identity()
        whole.save_pretrained(folder)
        self.processor.tokenizer.save_pretrained(folder)
        self.processor.image_processor.save_pretrained(folder)

    def vectors(self, tensors: Tensors) -> TokenVectors:
        from raylib.models.token_vectors import TokenVectors

        inputs = self.on_device(tensors)
        mask = inputs.pop("attention_mask")
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        hidden = self.model(
            input_ids=inputs.pop("input_ids"),
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            **self.image_inputs(inputs),
        ).last_hidden_state
        return TokenVectors.dense(normalise(pool(hidden, mask, "last")))

    def image_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model takes of the images: the patches of all in one row, without padding."""
        if "pixel_values" not in inputs or not inputs["image_grid_thw"].any():
            return {}
        grids = inputs["image_grid_thw"]
        patches = grids.prod(dim=1)
        return {
            "pixel_values": inputs["pixel_values"][_first(patches, inputs["pixel_values"].shape[1])],
            "image_grid_thw": grids[patches > 0],
        }


class GmeEncoder(VlmEncoder):
    """GME: a chat whose system turn is the instruction, ended by <|endoftext|>, as MTEB's GmeQwen2VL writes it.

    family.settings besides: instruction (where a task has none, and of every document).
    """

    def default_prompt(self, task: TaskMetadata | None, role: Role | None) -> str | None:
        return None if task is None or role == "document" else task_instruction(task, role)

    def write(self, text: str | None, prompt: str, *, with_image: bool) -> str:
        mark = self.family.settings["image_token"]
        image = f"<|vision_start|>{mark}<|vision_end|>" if with_image else ""
        said = re.sub(rf"({re.escape(mark)}|{re.escape(MMEB_PLACE)})\s?", "", text or "")  # the image comes first
        return (
            f"<|im_start|>system\n{prompt or self.family.settings['instruction']}<|im_end|>\n"
            f"<|im_start|>user\n{image}{said}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
        )

    def fit(self, image: Image.Image) -> Image.Image:
        width, height = gme_size(*image.size)
        return image.resize((width, height))


def gme_size(width: int, height: int, tile: int = 28, most: int = 16384, ratio: int = 200) -> tuple[int, int]:
    """The width and height, multiples of `tile`, that GME gives an image before anything else: 4 to `most` tiles, no
    side longer than `ratio` times the other. (As `smart_resize` of Qwen's qwen_vl_utils.)"""
    sides = [max(tile, round(side / tile) * tile) for side in (width, height)]
    if sides[0] * sides[1] > most * tile**2:
        shrink = math.sqrt(width * height / (most * tile**2))
        sides = [math.floor(side / shrink / tile) * tile for side in (width, height)]
    elif sides[0] * sides[1] < 4 * tile**2:
        grow = math.sqrt(4 * tile**2 / (width * height))
        sides = [math.ceil(side * grow / tile) * tile for side in (width, height)]
    shorter = max(min(sides), tile)
    return min(max(sides[0], tile), shorter * ratio), min(max(sides[1], tile), shorter * ratio)


class Vlm2VecEncoder(VlmEncoder):
    """VLM2Vec and B3: image token, instruction, text, one space between them, without a chat template.

    A text that holds the image's place (the image token, or <|image_1|> as in MMEB) keeps it there.

    family.settings besides: page_prompts (role → instruction, for retrieval of document pages).
    """

    def default_prompt(self, task: TaskMetadata | None, role: Role | None) -> str | None:
        if task is None or role is None:
            return None
        pages = task.type == "DocumentUnderstanding" or (task.type == "Retrieval" and task.category in ("t2i", "t2it"))
        return self.family.settings["page_prompts"][role] if pages else own_prompt(task, role)

    def write(self, text: str | None, prompt: str, *, with_image: bool) -> str:
        mark = self.family.settings["image_token"]
        said = (text or "").replace(MMEB_PLACE, mark) if with_image else (text or "").replace(mark, "")
        if prompt and said:
            said = prompt + ("" if prompt[-1].isspace() else " ") + said
        said = said or prompt
        if with_image and mark not in said:
            said = f"{mark} {said}" if said else mark
        return said or "  "  # upstream's stand-in for nothing: a model cannot read no tokens

    def fit(self, image: Image.Image) -> Image.Image:
        return image.resize((56, 56)) if min(image.size) < 28 else image


def refuse_phi3v(spec: ModelSpec, family: Family) -> VlmEncoder:
    """The first VLM2Vec ran on Phi-3.5-V, whose code is not in transformers. Raises UserError, always."""
    del family
    raise UserError(
        f"{spec.name} runs on Phi-3.5-V, which transformers does not have and whose own code is for transformers 4: "
        "raylib has no way to load it. VLM2Vec/VLM2Vec-V2.0, TIGER-Lab/VLM2Vec-Qwen2VL-2B (the first version, on "
        "Qwen2-VL) and TIGER-Lab/VLM2Vec-LLaVa-Next work"
    )


def _columns(batch: Batch) -> tuple[list[str | None], list[Any]]:
    """The batch's texts and images, None where a content has none; a content may have either or both."""
    n = len(next(iter(batch.values())))
    texts: list[str | None] = list(batch.get("text") or [None] * n)
    images: list[Any] = list(batch.get("image") or [None] * n)
    empty = sum(text is None and image is None for text, image in zip(texts, images, strict=True))
    if empty:
        raise UserError(f"{empty} of {n} contents have no text and no image (columns: {', '.join(sorted(batch))})")
    return texts, images


def _first(counts: Any, width: int | None = None) -> Any:
    """counts [n] → bool [n, width]: True at the first counts[i] places of row i. numpy or torch."""
    if width is None:
        return np.arange(counts.max()) < counts[:, None]
    import torch

    return torch.arange(width, device=counts.device) < counts[:, None]
