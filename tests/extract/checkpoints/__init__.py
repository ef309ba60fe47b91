"""Tiny random-weight checkpoints of the vision-language models that extract reads: the true architectures, with a few
thousand weights, a complete processor and a chat template, as a user would download them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .group_a import BUILDERS_A
from .group_b import BUILDERS_B
from .remote import BUILDERS_REMOTE

BUILDERS: dict[str, Callable[[Path], Path]] = {**BUILDERS_A, **BUILDERS_B}
"""model_type (InternVL's with its version) → what writes a checkpoint into a folder, and gives that folder back."""

ALL_BUILDERS = {**BUILDERS, **BUILDERS_REMOTE}
"""Also those whose code comes with them, which load only where that is trusted."""
