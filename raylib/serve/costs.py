"""How many tokens a content will have, told before it is tokenised, from what contents before it had."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from raylib.evaluate.batching import DEFAULT_CONTENTS, MAX_CONTENTS
from raylib.serve.protocol import Content

MAX_PIXELS = 150_000_000
"""Of the images of a batch, which are decoded side by side: 450 MB."""

_ALIKE = 4.0
"""Contents share a batch when none has more than so many times the tokens of another: padding is computed, too."""

_ALWAYS_ALIKE = 32
"""Tokens below which padding costs less than a forward of one's own."""

_FIRST_GUESS = 0.3
"""Tokens a character, until some were counted."""


class Costs:
    """max_tokens: of a batch, contents × the longest of them. A model that does not count tokens has batches of
    `DEFAULT_CONTENTS`."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.max_contents = DEFAULT_CONTENTS
        self._per_character, self._per_image, self._most = _FIRST_GUESS, 1.0, math.inf

    def of(self, content: Content, pixels: int) -> int:
        """Estimated tokens, at least 1."""
        text = min(self._most, len(content.text) * self._per_character) if content.text is not None else 0
        return max(1, math.ceil(text + (self._per_image if pixels else 0)))

    def batch_of(self, cost: int, pixels: int) -> Callable[[int, int], bool]:
        """A batch that begins with this content → whether another may join it; one that may has joined."""
        count, longest, shortest, seen = 1, cost, cost, pixels

        def joins(cost: int, pixels: int) -> bool:
            nonlocal count, longest, shortest, seen
            high, low = max(longest, cost), min(shortest, cost)
            if high > _ALWAYS_ALIKE and high > _ALIKE * low:
                return False
            if count >= self.max_contents or (count + 1) * high > self.max_tokens or seen + pixels > MAX_PIXELS:
                return False
            count, longest, shortest, seen = count + 1, high, low, seen + pixels
            return True

        return joins

    def learn(self, contents: Sequence[tuple[Content, int]], tokens: list[int] | None) -> None:
        """tokens [n]: what these contents had, 0 where that is not known."""
        if tokens is None:
            return
        self.max_contents = MAX_CONTENTS
        for (content, pixels), counted in zip(contents, tokens, strict=True):
            if not counted:
                continue
            if pixels:
                self._per_image += 0.2 * (counted - self._per_image)
                continue
            characters = len(content.text or "")
            expected = characters * self._per_character
            if counted < 0.5 * expected and characters > 1000:  # cut at the model's length
                self._most = counted
            else:
                self._most = max(self._most, counted)
                self._per_character += 0.02 * (counted / max(1, characters) - self._per_character)
