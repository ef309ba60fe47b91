"""What `benchmarks/train.py` trains on: a BERT with random weights, and pairs of the standard library's documentation,
all built here."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer, seeded
from raylib.tasks import docstrings

LONGEST = 128
"""Tokens of a text; what is longer is cut, by both sides alike."""

_SHORTEST = 60
"""Characters of a document: below that there is nothing to find."""

_READ = 1000
"""Documents that the tokenizer learns its words from."""


@cache
def pairs() -> tuple[tuple[str, str], ...]:
    """(what is defined and in which module, its documentation) of functions and classes, no text twice, in an order by
    chance that is always the same."""
    found: dict[str, str] = {}
    texts: set[str] = set()
    for module in docstrings.collect():
        for entry in module.entries:
            query = f"{entry.heading} in {entry.module}"
            if entry.kind != "module" and len(entry.docstring) >= _SHORTEST and entry.docstring not in texts:
                texts.add(entry.docstring)
                found.setdefault(query, entry.docstring)
    return tuple(sorted(found.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest()))


def write_pairs(path: Path, most: int) -> int:
    """JSONL as `raylib train` reads it; how many there are."""
    chosen = pairs()[:most]
    path.write_text("".join(json.dumps({"query": q, "pos": d}) + "\n" for q, d in chosen), encoding="utf-8")
    return len(chosen)


def build_model(folder: Path, layers: int = 6, hidden: int = 256) -> None:
    """A sentence-transformers model: BERT, mean pooling, without dropout, so that losses can be compared."""
    import transformers as t
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    text = "\n".join(document for _, document in pairs()[:_READ])
    tokenizer = build_tokenizer(names, template="[CLS] $A [SEP]", max_length=LONGEST, vocab_size=8192, text=text)
    size: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LONGEST,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    with seeded(0):
        model = t.BertModel(t.BertConfig(**size))
    model.save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    modules = [Transformer(str(folder / "backbone")), Pooling(hidden, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
