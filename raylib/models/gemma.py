"""BiGemma3 and ColGemma3: vectors of texts and page images from Gemma 3 (https://arxiv.org/abs/2503.19786).

Contents are turns of Gemma 3's chat format, as in colpali-engine's processors. Different from those: a turn has one
<bos>, where theirs has two (the chat template gives one, and tokenising its text adds another); images go through the
processor as one batch (all have one length). Of BiGemma3, pooling finds the real tokens under any padding, and any
dimension up to the hidden size can be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib.models.colpali import ColPaliEngineEncoder
from raylib.models.family import Family
from raylib.models.loading import check_embedding_dim, rgb
from raylib.models.pooling import normalise, pool, truncate
from raylib.models.protocol import ModelSpec
from raylib.types import Tensors

if TYPE_CHECKING:
    from PIL import Image

    from raylib.models.token_vectors import TokenVectors

IMAGE_PROMPT = "Describe this image"


class GemmaEncoder(ColPaliEngineEncoder):
    """ColGemma3: one unit vector per real token of a chat turn.

    family.settings: as for ColPaliEngineEncoder. The prompt stands inside the turn: before a text, and after an image,
    which has IMAGE_PROMPT there under the family's own prompt.
    """

    ENCODING_VERSION = 2

    def process_texts(self, texts: list[str]) -> Mapping[str, Any]:
        turns = [self._turn([{"type": "text", "text": text}]) for text in texts]
        return self._tokens(turns)

    def process_images(self, pages: list[Any], prompt: str) -> Mapping[str, Any]:
        turns = [self._turn([{"type": "image"}, *self._image_words(prompt)])] * len(pages)
        return self._tokens(turns, images=[[page] for page in pages])

    def _image_words(self, prompt: str) -> list[dict[str, str]]:
        """What a turn says after its image: the user's prompt, or IMAGE_PROMPT in place of the family's own."""
        asked = IMAGE_PROMPT if prompt == self.family.settings["query_prefix"] else prompt
        return [{"type": "text", "text": asked}] if asked else []

    def _turn(self, content: list[dict[str, str]]) -> str:
        """A user's turn in the model's chat format, without the start of an answer."""
        messages = [{"role": "user", "content": content}]
        return self.processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)

    def _tokens(self, turns: list[str], **images: Any) -> Mapping[str, Any]:
        """The tokenizer adds its <bos> only where the chat template has none."""
        bos = self.processor.tokenizer.bos_token
        complete = bos is not None and all(turn.startswith(bos) for turn in turns)
        options = {"add_special_tokens": not complete, "padding": "longest", "return_tensors": "pt"}
        return self.processor(text=turns, **images, **options)


class BiGemmaEncoder(GemmaEncoder):
    """One unit vector per content: final hidden states pooled ("last", "mean" or "cls", over real tokens), cut to
    --embedding-dim, then normalised. A content with text and image: the sum or mean of both, normalised, or both side
    by side.

    family.settings: as for GemmaEncoder.
    """

    always_unit = True

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        self.similarity = "cosine"
        check_embedding_dim(spec, self._width())

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
        dim = None if self.spec.embedding_dim == self._width() else self.spec.embedding_dim
        return {**super().settings, "embedding_dim": dim}

    def served(self, text: str | None, image: Image.Image | None, prompt: str = "") -> list[str | list[dict[str, Any]]]:
        parts: list[str | list[dict[str, Any]]] = []
        if text is not None:
            parts.append([{"type": "text", "text": text}])
        if image is not None:
            page = {"type": "image", "image": rgb(image, over_white=False)}
            parts.append([page, *self._image_words(prompt)])
        return parts

    def embed(self, inputs: Tensors) -> TokenVectors:
        from transformers import Gemma3Model

        from raylib.models.token_vectors import TokenVectors

        assert self.pooling is not None, "the family has poolings"
        backbone: Any = Gemma3Model.forward  # BiGemma3's own pools by position and knows three dimensions
        on_device = self.on_device(inputs)
        hidden = backbone(self.model, **on_device, use_cache=False).last_hidden_state
        vectors = truncate(pool(hidden, on_device["attention_mask"], self.pooling), self.spec.embedding_dim)
        return TokenVectors.dense(normalise(vectors))
