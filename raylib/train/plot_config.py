"""The settings of `raylib plot loss` and `raylib plot metrics`: flags and YAML keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from raylib.errors import UserError
from raylib.placement import at_least_one, name_list


@dataclass
class PlotLossConfig:
    """Draw the loss of a training run by step, as it was and smoothed, and its learning rate.

    It reads metrics.jsonl, or the training_loss.txt of an older run.
    """

    run: str = field(metadata={"positional": True})
    """The --output-folder of raylib train, or one of those two files."""

    smooth: int | None = None
    """Records that a point of the smooth line is the mean of. By default a twentieth of all."""

    out: str | None = field(default=None, metadata={"metavar": "FILE"})
    """The .png or .svg to write. By default loss.png, in the run's folder."""

    def __post_init__(self) -> None:
        """Raises UserError."""
        at_least_one(self, ("smooth",))
        _check_form(self.out)


@dataclass
class PlotMetricsConfig:
    """Draw what the evaluations of training runs gave, by step; bars where each run has one.

    A run is the --output-folder of raylib train, or one of raylib evaluate.
    """

    runs: list[str] = field(default_factory=list, metadata={"positional": True})
    """The runs."""

    labels: list[str] = field(default_factory=list, metadata={"several": True, "metavar": "NAME …"})
    """Their names in the figure, in order. By default those of their folders."""

    metric: str = "ndcg_at_5"
    """What to draw."""

    out: str = field(default="metrics.png", metadata={"metavar": "FILE"})
    """The .png or .svg to write."""

    def __post_init__(self) -> None:
        """Raises UserError."""
        self.labels = name_list(self.labels)
        if not self.runs:
            raise UserError("no run was given; name the --output-folder of a `raylib train`, or several")
        if self.labels and len(self.labels) != len(self.runs):
            raise UserError(f"--labels has {len(self.labels)} names for {len(self.runs)} runs; give one for each")
        _check_form(self.out)


def _check_form(path: str | None) -> None:
    if path is not None and not path.endswith((".png", ".svg")):
        raise UserError(f"--out is {path!r}; expected a name that ends in .png or .svg")
