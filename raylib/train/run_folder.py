"""The folder of a training run: what it is a run of, and where its parts lie.

run.json              settings, data, model, versions: written first
plans/                the batches by chance, where no plan was given
checkpoints/          see `checkpoints`
metrics.jsonl, training_loss.txt, tensorboard/
evaluations/step-N/   MTEB's results of the weights at a step
model/                the last weights: --model FOLDER runs them
finished.json         written last: the run is complete
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylib import storage
from raylib.errors import StoreError, UserError
from raylib.placement import Placement
from raylib.train.config import TrainConfig

_KIND = "raylib train"
_PARTS = ("checkpoints", "tensorboard", "evaluations", "plans", "model")
_FILES = ("metrics.jsonl", "training_loss.txt", "run.json", "finished.json")

_PLACES = {f.name for f in dataclasses.fields(Placement)}

FREE = {
    *_PLACES,
    *("quiet", "dry_run", "max_failures", "overwrite", "resume", "save_every", "log_every", "track"),
    *("keep_last", "keep_best", "output_folder", "store", "device", "save_legacy", "score_chunk", "feature_cache"),
    "strategy",
}
"""Settings that do not change the weights: a run may go on with others."""


@dataclass(frozen=True)
class RunFolder:
    """path: local or s3://."""

    path: str

    def part(self, name: str) -> str:
        return storage.join(self.path, name)

    @property
    def checkpoints(self) -> str:
        return self.part("checkpoints")

    @property
    def model(self) -> str:
        return self.part("model")

    def about(self) -> dict[str, Any] | None:
        """run.json; None where there is none. Raises UserError for one that is not of this command."""
        return self._read("run.json")

    def finished(self) -> dict[str, Any] | None:
        return self._read("finished.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.part(name)
        if not storage.exists(path):
            return None
        try:
            found = json.loads(storage.read_text(path))
        except ValueError as error:
            raise UserError(f"{path} cannot be read ({error}); begin anew with --overwrite") from error
        if not isinstance(found, dict) or found.get("kind") != _KIND:
            raise UserError(f"{path} is not of a training run; give another --output-folder")
        return found

    def write(self, name: str, facts: dict[str, Any]) -> None:
        storage.make_folder(self.path)
        text = json.dumps({"kind": _KIND, **facts}, indent=1, default=str)
        storage.write_text(self.part(name), text + "\n")

    def clear(self) -> None:
        """Take away what a run wrote. What else lies in the folder stays."""
        for name in reversed(_FILES):
            storage.remove(self.part(name))
        for name in _PARTS:
            storage.remove_folder(self.part(name))

    def write_model(self, model: Path) -> None:
        """The last weights, of the local folder of their checkpoint; whole or not at all where this one is local."""
        if storage.is_remote(self.path):
            names = sorted(path.name for path in model.iterdir() if path.is_file())
            storage.upload_folder(model, self.model, last=names[-1])
            return
        aside = Path(self.part(".model"))
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(model, aside)
        storage.remove_folder(self.model)
        os.rename(aside, self.model)

    def write_legacy(self, step: int, model: Path) -> None:
        """colintern_heads_stepN.pt in the run's folder, of the heads in a model's folder."""
        with storage.atomic_write(self.part(f"colintern_heads_step{step}.pt")) as stream:
            stream.write((model / "colintern_heads_latest.pt").read_bytes())

    def require(self, run: str) -> None:
        """On a worker: raises StoreError where it does not see the run's folder."""
        about = self.about()
        if about is None or about.get("run") != run:
            raise StoreError(
                f"a worker does not see the run in {self.path}. On a cluster of several machines put --output-folder "
                "on a file system that all of them share, or on s3://"
            )


def resumed(config: TrainConfig) -> TrainConfig:
    """The run that --resume names, with its own settings, but for those that do not change its weights.

    Raises UserError where there is no such run, and for settings that are not those it began with.
    """
    assert config.resume is not None
    folder = storage.as_path(config.resume).rstrip("/") or "/"
    about = RunFolder(folder).about()
    if about is None:
        raise UserError(f"--resume {config.resume}: there is no run.json; expected the folder of a run")
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    own = TrainConfig(**{name: value for name, value in about["settings"].items() if name in known})
    others, free = [], {}
    for f in dataclasses.fields(TrainConfig):
        asked, kept = getattr(config, f.name), getattr(own, f.name)
        default = f.default_factory() if f.default is dataclasses.MISSING else f.default  # pyright: ignore
        if f.name in _PLACES or (f.name in FREE and asked != default):
            free[f.name] = asked
        elif f.name not in FREE and asked not in (default, kept):
            others.append(f"--{f.name.replace('_', '-')}")
    if others:
        raise UserError(
            f"{', '.join(others)} differ from the run's own settings; --resume goes on with those. Leave them out, or "
            "begin another run"
        )
    return replace(own, **{**free, "output_folder": folder, "resume": None})
