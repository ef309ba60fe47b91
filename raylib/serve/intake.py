"""What clients send → documents: texts, images and PDFs, checked before anything is believed of them.

Names of clients are labels; none becomes a path. Every error is a UserError that tells the client what to change, and
nothing of the inside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raylib.errors import UserError
from raylib.serve.intake_images import check_image
from raylib.serve.pdf_process import PdfLimits, draw_pages
from raylib.serve.protocol import Content, Document, Metadata
from raylib.store.unicode import SURROGATE, is_unicode


@dataclass(frozen=True)
class IntakeLimits:
    """Of one document, and of one PDF.

    metadata_fields, metadata_characters: of all names and values together. image_pixels: also of a page that is drawn.
    pdf_pixels, pdf_drawn_bytes: of all pages together, as they are drawn. pdf_seconds, pdf_memory_bytes: to draw it.
    """

    id_characters: int = 1024
    text_characters: int = 200_000
    metadata_fields: int = 64
    metadata_characters: int = 16_384
    image_bytes: int = 32 * 2**20
    image_pixels: int = 40_000_000
    pdf_bytes: int = 32 * 2**20
    pdf_pages: int = 500
    pdf_pixels: int = 2_000_000_000
    pdf_drawn_bytes: int = 256 * 2**20
    pdf_seconds: float = 120.0
    pdf_memory_bytes: int = 4 * 2**30


def text_document(
    text: str, id: str | None = None, metadata: Mapping[str, Any] | None = None, limits: IntakeLimits | None = None
) -> Document:
    """A document of text. id: by default one that depends on the content, so that a request sent twice adds one."""
    return document(Content(text), id, metadata, limits)


def image_document(
    image: bytes,
    id: str | None = None,
    text: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    limits: IntakeLimits | None = None,
) -> Document:
    """A document of an image, PNG, JPEG or WebP, maybe with a text beside it. Decodes it: call it in a thread."""
    return document(Content(text, image), id, metadata, limits)


def document(
    content: Content,
    id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    limits: IntakeLimits | None = None,
) -> Document:
    """A document whose parts are all checked. Raises UserError."""
    limits = limits or IntakeLimits()
    if content.text is None and content.image is None:
        raise UserError("the document has neither text nor image; send one of them, or both")
    if content.text is not None:
        check_text(content.text, limits)
    if content.image is not None:
        check_image(content.image, limits.image_bytes, limits.image_pixels)
    name = _digest(content) if id is None else checked_id(id, limits)
    return Document(name, content, checked_metadata(metadata, limits))


def pdf_documents(
    data: bytes,
    name: str,
    metadata: Mapping[str, Any] | None = None,
    *,
    dpi: int = 144,
    limits: IntakeLimits | None = None,
) -> list[Document]:
    """A document per page, "<name>#page=3", drawn as `raylib encode` draws it at `dpi`; its metadata has "page", from
    1, unless the client gave that field. Takes seconds: call it in a thread.

    Raises UserError where it is no PDF, is encrypted or damaged, has no page or too many, or takes too long to draw.
    """
    limits = limits or IntakeLimits()
    if len(data) > limits.pdf_bytes:
        raise UserError(f"the PDF has {len(data)} bytes; at most {limits.pdf_bytes}. Split it")
    common = checked_metadata(metadata, limits)
    checked_id(f"{name}#page={limits.pdf_pages}", limits)
    bounds = PdfLimits(
        limits.pdf_pages,
        limits.image_pixels,
        limits.pdf_pixels,
        limits.pdf_drawn_bytes,
        limits.pdf_seconds,
        limits.pdf_memory_bytes,
    )
    return [
        Document(f"{name}#page={page}", Content(None, image), {"page": page, **common})
        for page, image in enumerate(draw_pages(data, dpi, bounds), 1)
    ]


def check_text(text: Any, limits: IntakeLimits) -> None:
    """Raises UserError for a text that is none, blank, too long, or that no file can hold."""
    if not isinstance(text, str):
        raise UserError(f"the text is {type(text).__name__}; expected a string")
    if len(text) > limits.text_characters:
        raise UserError(f"the text has {len(text)} characters; at most {limits.text_characters}. Split it")
    if not text.strip():
        raise UserError("the text is empty; expected at least one character that is not blank")
    _check_characters(text, "the text")


def checked_id(name: Any, limits: IntakeLimits) -> str:
    """Any text that is not empty: an id is never a path. Raises UserError."""
    if not isinstance(name, str) or not name:
        raise UserError("the id of a document is empty or no string; expected a text, or leave it out")
    if len(name) > limits.id_characters:
        raise UserError(f"the id of a document has {len(name)} characters; at most {limits.id_characters}")
    _check_characters(name, "the id")
    return name


def checked_metadata(metadata: Any, limits: IntakeLimits) -> Metadata:
    """Field → text, number or boolean, as a filter compares them. Raises UserError."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise UserError(f"metadata is {type(metadata).__name__}; expected an object of field → value")
    if len(metadata) > limits.metadata_fields:
        raise UserError(f"metadata has {len(metadata)} fields; at most {limits.metadata_fields}")
    for name, value in metadata.items():
        if not isinstance(name, str) or not name:
            raise UserError("a field of metadata has no name; expected a text")
        _check_characters(name, "a field of metadata")
        if isinstance(value, str):
            _check_characters(value, f"metadata {name!r}")
        elif not isinstance(value, int | float) or not abs(value) < 2**63:  # NaN is not
            raise UserError(f"metadata {name!r} is neither text nor boolean nor a finite number below 2^63")
    if (size := len(json.dumps(dict(metadata)))) > limits.metadata_characters:
        raise UserError(f"metadata has {size} characters as JSON; at most {limits.metadata_characters}")
    return dict(metadata)


def _check_characters(text: str, what: str) -> None:
    if not is_unicode(text):
        raise UserError(f"{what} cannot be used: {SURROGATE}. Send whole characters")
    if "\0" in text:
        raise UserError(f"{what} holds a NUL character (U+0000); leave it out")


def _digest(content: Content) -> str:
    digest = hashlib.sha256()
    for part in ((content.text or "").encode(), content.image or b""):
        digest.update(len(part).to_bytes(8, "little") + part)
    return f"doc-{digest.hexdigest()[:32]}"
