"""What a user writes after --model, and what is found for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylib.errors import UnknownNameError, UserError
from raylib.models.clip import ClipEncoder
from raylib.models.families import FAMILIES
from raylib.models.listing import known_models
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.models.sentence import SentenceEncoder
from raylib.models.untrained import build_clip
from raylib.models.weights import resolve_revision
from tests.models.tiny_families import MODES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def encoder(name: str | Path, **options: Any) -> Encoder:
    found = resolve(ModelSpec(str(name), **options))
    assert isinstance(found, Encoder)
    return found


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill_hub(hub: Path, name: str, files: dict[str, Any]) -> None:
    folder = hub / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    for file, content in files.items():
        (folder / "snapshots" / COMMIT / file).write_text(json.dumps(content))


def test_a_name_of_the_table_brings_mtebs_revision() -> None:
    found = encoder("openai/clip-vit-base-patch16")
    assert isinstance(found, ClipEncoder) and found.family.name == "clip"
    assert found.spec.revision == "57c216476eefef5ab752ec549e440a49ae4ae5f3"
    assert encoder("openai/clip-vit-base-patch16", revision="main").spec.revision == "main"


def test_the_tables_facts_are_mtebs() -> None:
    """Dimension, limit and revision of every member that MTEB knows too."""
    from mteb.models.model_implementations import MODEL_REGISTRY

    checked = 0
    for entry in FAMILIES:
        if not entry.encoder.startswith(("raylib.models.clip:", "raylib.models.sentence:")):
            continue
        for name, member in entry.members.items():
            meta = MODEL_REGISTRY.get(name)
            if meta is not None:
                assert (member.dim, member.max_tokens, member.revision) == (
                    meta.embed_dim,
                    meta.max_tokens,
                    meta.revision,
                ), name
                checked += 1
    assert checked >= 30


def test_a_directory_is_known_by_its_files(tmp_path: Path) -> None:
    build_clip(tmp_path / "clip")
    assert encoder(tmp_path / "clip").family.name == "clip"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "modules.json").write_text("[]")
    assert isinstance(encoder(tmp_path / "text"), SentenceEncoder)
    (tmp_path / "typed").mkdir()
    (tmp_path / "typed" / "config.json").write_text('{"model_type": "siglip2"}')
    assert encoder(tmp_path / "typed").family.name == "siglip"


def test_an_adapters_directory_is_its_base_with_that_adapter(tmp_path: Path) -> None:
    build_clip(tmp_path / "base")
    (tmp_path / "lora").mkdir()
    config = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    found = encoder(tmp_path / "lora")
    assert (found.spec.name, found.spec.adapter) == (str(tmp_path / "base"), str(tmp_path / "lora"))
    with pytest.raises(UserError, match="is an adapter itself"):
        resolve(ModelSpec(str(tmp_path / "lora"), adapter="another"))
    (tmp_path / "lora" / "adapter_config.json").write_text('{"base_model_name_or_path": "some/unknown-base"}')
    with pytest.raises(UserError, match="is an adapter of 'some/unknown-base', which is not here"):
        resolve(ModelSpec(str(tmp_path / "lora")))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no model: expected config.json, modules.json"),
        ({"config.json": "{"}, r"config\.json cannot be read as JSON .* copy it again"),
        ({"config.json": "[]"}, "holds list; expected a JSON object"),
        ({"config.json": '{"architectures": ["BertModel"]}'}, "no family runs BertModel / None .* CLIPModel"),
        ({"adapter_config.json": "{}"}, "names no base model"),
    ],
)
def test_a_directory_that_cannot_be_used_says_why(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        resolve(ModelSpec(str(tmp_path)))


@pytest.mark.parametrize("name", ["/no/such/place", "./nowhere", "models/of/mine", "~/model"])
def test_a_missing_directory_is_no_unknown_name(name: str) -> None:
    with pytest.raises(UserError, match=r"model directory .* does not exist") as caught:
        resolve(ModelSpec(name))
    assert not isinstance(caught.value, UnknownNameError)


def test_an_unknown_name_brings_the_nearest(hub: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve(ModelSpec("openai/clip-vit-base-patch61"))
    assert caught.value.nearest[0] == "openai/clip-vit-base-patch16"
    with pytest.raises(UnknownNameError) as caught:
        resolve(ModelSpec("intfloat/e5-smal"))
    assert "intfloat/e5-small" in caught.value.nearest


def test_a_model_in_the_hub_cache_is_known_by_its_files(hub: Path) -> None:
    fill_hub(hub, "me/my-siglip", {"config.json": {"architectures": ["SiglipModel"]}})
    fill_hub(hub, "me/my-text", {"config.json": {"architectures": ["BertModel"]}, "modules.json": []})
    siglip = encoder("me/my-siglip")
    assert siglip.family.name == "siglip" and siglip.identity["commit"] == COMMIT
    assert isinstance(encoder("me/my-text"), SentenceEncoder)
    fill_hub(hub, "me/half", {})
    with pytest.raises(UnknownNameError, match="no complete copy"):
        resolve(ModelSpec("me/half"))


def test_a_revision_is_resolved_from_the_cache(hub: Path) -> None:
    fill_hub(hub, "me/model", {})
    assert resolve_revision("me/model") == resolve_revision("me/model", COMMIT[:7]) == COMMIT
    assert resolve_revision("me/model", "v2") is None
    assert resolve_revision("me/other") is None
    assert resolve_revision("me/other", "f" * 40) == "f" * 40


def test_a_text_model_of_mteb_keeps_its_prompts_and_revision() -> None:
    from types import SimpleNamespace

    from mteb.models.model_implementations import MODEL_REGISTRY

    name = "intfloat/multilingual-e5-small"
    found = encoder(name)
    assert isinstance(found, SentenceEncoder)
    assert found.spec.revision == MODEL_REGISTRY[name].revision
    found.__dict__["_config"] = {}  # what its hub files would say
    task: Any = SimpleNamespace(name="T", type="Retrieval", prompt=None)
    assert found.context(task, "query").prompt == "query: "
    assert found.context(task, "document").prompt == "passage: "


def test_code_from_the_hub_must_be_allowed() -> None:
    name = "Alibaba-NLP/gte-multilingual-base"
    with pytest.raises(UserError, match=r"runs code from its hub repository.*--trust-remote-code"):
        resolve(ModelSpec(name))
    assert resolve(ModelSpec(name, trust_remote_code=True)).spec.trust_remote_code


def test_every_listed_model_can_be_resolved_but_those_without_a_loader() -> None:
    rows = [row for row in known_models() if row.name is not None]
    assert len(rows) > 900 and len({row.name for row in rows}) == len(rows)
    refused = []
    for row in rows:
        try:
            resolve(ModelSpec(str(row.name), trust_remote_code=True))
        except UserError as error:
            assert "no way to load it" in str(error), row.name
            refused.append(row.name)
    assert 0 < len(refused) < 20


def test_a_family_without_published_models_is_listed_as_what_a_directory_may_hold(tiny: Callable[[str], Path]) -> None:
    rows = known_models()
    unnamed = [row for row in rows if row.name is None]
    assert {"colintern", "bipali", "biqwen2"} <= {row.family for row in unnamed}
    assert sorted({row.family for row in rows} - {"mteb"}) == sorted(entry.name for entry in FAMILIES)
    for row in [row for row in unnamed if row.family not in MODES]:
        found = encoder(tiny(row.family))
        assert found.family.name == row.family and found.family.kind == row.kind
        assert found.modalities == set(row.modalities)
    assert known_models("bipali") == [row for row in unnamed if row.family == "bipali"]


def test_listing_matches_names_and_families() -> None:
    gemma = {row.name: row for row in known_models("GEMMA")}
    assert gemma["google/embeddinggemma-300m"].dim == 768
    assert all("gemma" in f"{row.name} {row.family}".lower() for row in gemma.values())
    assert [row.name for row in known_models("untrained-clip")] == ["raylib/untrained-clip"]
    assert known_models("no such model") == []


def test_a_name_of_the_table_is_resolved_without_heavy_imports() -> None:
    program = (
        "import sys; from raylib.models.registry import resolve; from raylib.models.protocol import ModelSpec\n"
        "resolve(ModelSpec('openai/clip-vit-base-patch16')); resolve(ModelSpec('raylib/hashed-ngrams'))\n"
        "print([m for m in ('torch', 'transformers', 'mteb', 'sklearn', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
