"""What a run was like, step by step: metrics.jsonl, TensorBoard events, training_loss.txt, and trackers.

Names of values: loss, lr, grad_norm, epoch, examples_per_second, tokens_per_second, memory_gb, temperature; of
evaluations eval/TASK/MEASURE, such as eval/StdlibPagesT2I/ndcg_at_5.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raylib import storage
from raylib.errors import UserError
from raylib.train.trackers import Tracker

METRICS, LOSSES, EVENTS = "metrics.jsonl", "training_loss.txt", "tensorboard"
_LOSS_LINE = re.compile(r"\[.*\] Epoch (\d+) (?:iter (\d+)/(\d+) - loss (\S+)|done\. avg loss = \S+)\s*")


class Records:
    """Of a run in a local or remote folder. Of an earlier process what is of later steps than `resume_step` goes first:
    the steps between its last checkpoint and its end are done, and recorded, again.

    steps_per_epoch: of the optimizer. mode: the word in brackets of training_loss.txt. tell: gets a line where a
    tracker fails; training goes on without it. Locally every line is there when `log` returns; remotely, after `flush`.
    """

    def __init__(
        self,
        run_folder: str | Path,
        resume_step: int = 0,
        trackers: Sequence[Tracker] = (),
        *,
        steps_per_epoch: int,
        mode: str,
        tell: Callable[[str], None],
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.trackers, self.tell = str(run_folder), list(trackers), tell
        self.steps_per_epoch, self.mode = steps_per_epoch, mode
        self._remote = storage.is_remote(run_folder)
        self._copy = tempfile.TemporaryDirectory(prefix="raylib-records-") if self._remote else None
        self._local = Path(self._copy.name if self._copy is not None else self.folder)
        storage.make_folder(self._local)
        kept = [row for row in self._earlier_rows() if resume_step and row["step"] <= resume_step]
        self._losses: list[tuple[int, float]] = [(r["step"], r["loss"]) for r in kept if r.get("loss") is not None]
        storage.write_text(self._local / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
        lines = [line for line in self._earlier_lines(LOSSES) if _step_of(line, steps_per_epoch) <= resume_step]
        storage.write_text(self._local / LOSSES, "".join(f"{line}\n" for line in lines))
        if resume_step == 0:
            storage.remove_folder(storage.join(self.folder, EVENTS))
        self._events: Any = SummaryWriter(str(self._local / EVENTS), purge_step=resume_step + 1)

    def _earlier_lines(self, name: str) -> list[str]:
        path = storage.join(self.folder, name)
        return storage.read_text(path).splitlines() if storage.exists(path) else []

    def _earlier_rows(self) -> list[dict[str, Any]]:
        return parse_metrics(self._earlier_lines(METRICS), storage.join(self.folder, METRICS))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a step, of training or of an evaluation. A loss is the mean since the last one."""
        plain = {name: float(value) for name, value in values.items()}
        row = {"step": step, **{name: value if math.isfinite(value) else None for name, value in plain.items()}}
        self._append(METRICS, json.dumps(row))
        for name, value in plain.items():
            self._events.add_scalar(name if "/" in name else f"train/{name}", value, step)
        if "loss" in plain:
            self._log_loss(step, plain["loss"])
        for tracker in list(self.trackers):
            self._guarded(tracker, lambda tracker=tracker: tracker.log(step, plain))

    def _log_loss(self, step: int, loss: float) -> None:
        """The lines that the old tool wrote: one now, and one for each epoch that is over since the last."""
        before = self._losses[-1][0] if self._losses else 0
        self._losses.append((step, loss))
        length = self.steps_per_epoch
        epoch, done = (step - 1) // length, step % length == 0
        for over in range(before // length, epoch):
            self._done_line(over)
        self._append(LOSSES, f"[{self.mode}] Epoch {epoch + 1} iter {step - epoch * length}/{length} - loss {loss:.4f}")
        if done:
            self._done_line(epoch)

    def _done_line(self, epoch: int) -> None:
        first = epoch * self.steps_per_epoch
        mean = mean_loss(self._losses, first, first + self.steps_per_epoch)
        self._append(LOSSES, f"[{self.mode}] Epoch {epoch + 1} done. avg loss = {mean:.4f}")

    def _append(self, name: str, line: str) -> None:
        try:
            with open(self._local / name, "a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")
        except OSError as error:
            raise UserError(f"cannot write {self._local / name}: {error.strerror or error}") from error

    def _guarded(self, tracker: Tracker, call: Callable[[], None]) -> None:
        """A tracker's server that goes away does not end a training of days."""
        try:
            call()
        except Exception as error:
            self.trackers.remove(tracker)
            self.tell(f"{tracker.name} failed ({type(error).__name__}: {error}); it gets nothing more of this run")

    def flush(self) -> None:
        """All that was logged is in the run's folder when this returns."""
        self._events.flush()
        if self._remote:
            storage.upload_folder(self._local, self.folder, last=METRICS)

    def close(self) -> None:
        """Flush, and let trackers end their run."""
        self._events.close()
        self.flush()
        for tracker in list(self.trackers):
            self._guarded(tracker, tracker.close)
        if self._copy is not None:
            self._copy.cleanup()


def mean_loss(losses: Iterable[tuple[int, float]], first: int, last: int) -> float:
    """Of the steps first + 1 … last. losses: (step, mean since the one before), ascending by step; one that begins
    before `first` or ends after `last` counts for its steps between them."""
    total, steps, before = 0.0, 0, 0
    for step, loss in losses:
        inside = min(step, last) - max(before, first)
        if inside > 0:
            total += loss * inside
            steps += inside
        before = step
    return total / steps if steps else math.nan


def _step_of(line: str, steps_per_epoch: int) -> int:
    """The step that a line of training_loss.txt was written at; 0 for a line of something else."""
    found = _LOSS_LINE.fullmatch(line)
    if found is None:
        return 0
    epoch = int(found[1])
    return epoch * steps_per_epoch if found[2] is None else (epoch - 1) * steps_per_epoch + int(found[2])


def read_losses(path: str) -> list[tuple[int, float]]:
    """(step, loss) of the lines of a training_loss.txt, raylib's or the old tool's. Raises OSError."""
    found = [_LOSS_LINE.fullmatch(line) for line in storage.read_text(path).splitlines()]
    lines = [line for line in found if line is not None and line[2] is not None]
    return [((int(line[1]) - 1) * int(line[3]) + int(line[2]), float(line[4])) for line in lines]


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl: step, and values by name, None where one was not finite.

    Raises UserError where there is none, or where it is not one.
    """
    path = storage.join(run, METRICS)
    if not storage.exists(path):
        raise UserError(f"{run} has no {METRICS}; give the --output-folder of a `raylib train`")
    return parse_metrics(storage.read_text(path).splitlines(), path)


def parse_metrics(lines: Sequence[str], path: str) -> list[dict[str, Any]]:
    """path: for errors. A last line that is cut off, as a killed run leaves it, is none. Raises UserError."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise UserError(f"{path}: line {number} is no record of a step ({error}); remove it") from error
    return rows


def line(step: int, total: int, values: Mapping[str, float]) -> str:
    """What a person who watches sees of a step; `step 50/400  loss 2.0794  lr 4.5e-05  …`."""
    told = [f"step {step}/{total}"]
    for name, form in _SHOWN.items():
        if name in values:
            told.append(form(values[name]))
    for name, value in values.items():
        if name.startswith("eval/"):
            task, _, measure = name.removeprefix("eval/").rpartition("/")
            told.append(f"{task} {measure} {value:.4f}")
    return "  ".join(told)


def _short(value: float) -> str:
    """Three digits: 0.83, 312, 12.4k, 1.24M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


_SHOWN: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.4f}",
    "lr": lambda value: f"lr {value:.3g}",
    "grad_norm": lambda value: f"grad norm {value:.3g}",
    "examples_per_second": lambda value: f"{_short(value)} examples/s",
    "tokens_per_second": lambda value: f"{_short(value)} tokens/s",
    "memory_gb": lambda value: f"{value:.3g} GB",
    "temperature": lambda value: f"temperature {value:.3g}",
}
"""How `line` shows a value, in its order; what is not here it leaves out."""
