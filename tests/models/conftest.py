"""Tiny checkpoints that several files of tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .tiny_families import BUILDERS


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family → a folder with a tiny checkpoint of it, built once. Nobody writes to it."""
    return cache(lambda family: BUILDERS[family](tmp_path_factory.mktemp(family.replace(".", "_"))))
