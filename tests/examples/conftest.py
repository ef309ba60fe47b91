"""Nothing is read from or written to the caches of the home directory."""

import pytest
from datasets import config


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("RAYLIB_CACHE", str(folder / "raylib"))
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", folder / "datasets")
