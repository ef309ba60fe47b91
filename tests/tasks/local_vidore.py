"""Local copies of the four ViDoRe layouts with synthetic pages, for the tests of any package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raylib.tasks.synthetic import EXAMPLES, Layout, write_example

__all__ = ["EXAMPLES", "private_datasets_cache", "write_local_vidore"]


def write_local_vidore(
    data_root: str,
    layouts: Sequence[Layout] = ("v1", "v2", "v3", "v3.1"),
    pages: int = 24,
    queries: int = 12,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> list[str]:
    """Write the layouts under `data_root` → the names of the real MTEB tasks that read them."""
    return [
        write_example(layout, str(data_root), pages=pages, queries=queries, size=size, seed=seed) for layout in layouts
    ]


@contextmanager
def private_datasets_cache(folder: str) -> Iterator[None]:
    """Keep the Arrow copies that `datasets` makes of local files in `folder`, not in the home directory."""
    from datasets import config

    before = config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = str(folder)
    try:
        yield
    finally:
        config.HF_DATASETS_CACHE = before
