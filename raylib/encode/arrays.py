"""Vectors of a few texts and images in memory, as arrays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.encode.gather import gather
from raylib.encode.planned import Planned, resolve_encoder, this_process
from raylib.encode.readers import Item
from raylib.errors import UserError
from raylib.evaluate.batching import BatchLimits
from raylib.evaluate.contents import encoded_image
from raylib.evaluate.encode import no_progress
from raylib.evaluate.errors_file import listed
from raylib.models.protocol import Encoder, ModelSpec
from raylib.store.embeddings import Shelf
from raylib.types import Role

if TYPE_CHECKING:
    from PIL import Image

_last: list[tuple[ModelSpec, Encoder]] = []
"""The model of the last call, which stays loaded for the next one."""


def encode_arrays(
    spec: ModelSpec,
    texts: Sequence[str] | None,
    images: Sequence[Image.Image | str | bytes] | None,
    role: Role,
    batch_size: int,
    store: str | None,
) -> np.ndarray | list[np.ndarray]:
    """[n, dim] float32, or for late interaction a list of [tokens, dim] float32, in the order of what was given.

    texts and images of one length are contents of both. Raises UserError for what this model cannot be given, and for
    contents that cannot be used, by position.
    """
    encoder = _encoder(spec)
    with tempfile.TemporaryDirectory(prefix="raylib-encode-") as folder:
        contents = gather(_items(texts, images), folder, dpi=72)
        planned = Planned.of(encoder, contents, role)
        if planned.unreadable:
            raise UserError(next(iter(planned.unreadable.values())))
        shelf = Shelf(store or os.path.join(folder, "store"), encoder.fingerprint)
        planned.encode_missing(shelf, this_process().stage_with(no_progress), BatchLimits(batch_size))
        bad = planned.bad_contents()
        if bad:
            raise UserError(f"{len(bad)} of {len(contents.ids)} contents cannot be encoded\n{listed(bad)}")
        keys: Any = planned.keys
        vectors = shelf.get(keys).astype(np.float32)
    return list(vectors) if encoder.similarity == "maxsim" else vectors.dense()


def _items(texts: Sequence[str] | None, images: Sequence[Image.Image | str | bytes] | None) -> Iterator[Item]:
    for name, given in (("texts", texts), ("images", images)):
        if isinstance(given, str | bytes):
            raise UserError(f"{name} is one {type(given).__name__}; expected a list")
    sides = [side for side in (texts, images) if side is not None]
    if not sides or not len(sides[0]):
        raise UserError("nothing to encode; give texts=[...], images=[...] or both")
    n = len(sides[0])
    if any(len(side) != n for side in sides):
        raise UserError(f"{len(sides[0])} texts and {len(sides[1])} images; expected one of each per content")
    for i in range(n):
        text = texts[i] if texts is not None else None
        if text is not None and not isinstance(text, str):
            raise UserError(f"texts[{i}] is {type(text).__name__}, expected text")
        image = _image(images[i], i) if images is not None else None
        yield Item(str(i), "memory", text, image)


def _image(given: Any, at: int) -> bytes:
    if isinstance(given, bytes):
        return given
    if isinstance(given, str | os.PathLike):
        try:
            with open(given, "rb") as stream:
                return stream.read()
        except OSError as error:
            raise UserError(f"images[{at}]: {given} cannot be read: {error.strerror or error}") from error
    if not hasattr(given, "save"):
        raise UserError(f"images[{at}] is {type(given).__name__}; expected a PIL image, bytes or a path")
    return encoded_image(given) or b""


def _encoder(spec: ModelSpec) -> Encoder:
    """The encoder of `spec`, with its weights where the last call was for it and its files are what they were."""
    encoder = resolve_encoder(spec)
    if _last and _last[0][0] == spec and _last[0][1].fingerprint == encoder.fingerprint:
        return _last[0][1]
    _last[:] = [(spec, encoder)]
    return encoder
