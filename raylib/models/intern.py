"""ColIntern: late-interaction vectors of texts and pages, from InternVL (arXiv 2508.18265) under two projections.

A page is seen by the vision tower alone and a text by the language model alone, as in the published ColIntern
(https://github.com/athrael-soju/colinternv0.1). Different from it: pages are cut into tiles by the model's own image
processor, and no padding token becomes a vector. The backbone is transformers' InternVL; the projections come from
`colintern_heads_*.pt` (see intern_heads.py).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.errors import ModelError, UserError
from raylib.models.family import Family
from raylib.models.intern_heads import HEADS, Heads, heads_file, read_heads, transformers_twin, with_lora, write_heads
from raylib.models.intern_inputs import limit_pixels, page_tiles, real_tiles, text_tokens, tile_layout
from raylib.models.loading import rgb, text_and_image
from raylib.models.pooling import normalise
from raylib.models.protocol import ModelSpec, TokenGrid
from raylib.models.token_grid import page_of_tiles, words_of_tokens
from raylib.models.torch_encoder import HeadedEncoder
from raylib.models.weights import local_folder, weights_digest
from raylib.types import Batch, EncodeContext, Tensors

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from raylib.models.token_vectors import TokenVectors

_TILE = 448
"""Side in pixels of a tile, where config.json does not tell it."""


class InternEncoder(HeadedEncoder):
    """One unit vector per token of a text and per visual token of a page (256 for a tile of 448 × 448 pixels).

    A page is scaled to the rows and columns of tiles that suit its shape best; more than one are followed by the whole
    page in one tile. A content with text and image: the text's vectors, then the page's. No prompt of its own.
    `--adapter` names the heads, a file or a folder whose newest file is taken; without it they lie beside the model.
    `--max-pixels` is the most pixels that a page is scaled to: as many tiles, besides the whole page in one.
    """

    supported_options: ClassVar[frozenset[str]] = HeadedEncoder.supported_options | {"max_pixels"}
    similarity = "maxsim"

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        self.modalities = frozenset({"text", "image"})
        self.fuses = True
        self.native_resolution = True
        config = self._base_config()
        if config.get("model_type") == "internvl_chat":
            raise UserError(
                f"{spec.name} has the format of InternVL's own code; expected transformers', which OpenGVLab publishes "
                f"as {transformers_twin('OpenGVLab/InternVL3_5-4B')} and alike. Give that as --model."
            )
        side = config.get("vision_config", {}).get("image_size", _TILE)
        tile = math.prod(side) if isinstance(side, list) else side * side
        if spec.max_pixels is not None and spec.max_pixels < tile:
            raise UserError(f"--max-pixels is {spec.max_pixels}; {spec.name} needs {tile}, one tile")
        # The file itself: a folder may hold a newer one by the time that a worker looks.
        self.spec = replace(spec, adapter=str(self._heads_file()))

    def _base_config(self) -> dict[str, Any]:
        """The backbone's config.json; empty where it is not on this machine."""
        folder = self._folder()
        path = None if folder is None else folder / "config.json"
        return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}

    def _folder(self) -> Path | None:
        return local_folder(self.location, self.spec.revision)

    def _heads_file(self) -> Path:
        if self.spec.adapter is not None:
            if not os.path.exists(self.spec.adapter):
                raise UserError(f"--adapter {self.spec.adapter} does not exist; expected a {HEADS} or its folder")
            return heads_file(self.spec.adapter)
        folder = self._folder()
        if folder is None or not any(folder.glob(HEADS)):
            raise UserError(
                f"{self.spec.name} is InternVL without the projections that make it a retriever. Give a {HEADS} of the "
                "ColIntern trainer, or its folder, as --adapter; or as --model, with the base that it names at hand."
            )
        return heads_file(folder)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Of the heads that lie beside the base, only those that are used count."""
        found = {**super().identity}
        return found | ({"weights": weights_digest(self.location, without=HEADS)} if "weights" in found else {})

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"max_pixels": self.spec.max_pixels}

    # The CPU half.

    def load_processor(self) -> Any:
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(self.location, **self.pretrained())
        if self.spec.max_pixels is not None:
            limit_pixels(processor.image_processor, self.spec.max_pixels)
        return processor

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Gives input_ids and attention_mask [n, tokens] for texts; for images pixel_values [n, tiles, 3, height,
        width], padded with tiles of zeros, and tiles [n], how many are real. Raises UserError for a text without
        tokens, unless a page comes with it."""
        texts, images = text_and_image(batch)
        tensors: Tensors = {}
        if texts is not None:
            tensors |= text_tokens(self.processor.tokenizer, [context.prompt + text for text in texts])
            if images is None and not tensors["attention_mask"].any(axis=1).all():
                raise UserError("a text is empty: it has no token, and so no vector")
        if images is not None:
            tensors |= page_tiles(self.processor.image_processor, [rgb(image) for image in images])
        return tensors

    def token_counts(self, tensors: Tensors) -> np.ndarray | None:
        """Tokens of the text, and visual tokens of all tiles of the page."""
        counts = super().token_counts(tensors)
        if "tiles" not in tensors:
            return counts
        visual = tensors["tiles"] * self._tokens_per_side**2
        return visual if counts is None else counts + visual

    # The accelerator half.

    @property
    def _file(self) -> Path:
        assert self.spec.adapter is not None, "__init__ has found the heads"
        return Path(self.spec.adapter)

    @cached_property
    def saved(self) -> Heads:
        """What the file of heads holds, in host memory or still on disk."""
        return read_heads(self._file)

    @property
    def adapted(self) -> bool:
        return self.saved.lora is not None

    def load_model(self) -> Any:
        from transformers import AutoModel

        options = {"output_loading_info": True, **self.pretrained(), **self.weights_options()}
        model, report = AutoModel.from_pretrained(self.location, **options)
        if report["missing_keys"]:
            shown = ", ".join(sorted(report["missing_keys"])[:3])
            raise ModelError(
                f"{self.spec.name}: {len(report['missing_keys'])} weights of {type(model).__name__} are not in the "
                f"checkpoint ({shown}). Copy it again."
            )
        self._check_width(model.config.text_config.hidden_size)
        if self.saved.lora is not None:
            lora, merge = self.saved.lora, self.spec.merge
            model.language_model = with_lora(model.language_model, lora, self._file, merge=merge)
        return model

    def _check_width(self, hidden: int) -> None:
        heads = self.saved
        if heads.image.shape[1] != hidden:
            base = f", which were trained on {heads.base}" if heads.base else ""
            raise UserError(
                f"{self._file}: proj_img.weight is {list(heads.image.shape)}; {self.spec.name} has a hidden size of "
                f"{hidden}. Use the base of these heads{base}."
            )

    @cached_property
    def projections(self) -> dict[str, torch.nn.Parameter]:
        """The weights of both, in float32 whatever the backbone runs in: they were trained so."""
        import torch

        weights = {"image": self.saved.image, "text": self.saved.text}
        return {part: torch.nn.Parameter(w.to(self.device), requires_grad=False) for part, w in weights.items()}

    def heads(self) -> dict[str, torch.nn.Parameter]:
        return {"proj_img.weight": self.projections["image"], "proj_txt.weight": self.projections["text"]}

    @property
    def adapter_host(self) -> torch.nn.Module:
        return self.model.language_model

    def save(self, folder: str, *, peft: PeftModel | None = None, whole: bool = True, step: int = 0) -> None:
        """Heads, with the LoRA in them; where the backbone has changed as a whole, beside it."""
        if whole and peft is None:
            self.save_model(folder)
        write_heads(
            Path(folder) / "colintern_heads_latest.pt",
            image=self.projections["image"],
            text=self.projections["text"],
            base=self.location,
            dtype=self.dtype,
            step=step,
            peft=peft,
        )

    def load(self) -> None:
        super().load()
        _ = self.projections

    def vectors(self, tensors: Tensors) -> TokenVectors:
        return self.projected(self.features(tensors))

    def projected(self, features: Mapping[str, TokenVectors]) -> TokenVectors:
        parts = [self.project(hidden, part) for part, hidden in features.items()]
        return parts[0] if len(parts) == 1 else parts[0].beside(parts[1])

    @property
    def backbone_identity(self) -> Mapping[str, Any]:
        """Without the projections; a LoRA is in the same file as they are."""
        return {n: v for n, v in self.identity.items() if n != "adapter" or self.adapted}

    def features(self, tensors: Tensors) -> dict[str, TokenVectors]:
        found = {}
        if "input_ids" in tensors:
            found["text"] = self._text_features(tensors)
        if "pixel_values" in tensors:
            found["image"] = self._page_features(tensors)
        return found

    def _text_features(self, tensors: Tensors) -> TokenVectors:
        from raylib.models.token_vectors import TokenVectors

        inputs = self.on_device({name: tensors[name] for name in ("input_ids", "attention_mask")})
        if tensors["attention_mask"].any():
            hidden = self.model.language_model(**inputs, use_cache=False).last_hidden_state
            hidden = hidden[inputs["attention_mask"].to(hidden.device)]  # of several GPUs, another
        else:  # pages whose texts are all empty
            hidden = self.projections["text"].new_zeros(0, self.projections["text"].shape[1])
        return TokenVectors(hidden, tensors["attention_mask"].sum(axis=1))

    def _page_features(self, tensors: Tensors) -> TokenVectors:
        from raylib.models.token_vectors import TokenVectors

        pixels = tensors["pixel_values"][real_tiles(tensors["pixel_values"], tensors["tiles"])]
        found = self.model.get_image_features(**self.on_device({"pixel_values": pixels})).pooler_output
        return TokenVectors(found.flatten(0, 1), tensors["tiles"] * found.shape[1])

    def project(self, hidden: TokenVectors, part: str) -> TokenVectors:
        """values [tokens, hidden] → unit vectors [tokens, dim] in float32. part: "text" or "image"."""
        from raylib.models.token_vectors import TokenVectors

        weight = self.projections[part]
        return TokenVectors(normalise(hidden.values.to(weight) @ weight.T), hidden.counts)

    # What a vector is a vector of.

    def token_grid(self, batch: Batch) -> list[TokenGrid | None]:
        """The visual tokens of the tiles, without the whole page in one; they come after the text's vectors."""
        texts, images = text_and_image(batch)
        if images is None:
            return super().token_grid(batch)
        first = [0] * len(images)
        if texts is not None:
            prompt = self.context(None, "document").prompt
            tokens = text_tokens(self.processor.tokenizer, [prompt + text for text in texts])
            first = tokens["attention_mask"].sum(axis=1).tolist()
        side = self._tokens_per_side
        layouts = [tile_layout(self.processor.image_processor, page) for page in images]
        return [TokenGrid(page_of_tiles(at, *layout, side)) for at, layout in zip(first, layouts, strict=True)]

    @cached_property
    def _tokens_per_side(self) -> int:
        """The visual tokens of a tile are as many rows and columns: 16 of 448 pixels."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.location, **self.pretrained())
        vision = config.vision_config
        return int(vision.image_size[0] // vision.patch_size[0] * config.downsample_ratio)

    def token_texts(self, batch: Batch) -> list[list[str] | None]:
        """For contents without a page."""
        texts, images = text_and_image(batch)
        if texts is None or images is not None:
            return super().token_texts(batch)
        prompt = self.context(None, "query").prompt
        tokenizer = self.processor.tokenizer
        return [*words_of_tokens(tokenizer, text_tokens(tokenizer, [prompt + text for text in texts]))]

    def __getstate__(self) -> dict[str, Any]:
        return {n: value for n, value in super().__getstate__().items() if n not in ("saved", "projections")}
