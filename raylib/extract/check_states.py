"""What is wrong with hidden states: vectors that are missing, not finite, all zeros, or of another width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from raylib.store.hidden_states import HiddenStates, StateRow
from raylib.store.representations import Representation

_SIZES = ("norm", "mean", "std", "min", "max")
NUMBERS = (*_SIZES, "NaN", "Inf")
"""What is measured of a vector, in the order in which it is shown."""

_BLOCK = 256


@dataclass(frozen=True)
class Measured:
    """One representation, row by row. Arrays are float64 [n], NaN where a row has no vector; the means, extremes and
    norms of a vector that is not finite are not either."""

    representation: Representation
    question_ids: list[str]
    shapes: list[tuple[int, ...] | None]
    """[n]; None where a row has no vector."""
    dtypes: Counter[str] = field(default_factory=Counter)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    """Each of NUMBERS → [n]; NaN and Inf count values."""

    @property
    def sound(self) -> np.ndarray:
        """[n] bool: there, and finite."""
        return np.isfinite(self.values["norm"])

    def widths(self) -> Counter[str]:
        """Every shape, for a person, → how many rows have it; the most usual first."""
        counts = Counter(shape_words(shape) for shape in self.shapes if shape is not None)
        return Counter(dict(counts.most_common()))

    def overall(self) -> dict[str, float]:
        """mean, std, min, max over all sound values, and the mean norm; NaN where no row is sound. The std is that of
        all values, where rows are of one width."""
        rows = {name: values[self.sound] for name, values in self.values.items()}
        if len(rows["norm"]) == 0:
            return dict.fromkeys(_SIZES, float("nan"))
        mean = rows["mean"].mean()
        spread = np.sqrt((rows["std"] ** 2 + (rows["mean"] - mean) ** 2).mean())
        found = (rows["norm"].mean(), mean, spread, rows["min"].min(), rows["max"].max())
        return dict(zip(_SIZES, map(float, found), strict=True))


def shape_words(shape: tuple[int, ...]) -> str:
    """3840, or 4 x 1152 for what should have been a vector."""
    return " x ".join(map(str, shape)) or "a number"


def measure(states: HiddenStates, representation: Representation) -> Measured:
    """Read every vector of `representation` once, some hundred at a time."""
    n = len(states)
    found = Measured(representation, states.question_ids, [], Counter(), {name: np.full(n, np.nan) for name in NUMBERS})
    for first, block in _blocks(states, representation):
        rows = slice(first, first + len(block))
        shape = None if block[0] is None else block[0].shape
        found.shapes.extend([shape] * len(block))
        vectors = [vector for vector in block if vector is not None]
        if not vectors:
            continue
        found.dtypes.update(str(vector.dtype) for vector in vectors)
        for name, values in _numbers(np.stack(vectors)).items():
            found.values[name][rows] = values
    return found


def measure_row(row: StateRow, representations: Sequence[Representation]) -> list[Measured]:
    """The same of one row alone, for each of `representations`."""
    found = []
    for representation in representations:
        vector = row.states.get(representation)
        shape = None if vector is None else vector.shape
        values = {name: np.full(1, np.nan) for name in NUMBERS} if vector is None else _numbers(vector[None])
        dtypes = Counter[str]() if vector is None else Counter([str(vector.dtype)])
        found.append(Measured(representation, [row.question_id], [shape], dtypes, values))
    return found


def _numbers(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """[n, ...] → each of NUMBERS → float64 [n]."""
    flat = vectors.reshape(len(vectors), -1).astype(np.float64)
    if flat.shape[1] == 0:
        return {name: np.full(len(flat), np.nan if name in _SIZES else 0.0) for name in NUMBERS}
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            "mean": flat.mean(1),
            "std": flat.std(1),
            "min": flat.min(1),
            "max": flat.max(1),
            "norm": np.sqrt((flat**2).sum(1)),
            "NaN": np.isnan(flat).sum(1).astype(np.float64),
            "Inf": np.isinf(flat).sum(1).astype(np.float64),
        }


def _blocks(states: HiddenStates, representation: Representation) -> Iterator[tuple[int, list[np.ndarray | None]]]:
    """(the first row, vectors of one shape, or Nones) over all rows in order."""
    block: list[np.ndarray | None] = []
    first = 0
    for _, vector in states.vectors(representation):
        if block and (len(block) == _BLOCK or _shape(block[0]) != _shape(vector)):
            yield first, block
            first, block = first + len(block), []
        block.append(vector)
    if block:
        yield first, block


def _shape(vector: np.ndarray | None) -> tuple[int, ...] | None:
    return None if vector is None else vector.shape


def problems(measured: Sequence[Measured]) -> list[str]:
    """One line for each thing that a probe would stumble over."""
    found: list[str] = []
    for one in measured:
        widths = one.widths()
        usual = next(iter(widths), "")
        other = [s is not None and shape_words(s) != usual for s in one.shapes]
        flawed = {
            "no such vector": [s is None for s in one.shapes],
            f"another shape than {usual}": other,
            "no single dimension": [s is not None and len(s) != 1 for s in one.shapes] if not any(other) else [],
            "no values": [s is not None and 0 in s for s in one.shapes],
            "NaN": one.values["NaN"] > 0,
            "infinity": one.values["Inf"] > 0,
            "only zeros": one.values["norm"] == 0,
        }
        for flaw, rows in flawed.items():
            ids = [question_id for question_id, wrong in zip(one.question_ids, rows, strict=False) if wrong]
            if ids:
                more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
                rows_have = "1 row has" if len(ids) == 1 else f"{len(ids)} rows have"
                found.append(f"{one.representation.path}: {rows_have} {flaw}: {', '.join(ids[:5])}{more}")
    return found
