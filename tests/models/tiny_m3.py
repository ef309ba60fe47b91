"""A tiny random BGE-M3 in the published layout, and its published formulas on one text at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raylib.models.untrained import seeded
from tests.models.helpers import save_sentence

TOKENS = 64
"""Where the tiny tokenizer cuts."""


def save_m3(folder: Path, *, side: str = "right", colbert: int = 32) -> Path:
    """The published layout: a sentence-transformers folder of XLM-R with both heads in it."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    save_sentence(folder, "bge-m3")
    directory = folder / "model"
    names: dict[str, Any] = {"cls_token": "<s>", "sep_token": "</s>", "padding_side": side}
    AutoTokenizer.from_pretrained(directory, **names).save_pretrained(directory)
    model: Any = AutoModel.from_pretrained(directory)
    with torch.no_grad():  # at their usual size, random weights make all first tokens alike
        for weights in model.encoder.parameters():
            if weights.ndim == 2:
                weights *= 8
    model.save_pretrained(directory)
    with seeded(11):
        for head, width in (("colbert", colbert), ("sparse", 1)):
            torch.save(torch.nn.Linear(32, width).state_dict(), directory / f"{head}_linear.pt")
    return directory


class ByHand:
    """One text's three representations, as the paper and FlagEmbedding define them."""

    def __init__(self, directory: Path, text: str, adapter: Path | None = None) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(directory)
        model: Any = AutoModel.from_pretrained(directory).eval()
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter)).eval()
        tokens = tokenizer(text, truncation=True, max_length=TOKENS, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state[0].numpy()
        heads = {h: torch.load(directory / f"{h}_linear.pt", weights_only=True) for h in ("colbert", "sparse")}
        of = {h: hidden @ head["weight"].numpy().T + head["bias"].numpy() for h, head in heads.items()}
        self.dense = hidden[0] / np.linalg.norm(hidden[0])
        self.vectors = of["colbert"][1:] / np.linalg.norm(of["colbert"][1:], axis=1, keepdims=True)
        unused = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
        self.weights: dict[int, float] = {}
        for number, weight in zip(tokens["input_ids"][0].tolist(), of["sparse"][:, 0].tolist(), strict=True):
            if number not in unused and weight > self.weights.get(number, 0.0):
                self.weights[number] = weight

    def scores(self, document: ByHand) -> tuple[float, float, float]:
        shared = self.weights.keys() & document.weights.keys()
        late = (self.vectors @ document.vectors.T).max(axis=1).mean()
        sparse = sum(self.weights[i] * document.weights[i] for i in shared)
        return float(self.dense @ document.dense), sparse, float(late)
