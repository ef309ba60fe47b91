"""BGE-M3 beyond its dense vectors: learned token weights, late interaction, and the weighted mean of all three scores
(Chen et al., M3-Embedding, 2024, https://arxiv.org/abs/2402.03216; formulas as in FlagEmbedding's M3 model).

One forward of the model that `--mode dense` runs; two linear heads beside its weights read the last hidden states.

- sparse: a token weighs relu(head(hidden)), and one that occurs twice the larger of both; the first token, the end of
  the text, padding and unknown tokens weigh nothing. A prompt's tokens weigh like any others.
- multi-vector: head(hidden), of length 1, for every real token but the first. Compared by MaxSim; FlagEmbedding divides
  that by the number of query tokens, which changes no ranking.
- hybrid: the dense vector and both of these in one entry of the store, see `raylib.search.hybrid`. How much each of the
  scores weighs is no part of a content's key.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.errors import UnsupportedOptionError, UserError
from raylib.models.families import Family
from raylib.models.loading import to_numpy
from raylib.models.pooling import normalise
from raylib.models.protocol import ModelSpec
from raylib.models.sentence import SentenceEncoder
from raylib.models.torch_encoder import TorchEncoder
from raylib.token_weights import COLUMNS, pack
from raylib.types import Batch, Embeddings, EncodeContext, Hybrid, Similarity, Tensors

if TYPE_CHECKING:
    import torch

    from raylib.models.token_vectors import TokenVectors

DENSE = "dense"
HEADS: Mapping[str, tuple[str, ...]] = {
    "sparse": ("sparse",),
    "multi-vector": ("colbert",),
    "hybrid": ("colbert", "sparse"),
}
"""--mode, besides dense → the heads that it needs. A head lies in <head>_linear.pt."""

PUBLISHED = "BAAI/bge-m3"


def head_file(head: str) -> str:
    return f"{head}_linear.pt"


def has_heads(spec: ModelSpec, place: Path | None) -> bool:
    """Whether a model has any of the heads. place: its folder, where it is here."""
    files = {head_file(head) for heads in HEADS.values() for head in heads}
    return spec.name == PUBLISHED or (place is not None and any((place / file).is_file() for file in files))


class BgeM3Encoder(SentenceEncoder):
    """A sentence-transformers model under BGE-M3's heads, in one of the modes of `HEADS`.

    Gives, in "sparse" mode, rows of `raylib.token_weights`; in "multi-vector" mode one vector a token; in "hybrid" mode
    one row a token, as wide as the wider of both vectors and a token weight. Raises UserError for a mode that is not
    known, weights without hybrid mode or that are no weights, and a head that is missing or of another model.
    """

    supported_options: ClassVar[frozenset[str]] = TorchEncoder.supported_options | {"mode", "mode_weights"}

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        self.mode = spec.mode or DENSE
        if self.mode not in HEADS and spec.mode_weights is None:
            raise UserError(f"--mode is {self.mode!r}; expected one of {', '.join((DENSE, *HEADS))}")
        if spec.mode_weights is not None and self.mode != "hybrid":
            raise UnsupportedOptionError(f"--mode-weights weigh the scores of --mode hybrid, not of {self.mode}")
        self._weights = parse_weights(spec.mode_weights) if spec.mode_weights is not None else Hybrid()
        if os.path.isdir(self.location):
            for head in HEADS[self.mode]:
                self._head_path(head)

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "mode": self.mode}

    @property
    def similarity(self) -> Similarity:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.mode == "hybrid":
            return self._weights
        return "sparse" if self.mode == "sparse" else "maxsim"

    # The two halves.

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """As for dense vectors, and weighs [n, tokens] bool: tokens that may weigh something."""
        tensors = super().preprocess(batch, context)
        tokenizer = self.processor.tokenizer
        without = [getattr(tokenizer, f"{name}_token_id") for name in ("cls", "eos", "pad", "unk")]
        special = np.isin(tensors["input_ids"], [number for number in without if number is not None])
        tensors["weighs"] = ~special & tensors["attention_mask"].astype(bool)
        return tensors

    def load_model(self) -> Any:
        """The library's model as "sentence", and the heads by name."""
        import torch

        sentence = super().load_model()
        hidden = sentence[0].get_embedding_dimension()
        heads = {head: self._load_head(head, hidden) for head in HEADS[self.mode]}
        return torch.nn.ModuleDict({"sentence": sentence, **heads})

    def vectors(self, tensors: Tensors) -> TokenVectors:
        """Of mode "multi-vector"; raises UserError for the others, which are not vectors alone."""
        import torch

        from raylib.models.token_vectors import TokenVectors

        if self.mode != "multi-vector":
            raise UserError(f"{self.spec.name}: --mode {self.mode} gives more than vectors; use dense or multi-vector")
        inputs = {name: array for name, array in tensors.items() if name != "weighs"}
        real = tensors["attention_mask"].astype(bool)
        later = real & (real.cumsum(axis=1) > 1)
        vectors = self._vectors(self._features(inputs)["token_embeddings"])
        return TokenVectors(vectors[torch.from_numpy(later).to(vectors.device)], later.sum(axis=1))

    def forward(self, tensors: Tensors) -> Embeddings:
        import torch

        if self.mode == "multi-vector":
            return super().forward(tensors)
        tensors = dict(tensors)
        weighs, ids = tensors.pop("weighs"), tensors["input_ids"]
        real = tensors["attention_mask"].astype(bool)
        with torch.inference_mode():
            features = self._features(tensors)
            hidden = features["token_embeddings"]
            weights = to_numpy(torch.relu(self.model["sparse"](hidden)).squeeze(-1), self.dtype)
            if self.mode == "sparse":
                return sparse_rows(ids, weights, weighs)
            dense = to_numpy(features["sentence_embedding"], self.dtype)
            return hybrid_rows(dense, to_numpy(self._vectors(hidden), self.dtype), ids, weights, weighs, real)

    def _features(self, tensors: Tensors) -> dict[str, Any]:
        scalars = self.scalars(tensors)
        inputs = self.on_device({name: array for name, array in tensors.items() if name not in scalars})
        return self.run_modules(self.model["sentence"], inputs, scalars)

    def _vectors(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] of length 1."""
        return normalise(self.model["colbert"](hidden))

    # The heads.

    def _head_path(self, head: str) -> str:
        from sentence_transformers.util import load_file_path

        path = load_file_path(self.location, head_file(head), revision=self.spec.revision)
        if path is None:
            raise UserError(
                f"{self.spec.name} has no {head_file(head)}, which --mode {self.mode} needs; copy it into the model's "
                "folder, or use --mode dense"
            )
        return path

    def _load_head(self, head: str, hidden: int) -> torch.nn.Linear:
        """Raises UserError for a file that holds anything but a linear layer over `hidden` numbers."""
        import torch

        path = self._head_path(head)
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of the unpickler, of zip files and of streams
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"{path} cannot be read as tensors ({reason}); copy it again") from error
        shapes = {name: list(getattr(value, "shape", ())) for name, value in dict(found).items()}
        width = shapes.get("weight", [0])[0] if head == "colbert" else 1
        if not width or shapes != {"weight": [width, hidden], "bias": [width]}:
            wanted = "[n, n_hidden] and [n]" if head == "colbert" else "[1, n_hidden] and [1]"
            raise UserError(
                f"{path} holds {shapes}; expected weight and bias of shape {wanted} over n_hidden = {hidden} numbers: "
                "it is the head of another model"
            )
        linear = torch.nn.Linear(hidden, width)
        linear.load_state_dict(found)
        return linear.to(self.load_dtype)


def parse_weights(text: str) -> Hybrid:
    """ "0.4,0.2,0.4" → weights of the dense, sparse and multi-vector scores. Raises UserError for other texts."""
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != 3 or not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights):
        raise UserError(
            f"--mode-weights is {text!r}; expected three numbers, for dense, sparse and multi-vector scores, none "
            "negative and not all 0, e.g. 0.4,0.2,0.4"
        )
    return Hybrid(*weights)


def sparse_rows(ids: np.ndarray, weights: np.ndarray, weighs: np.ndarray) -> Embeddings:
    """All [n, tokens] → rows of `raylib.token_weights`, every token of a content once, their ids rising."""
    kept = _heaviest(ids, weights, weighs)
    weights = np.where(kept, weights, 0).astype(weights.dtype)
    kept[~kept.any(axis=1), 0] = True  # a text of special tokens only: one row of weight 0
    content, place = np.nonzero(kept)
    order = np.lexsort((ids[content, place], content))
    content, place = content[order], place[order]
    return Embeddings(pack(ids[content, place], weights[content, place]), _offsets(kept.sum(axis=1)))


def hybrid_rows(
    dense_ND: np.ndarray,
    vectors: np.ndarray,
    ids: np.ndarray,
    weights: np.ndarray,
    weighs: np.ndarray,
    real: np.ndarray,
) -> Embeddings:
    """vectors [n, tokens, width], all after it [n, tokens] → one row a real token, see `raylib.search.hybrid`."""
    kept = _heaviest(ids, weights, weighs)[real]
    width = max(dense_ND.shape[1], vectors.shape[2])
    offsets = _offsets(real.sum(axis=1))
    rows = np.zeros((offsets[-1], width + COLUMNS), dtype=dense_ND.dtype)
    rows[:, : vectors.shape[2]] = vectors[real]
    rows[offsets[:-1], :width] = 0
    rows[offsets[:-1], : dense_ND.shape[1]] = dense_ND
    rows[kept, width:] = pack(ids[real][kept], weights[real][kept])
    return Embeddings(rows, offsets)


def _heaviest(ids: np.ndarray, weights: np.ndarray, weighs: np.ndarray) -> np.ndarray:
    """[n, tokens] bool: the first place where a token of a content weighs most, for tokens that weigh anything."""
    content, place = np.nonzero(weighs & ~(weights <= 0))  # NaN stays, to be found
    order = np.lexsort((place, -weights[content, place], ids[content, place], content))
    content, place = content[order], place[order]
    first = np.ones(len(content), dtype=bool)
    first[1:] = (content[1:] != content[:-1]) | (ids[content[1:], place[1:]] != ids[content[:-1], place[:-1]])
    kept = np.zeros(ids.shape, dtype=bool)
    kept[content[first], place[first]] = True
    return kept


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
