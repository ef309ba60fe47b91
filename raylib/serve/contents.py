"""Inputs of requests → contents, within the limits, or an error that says which input is wrong and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raylib.serve.images import image_of_url
from raylib.serve.limits import Limits
from raylib.serve.protocol import Content
from raylib.serve.replies import RequestError
from raylib.store.unicode import is_unicode

_FORMS = 'a text, or an object such as {"image": "data:image/png;base64,…"}'


class ContentReader:
    """Of one request, whose pixels it counts."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pixels = 0

    def inputs(self, given: Any) -> list[Content]:
        """One content per input. Raises RequestError with status 400."""
        if isinstance(given, str | Mapping):
            return [self._one(given, "input")]
        if not isinstance(given, list):
            raise RequestError(400, f"input is {_kind(given)}; expected {_FORMS}, or a list of these", "input")
        if not given:
            raise RequestError(400, "input is empty; expected at least one text or image", "input")
        self.check_count(len(given), "input")
        if isinstance(given[0], int | list):
            raise RequestError(
                400, "input holds token ids, which are another tokenizer's or may be; send the texts", "input"
            )
        return [self._one(one, f"input[{place}]") for place, one in enumerate(given)]

    def check_count(self, n: int, param: str) -> None:
        if n > self.limits.inputs:
            raise RequestError(400, f"{param} holds {n}; at most {self.limits.inputs} go in one request", param)

    def content(self, text: str | None, image: str | None, param: str) -> Content:
        """Raises RequestError where there is neither, or one of them cannot be used."""
        if text is None and image is None:
            raise RequestError(400, f"{param}: neither text nor image; expected one of them, or both", param)
        return Content(
            None if text is None else self._text(text, param),
            None if image is None else self._image(image, param),
        )

    def _one(self, given: Any, param: str) -> Content:
        if isinstance(given, str):
            return Content(self._text(given, param))
        if not isinstance(given, Mapping):
            raise RequestError(400, f"{param} is {_kind(given)}; expected {_FORMS}", param)
        if "type" in given:
            return self._of_parts([given], param)
        if "content" in given:
            others = sorted(set(given) - {"content", "role"})
            if others:
                raise RequestError(400, f"{param} has {others[0]!r} beside content; expected content alone", param)
            parts = given["content"]
            if isinstance(parts, str):
                return Content(self._text(parts, param))
            if not isinstance(parts, list):
                raise RequestError(400, f"{param}.content is {_kind(parts)}; expected a list of parts", param)
            return self._of_parts(parts, param)
        unknown = sorted(set(given) - {"text", "image"})
        if unknown:
            raise RequestError(400, f"{param} has {unknown[0][:64]!r}; expected text, image or content", param)
        for name in ("text", "image"):
            if given.get(name) is not None and not isinstance(given[name], str):
                raise RequestError(400, f"{param}.{name} is {_kind(given[name])}; expected a string", param)
        return self.content(given.get("text"), given.get("image"), param)

    def _of_parts(self, parts: Sequence[Any], param: str) -> Content:
        """Parts as in OpenAI's chat: at most one text and one image."""
        found: dict[str, str] = {}
        for part in parts:
            kind = part.get("type") if isinstance(part, Mapping) else None
            name, value = None, None
            if kind in ("text", "input_text"):
                name, value = "text", part.get("text")
            elif kind in ("image_url", "input_image"):
                url = part.get("image_url")
                name, value = "image", url.get("url") if isinstance(url, Mapping) else url
            if name is None or not isinstance(value, str):
                form = '{"type": "text", "text": …} or {"type": "image_url", "image_url": {"url": "data:…"}}'
                raise RequestError(400, f"{param}: a part of it cannot be read; expected {form}", param)
            if name in found:
                raise RequestError(400, f"{param} holds two parts of {name}; expected one vector's content", param)
            found[name] = value
        return self.content(found.get("text"), found.get("image"), param)

    def _text(self, text: str, param: str) -> str:
        if not text:
            raise RequestError(400, f"{param} is an empty text; leave it out", param)
        if len(text) > self.limits.text_characters:
            most = self.limits.text_characters
            raise RequestError(400, f"{param} has {len(text)} characters; at most {most}, cut it", param)
        if not is_unicode(text):
            raise RequestError(400, f"{param} holds half of a surrogate pair; send whole characters", param)
        return text

    def _image(self, url: str, param: str) -> bytes:
        data, pixels = image_of_url(url, self.limits, param)
        self.count(pixels, param)
        return data

    def count(self, pixels: int, param: str) -> None:
        """Of one more image of this request. Raises RequestError where they become too many."""
        self._pixels += pixels
        if self._pixels > self.limits.request_pixels:
            most = self.limits.request_pixels
            raise RequestError(400, f"{param}: the images have more than {most} pixels together; send fewer", param)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
