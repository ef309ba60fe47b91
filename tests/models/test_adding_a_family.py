"""The worked example of docs/models.md is true: its row and its test are run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.models import families, listing, registry
from raylib.models.family import Family, Member
from raylib.models.listing import known_models
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.untrained import build_tokenizer, seeded

from .helpers import TEXTS, WORDS, assert_same_directions, pictures, vectors

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
NAMES: list[Any] = [np, Family, Member, ModelSpec, resolve, build_tokenizer, seeded]
NAMES += [TEXTS, WORDS, assert_same_directions, pictures, vectors]


def test_one_row_and_one_test_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("## Adding a family of a known mechanism")[1].split("\n## ")[0]
    row, test = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    names = {name: value for name, value in globals().items() if any(value is known for known in NAMES)}
    entry = eval(row, names)
    for module in (families, listing, registry):
        monkeypatch.setattr(module, "FAMILIES", (*families.FAMILIES, entry))
    exec(test, names)
    names["test_metaclip2"](tmp_path)
    (listed,) = known_models("facebook/metaclip-2-mt5-worldwide-b32")
    assert (listed.family, listed.kind, listed.dim, listed.max_tokens) == ("metaclip2", "dense", 512, 77)
