"""What a person would ask, made from the summary line of a docstring.

The name of the thing described is taken out, so that no question can be answered by looking for the name; what
would read badly without it is dropped rather than mended.
"""

from __future__ import annotations

import re

MIN_WORDS = 5
"""Fewer words than this in what remains of a summary say too little to find one page among hundreds."""
MAX_WORDS = 40
"""A longer "sentence" is a list or a table in disguise."""

_CODE = re.compile(r"[()\[\]{}=<>|\\_@^~#%$*]|\w\.\w|::|\w\(|--|\.\.\.|/")
_IDENTIFIER = re.compile(r"\b[A-Z]?[a-z0-9]+[A-Z]\w*[a-z]\w*")  # camelCase, which nobody would ask for
_REMARK = re.compile(r"\s*\((?:[^()]|\([^()]*\))*\)")
_ABBREVIATION = r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)"
_SENTENCE_END = re.compile(rf"(?<=[a-z0-9)'\"`]){_ABBREVIATION}[.!?;:](?=\s|$)|(?<=\w){_ABBREVIATION}[.!?](?=\s+[A-Z])")
_QUOTES = re.compile(r"(?<!\w)[`'\"*]+(?=\w)|(?<=\w)[`\"*]+|(?<=\w)'(?=[\s,.;:]|$)")
_NOUN_PHRASE = re.compile(r"an? (?!.*\b(is|are|was|must|can|will)\b)", re.IGNORECASE)
_EMPTY_TALK = re.compile(r"(this|it) is\b|variables used", re.IGNORECASE)
_GETTERS = frozenset(("return", "returns", "get", "gets", "retrieve", "retrieves", "fetch", "fetches"))
_VERB_LIST = """
accept add append apply assign build calculate call cancel change check clear close combine compare compile
compute connect construct convert copy count create decode define delete determine disable discard display encode
enable encrypt enter execute expand extract fill filter find flush force format generate handle identify include
initialize insert install invoke iterate join list load locate log look make map mark match merge modify move open
override parse pass perform pop prepare prevent print process produce provide push put queue raise read receive
record register release remove rename render replace report request reset resolve resume return reverse rotate run
save scan search select send serialize set show shut shutdown signal skip sort split start stop store strip suspend
switch test transform translate try turn unregister update use validate verify wait walk wrap write yield"""
_VERBS = frozenset(_VERB_LIST.split())


def summary_of(docstring: str) -> str:
    """The first sentence of the first paragraph, on one line; "" where the docstring starts with code."""
    first = docstring.strip().split("\n\n", 1)[0]
    if first.startswith((">>>", "    ")) or re.search(r"\n\s*([-=~^]{3,}|[-*+] )", first):
        return ""
    line = " ".join(first.split())
    end = _SENTENCE_END.search(line)
    return line[: end.start()] if end else line


def query_of(summary: str, name: str) -> str:
    """A question that `summary` answers and that does not hold `name`; "" where no good one can be made.

    A usage line in front ("name(x) -> ", "name -- ") goes, remarks in parentheses and quotation marks go. A summary
    that names the thing anywhere else, or that still has code in it, gives nothing.
    """
    text = re.sub(rf"^[\w.]*{re.escape(name)}(\(.*?\))?\s*(->|--?|:|=>)\s+", "", summary)
    text = _REMARK.sub("", text)
    text = _QUOTES.sub("", text).strip(" .,;:-")
    words = text.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or _CODE.search(text) or _EMPTY_TALK.match(text):
        return ""
    if holds_name(text, name) or _IDENTIFIER.search(text):
        return ""
    return _as_question(words)


def holds_name(text: str, name: str) -> bool:
    """Whether `name` is one of the words of `text`, as written, in another case, or as a plural or verb form."""
    return re.search(rf"\b{re.escape(name)}(s|es|ed|d|ing)?\b", text, re.IGNORECASE) is not None


def _as_question(words: list[str]) -> str:
    """Imperatives become "How do I ...?", noun phrases "Is there ...?"; anything else stays a statement."""
    first, rest = words[0].lower(), " ".join(words[1:])
    stems = (first, first.removesuffix("s"), first.removesuffix("es"))
    verb = next((stem for stem in stems if stem in _VERBS), None)
    if first in ("return", "returns") and rest.lower().startswith(("true", "whether", "if ")):
        condition = re.sub(r"^(true )?(if|when|iff|whether)( and only if)? ", "", rest, flags=re.IGNORECASE)
        return f"How do I know if {condition}?"
    if first in _GETTERS:
        return f"How do I get {rest}?"
    if verb is not None:
        return f"How do I {verb} {rest}?"
    text = " ".join(words)
    return f"Is there {first} {rest}?" if _NOUN_PHRASE.match(text) else text
