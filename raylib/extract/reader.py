"""How a row becomes a model's tensors, and a batch of them a forward or answers: by transformers' processors, as all
models do whose code is in that library."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from raylib.evaluate.contents import BadContentError
from raylib.extract.anatomy import Anatomy, context_length, image_token
from raylib.extract.architectures import architecture
from raylib.extract.collate import PreparedRow, Side, collate
from raylib.extract.spans import find_image
from raylib.models.loading import model_failure
from raylib.models.protocol import ModelSpec
from raylib.types import Tensors

if TYPE_CHECKING:
    import torch
    from PIL import Image

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1}


class Prompt(NamedTuple):
    """One row as its model is given it, alone. image [n] int64: positions of its image's tokens among the `tokens` that
    the decoder sees, which may be more than input_ids holds."""

    tensors: Tensors
    image: np.ndarray
    tokens: int


class Reader:
    """The way through a processor of transformers. Other ways derive from it.

    place: what a from_pretrained is told of where the files are, and whether their code is trusted.
    """

    def __init__(self, spec: ModelSpec, config: Any, place: dict[str, Any]) -> None:
        self.spec, self.config, self.place = spec, config, place
        self._of_threads = threading.local()

    # CPU half: needs no weights.

    @cached_property
    def processor(self) -> Any:
        """What turns texts (and here images) into tensors."""
        with model_failure(self.spec, "its processor cannot be loaded"):
            return self._load_processor()

    def _load_processor(self) -> Any:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.spec.name, **self.place)

    @property
    def thread_processor(self) -> Any:
        """A processor of this thread's own: tokenizers are for one thread at a time."""
        mine = self._of_threads
        if not hasattr(mine, "processor"):
            mine.processor = copy.deepcopy(self.processor)
        return mine.processor

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    @cached_property
    def image_token(self) -> int:
        return image_token(self.config, self.processor, self.spec.name)

    @cached_property
    def marks(self) -> list[str]:
        """What stands for an image in a text, expanded or not."""
        found = [getattr(self.processor, name, None) for name in ("image_token", "boi_token")]
        found.append(self.tokenizer.convert_ids_to_tokens(self.image_token))
        return [mark for mark in found if isinstance(mark, str) and mark]

    @property
    def longest(self) -> int | None:
        """The most tokens of a prompt, where the model says."""
        return context_length(self.config)

    def prompt(self, question: str, image: Image.Image) -> Prompt:
        """One row, image in RGB. Raises BadContentError for one that the processor refuses."""
        try:
            inputs = self._processed(question, image)
        except Exception as error:  # processors raise anything for an image that is too narrow or a text with marks
            raise BadContentError(f"the processor refused it: {type(error).__name__}: {error}") from error
        tensors = {name: _array(value) for name, value in inputs.items() if value is not None}
        tensors = {k: v for k, v in tensors.items() if k != "labels" and v.dtype.kind in "biuf" and v.ndim}
        image_positions = find_image(tensors["input_ids"], self.image_token, self.spec.name)
        return Prompt(tensors, image_positions, tensors["input_ids"].shape[1])

    def _processed(self, question: str, image: Image.Image) -> Any:
        """As one turn of a user in the model's own template; a model without one reads the image and the question."""
        processor, prompt = self.thread_processor, architecture(self.config.model_type).prompt
        if prompt is not None or getattr(processor, "chat_template", None) is None:
            mark = getattr(processor, "image_token", "")
            text = (prompt or "{image}{question}").format(image=mark, question=question)
            return processor(text=text, images=image, return_tensors="pt")
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    @property
    def pad_token(self) -> int:
        found = self.tokenizer.pad_token_id
        return found if found is not None else self.tokenizer.eos_token_id

    def collate(self, rows: Sequence[PreparedRow], side: Side) -> Tensors:
        """One batch, padded at `side`."""
        return collate(rows, self.pad_token, side, joined=architecture(self.config.model_type).joined)

    # Accelerator half: `inputs` are what `collate` gave, on the model's device; no gradient is kept.

    def check(self, model: Any) -> None:
        """Raises ModelError where the loaded model is not what the CPU half takes it to be."""
        del model

    def run(self, model: Any, anatomy: Anatomy, inputs: dict[str, torch.Tensor], side: Side) -> None:
        """One forward of a batch, up to the last decoder block at least. What it gives is for hooks to take."""
        del model, side
        anatomy.body(**inputs, use_cache=False)

    def generate(self, model: Any, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> torch.Tensor:
        """[rows, new tokens]: greedy answers to a batch that is padded on the left."""
        options: dict[str, Any] = {**GREEDY, "max_new_tokens": max_new_tokens, "pad_token_id": self.pad_token}
        return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """The texts of answers, without special tokens and blanks at the ends."""
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def _array(value: Any) -> np.ndarray:
    if not hasattr(value, "numpy"):
        return np.asarray(value)
    narrow = value.is_floating_point() and value.dtype.itemsize < 4  # Llama 4's processor gives bfloat16
    return (value.float() if narrow else value).numpy()
