"""Judgements: which documents answer a query, and how well."""

from __future__ import annotations

Qrels = dict[str, dict[str, int]]
"""Query id → document id → grade; from 1 on a document is relevant."""
