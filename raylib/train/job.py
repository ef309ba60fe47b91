"""The train job: what is trained on is read, the run written down, processes train, and what came of it is said."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.progress import Reporter
from raylib.examples.batch_plan import read_plan, write_plan
from raylib.examples.examples import Examples, examples_of
from raylib.models.torch_encoder import TorchEncoder
from raylib.store.manifests import versions
from raylib.timeline import Timeline
from raylib.train.assignment import Assignment, Trained
from raylib.train.config import TrainConfig
from raylib.train.feed import ContentFeed
from raylib.train.judge import load_tasks
from raylib.train.place import TrainPlace
from raylib.train.run_folder import FREE, RunFolder, resumed
from raylib.train.schedule import Schedule, by_chance, follow
from raylib.train.setup import encoder_to_train
from raylib.train.trackers import check_trackers

DEFAULT_BATCH = 32
_VERSIONS = ("raylib-cluster", "torch", "transformers", "peft", "numpy", "mteb", "ray")


@dataclass
class Outcome:
    """trained: what came of it; complete: an earlier run had done it all."""

    trained: Trained
    folder: str
    complete: bool = False


class TrainJob:
    """`run` or `dry_run`, once."""

    def __init__(
        self, config: TrainConfig, place: TrainPlace, reporter: Reporter, timeline: Timeline | None = None
    ) -> None:
        self.resuming = config.resume is not None
        self.config = resumed(config) if self.resuming else config
        self.place, self.reporter = place, reporter
        self.folder = RunFolder(self.config.output_folder)
        self.timeline = (timeline or Timeline()).of(", ".join(self.config.model))

    def dry_run(self) -> dict[str, Any]:
        """What `run` would do. Writes nothing, and loads no weights."""
        encoder, examples, schedule = self._prepare()
        return {
            "model": encoder.spec.name,
            "examples": len(examples),
            "steps": schedule.steps,
            "batches": len(schedule.plan_of(0)),
            "batch_size": schedule.plan_of(0).shape[1],
        }

    def run(self) -> Outcome:
        """Raises UserError for what cannot be right from the start, and ModelError, StoreError or BadContentsError for
        what fails later: checkpoints are kept, and the same command goes on from the newest."""
        with self.timeline.stage("prepare"):
            encoder, examples, schedule = self._prepare()
        for note in examples.notes:
            self.reporter.warn(note)
        if self.config.mask_duplicates:
            examples = examples.unified()
        run = self._name(encoder, examples, schedule)
        known = self._known(run)
        if known is not None:
            return known
        self._write_run(run, encoder, examples, schedule)
        self.reporter.say(self._about(encoder, examples, schedule))
        with self.timeline.stage("train") as stage:
            trained = self.place.run(Assignment(self.config, examples, schedule, run), self.reporter)
            stage.held, stage.retries = self.place.held(), trained.retries
        self.folder.write("finished.json", {"run": run, **vars(trained), "timeline": self.timeline.as_dict()})
        self._tell(trained)
        return Outcome(trained, self.folder.path)

    # Before anything is trained.

    def _prepare(self) -> tuple[TorchEncoder, Examples, Schedule]:
        config = self.config
        encoder = encoder_to_train(config)
        check_trackers(config.track)
        if config.save_legacy and encoder.family.name != "colintern":
            raise UserError(f"--save-legacy is for ColIntern's heads; {encoder.spec.name} has none. Leave it out")
        if config.heads_only and config.feature_cache and config.gradient_checkpointing:
            raise UserError("--gradient-checkpointing: with --heads-only no backbone is trained; leave it out")
        examples = examples_of(config)
        ContentFeed(encoder, examples).check()
        if config.eval_benchmarks or config.eval_tasks:
            load_tasks(encoder, config.eval_benchmarks, config.eval_tasks)
        schedule = self._schedule(examples)
        self._check_negatives(examples, schedule)
        return encoder, examples, schedule

    def _schedule(self, examples: Examples) -> Schedule:
        config = self.config
        common: dict[str, Any] = {"accumulate": config.grad_accum, "max_steps": config.max_steps}
        if config.batch_plan is not None:
            plan = read_plan(config.batch_plan, examples.ids)
            size = plan.batches.shape[1]
            if config.batch_size not in (None, size):
                raise UserError(
                    f"--batch-size is {config.batch_size}, and the batches of {config.batch_plan} have {size} "
                    "examples; leave it out"
                )
            return follow(plan, epochs=self._epochs(len(plan.batches)), **common)
        size = config.batch_size or min(DEFAULT_BATCH, len(examples))
        epochs = self._epochs(math.ceil(len(examples) / size))
        return by_chance(examples, batch_size=size, seed=config.seed, epochs=epochs, **common)

    def _epochs(self, batches: int) -> int:
        """As --epochs says, else enough for --max-steps."""
        config = self.config
        if config.epochs is not None or config.max_steps is None:
            return config.epochs or 1
        return math.ceil(config.max_steps / math.ceil(batches / config.grad_accum))

    def _check_negatives(self, examples: Examples, schedule: Schedule) -> None:
        given = self.config.hard_negatives != 0 and (len(examples.negatives) or schedule.hard_negatives is not None)
        if schedule.plan_of(0).shape[1] > 1 or given or self.config.loss == "sigmoid":
            return
        raise UserError(
            f"batches are of 1 example (of {len(examples)} in the data) and no example has a hard negative, so that "
            "there is nothing to tell a positive from; give more examples, a larger --batch-size, or negatives"
        )

    def _name(self, encoder: TorchEncoder, examples: Examples, schedule: Schedule) -> str:
        settings = {name: value for name, value in self.config.as_dict().items() if name not in FREE}
        digest = hashlib.sha256(json.dumps([settings, dict(encoder.identity)], sort_keys=True, default=str).encode())
        digest.update(examples.digest())
        for plan in schedule.plans:
            digest.update(plan.tobytes())
        return digest.hexdigest()

    def _known(self, run: str) -> Outcome | None:
        """What an earlier run of the same came to; None where there is something to do. Raises UserError where another
        run would be lost."""
        about = self.folder.about()
        if self.config.overwrite and not self.resuming:
            self.folder.clear()
            return None
        if about is None:
            return None
        if about["run"] != run:
            raise UserError(
                f"{self.folder.path} holds a run of other data, another model or other settings. Give another "
                "--output-folder, or begin anew with --overwrite"
            )
        finished = self.folder.finished()
        if finished is None:
            return None
        self.reporter.say(f"{self.folder.path} is complete: {finished['steps']} steps. Begin anew with --overwrite")
        fields = {name: finished[name] for name in Trained.__dataclass_fields__ if name in finished}
        best = fields.pop("best")
        trained = Trained(**fields, best=None if best is None else (int(best[0]), float(best[1])))  # pyright: ignore
        return Outcome(trained, self.folder.path, complete=True)

    def _write_run(self, run: str, encoder: TorchEncoder, examples: Examples, schedule: Schedule) -> None:
        facts = {
            "run": run,
            "examples": len(examples),
            "steps": schedule.steps,
            "processes": self.place.processes,
            "model": dict(encoder.identity),
            "settings": self.config.as_dict(),
            "versions": versions(_VERSIONS),
        }
        if self.folder.about() is None:
            self._write_plans(examples, schedule)
        self.folder.write("run.json", facts)

    def _write_plans(self, examples: Examples, schedule: Schedule) -> None:
        """Of batches by chance: what the run is to follow, in the format of mined ones."""
        if self.config.batch_plan is not None:
            return
        storage.make_folder(self.folder.part("plans"))
        for epoch, plan in enumerate(schedule.plans):
            settings = {"method": "random", "seed": self.config.seed + epoch, "batch_size": plan.shape[1]}
            path = self.folder.part(f"plans/epoch-{epoch + 1:04d}.parquet")
            write_plan(path, plan, examples.ids, settings=settings, teacher="")

    # For a person.

    def _about(self, encoder: TorchEncoder, examples: Examples, schedule: Schedule) -> str:
        processes = f"{self.place.processes} processes" if self.place.processes > 1 else "one process"
        what = {"full": "all weights", "lora": "a LoRA", "heads": "the heads"}[self.config.what]
        batch = schedule.plan_of(0).shape[1]
        return (
            f"{encoder.spec.name}: {what}, {len(examples)} examples, {schedule.steps} steps of "
            f"{self.config.grad_accum} × {batch} examples, {processes}"
        )

    def _tell(self, trained: Trained) -> None:
        told = f"{trained.steps} steps, {trained.seconds:.0f} s; the last weights are in {trained.model}"
        if trained.best is not None:
            step, score = trained.best
            told += f"\nthe best of the evaluated steps is {step}: {score:.4f}"
            told += f", in {trained.best_model}" if trained.best_model is not None else ", which was not kept"
        if spent := self.timeline.line():
            told += f"\n{spent}"
        self.reporter.say(told)
