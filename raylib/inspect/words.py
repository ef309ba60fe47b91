"""The words of a query, from its tokens: what a person points at is a word, what a model compares is a token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WIDE = 0x2E80
"""From here on (CJK) words are written without spaces between them; every token stays alone."""


@dataclass(frozen=True)
class Word:
    """text: as it stands in the query. tokens: which of the query's vectors are its own, in order. special: it is no
    word of the query but of the prompt before it, or one that the model adds."""

    text: str
    tokens: tuple[int, ...]
    special: bool = False


def words_of(tokens: Sequence[str], text: str, prompt: str = "") -> list[Word]:
    """Tokens (see `Encoder.token_texts`) of prompt + text → words. Parts of one word are joined; the tokens of the
    prompt are one special word, and neighbours of one special name (<pad>) are one. Tokens that do not say where a
    word begins stay alone."""
    tells = any(token[:1].isspace() for token in tokens[1:]) or len(text.split()) == 1
    found: list[Word] = []
    said = ""
    wanted = prompt.strip()
    for place, token in enumerate(tokens):
        named = re.fullmatch(r"<[^<>\s]+>|\[[A-Z]+\]", token.strip()) is not None
        of_prompt = not named and bool(wanted) and len(said) < len(wanted) and wanted.startswith((said + token).strip())
        if of_prompt:
            said = (said + token).lstrip()
        last = found[-1] if found else None
        if last is not None and _joins(last, token, named, of_prompt, said == token.lstrip(), tells):
            joined = last.text if named else last.text + token
            found[-1] = Word(joined, (*last.tokens, place), last.special)
        else:
            found.append(Word(token.strip() or token, (place,), named or of_prompt))
    return found


def _joins(last: Word, token: str, named: bool, of_prompt: bool, starts_prompt: bool, tells: bool) -> bool:
    """Whether a token belongs to the word before it."""
    if named:
        return last.text == token.strip()
    if of_prompt:
        return not starts_prompt
    before, after = last.text[-1:], token[:1]
    letters = (before.isalnum() and after.isalnum()) or "�" in (before, after)
    return tells and not last.special and letters and not _WIDE <= max(ord(before), ord(after)) < 0xFFFD
