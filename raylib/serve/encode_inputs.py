"""The files behind a folder of `raylib encode`, read again for whoever wants to see a document."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import tempfile
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from raylib.errors import RaylibError
from raylib.evaluate.contents import BadContentError, Source
from raylib.serve.protocol import Content
from raylib.serve.shown import Rows

_logger = logging.getLogger(__name__)


class EncodedInputs:
    """options: of the run, from its manifest; ids: of the documents. Nothing is read before the first look; what has
    moved or changed since the run is shown without text and image."""

    def __init__(self, options: Mapping[str, Any], ids: Sequence[str]) -> None:
        self._options, self._ids = options, ids
        self._lock = Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._places: dict[str, tuple[Source, int]] = {}

    def show(self, rows: Sequence[int]) -> list[Content]:
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="raylib-serve-")
                self._find(self._folder.name)
            return [self._one(self._ids[row]) for row in rows]

    def _find(self, folder: str) -> None:
        from raylib.encode.config import EncodeConfig
        from raylib.encode.gather import gather
        from raylib.encode.inputs import find_inputs
        from raylib.encode.readers import read_items

        known = {field.name for field in dataclasses.fields(EncodeConfig)}
        config = EncodeConfig(**{name: value for name, value in self._options.items() if name in known})
        try:
            inputs = find_inputs(config.input, leave_out=[config.output_folder, config.store_folder])
            items = itertools.chain.from_iterable(read_items(file, config) for file in inputs.files)
            contents = gather(itertools.islice(items, config.limit), folder, config.dpi)
        except RaylibError as error:
            _logger.warning("documents cannot be shown: %s", error)
            return
        for group in contents.groups:
            for row, name in enumerate(group.source.ids):
                self._places[name] = group.source, row

    def _one(self, name: str) -> Content:
        if name not in self._places:
            return Content()
        source, row = self._places[name]
        try:
            return Rows([source], [(0, row)]).show([0])[0]
        except BadContentError:
            return Content()
