"""The settings of `raylib extract`: its flags, its YAML keys and the keyword arguments of `raylib.extract`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from raylib import storage
from raylib.errors import UserError
from raylib.extract.layers import DEFAULT_LAYERS, check_layers
from raylib.models.protocol import ModelSpec
from raylib.placement import Placement, at_least_one

StateFormat = Literal["hdf5", "parquet"]
Boundary = Literal["exact", "legacy"]
Compression = Literal["none", "lzf"]


@dataclass
class ExtractConfig(Placement):
    """Hidden states of a vision-language model for questions about images, in HDF5 or Parquet.

    One forward of a batch gives the vision tower's mean, the states at the last image token and at the last token of
    the prompt, and means over tokens, at every asked layer. A run that was killed goes on where it was.
    """

    model: str = ""
    """A vision-language model: a hub name or a local directory."""

    vqa_dataset: str = field(default="", metadata={"metavar": "FILE"})
    """CSV, Parquet or JSONL with question_id, image_id or image_name, question, and answer if there is one."""

    images_dir: str | None = field(default=None, metadata={"metavar": "DIR"})
    """The folder, or the zip, that holds the images. Not needed where a Parquet column holds them."""

    output_dir: str = field(default="output", metadata={"metavar": "DIR"})
    """Where the files go."""

    image_column: str | None = None
    """The Parquet column that holds the images. By default image, where there is no --images-dir."""

    layers: str = field(default=DEFAULT_LAYERS, metadata={"metavar": "L,L,…|all"})
    """Decoder blocks: numbers from 0 (or -1 from the end), fractions of the depth, or all."""

    boundary: Boundary = field(default="exact", metadata={"metavar": "exact|legacy"})
    """Where the last image token is: where it is found, or where the scripts of HALP took it to be."""

    generate: bool = False
    """Also answer every question, and keep the answers."""

    max_new_tokens: int = 200
    """Longest answer, in tokens."""

    batch_size: int | Literal["auto"] | None = field(default=None, metadata={"metavar": "N|auto"})
    """Rows per forward, 16 by default; halved where memory is short. auto tries the longest rows."""

    checkpoint_interval: int = 1000
    """Rows of the data set per file. A killed run loses no more than the batches under way."""

    format: StateFormat = field(default="hdf5", metadata={"metavar": "hdf5|parquet"})
    """The files' form. raylib probe and raylib inspect read both."""

    compression: Compression = field(default="none", metadata={"metavar": "none|lzf"})
    """Of the columns in HDF5. Hidden states hardly shrink; lzf is for those that do."""

    revision: str | None = None
    """Commit, branch or tag of the model on the hub."""

    adapter: str | None = field(default=None, metadata={"metavar": "PATH"})
    """A peft adapter directory to put on the model."""

    dtype: str | None = None
    """float32, float16 or bfloat16: what the model computes in. Files always hold float32."""

    attention: str | None = None
    """sdpa, eager or flash_attention_2 (which must be installed). The library's choice by default."""

    device: str | None = None
    """cpu, cuda, or auto, which spreads the weights over all GPUs of a worker. By default cuda on workers that hold a
    GPU, and auto where --gpus-per-worker is 2 or more."""

    trust_remote_code: bool = False
    """Run code that comes with a model (Molmo, FastVLM)."""

    cache_dir: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where models from the hub are kept. By default the hub client's own cache."""

    test: bool = False
    """Only three rows, drawn with seed 42, into <output-dir>/test."""

    allow_errors: int = 0
    """Exit with 0 although up to N rows could not be used."""

    overwrite: bool = False
    """Replace the files of another run in the output folder."""

    quiet: bool = False
    """No progress, only problems."""

    def __post_init__(self) -> None:
        """Check what can be checked without loading anything. Raises UserError."""
        for name in ("vqa_dataset", "images_dir", "output_dir"):
            value = getattr(self, name)
            setattr(self, name, storage.as_path(value) if value is not None else None)
        check_layers(self.layers)
        at_least_one(self, ("checkpoint_interval", "max_new_tokens"))
        if self.batch_size != "auto":
            at_least_one(self, ("batch_size",))
        self.check_placement()
        if self.allow_errors < 0:
            raise UserError(f"--allow-errors is {self.allow_errors}; expected 0 or more")
        if self.format == "parquet" and self.compression != "none":
            raise UserError("--compression is of HDF5; leave it out with --format parquet")

    def check_complete(self) -> None:
        """Raises UserError unless a model and a data set are given."""
        if not self.model:
            raise UserError("no model was given; add --model NAME, a vision-language model on the hub or a directory")
        if not self.vqa_dataset:
            raise UserError("no questions were given; add --vqa-dataset FILE (CSV, Parquet or JSONL)")

    @property
    def spec(self) -> ModelSpec:
        """The model with its options, spread over the GPUs of a worker that holds several."""
        names = ("revision", "adapter", "dtype", "attention", "device", "trust_remote_code")
        return ModelSpec(self.model, **{name: getattr(self, name) for name in names}).on_gpus(self.gpus_per_worker)

    @property
    def folder(self) -> str:
        """Where this run writes."""
        return f"{self.output_dir.rstrip('/') or '/'}{'/test' if self.test else ''}"

    def as_dict(self) -> dict[str, Any]:
        """What was set, for the manifest."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and v is not False}
