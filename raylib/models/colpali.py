"""One adapter over colpali-engine: its late-interaction families (ColPali, ColQwen, ColGemma …) and their dense twins.

What upstream calls a family is two class names here; prompts and fusion follow the wrappers that MTEB scores with.
Method: Faysse et al., "ColPali: Efficient Document Retrieval with Vision Language Models", arXiv 2407.01449.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.errors import ModelError, UserError
from raylib.models.adapters import adapter_config, base_identity, load_with_adapter
from raylib.models.family import Family
from raylib.models.hooks import inputs_of
from raylib.models.loading import rgb, text_and_image
from raylib.models.pooling import fuse, fusion_name
from raylib.models.protocol import ModelSpec, TokenGrid
from raylib.models.token_grid import page_grids, words_of_tokens
from raylib.models.torch_encoder import HeadedEncoder
from raylib.types import Batch, Embeddings, EncodeContext, Role, Tensors

if TYPE_CHECKING:
    import torch
    from mteb.abstasks.task_metadata import TaskMetadata

    from raylib.models.token_vectors import TokenVectors


class ColPaliEngineEncoder(HeadedEncoder):
    """Any model of colpali-engine that takes texts or page images.

    A late-interaction family gives one unit vector per real token: of a text its prefix, its own tokens and the ten
    query-augmentation tokens; of a page every token of the visual prompt. Upstream multiplies padding by the
    attention mask and keeps the zero rows; here those rows are left out and the others are unchanged.
    A dense family gives one unit vector per content.

    family.settings: model, processor (class names in colpali_engine.models); query_prefix (the prompt of every text, of
    queries and documents alike, as in MTEB's wrappers); fusion, for a content with text and image: "concat" (the
    text's vectors, then the image's), "sum" (of both vectors, not normalised again and compared by dot product, as in
    MTEB; one that --fusion asks for is normalised) or "image" (the text is not looked at); tile (side in pixels of one
    visual token, where the processor takes a budget of pixels); poolings (the first is the default); prefix_attention
    (True for PaliGemma, see `process_texts`); key_mapping (pattern → name, of weights in checkpoints older than
    transformers 5, where upstream has lost it); options (further options of a subclass).
    """

    always_unit: ClassVar[bool] = False
    """True where fused vectors are of length 1 unasked."""

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        options = {*HeadedEncoder.supported_options, *family.settings.get("options", ())}
        options |= {"max_pixels"} if "tile" in family.settings else set()
        options |= {"pooling"} if "poolings" in family.settings else set()
        options |= {"fusion"} if family.kind == "dense" else set()
        self.supported_options = frozenset(options)  # pyright: ignore[reportAttributeAccessIssue]  # differs by family
        super().__init__(spec, family)
        self.late = family.kind == "late-interaction"
        self.similarity = "maxsim" if self.late else "dot"
        self.modalities = frozenset({"text", "image"})
        self.fuses = True
        self.native_resolution = "tile" in family.settings
        self.pooling = _pooling(spec, family.settings.get("poolings"))
        self.fusion = fusion_name(spec.fusion, family.settings["fusion"])
        self.unit_fusion = self.always_unit or spec.fusion is not None
        smallest = family.settings.get("tile", 0) ** 2
        if spec.max_pixels is not None and spec.max_pixels < smallest:
            raise UserError(f"--max-pixels is {spec.max_pixels}; {family.name} needs {smallest}, one visual token")

    @property
    def settings(self) -> Mapping[str, Any]:
        upstream = {name: self.family.settings[name] for name in ("model", "processor")}
        unit = self.unit_fusion and not self.always_unit and self.fusion != "concat"
        fusion = f"{self.fusion}, normalised" if unit else self.fusion
        base = {"base": base_identity(self.location, self.spec.revision)}
        return {**upstream, **base, "fusion": fusion, "pooling": self.pooling, "max_pixels": self.spec.max_pixels}

    def load_processor(self) -> Any:
        import colpali_engine.models

        upstream = getattr(colpali_engine.models, self.family.settings["processor"])
        place, revision = self.location, self.spec.revision
        adapter = adapter_config(place, revision)
        if adapter is not None and os.path.isdir(place) and not any(Path(place).glob("*processor_config.json")):
            place, revision = adapter["base_model_name_or_path"], adapter.get("revision")
        processor = upstream.from_pretrained(place, revision=revision)
        processor.query_prefix = ""  # the prompt comes with the context
        if self.spec.max_pixels is not None:
            images, budget = processor.image_processor, self.spec.max_pixels
            images.size = {"shortest_edge": min(images.size["shortest_edge"], budget), "longest_edge": budget}
        return processor

    def load_model(self) -> Any:
        import colpali_engine.models

        upstream = getattr(colpali_engine.models, self.family.settings["model"])
        names = self.family.settings.get("key_mapping")
        options = {} if names is None else {"key_mapping": dict(names)}
        names = names or getattr(upstream, "_checkpoint_conversion_mapping", {})
        options |= self.weights_options()
        model = load_with_adapter(upstream, self.spec, self.location, adapter_names=names, **options)
        return _headless(model)

    @property
    def adapted(self) -> bool:
        return super().adapted or adapter_config(self.location, self.spec.revision) is not None

    def default_prompt(self, task: TaskMetadata | None, role: Role | None) -> str | None:
        del task, role  # queries and documents are processed alike
        return self.family.settings["query_prefix"]

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Token ids and masks [n, tokens], and what the family's image processor gives, [n, ...]; padded to the
        longest of the batch. Names start with "text." or "image."."""
        texts, images = text_and_image(batch)
        if images is not None and self.family.settings["fusion"] == "image":
            texts = None
        tensors: Tensors = {}
        if texts is not None:
            tensors |= _arrays("text", self.process_texts([context.prompt + text for text in texts]), len(texts))
        if images is not None:
            pages = [rgb(image, over_white=False) for image in images]
            tensors |= _arrays("image", self.process_images(pages, context.prompt), len(pages))
        return tensors

    def process_texts(self, texts: list[str]) -> Mapping[str, Any]:
        """Upstream's tokens of texts with their prompt. PaliGemma's texts are marked as prefix, which attends both
        ways: unmarked, transformers 5 does that in a batch without padding and masks causally in one with, so that a
        query's vectors would hang on its neighbours."""
        inputs = self.processor.process_queries(texts)
        if self.family.settings.get("prefix_attention"):
            inputs["token_type_ids"] = np.zeros(inputs["input_ids"].shape, dtype=np.int64)
        return inputs

    def process_images(self, pages: list[Any], prompt: str) -> Mapping[str, Any]:
        """Upstream's tokens and pixels of pages. Their prompt is part of the model: `prompt` is of texts."""
        del prompt
        return self.processor.process_images(pages)

    def vectors(self, tensors: Tensors) -> TokenVectors:
        from raylib.models.token_vectors import TokenVectors

        parts = [self.embed(inputs) for inputs in _split(tensors)]
        if len(parts) == 1:
            return parts[0]
        text, image = parts
        if self.late:
            return text.beside(image)
        return TokenVectors.dense(fuse(text.values.float(), image.values.float(), self.fusion, unit=self.unit_fusion))

    def heads(self) -> dict[str, torch.nn.Parameter]:
        """The projection of late-interaction families."""
        layer = getattr(self.model, "custom_text_proj", None)
        return {} if layer is None else {f"custom_text_proj.{name}": p for name, p in layer.named_parameters()}

    def features(self, tensors: Tensors) -> dict[str, TokenVectors]:
        import torch

        from raylib.models.token_vectors import TokenVectors

        found = {}
        for inputs in _split(tensors):
            with inputs_of(self.model.custom_text_proj) as seen:
                counts = self.embed(inputs).counts
            real = torch.from_numpy(inputs["attention_mask"].astype(bool)).to(seen[0].device)
            found["image" if "pixel_values" in inputs else "text"] = TokenVectors(seen[0][real], counts)
        return found

    def projected(self, features: Mapping[str, TokenVectors]) -> TokenVectors:
        from raylib.models.token_vectors import TokenVectors

        layer, parts = self.model.custom_text_proj, []
        for hidden in features.values():
            vectors = layer(hidden.values.to(layer.weight.dtype))
            parts.append(TokenVectors(vectors / vectors.norm(dim=-1, keepdim=True), hidden.counts))
        return parts[0] if len(parts) == 1 else parts[0].beside(parts[1])

    def embed(self, inputs: Tensors) -> TokenVectors:
        """The vectors of one part, text or image."""
        from raylib.models.token_vectors import TokenVectors

        options = {} if self.pooling is None else {"pooling_strategy": self.pooling}
        if self.pooling in ("cls", "last"):
            inputs = padded(inputs, "right" if self.pooling == "cls" else "left")
        if hasattr(self.model, "rope_deltas"):
            self.model.rope_deltas = None  # positions that Qwen remembers of the batch before, of another size
        on_device = self.on_device(inputs)
        vectors = self.model(**options, **on_device)
        if not self.late:
            return TokenVectors.dense(vectors)
        real = on_device["attention_mask"].bool()
        return TokenVectors(vectors[real], inputs["attention_mask"].astype(bool).sum(axis=1))

    def fuse(self, text: Embeddings, image: Embeddings) -> Embeddings:
        if self.late:
            return Embeddings.from_list([np.concatenate(pair) for pair in zip(text, image, strict=True)])
        import torch

        words, page = torch.from_numpy(text.dense()), torch.from_numpy(image.dense())
        return Embeddings.from_dense(fuse(words, page, self.fusion, unit=self.unit_fusion).numpy())

    def token_grid(self, batch: Batch) -> list[TokenGrid | None]:
        """Of late-interaction families; the vectors of a text come before those of the page."""
        n = len(next(iter(batch.values())))
        tensors = self.preprocess(batch, self.context(None, "document")) if self.late else {}
        if "image.input_ids" not in tensors:
            return [None] * n
        text_mask = tensors.get("text.attention_mask")
        first = np.zeros(n, dtype=np.int64) if text_mask is None else text_mask.sum(axis=1)
        return page_grids(self.processor, _split(tensors)[-1], first)

    def token_texts(self, batch: Batch) -> list[list[str] | None]:
        """Of late-interaction families, for contents without a page."""
        texts, images = text_and_image(batch)
        if not self.late or texts is None or images is not None:
            return super().token_texts(batch)
        prompt = self.context(None, "query").prompt
        return [*words_of_tokens(self.processor.tokenizer, self.process_texts([prompt + text for text in texts]))]


