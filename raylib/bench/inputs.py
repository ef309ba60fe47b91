"""What is embedded: texts of an exact number of tokens, and photos; the same on every machine and in every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from raylib.models.protocol import Encoder

SEED = 20240229
_WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were her all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other new some could time these two may then do first any my now such like our over man "
    "me even most made after also did many before must through back years where much your way well down should because "
    "each just those people how too little state good very make world still own see men work long get here between "
    "both life being under never day same another know while last might us great old year off come since against go "
    "came right used take three river market engine paper window garden report energy history music winter number "
    "question answer city morning science letter teacher village bridge mountain harbour"
)
WORDS = _WORDS.split()
"""Of which texts are made."""

PHOTO_SIZES = ((640, 480), (480, 640), (512, 512), (800, 600))
"""Width and height of photos, in turn."""

_TRIES = 50


def token_counter(encoder: Encoder) -> Callable[[str], int]:
    """How many tokens the model's own tokenizer makes of a text, special ones among them, and none cut off.

    Raises UserError for a model that has no tokenizer of Hugging Face's kind."""
    tokenizer: Any = getattr(getattr(encoder, "processor", None), "tokenizer", None)
    if not callable(tokenizer):
        raise UserError(f"{encoder.spec.name} has no tokenizer that texts of an exact length could be made with")

    def count(text: str) -> int:
        found: Any = tokenizer(text, truncation=False, padding=False, verbose=False)
        return len(found["input_ids"])

    return count


def exact_texts(count: Callable[[str], int], tokens: int, n: int, *, seed: int = SEED) -> list[str]:
    """n texts that `count` gives exactly `tokens` of, all different where the words suffice. Raises UserError where no
    text is that long, such as one of a single token where a tokenizer adds two."""
    return [_exact_text(count, tokens, np.random.default_rng([seed, tokens, i])) for i in range(n)]


def longest_texts(count: Callable[[str], int], lengths: Sequence[int], *, seed: int = SEED) -> list[str]:
    """For each length a text of no more tokens and as many of WORDS as fit."""
    return [" ".join(_fitting(count, n, np.random.default_rng([seed, n, i]))) for i, n in enumerate(lengths)]


def _exact_text(count: Callable[[str], int], tokens: int, rng: np.random.Generator) -> str:
    for _ in range(_TRIES):
        filled = _filled(count, _fitting(count, tokens, rng), tokens, rng)
        if filled is not None:
            return filled
    raise UserError(f"no text of exactly {tokens} tokens can be made for this model's tokenizer")


def _fitting(count: Callable[[str], int], tokens: int, rng: np.random.Generator) -> list[str]:
    """The longest start of a row of words that is not too long; no word has less than a token."""
    words = [WORDS[i] for i in rng.integers(len(WORDS), size=tokens)]
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(" ".join(words[:middle])) <= tokens else (low, middle - 1)
    return words[:low]


def _filled(count: Callable[[str], int], words: list[str], tokens: int, rng: np.random.Generator) -> str | None:
    """`words` and as many more as it takes; None where that went past the number."""
    text = " ".join(words)
    while (have := count(text)) < tokens:
        for i in [*rng.permutation(len(WORDS)), None]:
            longer = f"{text} {WORDS[i]}".strip() if i is not None else f"{text}."
            if have < count(longer) <= tokens:
                text = longer
                break
        else:
            return None
    return text if have == tokens else None


def limit_of(encoder: Encoder, text: str, tokens: int) -> int | None:
    """How many tokens the model reads of a text that has `tokens`, where it does not read them all."""
    from raylib.types import EncodeContext

    tensors = encoder.preprocess({"text": [text]}, EncodeContext(None))
    seen = int(tensors["input_ids"].shape[1])
    return seen if seen < tokens else None


def photos(n: int, *, seed: int = SEED) -> list[Image.Image]:
    """n RGB images of several sizes: soft shapes over a gradient, with the noise of a sensor."""
    from PIL import Image

    found = []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        width, height = PHOTO_SIZES[i % len(PHOTO_SIZES)]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        y, x = y / height, x / width
        picture = (
            rng.uniform(40, 160, 3) + x[..., None] * rng.uniform(-60, 60, 3) + y[..., None] * rng.uniform(0, 60, 3)
        )
        for _ in range(6):
            at, size = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.3)
            shape = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / size**2)
            picture += shape[..., None] * rng.uniform(-110, 110, 3)
        picture += rng.normal(0, 6, picture.shape)
        found.append(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)))
    return found
