"""The graphs of tiny checkpoints, exported once for all tests of a session and all of its processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raylib.models.exported import ExportedEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The same for every process of pytest-xdist; keys are of contents, so that nobody finds another's graph."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    folder.mkdir(exist_ok=True)
    return folder


def graph_encoder(model: str | Path, exports: Path, runtime: str = "onnx", **options: Any) -> ExportedEncoder:
    found = resolve(ModelSpec(str(model), runtime=runtime, **options))
    assert isinstance(found, ExportedEncoder)
    found.folder = str(exports)
    return found
