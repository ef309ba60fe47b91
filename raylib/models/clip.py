"""Two-tower image and text models of transformers: CLIP, SigLIP, SigLIP 2.

Vectors are those of MTEB's CLIPModel and SiglipModelWrapper: not normalised, and for a content with text and image
the sum of both (or, with --fusion, their mean, or both side by side). They are compared by cosine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from raylib.errors import UnsupportedOptionError, UserError
from raylib.models.family import Family
from raylib.models.hooks import inputs_of
from raylib.models.loading import rgb, with_adapter
from raylib.models.pooling import fuse, fusion_name
from raylib.models.protocol import ModelSpec
from raylib.models.torch_encoder import DenseEncoder, HeadedEncoder
from raylib.types import Batch, EncodeContext, Tensors

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from raylib.models.token_vectors import TokenVectors

_TEXT_INPUTS = ("input_ids", "attention_mask")
_IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


class ClipEncoder(DenseEncoder, HeadedEncoder):
    """family.settings: padding (of texts: True or "max_length"), over_white (what a transparent pixel shows)."""

    supported_options: ClassVar[frozenset[str]] = HeadedEncoder.supported_options | {"fusion"}
    similarity = "cosine"

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        self.fusion = fusion_name(spec.fusion)
        self.modalities = frozenset({"text", "image"})
        self.fuses = True

    @property
    def settings(self) -> Mapping[str, Any]:
        return {} if self.fusion == "sum" else {"fusion": self.fusion}

    def load_processor(self) -> Any:
        from transformers import AutoConfig, AutoProcessor

        processor = AutoProcessor.from_pretrained(self.location, **self.pretrained())
        config = AutoConfig.from_pretrained(self.location, **self.pretrained())
        # Some checkpoints leave the tokenizer without a limit; the tower's positions are the real one (77 or 64).
        limit = config.text_config.max_position_embeddings
        processor.tokenizer.model_max_length = min(processor.tokenizer.model_max_length, limit)
        processor.tokenizer.padding_side = "right"  # the towers count positions from the first token of a row
        return processor

    def load_model(self) -> Any:
        from transformers import AutoModel

        model = AutoModel.from_pretrained(self.location, **self.pretrained(), **self.weights_options())
        return with_adapter(model, self.spec.adapter, merge=self.spec.merge)

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Gives input_ids and attention_mask [n, tokens] for texts; pixel_values [n, 3, height, width] for images
        (SigLIP 2 NaFlex: [n, patches, values], with its mask and shapes)."""
        tensors: Tensors = {}
        if "text" in batch:
            texts = self.processor(
                text=[context.prompt + text for text in batch["text"]],
                padding=self.family.settings["padding"],
                truncation=True,
                max_length=self.processor.tokenizer.model_max_length,
                return_tensors="np",
            )
            tensors.update({name: texts[name] for name in _TEXT_INPUTS if name in texts})
        if "image" in batch:
            over_white = self.family.settings["over_white"]
            pictures = [rgb(image, over_white=over_white) for image in batch["image"]]
            # They are RGB already: the processor would copy every page once more to find that out.
            images = self.processor(images=pictures, do_convert_rgb=False, return_tensors="pt")
            tensors.update({name: images[name].numpy() for name in _IMAGE_INPUTS if name in images})
        if not tensors:
            raise UserError(f"{self.spec.name} encodes text and images; this content has {sorted(batch) or 'nothing'}")
        return tensors

    def served(self, text: str | None, image: Image.Image | None, prompt: str = "") -> list[str | list[dict[str, Any]]]:
        if self.family.settings["padding"] == "max_length":
            raise UnsupportedOptionError(
                f"{self.spec.name} reads texts padded to its full length, which servers do not do; leave --endpoint out"
            )
        if image is None:
            return [text or ""]
        if text is not None:
            raise UnsupportedOptionError(
                f"{self.spec.name} adds vectors of text and image that are not normalised; servers give normalised ones"
            )
        return [[{"type": "image", "image": rgb(image, over_white=self.family.settings["over_white"])}]]

    def heads(self) -> dict[str, torch.nn.Parameter]:
        """CLIP's two projections; SigLIP has none."""
        layers = {name: getattr(self.model, name, None) for name in ("text_projection", "visual_projection")}
        return {f"{name}.weight": layer.weight for name, layer in layers.items() if layer is not None}

    def dense(self, inputs: Mapping[str, torch.Tensor], scalars: Mapping[str, str | int]) -> torch.Tensor:
        return self._fused(self._by_part(inputs))

    def features(self, tensors: Tensors) -> dict[str, TokenVectors]:
        from raylib.models.token_vectors import TokenVectors

        with inputs_of(self.model.text_projection) as text, inputs_of(self.model.visual_projection) as image:
            self._by_part(self.on_device(tensors))
        seen = {"text": text, "image": image}
        return {part: TokenVectors.dense(pooled[0]) for part, pooled in seen.items() if pooled}

    def projected(self, features: Mapping[str, TokenVectors]) -> TokenVectors:
        from raylib.models.token_vectors import TokenVectors

        layers = {"text": self.model.text_projection, "image": self.model.visual_projection}
        parts = {part: layers[part](hidden.values.to(layers[part].weight)) for part, hidden in features.items()}
        return TokenVectors.dense(self._fused(parts))

    def _by_part(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Vectors [n, dim] of texts and of images."""
        found = {}
        if "input_ids" in inputs:
            texts = {name: inputs[name] for name in _TEXT_INPUTS if name in inputs}
            found["text"] = self.model.get_text_features(**texts).pooler_output
        if "pixel_values" in inputs:
            images = {name: inputs[name] for name in _IMAGE_INPUTS if name in inputs}
            found["image"] = self.model.get_image_features(**images).pooler_output
        return found

    def _fused(self, by_part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        text, image = by_part.get("text"), by_part.get("image")
        if text is not None and image is not None:
            return fuse(text, image, self.fusion)
        found = image if text is None else text
        assert found is not None, "preprocess gives texts or images"
        return found
