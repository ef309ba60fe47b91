"""A vector's key in the store follows what decides the vector, and nothing else, in every family."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from raylib.errors import UnsupportedOptionError
from raylib.evaluate.contents import Source
from raylib.evaluate.plan import Plan
from raylib.models.families import FAMILIES
from raylib.models.families_vlm import VLM
from raylib.models.family import Family
from raylib.models.protocol import Encoder
from raylib.types import Role

from . import tiny_vlm
from .helpers import encoder_for
from .tiny_families import LEXICAL, MODES, REFUSED, TINY, contents

CHANGES: dict[str, Any] = {
    "dtype": "bfloat16",
    "pooling": "cls",  # no tiny checkpoint's own
    "embedding_dim": 16,
    "max_pixels": 56 * 56,
    "fusion": "mean",
    "query_prompt": "find: ",
    "document_prompt": "page: ",
}
"""Option → a value under which some vectors are others. "adapter" stands apart, being files."""

ONE_VALUE = {"pooling": {entry.name for entry in VLM}}
"""Option → families that have it with one meaning, so that it cannot change a vector."""

KEEPS: dict[str, Any] = {"merge": False, "attention": "eager", "compile": True}
"""Option → a value under which all vectors stay what they are."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {"fusion": "sum"},
    "siglip": {"fusion": "sum"},
    "sentence-transformers": {"pooling": "mean", "embedding_dim": 32},
    "qwen3-embedding": {"pooling": "last", "embedding_dim": 32},
    "bigemma3": {"pooling": "last", "embedding_dim": 32, "fusion": "sum", "query_prompt": "Query: "},
    "colgemma3": {"query_prompt": "Query: ", "document_prompt": "Query: "},
    "colqwen2.5": {"query_prompt": "Query: "},
    "biqwen2": {"pooling": "last", "query_prompt": ""},
    "bimodernvbert": {"pooling": "mean"},
    "gme-qwen2-vl": {"pooling": "last", "max_pixels": 1280 * 28 * 28},
    "vlm2vec": {"pooling": "eos", "max_pixels": 1280 * 28 * 28},
    "b3-qwen2-vl": {"pooling": "eos", "query_prompt": ""},
    "vlm2vec-llava-next": {"pooling": "eos"},
    "colintern": {"query_prompt": "", "document_prompt": ""},
}
"""Options spelled out that a family takes anyway; of its tiny checkpoint, where its files decide."""

each_family = pytest.mark.parametrize("entry", TINY, ids=lambda entry: entry.name)
Tiny = Callable[[str], Path]


def png(page: Any) -> dict[str, Any]:
    stream = io.BytesIO()
    page.save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


PAGES = [png(page) for page in tiny_vlm.mixed_pages()]


def keys(encoder: Encoder, role: Role) -> list[bytes]:
    """Of texts, pages and contents with both, as far as the family takes them."""
    plan = Plan(encoder)
    found: list[bytes] = []
    for columns in contents(encoder.family, tiny_vlm.QUERIES, PAGES).values():
        texts = datasets.Dataset.from_dict({"text": columns["text"]}) if "text" in columns else None
        images = datasets.Dataset.from_dict({"image": columns["image"]}) if "image" in columns else None
        source = Source("T/test/default", [str(i) for i in range(4)], texts, images)
        found += plan.add(source, encoder.context(None, role))
    for batch_size in (1, 8):
        assert {key for batch in plan.batches(batch_size) for key in batch.keys} == set(found)
    return found


def both_sides(entry: Family, folder: Path, **options: Any) -> list[bytes]:
    encoder = encoder_for(folder, entry.name, **options)
    return [*keys(encoder, "query"), *keys(encoder, "document")]


def save_adapter(entry: Family, folder: Path, weights: str = "weights") -> str:
    """Files that look like a peft adapter, or like ColIntern heads: keys do not need what is in them."""
    folder.mkdir(parents=True)
    if entry.name == "colintern":
        (folder / "colintern_heads_step1.pt").write_text(weights)
    else:
        (folder / "adapter_config.json").write_text(json.dumps({"r": 4}))
        (folder / "adapter_model.safetensors").write_text(weights)
    return str(folder)


def test_every_family_with_weights_is_here() -> None:
    here = [*(entry.name for entry in [*TINY, *LEXICAL]), *REFUSED, *MODES]
    assert sorted(here) == sorted(entry.name for entry in FAMILIES)


@each_family
def test_a_key_changes_with_what_decides_the_vector(entry: Family, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(entry.name)
    encoder = encoder_for(folder, entry.name)
    assert encoder.supported_options <= {*CHANGES, *KEEPS, "adapter"}, "an option of which nothing is said here"
    asked = [
        {name: value}
        for name, value in CHANGES.items()
        if name in encoder.supported_options and entry.name not in ONE_VALUE.get(name, ())
    ]
    asked += [{"adapter": save_adapter(entry, tmp_path / name, name)} for name in ("one", "two")]
    found = [both_sides(entry, folder, **options) for options in [{}, *asked]]
    prompts = {"query_prompt", "document_prompt"}
    for first, options in zip(found, [{}, *asked], strict=True):
        for second, others in zip(found, [{}, *asked], strict=True):
            if options != others and not prompts & (options.keys() | others.keys()):
                assert not set(first) & set(second), (options, others)
    plain, half = found[0], len(found[0]) // 2
    by_prompt = {next(iter(options)): keys for keys, options in zip(found, [{}, *asked], strict=True) if options}
    assert by_prompt["query_prompt"][half:] == plain[half:] and not set(by_prompt["query_prompt"][:half]) & set(plain)
    assert by_prompt["document_prompt"][:half] == plain[:half]
    assert not set(by_prompt["document_prompt"][half:]) & set(plain)


@each_family
def test_a_key_stays_under_everything_else(entry: Family, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(entry.name)
    plain = both_sides(entry, folder)
    assert len(set(plain)) == len(plain)
    copied = shutil.copytree(folder, tmp_path / "elsewhere" / "copied")
    (copied / "README.md").write_text("notes")
    assert both_sides(entry, copied) == plain
    for options in [{"device": "cpu"}, {"device": "cuda:3"}, {"dtype": "float32"}, DEFAULTS.get(entry.name, {})]:
        assert both_sides(entry, folder, **options) == plain, options
    supported = encoder_for(folder, entry.name).supported_options
    for options in [{name: value} for name, value in KEEPS.items() if name in supported]:
        assert both_sides(entry, folder, **options) == plain, options
    adapters = [save_adapter(entry, tmp_path / "lora" / name) for name in ("here", "there")]
    assert len({tuple(both_sides(entry, folder, adapter=adapter)) for adapter in adapters}) == 1
    travelled = pickle.loads(pickle.dumps(encoder_for(folder, entry.name)))
    assert [*keys(travelled, "query"), *keys(travelled, "document")] == plain


@each_family
def test_an_option_that_a_family_does_not_have_is_refused(entry: Family, tiny: Tiny) -> None:
    supported = encoder_for(tiny(entry.name), entry.name).supported_options
    others = {name: value for name, value in CHANGES.items() if name not in supported}
    for name, value in others.items():
        with pytest.raises(UnsupportedOptionError, match=f"has no option --{name.replace('_', '-')}; it has: "):
            encoder_for(tiny(entry.name), entry.name, **{name: value})
    assert {"adapter", "merge", "dtype", "query_prompt", "document_prompt"} <= supported
    if entry.kind != "dense" or "image" not in entry.modalities:  # which of the others have it: test_batches.py
        assert "fusion" not in supported
