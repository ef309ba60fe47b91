"""Tiny checkpoints of both kinds of scores, and pairs to train them on."""

from pathlib import Path

import pytest

from raylib.models.untrained import build_clip, build_colpali

from .made_runs import write_pairs


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """dense: CLIP. late: ColPali, whose texts have as many vectors as tokens. Folders that nobody writes to."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, build in (("dense", build_clip), ("late", build_colpali)):
        (folder / name).mkdir()
        build(folder / name)
    return {name: str(folder / name) for name in ("dense", "late")}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """23 pairs, two thirds with hard negatives. Batches of seven leave one of two."""
    return write_pairs(Path(tmp_path_factory.mktemp("pairs"), "pairs.jsonl"))
