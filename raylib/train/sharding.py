"""Weights spread over the processes of a team (FSDP2, arXiv 2304.11277): each keeps a part of every one, and of its
gradient and of what the optimizer knows of it.

A forward or backward gathers the weights of one block at a time, so that all processes must run the same blocks in the
same order: `raylib.train.feed.levelled` and `raylib.train.lockstep` see to that. The optimizer, clipping and
checkpoints see plain tensors: of weights that are spread, this process's part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from raylib.models.loading import model_failure, placed
from raylib.models.token_vectors import TokenVectors
from raylib.models.torch_encoder import TorchEncoder
from raylib.train.team import Team
from raylib.types import Tensors


def load_in_host_memory(encoder: TorchEncoder) -> None:
    """Before anything else loads the weights, which need not fit the device as a whole: `Shards` moves them there
    block by block."""
    with model_failure(encoder.spec, "its weights cannot be loaded"):
        vars(encoder)["model"] = placed(encoder.load_model(), replace(encoder.spec, device="cpu"), encoder.dtype)


class Shards:
    """The weights of `encoder`'s trunk, those that learn and those that do not, spread over the processes of `team`
    along their first dimension. Scalars, and heads that lie apart, stay whole on every process.

    Made by every process at the same time, with equal weights. torch.distributed must be initialised.
    """

    def __init__(self, encoder: TorchEncoder, team: Team) -> None:
        self.encoder, self.team = encoder, team
        trunk, kind = encoder.trunk, torch.device(encoder.device).type
        scalars = {parameter for parameter in trunk.parameters() if parameter.ndim == 0}
        for scalar in scalars:
            scalar.data = scalar.data.to(encoder.device)
        self._root = _Forward(encoder)
        world: Any = dist.group.WORLD
        mesh = DeviceMesh.from_group(world, kind)
        for module in [*blocks_of(trunk), self._root]:
            spread: Any = fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
            assert isinstance(spread, FSDPModule)
            # A process has its part of the loss of the whole batch: gradients are summed, never averaged.
            spread.set_gradient_divide_factor(1.0)
            spread.set_force_sum_reduction_for_comms(True)
        self._own: dict[int, tuple[Any, torch.nn.Parameter]] = {}
        """By the id of a weight that is spread: it, and this process's part."""
        self._spread: dict[int, Any] = {}
        """By the id of a part: the weight."""

    def vectors(self, tensors: Tensors) -> TokenVectors:
        """As the encoder's; called by every process, with inputs of the same kind."""
        return TokenVectors(*self._root(tensors))

    def own(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """This process's part of a weight, for the optimizer: a plain parameter with the same memory, always the same
        one. A weight that is not spread is its own part."""
        if not isinstance(parameter, DTensor):
            return parameter
        if id(parameter) not in self._own:
            part = torch.nn.Parameter(_local(parameter))
            self._own[id(parameter)] = (parameter, part)
            self._spread[id(part)] = parameter
        return self._own[id(parameter)][1]

    # Gradients.

    def sum_gradients(self, parts: Sequence[torch.nn.Parameter]) -> None:
        """As `Team.sum_gradients`, of parts: those of weights that are spread were summed by the backward."""
        for spread, part in self._own.values():
            part.data = _local(spread)
            part.grad = torch.zeros_like(part) if spread.grad is None else _local(spread.grad)
            spread.grad = None
        self.team.sum_gradients([part for part in parts if id(part) not in self._spread])

    def clip(self, parts: Sequence[torch.nn.Parameter], limit: float) -> float:
        """Scale the gradients so that their norm over all processes is `limit` at most; gives what it was."""
        of_all: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for part in parts:
            if part.grad is not None:
                of_all[id(part) in self._spread].append(part.grad)
        whole, spread = (torch.nn.utils.get_total_norm(gradients).double().square().cpu() for gradients in of_all)
        norm = (whole + self.team.sum(spread)).sqrt().float()
        if math.isfinite(limit):
            torch.nn.utils.clip_grads_with_norm_(parts, limit, norm)
        return float(norm)

    # Whole weights, and back.

    def whole(self, values: torch.Tensor, part: torch.nn.Parameter) -> torch.Tensor | None:
        """`values`, of the shape of a part, of all processes as one tensor on the CPU; None but on the first process.
        Called by every process. Of a weight that is not spread: a copy."""
        spread = self._spread.get(id(part))
        if spread is None:
            found = values.detach()
        else:
            found = DTensor.from_local(
                values.detach(),
                spread.device_mesh,
                spread.placements,
                run_check=False,
                shape=spread.shape,
                stride=spread.stride(),
            ).full_tensor()
        return found.cpu() if self.team.rank == 0 else None

    def part_of(self, values: torch.Tensor, part: torch.nn.Parameter) -> torch.Tensor:
        """Of `values`, whole, what belongs to a part."""
        spread = self._spread.get(id(part))
        if spread is None:
            return values
        there: Any = distribute_tensor(
            values.to(part.device), spread.device_mesh, spread.placements, src_data_rank=None
        )
        return _local(there)

    def shape(self, part: torch.nn.Parameter) -> torch.Size:
        """Of the whole weight."""
        return self._spread.get(id(part), part).shape

    def weights(self, named: Sequence[tuple[str, torch.nn.Parameter]]) -> dict[str, torch.Tensor]:
        """Whole, by name, one after the other; {} but on the first process. Called by every process."""
        found = ((name, self.whole(part, part)) for name, part in named)
        return {name: values for name, values in found if values is not None}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """As the optimizer of one process gives it; of no use but on the first process. Called by every process."""
        state = optimizer.state_dict()
        return {**state, "state": {n: self._each(own, n, optimizer, self.whole) for n, own in state["state"].items()}}

    def own_optimizer_state(self, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The part of what `optimizer_state` gave, on any number of processes, that belongs to this one."""
        inner = {n: self._each(whole, n, optimizer, self.part_of) for n, whole in state["state"].items()}
        return {**state, "state": inner}

    def _each(self, values: Mapping[str, Any], number: int, optimizer: torch.optim.Optimizer, change: Any) -> Any:
        """What the optimizer knows of its `number`th weight, with `change` for what has an entry for each of its
        numbers; counts of steps stay as they are."""
        part = [part for group in optimizer.param_groups for part in group["params"]][number]
        return {
            name: change(value, part) if isinstance(value, torch.Tensor) and value.ndim else value
            for name, value in values.items()
        }

    @contextmanager
    def in_place(self, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Meanwhile the model has whole weights, as `weights` gave them, for what writes it down; no forward. Of a name
        that is not there it keeps what is spread."""
        given = {id(p): weights[name] for name, p in self.encoder.trunk.named_parameters() if name in weights}
        before = [
            (module._parameters, name, parameter)
            for module in self.encoder.trunk.modules()
            for name, parameter in module._parameters.items()
            if isinstance(parameter, DTensor) and id(parameter) in given
        ]
        whole = {number: torch.nn.Parameter(values, requires_grad=False) for number, values in given.items()}
        for place, name, parameter in before:
            place[name] = whole[id(parameter)]
        try:
            yield
        finally:
            for place, name, parameter in before:
                place[name] = parameter


class _Forward(torch.nn.Module):
    """The forward of an encoder as one module's: weights outside of the blocks are gathered for all of it, whichever
    methods of the model it calls."""

    def __init__(self, encoder: TorchEncoder) -> None:
        super().__init__()
        self.trunk, self._vectors = encoder.trunk, encoder.vectors

    def forward(self, tensors: Tensors) -> tuple[torch.Tensor, Any]:
        found = self._vectors(tensors)
        return found.values, found.counts


def blocks_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers that a model repeats: what the outermost lists of modules hold. Lists inside a layer, such as experts
    of which each input takes others, are part of it."""
    found: dict[int, torch.nn.Module] = {}
    for child in model.children():
        if not isinstance(child, torch.nn.ModuleList):
            found |= {id(block): block for block in blocks_of(child)}
        elif len(child) > 1:
            found |= {id(block): block for block in child if any(True for _ in block.parameters())}
    return list(found.values())


def _local(tensor: Any) -> torch.Tensor:
    return tensor.detach().to_local()
