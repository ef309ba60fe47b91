"""Tiny checkpoints that several files of tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .tiny_families import BUILDERS, Builder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family → a folder with a tiny checkpoint of it, built once; families of one builder share it. Nobody writes to
    it."""

    @cache
    def built(builder: Builder) -> Path:
        return builder(tmp_path_factory.mktemp("tiny"))

    return lambda family: built(BUILDERS[family])
