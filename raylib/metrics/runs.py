"""Runs: what a search found."""

from __future__ import annotations

Run = dict[str, dict[str, float]]
"""Query id → document id → score, the greater the better."""
