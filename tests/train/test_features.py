"""Training the heads of a frozen backbone: the same weights whether its features are kept in the store or not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import raylib
from raylib.errors import UserError
from raylib.models.intern_heads import read_heads
from raylib.models.protocol import ModelSpec
from raylib.train.new_heads import with_heads
from tests.models import tiny_intern

from .made_runs import most_different

N = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Questions about pages of different sizes, some with a hard negative; two documents are texts."""
    found = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(N):
        size = (56 * int(rng.integers(1, 4)), 56 * int(rng.integers(1, 3)))
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(found / f"p{i}.png")
        row = {"query": f"sort the list {i}" * (1 + i % 3), "pos": f"p{i}.png"}
        if i % 3 == 0:
            row["negs"] = [f"p{(i + 1) % N}.png"]
        rows.append(row)
    (found / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found / "internvl").mkdir()
    tiny_intern.build(found / "internvl")
    return found


@pytest.fixture
def settings(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "cache"))
    return {
        "data": str(folder / "rows.jsonl"),
        "root": str(folder),
        "batch_size": 5,
        "max_steps": 8,
        "lr": 1e-2,
        "heads_only": True,
        "local": True,
        "quiet": True,
    }


def heads_of(run: Path) -> dict[str, torch.Tensor]:
    found = read_heads(run / "model" / "colintern_heads_latest.pt")
    return {"image": found.image, "text": found.text}


@pytest.mark.parametrize("micro", [None, 2])
def test_both_projections_learn_the_same_with_and_without_the_cache(micro, folder, settings, tmp_path, monkeypatch):
    intern = {**settings, "model": str(folder / "internvl"), "family": "colintern", "head_dim": 8}
    intern["micro_batch_size"] = micro
    store = str(tmp_path / "store")
    raylib.train(**intern, store=store, output_folder=str(tmp_path / "kept"))
    raylib.train(**intern, feature_cache=False, output_folder=str(tmp_path / "live"))
    kept, live = heads_of(tmp_path / "kept"), heads_of(tmp_path / "live")
    assert most_different(kept, live) <= 1e-6

    before = read_heads(Path(with_heads(ModelSpec(intern["model"], family="colintern"), dim=8, seed=0).adapter))
    for part in ("image", "text"):
        assert kept[part].shape == (8, tiny_intern.HIDDEN)
        assert float((kept[part] - getattr(before, part)).abs().max()) > 1e-2

    # A second run on the same store encodes nothing, whatever its heads.
    def fail(*_):
        raise AssertionError("the features are in the store")

    monkeypatch.setattr("raylib.train.features.encode_locally", fail)
    other = {**intern, "seed": 1}
    raylib.train(**other, store=store, output_folder=str(tmp_path / "again"))
    assert most_different(heads_of(tmp_path / "again"), kept) > 1e-2


@pytest.mark.parametrize(("name", "head"), [("dense", "projection"), ("late", "custom_text_proj")])
def test_heads_of_other_families(name, head, tiny, settings, tmp_path):
    from safetensors.torch import load_file

    family = {**settings, "model": tiny[name], "max_steps": 3}
    raylib.train(**family, output_folder=str(tmp_path / "kept"))
    raylib.train(**family, feature_cache=False, output_folder=str(tmp_path / "live"))
    kept, live, before = (
        load_file(next(Path(place).glob("*.safetensors")))
        for place in (tmp_path / "kept" / "model", tmp_path / "live" / "model", tiny[name])
    )
    assert most_different(kept, live) <= 1e-6
    changed = [key for key in kept if not torch.equal(kept[key], before[key])]
    assert changed and all(head in key for key in changed)


def test_legacy_files_are_written_and_begun_from(folder, settings, tmp_path):
    intern = {**settings, "model": str(folder / "internvl"), "family": "colintern", "head_dim": 8, "save_every": 4}
    run = tmp_path / "legacy"
    raylib.train(**intern, save_legacy=True, output_folder=str(run))
    files = sorted(path.name for path in run.glob("colintern_heads_*.pt"))
    assert files == ["colintern_heads_step4.pt", "colintern_heads_step8.pt"]
    saved = torch.load(run / "colintern_heads_step8.pt", weights_only=True)
    assert saved["step"] == 8 and saved["proj_dim"] == 8 and not saved["lora_enabled"]
    assert torch.equal(saved["proj_img"]["weight"], heads_of(run)["image"])
    assert raylib.encode(str(run / "colintern_heads_step8.pt"), texts=["sort"])[0].shape[1] == 8

    more = {**intern, "adapter": str(run / "colintern_heads_step8.pt"), "lr": 1e-12, "max_steps": 1}
    raylib.train(**more, output_folder=str(tmp_path / "more"))
    assert most_different(heads_of(tmp_path / "more"), heads_of(run)) < 1e-6


def test_a_lora_lies_in_the_heads(folder, settings, tmp_path):
    lora = {**settings, "heads_only": False, "lora": True, "lora_r": 2, "lora_dropout": 0.1, "max_steps": 3}
    lora |= {"model": str(folder / "internvl"), "family": "colintern", "head_dim": 8}
    raylib.train(**lora, output_folder=str(tmp_path / "lora"))
    saved = read_heads(tmp_path / "lora" / "model" / "colintern_heads_latest.pt")
    assert saved.lora is not None and saved.lora.r == 2
    changed = [name for name, tensor in saved.lora.state.items() if "lora_B" in name and tensor.abs().max() > 0]
    assert len(changed) == 2 * len(tiny_intern.TARGETS)
    with pytest.raises(UserError, match="has an adapter already"):
        raylib.train(**lora, adapter=str(tmp_path / "lora" / "model"), output_folder=str(tmp_path / "twice"))
