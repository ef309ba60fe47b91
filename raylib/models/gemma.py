"""BiGemma3: dense Matryoshka vectors of texts and page images from Gemma 3 (https://arxiv.org/abs/2503.19786).

Tokens are those of colpali-engine's BiGemmaProcessor3, whose models were trained on them. Different from it: images go
through the processor as one batch (all have one length), pooling finds the real tokens under any padding, and any
dimension up to the hidden size can be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.models.colpali import ColPaliEngineEncoder
from raylib.models.families import Family
from raylib.models.loading import to_numpy
from raylib.models.pooling import normalise, pool, truncate
from raylib.models.protocol import ModelSpec
from raylib.types import Embeddings, Tensors

IMAGE_PROMPT = "Describe this image"


class BiGemmaEncoder(ColPaliEngineEncoder):
    """One unit vector per content: final hidden states pooled ("last", "mean" or "cls", over real tokens), cut to
    --embedding-dim, then normalised. A content with text and image: the sum of both, normalised.

    family.settings: as for ColPaliEngineEncoder; the prompt stands inside the chat turn.
    """

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        self.similarity = "cosine"
        width = self._width()
        if spec.embedding_dim is not None and not 0 < spec.embedding_dim <= (width or spec.embedding_dim):
            most = f"at most {width}" if width else "1 or more"
            raise UserError(f"--embedding-dim is {spec.embedding_dim}; {spec.name} gives {most}, such as 768 or 1536")

    def _width(self) -> int | None:
        """The hidden size, where the table or a local config.json tells it; else `truncate` finds out later."""
        if self.spec.name in self.family.members:
            return self.family.members[self.spec.name].dim
        path = Path(self.spec.name) / "config.json"
        if not path.is_file():
            return None
        return json.loads(path.read_text(encoding="utf-8")).get("text_config", {}).get("hidden_size")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**super().settings, "embedding_dim": self.spec.embedding_dim}

    def process_texts(self, texts: list[str]) -> Mapping[str, Any]:
        turns = [self._turn([{"type": "text", "text": text}]) for text in texts]
        return self.processor(text=turns, return_tensors="pt", padding="longest")

    def process_images(self, pages: list[Any]) -> Mapping[str, Any]:
        turns = [self._image_turn] * len(pages)
        return self.processor(text=turns, images=[[page] for page in pages], return_tensors="pt", padding="longest")

    @cached_property
    def _image_turn(self) -> str:
        return self._turn([{"type": "image"}, {"type": "text", "text": IMAGE_PROMPT}])

    def _turn(self, content: list[dict[str, str]]) -> str:
        """A user's turn in the model's chat format, without the start of an answer."""
        messages = [{"role": "user", "content": content}]
        return self.processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)

    def embed(self, inputs: Tensors) -> Embeddings:
        import torch
        from transformers import Gemma3Model

        assert self.pooling is not None, "the family has poolings"
        backbone: Any = Gemma3Model.forward  # BiGemma3's own pools by position and knows three dimensions
        on_device = self.on_device(inputs)
        with torch.inference_mode():
            hidden = backbone(self.model, **on_device, use_cache=False).last_hidden_state
            vectors = truncate(pool(hidden, on_device["attention_mask"], self.pooling), self.spec.embedding_dim)
            return Embeddings.from_dense(to_numpy(normalise(vectors), self.dtype))

    def fuse(self, text: Embeddings, image: Embeddings) -> Embeddings:
        vectors = text.dense().astype(np.float32) + image.dense().astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings.from_dense((vectors / np.maximum(lengths, 1e-12)).astype(text.values.dtype))
