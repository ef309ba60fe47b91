"""What one part of extracted hidden states holds, and what every form of file offers to a reader.

hidden_states writes and opens; hidden_states_hdf5, hidden_states_old and hidden_states_parquet know one form each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np

from raylib.errors import UserError
from raylib.store.representations import KINDS, OLD_SUFFIX, Representation

LAYOUT = 1
"""Version of the layout of the files. A reader refuses a later one."""

POSITIONS = ("image_span", "vision_position", "query_position", "image_tokens")

FAILED = ("failed_question_id", "failed_reason")

_TEXT_RESERVED = frozenset({*KINDS, *(kind + OLD_SUFFIX for kind in KINDS), *POSITIONS, *FAILED, "question_id"})


@dataclass(frozen=True)
class StateTable:
    """The rows of one part, in the order of the input. The arrays may be memory maps."""

    question_ids: list[str]
    """[n], distinct."""
    texts: Mapping[str, list[str]]
    """name → [n]: image_id, question, ground_truth_answer, answer where there is one, and carried columns."""
    states: Mapping[Representation, np.ndarray]
    """Each float32 [n, D]; D may differ between representations."""
    image_spans: np.ndarray
    """int64 [n, 2]: the first image token and one past the last, as positions in the unpadded prompt."""
    vision_positions: np.ndarray
    """int64 [n]: the position whose state is vision_token."""
    query_positions: np.ndarray
    """int64 [n]: the position whose state is query_token."""
    image_tokens: np.ndarray
    """int64 [n]: how many image tokens there are."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the file: model_name, model_type, num_layers, layers, versions, ..."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(question_id, reason) of rows of this part that have no states."""

    def __post_init__(self) -> None:
        n = len(self.question_ids)
        if len(set(self.question_ids)) != n:
            raise ValueError("question_ids are not distinct")
        if n and np.shape(self.image_spans) != (n, 2):
            raise ValueError(f"image_spans has shape {np.shape(self.image_spans)}; expected ({n}, 2)")
        sizes = {name: len(values) for name, values in self.texts.items()}
        sizes |= {representation.path: len(values) for representation, values in self.states.items()}
        sizes |= {name: len(values) for name, values in self.positions.items()}
        wrong = {name: size for name, size in sizes.items() if size != n}
        if wrong:
            raise ValueError(f"{n} question_ids, but other numbers of rows in {wrong}")
        for representation, values in self.states.items():
            if values.ndim != 2 or values.dtype != np.float32:
                raise ValueError(f"{representation.path} is {values.dtype} {values.shape}; expected float32 [n, D]")

    @property
    def positions(self) -> dict[str, np.ndarray]:
        """The arrays of positions by the names that files give them, in the order of POSITIONS, as int64."""
        spans = np.reshape(self.image_spans, (-1, 2))  # an empty list has no second dimension
        arrays = (spans, self.vision_positions, self.query_positions, self.image_tokens)
        return {name: np.asarray(values, np.int64) for name, values in zip(POSITIONS, arrays, strict=True)}


@dataclass(frozen=True)
class StateRow:
    """Everything of one row, as it lies in its file."""

    path: str
    question_id: str
    texts: dict[str, str]
    positions: dict[str, Any]
    """Of POSITIONS, what the file tells: image_span (first, end), the others int. Nothing for an old file."""
    states: dict[Representation, np.ndarray]


class Part(Protocol):
    """One file of hidden states. It holds no open file: each call opens and closes its own."""

    path: str
    form: str
    """For a person: HDF5, Parquet, or HDF5 of the old scripts."""
    question_ids: list[str]
    about: dict[str, Any]
    failed: list[tuple[str, str]]
    representations: list[Representation]
    """Sorted; those that any row has."""
    text_names: list[str]

    def texts(self, name: str) -> list[str]:
        """[n] of one name of text_names; "" where a row has none."""
        ...

    def positions(self) -> dict[str, np.ndarray]:
        """Of POSITIONS, what the file tells: int64 [n, 2] of image_span, [n] of the others. {} for an old file."""
        ...

    def width(self, representation: Representation) -> int:
        """D, of the first row that has it. Raises KeyError where none has."""
        ...

    def vectors(self, representation: Representation) -> Iterator[np.ndarray | None]:
        """The vector of each row in order, of any shape and dtype that lies there; None where a row has none."""
        ...

    def read_into(self, representation: Representation, out: np.ndarray) -> list[int]:
        """Fill out, float32 [n, D]; gives the rows that have no such vector, which stay as they were. Raises
        UserError for a row of another width than D."""
        ...

    def row(self, question_id: str) -> StateRow:
        """Raises KeyError for an id that is not there."""
        ...


# Names.


def row_name(question_id: str) -> str:
    """The name of a row's group: the id, where it may be one. "/" would nest groups, "." is HDF5's own, NUL ends a
    name, and `columns` is taken; such characters, and "%", are percent-encoded. An empty id becomes a lone "%"."""
    return _escape(question_id, frozenset({"columns"}))


def text_name(name: str) -> str:
    """The name of a column of texts in a file; one that another data set has there is escaped as an id would be."""
    return _escape(name, _TEXT_RESERVED)


def _escape(name: str, taken: Iterable[str]) -> str:
    if name == "":
        return "%"
    if name in (".", ".."):
        return name.replace(".", "%2E")
    escaped = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return f"%{ord(escaped[0]):02X}{escaped[1:]}" if escaped in taken else escaped


def unescape(name: str) -> str:
    """What `row_name` or `text_name` was given."""
    return "" if name == "%" else unquote(name)


def clean(text: Any) -> str:
    """`text` as a file can hold it. HDF5 ends a string at NUL, and half a surrogate pair is no UTF-8: each becomes a
    replacement character. None becomes ""."""
    if text is None:
        return ""
    return str(text).replace("\0", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# Attributes.

_LONGEST_LIST = 1000
"""HDF5 keeps attributes of up to 64 KiB."""


def to_attributes(about: Mapping[str, Any]) -> dict[str, Any]:
    """What HDF5 can hold of `about`: text, numbers and short lists of one type as they are; everything else as JSON
    text, with its names in json_attributes."""
    plain: dict[str, Any] = {}
    as_json = []
    for name, value in about.items():
        value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        if isinstance(value, str):
            plain[name] = clean(value)
        elif isinstance(value, (bool, int, float)):
            plain[name] = value
        elif _is_plain_list(value):
            plain[name] = [clean(v) for v in value] if isinstance(value[0], str) else list(value)
        else:
            plain[name] = json.dumps(value, default=str)
            as_json.append(name)
    return {**plain, "json_attributes": as_json} if as_json else plain


def _is_plain_list(value: Any) -> bool:
    """One type (bool aside), not empty, and short enough for an attribute."""
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= _LONGEST_LIST:
        return False
    return {type(v) for v in value} in ({str}, {int}, {float})


def from_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What `to_attributes` was given; tuples and arrays come back as lists."""
    plain = {name: _plain(value) for name, value in attributes.items()}
    for name in plain.pop("json_attributes", []):
        plain[name] = json.loads(plain[name])
    return plain


def _plain(value: Any) -> Any:
    """h5py gives NumPy scalars and arrays; old files also hold bytes."""
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def check_layout(path: str, version: int) -> None:
    """Raises UserError for files of a later raylib."""
    if version > LAYOUT:
        raise UserError(f"{path} has layout {version}, and this raylib reads up to {LAYOUT}; read it with a newer one")
