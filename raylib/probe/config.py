"""The settings of `raylib probe`: its flags, its YAML keys and the keyword arguments of `raylib.probe`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from raylib.errors import UnknownNameError, UserError
from raylib.placement import at_least_one, name_list
from raylib.probe.results import CLASSIFIERS, SplitKind
from raylib.store.representations import KINDS, Representation

RecipeName = Literal["raylib", "published"]


@dataclass
class ProbeConfig:
    """Train probes that predict a label from hidden states: one a representation, layer and classifier.

    Rows that share an image are never on both sides of the split, unless you ask for it. The best probe, by validation,
    is in <output-dir>/best; with --apply it scores new rows.
    """

    states: str = field(default="", metadata={"positional": True})
    """What raylib extract wrote: its --output-dir, or one file. Files of HALP's scripts are read, too."""

    labels: str | None = field(default=None, metadata={"metavar": "FILE"})
    """CSV, Parquet or JSONL with question_id and the target."""

    target: str = "is_hallucinating_manual"
    """The column of labels: true and false, 1 and 0, yes and no."""

    output_dir: str = field(default="probes", metadata={"metavar": "DIR"})
    """Where probes, tables, figures and the report go; with --apply, the scores."""

    representations: list[str] = field(default_factory=list)
    """Which kinds (vision_only, vision_token, query_token, multimodal, image_mean, text_mean). By default all there
    are."""

    layers: str = field(default="all", metadata={"metavar": "N,N,…|all"})
    """Which decoder layers, of those that were extracted."""

    classifiers: list[str] = field(default_factory=list)
    """mlp (512-256-128-1), logistic. By default both."""

    split: SplitKind = field(default="image", metadata={"metavar": "image|source|random"})
    """What may not be on both sides: an image, a whole source, or nothing (as published; it leaks)."""

    recipe: RecipeName = field(default="raylib", metadata={"metavar": "raylib|published"})
    """raylib standardises, weighs classes and stops by validation; published does what HALP did."""

    seed: int = 42
    """Of splits, weights, batches and resamples."""

    epochs: int = 50
    """Most passes over the training rows."""

    batch_size: int = 32
    """Rows of one step."""

    learning_rate: float = field(default=1e-3, metadata={"metavar": "X"})
    """Of Adam."""

    resamples: int = 1000
    """Bootstrap resamples behind every interval."""

    image_column: str | None = None
    """The column of labels that names the image. By default image_id or image_name, else what the states say."""

    category_column: str | None = None
    """The column of labels to tell AUROCs apart by. By default category."""

    source_column: str | None = None
    """The column of labels that names the source. By default source or dataset."""

    label_shuffle: bool = False
    """Permute the labels: a sanity check, whose AUROCs belong near 0.5."""

    apply: str | None = field(default=None, metadata={"metavar": "PROBE"})
    """Score rows with the probe in this folder instead of training."""

    workers: int | None = None
    """Most probes trained side by side. By default one per CPU of the cluster."""

    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """A Ray cluster to join. By default RAY_ADDRESS, or Ray is started on this machine."""

    local: bool = False
    """Run in this process, without Ray."""

    overwrite: bool = False
    """Train again what is finished, and replace the probes of other rows or settings."""

    quiet: bool = False
    """No progress and no table, only problems."""

    def __post_init__(self) -> None:
        """Check what can be checked without reading anything. Raises UserError."""
        self.representations, self.classifiers = name_list(self.representations), name_list(self.classifiers)
        for name in self.representations:
            if name not in KINDS:
                raise UnknownNameError("representation", name, KINDS, hint=f"There are: {', '.join(KINDS)}.")
        for name in self.classifiers:
            if name not in CLASSIFIERS:
                raise UnknownNameError("classifier", name, CLASSIFIERS, hint=f"There are: {', '.join(CLASSIFIERS)}.")
        self.classifiers = self.classifiers or list(CLASSIFIERS)
        self.wanted_layers()
        at_least_one(self, ("epochs", "resamples", "workers"))
        if self.batch_size < 2:
            raise UserError(f"--batch-size is {self.batch_size}; expected at least 2: a batch of one has no variance")
        if not self.learning_rate > 0:
            raise UserError(f"--learning-rate is {self.learning_rate}; expected more than 0")
        if self.local and self.address:
            raise UserError("--local runs without Ray and --address names a cluster; leave one of them out")

    def check_complete(self) -> None:
        """Raises UserError unless there is something to train on, or to apply to."""
        if not self.states:
            raise UserError("no hidden states were given; name the --output-dir of a `raylib extract`")
        if not self.labels and not self.apply:
            raise UserError("no labels were given; add --labels FILE, or score rows with --apply PROBE")

    def columns(self) -> dict[str, str | None]:
        """What is known by a name of our own in the labels, where it has another there."""
        return {"image_id": self.image_column, "category": self.category_column, "source": self.source_column}

    def wanted_layers(self) -> set[int] | None:
        """None for all. Raises UserError for what are no layers."""
        if self.layers.strip() == "all":
            return None
        words = [word.strip() for word in self.layers.split(",") if word.strip()]
        if not words or not all(word.isdecimal() for word in words):
            raise UserError(f"--layers is {self.layers!r}; expected all, or layers such as 0,24,47")
        return {int(word) for word in words}

    def chosen(self, there: list[Representation]) -> list[Representation]:
        """Of the representations of the states, those that are asked for. Raises UserError where none is, or where a
        layer is asked for that none has."""
        layers = self.wanted_layers()
        have = sorted({one.layer for one in there if one.layer is not None})
        if layers is not None and not layers <= set(have):
            raise UserError(f"--layers asks for {sorted(layers - set(have))}; the states have {have}")
        kinds = self.representations or list(KINDS)
        found = [one for one in there if one.kind in kinds and (layers is None or one.layer in (None, *layers))]
        if not found:
            have_kinds = ", ".join(sorted({one.kind for one in there}))
            raise UserError(f"--representations {','.join(kinds)}: none of them is in the states ({have_kinds})")
        return found

    def as_dict(self) -> dict[str, Any]:
        """What was set, for the manifest."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, False, [])}
