"""A server with the explorer page over a few cards, and nothing read from or written to the home directory."""

import pytest

from tests.serve import page_server
from tests.tasks.local_vidore import private_datasets_cache


@pytest.fixture(autouse=True, scope="package")
def private_caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYLIB_CACHE", str(folder / "raylib"))
        with private_datasets_cache(str(folder / "datasets")):
            yield


@pytest.fixture(scope="package")
def served(private_caches):
    """Two models of late interaction and a dense one over 12 cards."""
    models = [page_server.RETRIEVER, page_server.UNTRAINED, page_server.DENSE]
    return page_server.served_of([*page_server.cards(12)], models)
