"""A server with the explorer page over a few cards, and nothing read from or written to the home directory."""

import pytest

from tests.serve import page_server
from tests.tasks.local_vidore import private_datasets_cache


@pytest.fixture(scope="package")
def served(tmp_path_factory):
    """Two models of late interaction and a dense one over 12 cards."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch, private_datasets_cache(str(folder / "datasets")):
        patch.setenv("RAYLIB_CACHE", str(folder / "raylib"))
        models = [page_server.RETRIEVER, page_server.UNTRAINED, page_server.DENSE]
        yield page_server.served_of([*page_server.cards(12)], models)
