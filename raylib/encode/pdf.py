"""Pages of PDFs, drawn one at a time by PDFium.

PDFium is for one thread at a time; processes draw side by side.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from raylib.evaluate.contents import MAX_IMAGE_PIXELS, BadContentError

if TYPE_CHECKING:
    from PIL import Image

DRAWING_VERSION = 1
"""Part of the name of a page in the store: to be raised when pages are drawn differently."""

_POINTS_PER_INCH = 72
_MAX_OPEN = 8
_REASONS = {
    0: "it has no pages, or is damaged",
    3: "it is no PDF, or damaged",
    4: "it is encrypted: save it without a password",
    5: "its security scheme is not supported: save it without protection",
}
"""By PDFium's error code."""

_lock = threading.RLock()
_open: OrderedDict[Hashable, Any] = OrderedDict()


def count_pages(file: str | bytes) -> int:
    """Pages of a PDF, by its path or its bytes. Raises BadContentError where it cannot be opened or has none."""
    with _lock:
        document = _load(file)
        try:
            pages = len(document)
        finally:
            document.close()
    if pages == 0:
        raise BadContentError("the PDF has no pages")
    return pages


def draw_page(name: Hashable, file: str | bytes, page: int, dpi: int) -> Image.Image:
    """Page number `page` from 0, in RGB on white; form fields are filled in. `name` tells open documents apart.

    Raises BadContentError where it cannot be drawn, or would have more than MAX_IMAGE_PIXELS.
    """
    with _lock:
        try:
            return _draw(_document(name, file), page, dpi)
        except (BadContentError, MemoryError):
            raise
        except Exception as error:
            what = " ".join(str(error).split()) or type(error).__name__
            raise BadContentError(f"the page cannot be drawn: {what}") from error


def page_pixels(name: Hashable, file: str | bytes, page: int, dpi: int) -> int:
    """Pixels that `draw_page` would give, without drawing; 0 where the page does not tell."""
    with _lock:
        try:
            width, height = _document(name, file).get_page_size(page)
        except Exception:  # drawing will say what is wrong
            return 0
    return round(width * dpi / _POINTS_PER_INCH) * round(height * dpi / _POINTS_PER_INCH)


def _draw(document: Any, number: int, dpi: int) -> Image.Image:
    page = document[number]
    try:
        width, height = (round(side * dpi / _POINTS_PER_INCH) for side in page.get_size())
        if width * height > MAX_IMAGE_PIXELS:
            raise BadContentError(
                f"the page would have {width}×{height} pixels, at most {MAX_IMAGE_PIXELS:,} are drawn; lower --dpi"
            )
        if width < 1 or height < 1:
            raise BadContentError(f"the page has no pixels at {dpi} dpi ({width}×{height})")
        bitmap = page.render(scale=dpi / _POINTS_PER_INCH)
        try:
            return bitmap.to_pil().convert("RGB").copy()  # its own pixels: the bitmap's memory is freed
        finally:
            bitmap.close()
    finally:
        page.close()


def _document(name: Hashable, file: str | bytes) -> Any:
    """An open document; the last few stay open, for pages of one follow each other."""
    if name in _open:
        _open.move_to_end(name)
        return _open[name]
    while len(_open) >= _MAX_OPEN:
        _open.popitem(last=False)[1].close()
    if not _open:
        atexit.register(_close_all)  # before PDFium's own end, which complains of open documents
    document = _load(file)
    with contextlib.suppress(Exception):  # a document whose form is damaged is drawn without it
        document.init_forms()
    _open[name] = document
    return document


def _close_all() -> None:
    while _open:
        _open.popitem()[1].close()


def _load(file: str | bytes) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        reason = _REASONS.get(getattr(error, "err_code", -1), " ".join(str(error).split()))
        raise BadContentError(f"the PDF cannot be opened: {reason}") from error
    except OSError as error:
        raise BadContentError(f"the PDF cannot be read: {error.strerror or error}") from error
