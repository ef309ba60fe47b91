"""Documents that the jobs encoded, as a person looks at them: their text, and an image that a browser can show."""

from __future__ import annotations

import io
from collections.abc import Sequence

from raylib.evaluate.contents import BadContentError, Drawing, Source, decode_image
from raylib.serve.protocol import Content

_HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""How a PNG and a JPEG begin."""


class Rows:
    """Documents as they lie in sources. places [n]: (source, row) of each."""

    def __init__(self, sources: Sequence[Source], places: Sequence[tuple[int, int]]) -> None:
        self._sources, self._places = sources, places

    def show(self, rows: Sequence[int]) -> list[Content]:
        """Texts as a model is given them; images as PNG, JPEG or WebP, None where there is none that can be read."""
        return [self._one(*self._places[row]) for row in rows]

    def _one(self, at: int, row: int) -> Content:
        source = self._sources[at]
        fields = source.fields if source.present is None else source.present[row]
        (found,) = source.rows([row], [name for name in ("text", "image") if name in fields])
        text = found.get("text")
        return Content(text if isinstance(text, str) else None, shown_image(found.get("image")))


def shown_image(image: bytes | Drawing | None) -> bytes | None:
    """As a browser can show it, and upright wherever it can be shown: PNG, JPEG and WebP as they are, others as PNG."""
    if not image:
        return None
    if isinstance(image, bytes) and (image.startswith(_HEADS) or (image[:4], image[8:12]) == (b"RIFF", b"WEBP")):
        return image
    try:
        pixels = image.draw() if isinstance(image, Drawing) else decode_image(image)
    except BadContentError:
        return None
    stream = io.BytesIO()
    (pixels if pixels.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else pixels.convert("RGB")).save(stream, "PNG")
    return stream.getvalue()
