"""The settings of `raylib train`: flags, YAML keys and keyword arguments."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from raylib import storage
from raylib.errors import UnknownNameError, UserError
from raylib.examples.options import DataOptions
from raylib.models.options import ModelOptions
from raylib.models.protocol import ModelSpec
from raylib.placement import Placement, at_least_one, name_list
from raylib.train.options import (
    LOSSES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    STRATEGIES,
    TRACKERS,
    LoraSettings,
    Loss,
    OptimizerName,
    Precision,
    Schedule,
    Strategy,
    Tracker,
    What,
)

_CHOICES = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "precision": PRECISIONS,
    "strategy": STRATEGIES,
    "track": TRACKERS,
}


@dataclass
class TrainConfig(DataOptions, Placement, ModelOptions):
    """Fine-tune a retriever on pairs, with negatives of the batch and mined ones; it is scored as it trains.

    Dense and late-interaction models, in full, by LoRA or their heads alone; a killed run goes on where it was.
    """

    data: list[str] = field(default_factory=list, metadata={"metavar": "PATH", "aliases": ["--train-jsonl"]})
    """Training data: JSONL of query, pos, negs; Parquet (MMEB's too); a data set's folder. Repeat the flag for more."""

    hub_name: str | None = field(default=None, metadata={"metavar": "OWNER/NAME", "aliases": ["--train-hub"]})
    """A data set of the hub, of which there is a local copy."""

    output_folder: str = field(default="runs/train", metadata={"metavar": "DIR", "aliases": ["--out-dir"]})
    """The run: its settings, checkpoints, records and evaluations. Local or s3://."""

    batch_plan: str | None = field(default=None, metadata={"metavar": "FILE"})
    """A plan of `raylib mine batches`, followed to the id. By default batches by chance, other ones in each epoch."""

    batch_size: int | None = None
    """Examples of a batch, over all workers: each is a negative of the others. By default 32, or the plan's."""

    grad_accum: int = 1
    """Batches for one step of the optimizer."""

    micro_batch_size: int | Literal["auto"] | None = field(default=None, metadata={"metavar": "N|auto"})
    """Contents in memory at a time (gradient cache), whatever the batch. auto tries forward and backward on the longest
    and keeps what fits. By default the whole batch."""

    score_chunk: int | None = None
    """Queries whose scores against all documents are held at a time. By default all."""

    memory_fraction: float = field(default=0.8, metadata={"metavar": "X"})
    """The share of the GPU's memory that --micro-batch-size auto may fill."""

    hard_negatives: int | None = None
    """Hard negatives of an example: those of the plan, then those that the data gives. By default all of them."""

    epochs: int | None = None
    """Times that the data is gone through. By default 1, or as often as --max-steps needs."""

    max_steps: int | None = None
    """Stop after N steps of the optimizer."""

    loss: Loss = field(default="infonce", metadata={"metavar": "NAME"})
    """infonce, pairwise (the best negative against the positive, as ColPali) or sigmoid (SigLIP's)."""

    temperature: float = 0.02
    """What scores are divided by."""

    learn_temperature: bool = False
    """Let the temperature learn as well."""

    symmetric: bool = False
    """Documents rank queries, too; the mean of both losses."""

    explicit_negatives: float = field(default=0.0, metadata={"metavar": "SHARE"})
    """The share of a term for each query's own hard negatives, beside the loss over the batch's positives (as
    colpali-engine). By default they are negatives of all queries instead."""

    score_per_token: bool = True
    """Late interaction: divide a score by the query's number of tokens."""

    matryoshka: list[str] = field(default_factory=list, metadata={"metavar": "N"})
    """Dense: dimensions that vectors are to serve in, e.g. 768,256,64; their losses are added."""

    mask_above: float | None = field(default=None, metadata={"metavar": "M"})
    """Documents that score more than the positive by more than M are no negatives."""

    mask_duplicates: bool = True
    """Contents that look the same are no negatives of each other, whatever they are named; reads every image once."""

    heads_only: bool = False
    """Train the projections on top alone. The backbone's features are computed once and kept in the store."""

    feature_cache: bool = True
    """With --heads-only: keep features; --no-feature-cache runs the backbone at every step."""

    store: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where features are kept between runs. By default store, in the run's folder."""

    head_dim: int = 128
    """ColIntern: the width of new projections, where the model comes without any."""

    lora: bool = False
    """Train a LoRA instead of all weights."""

    lora_r: int = 32
    """Its rank."""

    lora_alpha: float = 32.0
    """Its scale."""

    lora_dropout: float = 0.1
    """Its dropout."""

    lora_targets: list[str] = field(default_factory=list)
    """Names of the layers that get one. By default the linear layers of attention and MLPs."""

    lr: float = 5e-5
    """The highest learning rate."""

    optimizer: OptimizerName = field(default="adamw", metadata={"metavar": "NAME"})
    """adamw, paged_adamw_8bit (bitsandbytes, CUDA) or sgd."""

    weight_decay: float = 0.01
    """Of matrices; biases and norms are not decayed."""

    schedule: Schedule = field(default="linear", metadata={"metavar": "NAME"})
    """How the learning rate falls: linear, cosine or constant."""

    warmup: float = 0.0
    """Steps in which it rises first; below 1, a share of all steps."""

    max_grad_norm: float = 1.0
    """Clip the gradient to this norm; 0 for never."""

    precision: Precision = field(default="float32", metadata={"metavar": "NAME"})  # pyright: ignore[reportIncompatibleVariableOverride]
    """Of computation: float32, bf16 or fp16. Weights that learn stay in float32."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward instead of keeping them."""

    strategy: Strategy = field(default="ddp", metadata={"metavar": "NAME"})
    """ddp: every worker has the whole model; fsdp: its weights, gradients and the optimizer's state are spread over the
    workers."""

    save_every: int | None = None
    """Steps between checkpoints. By default at the end only."""

    keep_last: int = 2
    """Checkpoints that are kept, the newest ones."""

    keep_best: int = 1
    """Besides, the best by evaluation."""

    save_legacy: bool = False
    """ColIntern: write colintern_heads_stepN.pt beside each checkpoint, for the old tools."""

    resume: str | None = field(default=None, metadata={"metavar": "RUN"})
    """Go on with the run in this folder, with its own settings but for where it runs."""

    max_failures: int = 3
    """How often workers that die are started again before the run fails."""

    eval_benchmarks: list[str] = field(default_factory=list)
    """MTEB benchmarks that the weights are scored on as they train."""

    eval_tasks: list[str] = field(default_factory=list)
    """MTEB tasks to score on, alone or beside benchmarks."""

    eval_every: int | None = None
    """Steps between evaluations. By default at the end only."""

    log_every: int = 10
    """Steps between lines of the log."""

    track: list[Tracker] = field(default_factory=list, metadata={"metavar": "NAME"})
    """Send records to wandb or mlflow as well; TensorBoard is always written."""

    seed: int = 0
    """Of everything by chance."""

    overwrite: bool = False
    """Begin anew where the folder holds another run."""

    dry_run: bool = False
    """Read the data, say what would be trained on, and stop."""

    quiet: bool = False
    """No lines, only problems."""

    def __post_init__(self) -> None:
        """Split comma lists and check what can be checked without loading anything. Raises UserError."""
        self.model = name_list(self.model)
        self.take_data()
        for name in ("matryoshka", "lora_targets", "eval_benchmarks", "eval_tasks", "track"):
            given: Any = getattr(self, name)
            setattr(self, name, name_list([str(x) for x in given] if isinstance(given, list | tuple) else given))
        self.output_folder = storage.as_path(self.output_folder).rstrip("/") or "/"
        self.check_placement()
        counts = ("batch_size", "grad_accum", "score_chunk", "epochs", "max_steps", "save_every", "eval_every")
        at_least_one(self, (*counts, "log_every", "head_dim", "lora_r", "limit"))
        if self.micro_batch_size != "auto":
            at_least_one(self, ("micro_batch_size",))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            for one in value if isinstance(value, list) else [value]:
                if one not in choices:
                    raise UnknownNameError(name, str(one), choices, hint=f"Expected one of {', '.join(choices)}.")
        self._check_numbers()
        self._check_together()

    def _check_numbers(self) -> None:
        for name in ("lr", "temperature"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(f"--{name} is {getattr(self, name)}; expected a number above 0")
        for name in ("weight_decay", "warmup", "max_grad_norm", "mask_above", "hard_negatives", "max_failures"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"--{name.replace('_', '-')} is {value}; expected 0 or more")
        for name in ("explicit_negatives", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected from 0 to below 1")
        if not 0 < self.memory_fraction <= 1:
            raise UserError(f"--memory-fraction is {self.memory_fraction}; expected above 0 and up to 1")
        if any(not dim.isdecimal() or not int(dim) for dim in self.matryoshka):
            raise UserError(f"--matryoshka is {','.join(self.matryoshka)}; expected dimensions, e.g. 768,256,64")

    def _check_together(self) -> None:
        if self.lora and self.heads_only:
            raise UserError("--lora trains weights of the model and --heads-only none of them; leave one of them out")
        if self.symmetric and self.loss != "infonce":
            raise UserError(f"--symmetric is for --loss infonce, and {self.loss} has no other side; leave it out")
        if self.strategy == "fsdp":
            self._check_spread()
        if self.endpoint is not None:
            raise UserError("--endpoint: a server's weights cannot be trained; leave it out")
        if self.runtime not in (None, "torch"):
            raise UserError(f"--runtime {self.runtime}: torch alone has gradients; leave it out, and evaluate with it")
        if self.eval_every is not None and not (self.eval_benchmarks or self.eval_tasks):
            raise UserError("--eval-every needs something to evaluate on; add --eval-benchmarks NAME")
        if self.dtype not in (None, "float32") and not (self.lora or self.heads_only):
            raise UserError(
                f"--dtype {self.dtype}: weights that learn are kept in float32, or small updates are lost; leave it "
                "out, and compute in half precision with --precision bf16"
            )

    def _check_spread(self) -> None:
        """What weights that are spread over workers cannot be combined with."""
        wrong = {
            "--heads-only": (self.heads_only, "heads are whole on every worker"),
            "--micro-batch-size auto": (self.micro_batch_size == "auto", "give a number"),
            "--optimizer paged_adamw_8bit": (self.optimizer == "paged_adamw_8bit", "use adamw: its state is spread"),
            "--precision fp16": (self.precision == "fp16", "use bf16"),
            "--compile": (self.compile, "leave it out"),
            "--device auto": (self.device == "auto", "leave it out: the workers hold one model together already"),
            "--gpus-per-worker": ((self.gpus_per_worker or 0) > 1, "give a worker one GPU, and more --workers"),
        }
        for flag, (given, advice) in wrong.items():
            if given:
                raise UserError(f"{flag} cannot be had with --strategy fsdp; {advice}, or leave --strategy out")

    def check_complete(self) -> None:
        """Raises UserError unless there is data and one model, or a run to resume."""
        if self.resume is not None:
            return
        if not self.data and self.hub_name is None:
            raise UserError("there is no training data; add --data FILE, or --train-hub OWNER/NAME")
        if not self.model:
            raise UserError("no model was given; add --model NAME (see: raylib list models)")
        if len(dict.fromkeys(self.model)) > 1:
            raise UserError(f"--model names {len(self.model)} models; one is trained at a time")

    def specs(self) -> list[ModelSpec]:
        """Without --precision, which is of the training here."""
        return [dataclasses.replace(spec, precision=None) for spec in super().specs()]

    @property
    def spec(self) -> ModelSpec:
        return self.specs()[0]

    @property
    def what(self) -> What:
        return "lora" if self.lora else "heads" if self.heads_only else "full"

    @property
    def lora_settings(self) -> LoraSettings:
        return LoraSettings(self.lora_r, self.lora_alpha, self.lora_dropout, tuple(self.lora_targets))

    @property
    def store_folder(self) -> str:
        return self.store or f"{self.output_folder}/store"

    def as_dict(self) -> dict[str, Any]:
        """What a run's folder keeps, and `--resume` takes again: a flag that was switched off as well."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
