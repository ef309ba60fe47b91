"""The procedure that `raylib extract` replaces, written anew from what HALP's extraction scripts do to one sample
(https://github.com/alliedbrother/HALP_EACL, Extraction_Script): the other side of `benchmarks/extract.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_DESCRIBE = "Describe the image."


@dataclass
class PerSample:
    """One sample at a time, three passes each.

    model, processor: loaded; tower, blocks: the model's. layers: of which states are kept. new_tokens: of an answer;
    None for no answers. interval: rows of a file.
    """

    model: Any
    processor: Any
    tower: Any
    blocks: list[Any]
    layers: tuple[int, ...]
    new_tokens: int | None
    image_token: int
    device: str
    interval: int = 1000
    vision_tokens: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    """question id → layer → the state at the true last image token, kept only while `check` is on."""
    check: bool = False

    @classmethod
    def of(cls, extractor: Any, new_tokens: int | None, interval: int) -> PerSample:
        """With the weights and the processor of a `raylib.extract.extractor.Extractor`."""
        anatomy = extractor.anatomy
        parts = (extractor.model, extractor.reader.processor, anatomy.tower, anatomy.blocks)
        return cls(*parts, extractor.layers, new_tokens, extractor.reader.image_token, extractor.device, interval)

    def run(self, table: Path, images: Path, output: Path) -> None:
        """All rows of a CSV, one after the other; an HDF5 file as soon as there are `interval` of them."""
        import pandas as pd
        from PIL import Image

        output.mkdir(parents=True, exist_ok=True)
        rows: dict[str, dict[str, Any]] = {}
        parts = 0
        for row in pd.read_csv(table).to_dict("records"):
            image = Image.open(images / row["image_name"]).convert("RGB")
            found = self.sample(row["question_id"], row["question"], image)
            rows[row["question_id"]] = {
                "image_id": row["image_name"],
                "question": row["question"],
                "ground_truth_answer": row["gt_answer"],
                **found,
            }
            self._empty_cache()
            if len(rows) == self.interval:
                parts += 1
                self._write(rows, output, parts)
                rows = {}
        if rows:
            self._write(rows, output, parts + 1)

    def sample(self, question_id: str, question: str, image: Any) -> dict[str, Any]:
        """Answer, vision pass, decoder pass."""
        import torch

        inputs = self._processed(question, image, prompt=True)
        with torch.no_grad():
            answer = self._answer(inputs) if self.new_tokens is not None else ""
            vision = self._vision(image)
            at_image, at_query = self._decoder(question_id, inputs)
        return {
            "vision_only_representation": vision,
            "vision_token_representation": at_image,
            "query_token_representation": at_query,
            "answer": answer,
        }

    def _processed(self, question: str, image: Any, prompt: bool) -> Any:
        """The template as text, then text and image through the processor. (The scripts let the tokenizer put a second
        BOS before that of the template; here it does not, so that both sides read the same prompt.)"""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=prompt)
        inputs = self.processor(text=[text], images=[image], add_special_tokens=False, return_tensors="pt")
        inputs = inputs.to(self.device)
        return inputs.to(self.model.dtype)

    def _answer(self, inputs: Any) -> str:
        settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        tokens = self.model.generate(**inputs, **settings, max_new_tokens=self.new_tokens)
        said = tokens[0, inputs["input_ids"].shape[1] :]
        return self.processor.decode(said, skip_special_tokens=True).strip()

    def _vision(self, image: Any) -> np.ndarray:
        """The image once more through the processor, then through the tower alone."""
        inputs = self._processed(_DESCRIBE, image, prompt=False)
        grid = {"grid_thw": inputs["image_grid_thw"]} if "image_grid_thw" in inputs else {}
        hidden = self.tower(inputs["pixel_values"], **grid).last_hidden_state
        return hidden.mean(dim=-2).flatten().cpu().float().numpy()

    def _decoder(self, question_id: str, inputs: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The whole model, head included, with hooks that keep the states of all tokens of the layers."""
        kept: dict[int, Any] = {}

        def keep(layer: int) -> Any:
            def hook(module: Any, given: Any, output: Any) -> None:
                del module, given
                kept[layer] = (output[0] if isinstance(output, tuple) else output).detach()

            return hook

        hooks = [self.blocks[layer].register_forward_hook(keep(layer)) for layer in self.layers]
        try:
            self.model(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        tokens = inputs["input_ids"].shape[1]
        boundary = self._boundary(inputs, tokens)
        at_image = {f"layer_{n}": hidden[0, boundary].cpu().float().numpy() for n, hidden in kept.items()}
        at_query = {f"layer_{n}": hidden[0, tokens - 1].cpu().float().numpy() for n, hidden in kept.items()}
        if self.check:
            last = int((inputs["input_ids"][0] == self.image_token).nonzero()[-1])
            self.vision_tokens[question_id] = {n: h[0, last].cpu().float().numpy() for n, h in kept.items()}
        return at_image, at_query

    def _boundary(self, inputs: Any, tokens: int) -> int:
        """Where the scripts take the last image token to be."""
        if "image_grid_thw" in inputs:
            return min(int(inputs["image_grid_thw"][0].prod()), tokens // 2)
        return min(255, tokens // 2)

    def _empty_cache(self) -> None:
        import torch

        torch.cuda.empty_cache()

    def _write(self, rows: dict[str, dict[str, Any]], output: Path, part: int) -> None:
        """A group per row; every vector a data set of its own, with gzip."""
        import h5py

        text = h5py.string_dtype()
        with h5py.File(output / f"old_embeddings_part_{part:03d}.h5", "w") as file:
            file.attrs["num_samples"] = len(rows)
            for question_id, row in rows.items():
                group = file.create_group(question_id)
                for name in ("image_id", "question", "ground_truth_answer", "answer"):
                    group.create_dataset(name, data=row[name], dtype=text)
                name = "vision_only_representation"
                group.create_dataset(name, data=row[name], compression="gzip")
                for name in ("vision_token_representation", "query_token_representation"):
                    layers = group.create_group(name)
                    for layer, vector in row[name].items():
                        layers.create_dataset(layer, data=vector, compression="gzip")
