"""Caches of the tests of this folder: nothing is read from or written to the home directory."""

import pytest

from tests.tasks.local_vidore import private_datasets_cache


@pytest.fixture(autouse=True)
def private_caches(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RAYLIB_CACHE", str(folder / "raylib"))
    with private_datasets_cache(str(folder / "datasets")):
        yield


@pytest.fixture(scope="session")
def local_copies(tmp_path_factory):
    """A folder that holds all four ViDoRe layouts: 10 pages, 6 queries a language."""
    from tests.tasks.local_vidore import write_local_vidore

    root = tmp_path_factory.mktemp("data")
    write_local_vidore(str(root), pages=10, queries=6, size=(48, 64))
    return root
