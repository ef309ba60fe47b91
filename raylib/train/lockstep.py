"""Forwards without gradient of a model whose weights are spread: the first process says of what, and all do a share.

An evaluation asks for vectors as it goes, now for pages and now for questions, and leaves out what cannot be read. One
process alone decides all that, and the others follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from raylib.errors import ModelError
from raylib.evaluate.encode import is_out_of_memory
from raylib.models.token_vectors import TokenVectors
from raylib.train.sharding import Shards
from raylib.types import Tensors


@contextmanager
def leading(shards: Shards) -> Iterator[None]:
    """On the first process: every forward of the encoder is of all processes, until the end. Raises ModelError in it
    where memory runs out: a forward that others have begun cannot be tried again with less."""
    encoder, team = shards.encoder, shards.team
    broken = False

    def vectors(tensors: Tensors) -> TokenVectors:
        nonlocal broken
        broken = True
        team.told(tensors)
        found = _shared(shards, tensors)
        broken = False
        return found

    vars(encoder)["vectors"] = vectors
    try:
        yield
    finally:
        del vars(encoder)["vectors"]
        if not broken:  # else the others are somewhere in a forward, and hear nothing
            team.told(None)


def follow(shards: Shards) -> None:
    """On every other process, as long as the first one is `leading`."""
    while (tensors := shards.team.told(None)) is not None:
        _shared(shards, tensors)


def _shared(shards: Shards, tensors: Tensors) -> TokenVectors:
    """The vectors of all contents, of which this process computes its share; one content at least, for a forward needs
    every process."""
    encoder, team = shards.encoder, shards.team
    rows = team.share(len(next(iter(tensors.values()))))
    n = rows.stop - rows.start
    own = {name: array[rows] if n else array[:1] for name, array in tensors.items()}
    try:
        # Weights that were gathered in inference mode could not be trained on afterwards.
        with torch.inference_mode(False), torch.no_grad():
            return TokenVectors.concatenate(team.gather(shards.vectors(own).slice(0, n)))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"{encoder.spec.name}: an evaluation does not fit in memory with --strategy fsdp. Give it more "
            "--workers, or a smaller --max-pixels"
        ) from error
