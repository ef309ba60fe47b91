"""Names for contents: the same content under the same encoder, role and prompt has one key, wherever it comes from.

A field's digest depends on the field alone, so that the bytes of a page are hashed once however many models read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_BYTES = 32


def field_digest(value: Any) -> bytes:
    """SHA-256 of one field of a content: text, image bytes as stored, or JSON-able data; types never equal others."""
    if isinstance(value, bytes):
        return hashlib.sha256(b"b" + value).digest()
    if isinstance(value, str):
        return hashlib.sha256(b"s" + value.encode("utf-8", "surrogatepass")).digest()
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(b"j" + text.encode("utf-8", "surrogatepass")).digest()


def content_key(fingerprint: str, role: str | None, prompt: str, fields: Mapping[str, bytes]) -> bytes:
    """The store's key, 32 bytes: SHA-256 over (encoder fingerprint, role, prompt, the digests of the content's fields).

    fields: field name → `field_digest`. Their order does not matter.
    """
    digest = hashlib.sha256()
    parts = [fingerprint.encode(), (role or "").encode(), prompt.encode("utf-8", "surrogatepass")]
    for name in sorted(fields):
        parts += [name.encode(), fields[name]]
    for part in parts:  # lengths first, so that no two lists of parts read the same
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
