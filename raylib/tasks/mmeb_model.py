"""Lets any MTEB encoder read rows of mixed kinds (see `raylib.tasks.rows`), and says which row it gives NaN for.

This module imports mteb at its top: import it inside functions only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mteb._create_dataloaders import _custom_collate_fn

from raylib.errors import ModelError
from raylib.tasks.rows import HOLDS, fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import datasets
    from mteb.models.models_protocols import EncoderProtocol
    from mteb.types import PromptType
    from torch.utils.data import DataLoader


class RowKinds:
    """An MTEB encoder in front of `model`: rows of one kind go to it together, with the columns that they hold.

    sides: "query" and "document" → the rows as the task has them. MTEB prepares rows of one kind only, and cuts white
    space off the ends of documents.
    """

    def __init__(self, model: EncoderProtocol, sides: dict[str, datasets.Dataset]) -> None:
        self.model, self.sides = model, sides
        self._at = {role: {i: row for row, i in enumerate(side["id"])} for role, side in sides.items()}

    @property
    def mteb_model_meta(self) -> Any:
        return self.model.mteb_model_meta

    def encode(self, inputs: DataLoader, *, prompt_type: PromptType | None = None, **kwargs: Any) -> Any:
        """What the model's `encode` gives, in the order of `inputs`. Raises ModelError for NaN, naming the rows."""
        from torch.utils.data import DataLoader

        assert prompt_type is not None, "MTEB says which side it encodes"
        role, ids = prompt_type.value, [str(i) for i in inputs.dataset["id"]]  # pyright: ignore[reportIndexIssue]
        rows = self.sides[role].select([self._at[role][i] for i in ids])
        kinds: dict[str, list[int]] = {}
        for place, cell in enumerate(rows[HOLDS]):
            kinds.setdefault(cell, []).append(place)
        found = []
        for cell, places in kinds.items():
            part = rows.select(places).select_columns(["id", *fields_of(cell)])
            loader: Any = DataLoader(part, batch_size=inputs.batch_size, collate_fn=_custom_collate_fn)  # pyright: ignore[reportArgumentType]
            found.append(self.model.encode(loader, prompt_type=prompt_type, **kwargs))
        order = np.argsort(np.concatenate([np.asarray(places) for places in kinds.values()]), kind="stable")
        vectors = found[0] if len(found) == 1 else _joined(found, order)
        self._check(vectors, ids)
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        return self.model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        return self.model.similarity_pairwise(embeddings1, embeddings2)

    def _check(self, vectors: Any, ids: Sequence[str]) -> None:
        import torch

        bad = [i for i, one in zip(ids, vectors, strict=True) if bool(torch.isnan(torch.as_tensor(one)).any())]
        if bad:
            shown = "; ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            raise ModelError(f"{self.mteb_model_meta.name} gave NaN for {len(bad)} of {len(ids)} contents: {shown}")


def _joined(parts: Sequence[Any], order: np.ndarray) -> Any:
    """The vectors of all parts, taken in `order`. Late interaction padded apart becomes a list without padding."""
    import torch

    tensors = [[torch.as_tensor(one).cpu() for one in part] for part in parts]
    flat = [one for part in tensors for one in part]
    if flat[0].ndim == 1:
        return torch.stack([flat[i] for i in order])
    real = [one if isinstance(parts[0], list) else one[one.ne(0).any(dim=1)] for one in flat]
    return [real[i] for i in order]
