"""Nothing is read from or written to the home directory, and every test makes its models anew."""

import pytest

from tests.tasks.local_vidore import private_datasets_cache


@pytest.fixture
def private_caches(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RAYLIB_CACHE", str(folder / "raylib"))
    with private_datasets_cache(str(folder / "datasets")):
        yield


@pytest.fixture
def fresh_factories(monkeypatch):
    """What a new process starts with: no factory has been called. Gives the models that are made, by name."""
    from raylib.models import mteb_source

    made = {}
    monkeypatch.setattr(mteb_source, "_made", made)
    return made
