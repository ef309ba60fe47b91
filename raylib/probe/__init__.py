"""Probes over hidden states: what a small classifier reads out of a representation at a layer."""
