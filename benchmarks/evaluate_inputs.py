"""What `benchmarks/evaluate.py` measures on: random-weight checkpoints and synthetic A4 pages, all built here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raylib.tasks.synthetic import EXAMPLES, write_example

Layout = Literal["v1", "v2"]

PAGE_PIXELS = (827, 1170)
"""A4 at 100 dpi, stored as PNG."""

QUERIES = 50
"""Per language; ViDoRe's own tasks have 50 to 500."""


@dataclass(frozen=True)
class BenchmarkModel:
    """name: for the table. loader: the MTEB model whose wrapper the plain side uses. build: writes the checkpoint."""

    name: str
    note: str
    loader: str
    build: Callable[[str | Path], None]


@dataclass(frozen=True)
class Case:
    """One model on one data set. target: the least ratio that was promised, where one was."""

    model: BenchmarkModel
    layout: Layout
    pages: int
    target: float | None = None

    @property
    def task(self) -> str:
        return EXAMPLES[self.layout][0]

    @property
    def data(self) -> str:
        return f"{self.layout}-{self.pages}"


def build_tiny_clip(directory: str | Path) -> None:
    from raylib.models.untrained import build_clip

    build_clip(directory)


def build_tiny_colpali(directory: str | Path) -> None:
    from raylib.models.untrained import build_colpali

    build_colpali(directory)


def build_heavier_clip(directory: str | Path) -> None:
    """The tiny CLIP with eight layers of ViT-S/32 as its vision tower, on 224 pixels: its forward costs more than the
    decoding of a page and its resizing together."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from raylib.models.untrained import build_clip, seeded

    build_clip(directory)
    config: Any = CLIPConfig.from_pretrained(directory)
    tower = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 6}
    config.vision_config.update({**tower, "image_size": 224, "patch_size": 32})
    with seeded(0):
        CLIPModel(config).save_pretrained(directory)
    images = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    tokenizer: Any = CLIPProcessor.from_pretrained(directory)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer.tokenizer).save_pretrained(directory)


CLIP_WRAPPER, COLPALI_WRAPPER = "openai/clip-vit-base-patch16", "vidore/colpali-v1.3"
TINY_CLIP = BenchmarkModel("tiny CLIP", "decoding dominates", CLIP_WRAPPER, build_tiny_clip)
TINY_COLPALI = BenchmarkModel("tiny ColPali", "late interaction", COLPALI_WRAPPER, build_tiny_colpali)
HEAVIER_CLIP = BenchmarkModel("heavier CLIP", "the forward dominates", CLIP_WRAPPER, build_heavier_clip)
MODELS = (TINY_CLIP, TINY_COLPALI, HEAVIER_CLIP)

FULL = [
    *(Case(model, "v2", 200, target=3.0) for model in MODELS),
    *(Case(model, "v1", 1000, target=1.0) for model in (TINY_CLIP, HEAVIER_CLIP)),
]
"""Measured in every round."""

SIZES = [
    Case(TINY_COLPALI, "v1", 1000, target=1.0),
    Case(TINY_CLIP, "v1", 200),
    Case(TINY_CLIP, "v2", 1000, target=3.0),
]
"""Measured in the first round only: they take long, or decide nothing."""

QUICK = [Case(TINY_CLIP, "v2", 24), Case(TINY_COLPALI, "v1", 24)]
"""Shows that everything runs; too small to say anything about speed."""


def build_model(model: BenchmarkModel, root: str) -> str:
    """The folder of the checkpoint, built on first use."""
    folder = os.path.join(root, "models", model.name.replace(" ", "-").replace("/", "-").lower())
    if not os.path.isdir(folder):
        os.makedirs(folder)
        model.build(folder)
    return folder


def write_pages(layout: Layout, pages: int, root: str) -> None:
    """The data set of a case under root/data/<layout>-<pages>; runs in a process of its own."""
    options = {"pages": pages, "queries": min(QUERIES, pages), "size": PAGE_PIXELS}
    write_example(layout, os.path.join(root, "data", f"{layout}-{pages}"), **options)