def _headless(model: Any) -> Any:
    """`model` without the head that predicts words: PaliGemma's maps every token of a page to 257,000 logits, which
    nothing reads, and loading leaves it without weights."""
    import torch

    if hasattr(getattr(model, "model", None), "lm_head"):
        model.model.lm_head = torch.nn.Identity()
    return model


def _pooling(spec: ModelSpec, poolings: tuple[str, ...] | None) -> str | None:
    """The pooling asked for, or the family's default; None for a family without one. Raises UserError."""
    if poolings is None:
        return None
    pooling = spec.pooling or poolings[0]
    if pooling not in poolings:
        raise UserError(f"--pooling is {pooling!r}; {spec.name} has {', '.join(poolings)}")
    return pooling


def _arrays(part: str, inputs: Mapping[str, Any], count: int) -> Tensors:
    """A processor's output as numpy arrays named part.name, checked to have `count` contents along their first axis.

    Labels are left out: PaliGemma's processor makes them for training, and they cost a pass over the vocabulary.
    """
    tensors = {f"{part}.{name}": np.asarray(value) for name, value in inputs.items() if name != "labels"}
    wrong = {name: array.shape for name, array in tensors.items() if array.shape[:1] != (count,)}
    if wrong:
        raise ModelError(f"the processor gave {wrong} for {count} contents; expected their number as the first axis")
    return tensors


def _split(tensors: Tensors) -> list[Tensors]:
    """Undo `_arrays`: the tensors of the text, if any, then those of the image."""
    parts = [{n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)} for p in ("text.", "image.")]
    return [part for part in parts if part]


def padded(inputs: Tensors, side: str) -> Tensors:
    """Per-token arrays with each row's padding on that side, so that the token which is pooled is a real one:
    upstream's "cls" reads position 0 and its "last" position -1, whatever the mask says.
    """
    mask = inputs["attention_mask"]
    length = mask.shape[1]
    real = mask.sum(axis=1)
    shift = mask.argmax(axis=1) + (real if side == "left" else 0)
    order = (np.arange(length) + shift[:, None]) % length
    return {
        name: np.take_along_axis(array, order, axis=1) if array.shape == mask.shape else array
        for name, array in inputs.items()
    }
