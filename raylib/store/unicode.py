"""Texts that are no Unicode, and so can be in no file."""

SURROGATE = "it holds half of a surrogate pair, which is no character"
"""Why a text that is not `is_unicode` cannot be used."""


def is_unicode(text: str) -> bool:
    """False for half of a pair of surrogates, which JSON can spell and no file can hold."""
    try:
        text.encode()  # an order of magnitude faster than to look at the characters
    except UnicodeEncodeError:
        return False
    return True
