"""The jobs around training as functions: mining, and training itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raylib.api_settings import as_config, connected, reporter_of, timeline_of
from raylib.mine.config import BatchesConfig, NegativesConfig
from raylib.train.config import TrainConfig

if TYPE_CHECKING:
    from raylib.mine.job import MineJob
    from raylib.mine.job import Outcome as MineOutcome
    from raylib.train.job import Outcome as TrainOutcome
    from raylib.train.job import TrainJob


def train(model: str | TrainConfig | None = None, **settings: Any) -> TrainOutcome:
    """Fine-tune a model on pairs; the settings are those of `raylib train --help`, with underscores.

        raylib.train("vidore/colqwen2.5-v0.2", data="train.jsonl", lora=True, output_folder="runs/first")

    The model may be None with `resume`. Gives what came of it: `.trained` (steps, scores, the best step, the folder of
    the weights), `.folder`. Raises UserError for what cannot be right from the start; ModelError, StoreError and
    BadContentsError for what fails later, where the same call goes on from the newest checkpoint.
    """
    from raylib.train.place import ThisProcess

    config = as_config(TrainConfig, "train", [] if model is None else model, settings)
    config.check_complete()
    with connected(config, "train"):
        if config.local:
            place: Any = ThisProcess()
        else:
            from raylib.cluster.train import RayTrainPlace

            place = RayTrainPlace.of(config, config.max_failures)
        return _train_job(config, place, reporter_of(config), timeline_of(config)).run()


def plan_training(config: TrainConfig) -> dict[str, Any]:
    """What `train` would do; see `TrainJob.dry_run`. Starts nothing and writes nothing."""
    from raylib.evaluate.progress import QuietReporter
    from raylib.train.place import ThisProcess

    config.check_complete()
    return _train_job(config, ThisProcess(), QuietReporter()).dry_run()


def _train_job(config: TrainConfig, place: Any, reporter: Any, timeline: Any = None) -> TrainJob:
    from raylib.evaluate.quiet import quiet_libraries
    from raylib.train.job import TrainJob

    quiet_libraries()
    return TrainJob(config, place, reporter, timeline)


def mine_negatives(model: str | NegativesConfig, **settings: Any) -> MineOutcome:
    """Hard negatives of training pairs; the settings are those of `raylib mine negatives --help`, with underscores.

        raylib.mine_negatives("BAAI/bge-m3", data="train.jsonl", output="mined.jsonl", positive_fraction=0.95)

    Gives what was done: `.files`, `.counts`, `.summary`, `.bad`; `.ok` tells whether the output is complete. Raises
    UserError for what cannot be right from the start, and ModelError for what fails later.
    """
    config = as_config(NegativesConfig, "mine negatives", model, settings)
    config.check_complete()
    return _run_mining(config)


def mine_batches(model: str | BatchesConfig | None = None, **settings: Any) -> MineOutcome:
    """A plan of training batches; the settings are those of `raylib mine batches --help`, with underscores.

        raylib.mine_batches("BAAI/bge-m3", data="train.jsonl", output="plan.parquet", batch_size=1024)

    The model may be None for the methods "random" and "sequential". Gives and raises what `mine_negatives` does;
    `raylib.mine.b3_batches` does the same over arrays.
    """
    config = as_config(BatchesConfig, "mine batches", [] if model is None else model, settings)
    config.check_complete()
    return _run_mining(config)


def plan_mining(config: NegativesConfig | BatchesConfig) -> dict[str, Any]:
    """What mining would encode; see `raylib.mine.job.MineJob.dry_run`. Starts nothing and writes nothing."""
    from raylib.evaluate.progress import QuietReporter
    from raylib.mine.place import this_process

    config.check_complete()
    return _mine_job(config, this_process(), QuietReporter()).dry_run()


def _run_mining(config: NegativesConfig | BatchesConfig) -> MineOutcome:
    from raylib.mine.place import this_process

    with connected(config, "mine"):
        if config.local:
            place = this_process()
        else:
            from raylib.cluster.mine import mine_place

            place = mine_place(config)
        return _mine_job(config, place, reporter_of(config), timeline_of(config)).run()


def _mine_job(config: NegativesConfig | BatchesConfig, place: Any, reporter: Any, timeline: Any = None) -> MineJob[Any]:
    from raylib.evaluate.quiet import quiet_libraries
    from raylib.mine.batches_job import BatchesJob
    from raylib.mine.negatives_job import NegativesJob

    quiet_libraries()
    if isinstance(config, NegativesConfig):
        return NegativesJob(config, place, reporter, timeline)
    return BatchesJob(config, place, reporter, timeline)
