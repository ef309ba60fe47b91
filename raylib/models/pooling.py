"""Token vectors, or those of a text and an image → one vector per content. Pure functions over torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylib.errors import UserError

if TYPE_CHECKING:
    import torch

POOLINGS = ("cls", "mean", "last")
FUSIONS = ("sum", "mean", "concat")


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """hidden [n, tokens, dim], mask [n, tokens] (1 for a real token) → [n, dim], in hidden's dtype.

    "cls" is the first real token and "last" the last real one, wherever the padding lies; "mean" is over the real
    ones, summed in float32. Raises UserError for another name; a content without any real token is a bug upstream.
    """
    import torch

    if how not in POOLINGS:
        raise UserError(f"--pooling is {how!r}; expected one of {', '.join(POOLINGS)}")
    real = mask.bool()
    assert bool(real.any(dim=1).all()), "every content must have at least one real token"
    if how == "mean":
        weights = real.unsqueeze(-1).to(torch.float32)
        return ((hidden.to(torch.float32) * weights).sum(dim=1) / weights.sum(dim=1)).to(hidden.dtype)
    if how == "cls":
        position = real.int().argmax(dim=1)
    else:
        position = real.shape[1] - 1 - real.int().flip(dims=[1]).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), position]


def truncate(vectors: torch.Tensor, dim: int | None) -> torch.Tensor:
    """The first `dim` components (Matryoshka, https://arxiv.org/abs/2205.13147); all of them for None.

    vectors [..., full] → [..., dim], not normalised. Raises UserError when the vectors are shorter than that.
    """
    if dim is None:
        return vectors
    if not 0 < dim <= vectors.shape[-1]:
        raise UserError(f"--embedding-dim is {dim}; this model's vectors have {vectors.shape[-1]} components")
    return vectors[..., :dim]


def normalise(vectors: torch.Tensor) -> torch.Tensor:
    """vectors [..., dim] → of length 1 in the L2 norm, computed in float32; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors.to(torch.float32), p=2.0, dim=-1).to(vectors.dtype)


def fusion_name(asked: str | None, default: str = "sum") -> str:
    """The fusion of --fusion, else the family's. Raises UserError for a name that is not in FUSIONS."""
    if asked is not None and asked not in FUSIONS:
        raise UserError(f"--fusion is {asked!r}; expected one of {', '.join(FUSIONS)}")
    return asked or default


def fuse(text: torch.Tensor, image: torch.Tensor, how: str, *, unit: bool = False) -> torch.Tensor:
    """One vector for each content that holds both: text and image [n, dim] → [n, dim], or [n, 2 · dim] for "concat",
    the text's first; in their dtype, computed in float32.

    unit: sums and means are brought to length 1; parts that are concatenated stay as they are. Raises UserError for a
    name that is not in FUSIONS.
    """
    import torch

    fusion_name(how)
    assert text.shape == image.shape, "both are vectors of one model for the same contents"
    if how == "concat":
        return torch.cat([text, image], dim=-1)
    both = text.to(torch.float32) + image.to(torch.float32)
    if how == "mean":
        both = both / 2
    return (normalise(both) if unit else both).to(text.dtype)
