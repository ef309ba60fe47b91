"""Nothing is read from or written to the home directory."""

import pytest

from tests.tasks.local_vidore import private_datasets_cache


@pytest.fixture(autouse=True, scope="package")
def private_caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYLIB_CACHE", str(folder / "raylib"))
        with private_datasets_cache(str(folder / "datasets")):
            yield
