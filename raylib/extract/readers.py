"""Which reader a model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylib.extract.architectures import architecture
from raylib.extract.reader import Reader
from raylib.extract.reader_fastvlm import FastVlmReader
from raylib.extract.reader_molmo import MolmoReader
from raylib.models.protocol import ModelSpec

READERS: Mapping[str, type[Reader]] = {"processor": Reader, "molmo": MolmoReader, "fastvlm": FastVlmReader}
"""What the table of architectures calls them → the readers."""


def reader_for(spec: ModelSpec, config: Any, place: dict[str, Any]) -> Reader:
    """The reader of a model with this config. place: what a from_pretrained is told besides the name."""
    return READERS[architecture(config.model_type).reader](spec, config, place)
