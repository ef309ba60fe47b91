"""The parts of a training run as its settings say, each made where it is needed."""

from __future__ import annotations

from collections.abc import Callable

from raylib.errors import UnsupportedOptionError, UserError
from raylib.models.protocol import Encoder
from raylib.models.registry import resolve
from raylib.models.torch_encoder import HeadedEncoder, TorchEncoder
from raylib.train.assignment import Assignment
from raylib.train.config import TrainConfig
from raylib.train.features import FeatureFeed
from raylib.train.feed import ContentFeed, Feed
from raylib.train.judge import Judge, load_tasks
from raylib.train.learner import Learner
from raylib.train.loop import Loop, LoopSettings, Watcher
from raylib.train.micro_batch import largest_micro_batch
from raylib.train.new_heads import with_heads
from raylib.train.objective import Criterion, Objective
from raylib.train.optimizers import warmup_steps
from raylib.train.schedule import Schedule
from raylib.train.step import Batches, BatchStep
from raylib.train.team import Team
from raylib.types import compares_vectors

Tell = Callable[[str], None]


def encoder_to_train(config: TrainConfig) -> TorchEncoder:
    """Without its weights. Raises UserError for a model that torch does not run, and for a LoRA that would be trained
    on another one."""
    found: Encoder | object = resolve(with_heads(config.spec, dim=config.head_dim, seed=config.seed))
    if not isinstance(found, TorchEncoder):
        raise UserError(
            f"{config.spec.name} has no weights that can be trained; expected a model that raylib runs with torch "
            "(see: raylib list models)"
        )
    if not compares_vectors(found.similarity):
        raise UnsupportedOptionError(
            f"{config.spec.name} gives token weights in --mode {config.spec.mode}, which have no loss; give "
            "--mode dense"
        )
    if config.lora and found.adapted:
        raise UnsupportedOptionError(
            f"{config.spec.name} has an adapter already, and a LoRA on top of it could only be loaded with it. Leave "
            "--lora out, which trains all weights with the adapter merged into them, or begin with the base model"
        )
    return found


def learner_of(config: TrainConfig, team: Team) -> Learner:
    """With its weights, ready to learn; called by every process."""
    encoder = encoder_to_train(config)
    spread = config.strategy == "fsdp" and team.size > 1
    if spread:
        from raylib.train.sharding import load_in_host_memory

        load_in_host_memory(encoder)
    found = Learner(encoder, config.what, config.lora_settings, config.precision, config.gradient_checkpointing)
    found.prepare(config.seed)
    if spread:
        found.spread(team)
    return found


def loop_of(assignment: Assignment, learner: Learner, team: Team, watcher: Watcher, say: Tell) -> Loop:
    """At its first step."""
    config, schedule = assignment.config, assignment.schedule
    feed, cached = feed_of(assignment, learner, team, say)
    criterion = Criterion(objective_of(config, learner.encoder))
    level = learner.shards is not None
    batches = Batches(assignment.examples, schedule, feed, team, config.hard_negatives, level)
    step = BatchStep(learner, criterion, team, cached=cached, chunk=config.score_chunk, seed=config.seed)
    judge = judge_of(assignment, learner, team)
    return Loop(learner, criterion, batches, step, loop_settings(config, schedule), watcher, judge)


def feed_of(assignment: Assignment, learner: Learner, team: Team, say: Tell) -> tuple[Feed, bool]:
    """And whether its pieces are parts of a batch: then there is a gradient cache."""
    config = assignment.config
    contents = ContentFeed(learner.encoder, assignment.examples)
    micro = config.micro_batch_size
    if micro == "auto":
        micro = team.told(largest_micro_batch(learner, contents, config.memory_fraction) if team.rank == 0 else 0)
        say(f"micro-batches of {micro} contents")
    contents.micro = micro
    if config.heads_only and config.feature_cache:
        assert isinstance(learner.encoder, HeadedEncoder), "the learner has refused others"
        features = FeatureFeed(learner.encoder, assignment.examples, config.store_folder, micro)
        features.fill(team, say)
        return features, micro is not None
    return contents, micro is not None


def objective_of(config: TrainConfig, encoder: Encoder) -> Objective:
    similarity = encoder.similarity
    assert compares_vectors(similarity), "encoder_to_train has refused others"
    return Objective(
        similarity,
        loss=config.loss,
        temperature=config.temperature,
        learn_temperature=config.learn_temperature,
        symmetric=config.symmetric,
        explicit=config.explicit_negatives,
        per_token=config.score_per_token,
        matryoshka=tuple(int(dim) for dim in config.matryoshka),
        mask_above=config.mask_above,
    )


def loop_settings(config: TrainConfig, schedule: Schedule) -> LoopSettings:
    return LoopSettings(
        lr=config.lr,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        schedule=config.schedule,
        warmup=warmup_steps(config.warmup, schedule.steps),
        max_norm=config.max_grad_norm,
        log_every=config.log_every,
        save_every=config.save_every,
        eval_every=config.eval_every,
    )


def judge_of(assignment: Assignment, learner: Learner, team: Team) -> Judge | None:
    config = assignment.config
    if not (config.eval_benchmarks or config.eval_tasks):
        return None
    tasks = load_tasks(learner.encoder, config.eval_benchmarks, config.eval_tasks)
    return Judge(learner.encoder, team, tasks, assignment.run, config.output_folder, shards=learner.shards)
