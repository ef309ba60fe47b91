"""Where mining runs: here, or on a cluster (`raylib.cluster.mine`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raylib.mine.comparison import Find
from raylib.mine.split import Run
from raylib.timeline import Held, held_here

if TYPE_CHECKING:
    from raylib.encode.planned import Place
    from raylib.evaluate.search import SearchStage


@dataclass(frozen=True)
class MinePlace:
    """encode: where contents are encoded. find: what finds neighbours among vectors. search: where MaxSim is computed.
    run: where the pieces of a graph are cut. held: by what finds, searches and cuts, at most."""

    encode: Place
    find: Find
    search: SearchStage
    run: Run
    held: Callable[[], Held] = held_here


def this_process() -> MinePlace:
    from raylib.encode.planned import this_process as encode_here
    from raylib.evaluate.search import search_locally
    from raylib.mine.neighbours import neighbours

    return MinePlace(encode_here(), neighbours, search_locally, map)
