"""One Ray for the tests of this folder, started when the first of them needs it; never one that runs already.

Temporary folders are short: Ray puts sockets in them, whose paths may have 107 bytes.
"""

import logging
import os
import shutil
import tempfile

import pytest

from tests.tasks.local_vidore import private_datasets_cache, write_local_vidore

CPUS = 4
"""Logical ones: enough for three workers and what feeds them, whatever the machine has."""


@pytest.fixture(scope="session")
def watched(tmp_path_factory):
    """Where the toys of this folder write down what they do; see `tests.cluster.watched_toys`."""
    folder = tmp_path_factory.mktemp("watched")
    os.environ["RAYLIB_WATCHED"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def cluster(watched):
    """A running local Ray that this process is connected to. `raylib.cluster.session` takes it for a remote one."""
    import ray

    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=CPUS,
        include_dashboard=False,
        object_store_memory=2**30,
        _system_config={"metrics_report_interval_ms": 500},
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def shipping(request, monkeypatch):
    """How contents reach the workers: by "path" on a cluster started here, by "value" through Ray elsewhere."""
    monkeypatch.setattr("raylib.cluster.session._started_here", request.param == "path")
    return request.param


@pytest.fixture(autouse=True, scope="session")
def private_caches(tmp_path_factory):
    with private_datasets_cache(str(tmp_path_factory.mktemp("datasets"))):
        yield


@pytest.fixture(scope="session")
def vidore(tmp_path_factory):
    """A folder with all four ViDoRe layouts: 40 pages, 12 queries a language."""
    root = tmp_path_factory.mktemp("vidore")
    write_local_vidore(str(root), pages=40, queries=12, size=(48, 64))
    return str(root)
