"""Images, and other files, that clients send: data URLs alone, checked by their headers before anything is decoded.

No address that a client names is ever fetched: it could be one that only this machine reaches.
"""

from __future__ import annotations

import base64
import binascii
import re

from raylib.serve.image_header import FORMATS, read_header
from raylib.serve.limits import Limits
from raylib.serve.replies import RequestError

_HEAD = re.compile(r"data:([\w.+/-]{0,64})((?:;[\w.=+-]{0,64}){0,4}),", re.ASCII)


def image_of_url(url: str, limits: Limits, param: str) -> tuple[bytes, int]:
    """The bytes and the pixels of an image in a data URL. Raises RequestError with status 400.

    The bytes are a PNG, JPEG or WebP of at most `limits.image_pixels`; whether they decode shows where they are
    decoded.
    """
    data = bytes_of_url(url, param, "an image as data:image/png;base64,…", "invalid_image")
    return data, checked_pixels(data, limits, param)


def bytes_of_url(url: str, param: str, expected: str, code: str) -> bytes:
    """What a data URL holds. Raises RequestError with status 400 where it is none; expected: what it should be."""
    head = _HEAD.match(url)
    if head is None or ";base64" not in head[2].lower():
        scheme = url[:16].partition(":")[0].lower()
        why = "addresses are not fetched" if scheme in ("http", "https", "file", "ftp", "s3") else "this is none"
        raise RequestError(400, f"{param}: expected {expected}; {why}", param, code)
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, f"{param}: the data URL is not valid base64", param, code) from None


def checked_pixels(data: bytes, limits: Limits, param: str) -> int:
    """Width × height that the header tells. Raises RequestError with status 400 for another format and for more than
    `limits.image_pixels`."""
    header = read_header(data)
    if header is None:
        told = f"{param}: the bytes are no {', '.join(FORMATS)} image"
        raise RequestError(400, told, param, "invalid_image")
    pixels = header.pixels
    if pixels is None or pixels > limits.image_pixels:
        told = f"{param}: the image has more than {limits.image_pixels} pixels; scale it down"
        raise RequestError(400, told, param, "image_too_large")
    if not pixels:
        raise RequestError(400, f"{param}: the image has no pixels", param, "invalid_image")
    return pixels
