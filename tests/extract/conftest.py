"""The tiny checkpoints, each built once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .checkpoints import ALL_BUILDERS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name → the folder of that tiny checkpoint, built on first use and kept for the session."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = ALL_BUILDERS[name](tmp_path_factory.mktemp(name))
        return built[name]

    return folder
