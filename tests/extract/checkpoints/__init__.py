"""Tiny random-weight checkpoints of the vision-language models that extract reads: the true architectures, with a few
thousand weights, a complete processor and a chat template, as a user would download them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .group_a import BUILDERS_A
from .group_b import BUILDERS_B
from .group_c import BUILDERS_C
from .group_d import BUILDERS_D
from .group_e import BUILDERS_E
from .remote import BUILDERS_REMOTE

BUILDERS: dict[str, Callable[[Path], Path]] = {**BUILDERS_A, **BUILDERS_B}
"""model_type (InternVL's with its version) → what writes a checkpoint into a folder, and gives that folder back."""

MORE: dict[str, Callable[[Path], Path]] = {**BUILDERS_C, **BUILDERS_D, **BUILDERS_E}
"""model_type → the same, for what extract has to find by itself."""

ALL_BUILDERS = {**BUILDERS, **BUILDERS_REMOTE}
"""Also those whose code comes with them, which load only where that is trusted."""
