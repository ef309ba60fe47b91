"""The settings of `raylib encode`: its flags, its YAML keys and the keyword arguments of `raylib.encode`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.options import EncodeOptions
from raylib.models.protocol import ModelSpec
from raylib.placement import at_least_one, name_list

VectorFormat = Literal["parquet", "npy", "hdf5"]
OutputDtype = Literal["float32", "float16"]


@dataclass
class EncodeConfig(EncodeOptions):
    """Turn your own text, images, PDFs, Parquet, JSONL and CSV into vectors: Parquet, .npy or HDF5.

    Every distinct content is encoded once and kept in the store, so a run that was killed, or that has more inputs,
    encodes only what is missing. `raylib score` reads the output.
    """

    input: list[str] = field(default_factory=list, metadata={"metavar": "PATH"})
    """A file, a folder or a quoted pattern ("pages/*.png"); repeat the flag for more."""

    output: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where the vectors go."""

    format: VectorFormat = field(default="parquet", metadata={"metavar": "parquet|npy|hdf5"})
    """embeddings.parquet; embeddings.npy (.npz for late interaction) with ids.txt; or embeddings.h5."""

    output_dtype: OutputDtype = field(default="float32", metadata={"metavar": "float32|float16"})
    """Number format of the vectors in the output; --dtype is that of the model."""

    role: Literal["query", "document"] = field(default="document", metadata={"metavar": "query|document"})
    """Encode as queries or as documents: many models have a prompt for each."""

    id_column: str | None = None
    """The field of Parquet, JSONL and CSV rows that holds their id. By default id or _id, else ids count rows."""

    text_column: list[str] = field(default_factory=list)
    """The field that holds their text; several are joined by a space. By default text."""

    image_column: str | None = None
    """The field that holds their image: encoded bytes, or a path from the table's folder. By default image; not read
    where only --text-column is given, and the other way round."""

    whole_files: bool = False
    """A .txt file is one content; by default each of its lines that is not blank."""

    dpi: int = 144
    """Resolution at which pages of PDFs are drawn."""

    limit: int | None = None
    """Only the first N contents."""

    store: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where embeddings are kept between runs. <output>/store by default; several runs may share one."""

    allow_errors: int = 0
    """Write the vectors without up to N contents that cannot be encoded."""

    overwrite: bool = False
    """Replace the vectors of another run in the output folder."""

    dry_run: bool = False
    """Print what would be encoded and how much is stored already, and stop."""

    quiet: bool = False
    """No progress, only problems."""

    def __post_init__(self) -> None:
        """Split comma lists and check what can be checked without loading anything. Raises UserError."""
        self.model, self.text_column = name_list(self.model), name_list(self.text_column)
        self.input = [self.input] if isinstance(self.input, str) else list(self.input)
        self.input = [storage.as_path(path) for path in self.input]
        for name in ("output", "store"):
            value = getattr(self, name)
            setattr(self, name, storage.as_path(value) if value is not None else None)
        at_least_one(self, ("limit", "dpi"))
        self.check_encoding()
        if self.allow_errors < 0:
            raise UserError(f"--allow-errors is {self.allow_errors}; expected 0 or more")

    def check_complete(self) -> None:
        """Raises UserError unless one model, something to encode and a place for the vectors are given."""
        if not self.model:
            raise UserError("no model was given; add --model NAME (see: raylib list models)")
        if len(dict.fromkeys(self.model)) > 1:
            raise UserError(
                f"--model names {len(self.model)} models; vectors of one go into one --output, so run once for each"
            )
        if not self.input:
            raise UserError("nothing to encode; add --input FILE_OR_DIR")
        if not self.output:
            raise UserError("no place for the vectors; add --output DIR")

    @property
    def spec(self) -> ModelSpec:
        return self.specs()[0]

    @property
    def output_folder(self) -> str:
        assert self.output, "check_complete comes first"
        return self.output.rstrip("/") or "/"

    @property
    def store_folder(self) -> str:
        return self.store or f"{self.output_folder}/store"

    def as_dict(self) -> dict[str, Any]:
        """What was set, for the manifest."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and v is not False and v != []}
