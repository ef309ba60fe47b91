"""One tiny checkpoint for every family of the table that has weights: what is promised for all is tested on all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from raylib.models.families import FAMILIES
from raylib.models.families import family as family_named
from raylib.models.families_colpali import COLPALI_ENGINE
from raylib.models.family import Family
from raylib.models.untrained import build_clip

from . import tiny_intern, tiny_llava, tiny_qwen, tiny_vlm
from .helpers import save_sentence, save_siglip

Builder = Callable[[Path], Path]


def _in_place(write: Callable[[Path], None]) -> Builder:
    def build(folder: Path) -> Path:
        write(folder)
        return folder

    return build


def _sentence(shape: str) -> Builder:
    def build(folder: Path) -> Path:
        save_sentence(folder, shape)
        return folder / "model"

    return build


def _intern(folder: Path) -> Path:
    """A base with its heads beside it."""
    tiny_intern.save(folder, tiny_intern.heads(tiny_intern.build(folder)))
    return folder


_qwen = partial(tiny_qwen.build, "2")

BUILDERS: dict[str, Builder] = {
    "clip": _in_place(build_clip),
    "siglip": _in_place(save_siglip),
    "sentence-transformers": _sentence("gemma"),
    "qwen3-embedding": _sentence("qwen"),
    "colintern": _intern,
    **{entry.name: partial(tiny_vlm.build, entry.settings["model"]) for entry in COLPALI_ENGINE},
    "gme-qwen2-vl": _qwen,
    "vlm2vec": _qwen,
    "b3-qwen2-vl": _qwen,
    "vlm2vec-llava-next": tiny_llava.build,
}
"""Family → what writes a tiny checkpoint into a folder, and gives the checkpoint's own."""

REFUSED = ["vlm2vec-phi3v"]
"""Families in the table for the sake of what they say: transformers has no such model (see test_vlm_llava.py)."""

TINY: list[Family] = [family_named(name) for name in BUILDERS]
LEXICAL = [entry for entry in FAMILIES if entry.kind == "lexical"]
MODES = ["bge-m3"]
"""Families that --mode selects, of checkpoints that another family runs without it; test_bge_m3.py has all of this for
them."""


def contents(entry: Family, texts: list[str], pages: list[Any]) -> dict[str, dict[str, list[Any]]]:
    """What this family can be asked: texts, pages, and contents with both."""
    found: dict[str, dict[str, list[Any]]] = {"text": {"text": texts}}
    if "image" in entry.modalities:
        found |= {"image": {"image": pages}, "fused": {"text": texts, "image": pages}}
    return found
