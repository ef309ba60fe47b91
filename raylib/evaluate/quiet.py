"""Other libraries' progress bars and chatter, switched off where raylib shows its own."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence per-batch bars and information lines of datasets, transformers and mteb; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    for name in ("mteb", "datasets", "transformers", "sentence_transformers", "huggingface_hub", "bm25s"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="(mteb|sklearn|transformers|torch|datasets)")
