"""Filters of a search: what a document's metadata must say. Every field that is named must fit.

    {"year": 2024}                            equal
    {"language": ["en", "fr"]}                one of these
    {"year": {"gte": 2020, "lte": 2024}}      within bounds, both included; numbers, or texts by their code points

A number equals a number however it is written (1 and 1.0), never a boolean. A document without the field does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.serve.protocol import Metadata

MOST_VALUES = 1000
"""Of one list."""

_OPERATORS = ("gte", "lte")

_Test = Callable[[Any], bool]


class Columns:
    """The metadata of all documents, field by field, as far as filters have asked. Documents are only ever added at the
    end of `rows`, which this shares with its owner."""

    def __init__(self, rows: Sequence[Metadata]) -> None:
        self._rows = rows
        self._fields: dict[str, _Column] = {}
        self._lock = Lock()

    def fitting(self, filters: Mapping[str, Any], n: int) -> np.ndarray:
        """[n] bool: which of the first n documents fit. Raises UserError for a filter that cannot be right."""
        tests = {name: _test_of(name, wanted) for name, wanted in _checked(filters).items()}
        fits = np.ones(n, dtype=bool)
        with self._lock:
            for name, test in tests.items():
                # A field that no document has costs no memory: names come from clients.
                column = self._fields.get(name) or _Column(name)
                column.extend(self._rows, n)
                if column.values:
                    self._fields[name] = column
                fits &= column.fitting(test, n)
        return fits


def check_filters(filters: Mapping[str, Any]) -> None:
    """Raises UserError for a filter that cannot be right."""
    for name, wanted in _checked(filters).items():
        _test_of(name, wanted)


class _Column:
    """One field. codes [n]: per document the place of its value among `values`; -1 where it has none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[Any] = []
        self._places: dict[tuple[bool, Any], int] = {}
        self._codes = np.zeros(0, dtype=np.int32)

    def extend(self, rows: Sequence[Metadata], n: int) -> None:
        """Take in the documents up to number n."""
        first = len(self._codes)
        if first >= n:
            return
        codes = np.full(n - first, -1, dtype=np.int32)
        for at in range(first, n):
            value = rows[at].get(self.name)
            if value is not None:
                place = self._places.setdefault(_identity(value), len(self.values))
                if place == len(self.values):
                    self.values.append(value)
                codes[at - first] = place
        self._codes = np.concatenate([self._codes, codes])

    def fitting(self, test: _Test, n: int) -> np.ndarray:
        """Each value is tested once, however many documents have it."""
        fits = np.fromiter((*map(test, self.values), False), dtype=bool, count=len(self.values) + 1)
        return fits[self._codes[:n]]  # -1 is the last, which does not fit


def _identity(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value


def _checked(filters: Any) -> Mapping[str, Any]:
    if not isinstance(filters, Mapping):
        raise UserError(f"filters are {_kind(filters)}; expected an object of field → value")
    for name in filters:
        if not isinstance(name, str):
            raise UserError(f"the name of a field in filters is {_kind(name)}; expected text")
    return filters


def _test_of(name: str, wanted: Any) -> _Test:
    if isinstance(wanted, Mapping):
        return _between(name, wanted)
    if isinstance(wanted, list | tuple):
        if not 1 <= len(wanted) <= MOST_VALUES:
            raise UserError(f"filter {name!r} lists {len(wanted)} values; expected 1 to {MOST_VALUES}")
        known = {_identity(_scalar(name, value)) for value in wanted}
        return lambda value: _identity(value) in known
    one = _identity(_scalar(name, wanted))
    return lambda value: _identity(value) == one


def _between(name: str, bounds: Mapping[Any, Any]) -> _Test:
    unknown = [str(key) for key in bounds if key not in _OPERATORS]
    if unknown or not bounds:
        found = f"the operator {unknown[0]!r}" if unknown else "no operator"
        raise UserError(f"filter {name!r} has {found}; expected {' and '.join(_OPERATORS)}, a value, or a list of them")
    for operator, bound in bounds.items():
        if isinstance(_scalar(name, bound), bool):
            raise UserError(f"filter {name!r}: {operator} is a boolean; expected a number or a text")
    kinds = {isinstance(bound, str) for bound in bounds.values()}
    if len(kinds) > 1:
        raise UserError(f"filter {name!r} has a text and a number as bounds; expected two of a kind")
    text, low, high = kinds.pop(), bounds.get("gte"), bounds.get("lte")

    def test(value: Any) -> bool:
        if isinstance(value, bool) or isinstance(value, str) != text:
            return False
        return (low is None or value >= low) and (high is None or value <= high)

    return test


def _scalar(name: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"filter {name!r} compares with {value}; expected a finite number")
    if not isinstance(value, str | int | float):
        raise UserError(f"filter {name!r} compares with {_kind(value)}; expected a text, a number or a boolean")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}.get(
        type(value), f"a {type(value).__name__}"
    )
