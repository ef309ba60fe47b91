"""Probes over hidden states: what a small classifier reads out of a representation at a layer."""

from raylib.callable_package import make_callable

make_callable(__name__)
