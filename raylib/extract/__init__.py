"""Hidden states of vision-language models, as in HALP (hallucination prediction via probing)."""

from raylib.callable_package import make_callable

make_callable(__name__)
