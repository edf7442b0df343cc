"""Training in several processes: each computes its share of a batch, and torch's DDP averages their gradients.

`torchrun` or `accelerate launch` starts the processes, and `torch.distributed.init_process_group` joins them. In one
process alone, everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from minibert.training.objectives import Objective
from minibert.training.packed import Example


def place() -> tuple[int, int]:
    """The number of this process, and how many there are: (0, 1) for one alone."""
    joined = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if joined else (0, 1)


class Trainee(nn.Module):
    """A model and its objective as one module, from examples to outputs, as DDP needs it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, examples: Sequence[Example]) -> Any:
        """The outputs of the objective."""
        return self.objective.outputs(self.model, examples)


def joined(trainee: Trainee) -> nn.Module:
    """The trainee, in DDP if there are several processes; all then have the weights of the first."""
    if place()[1] == 1:
        return trainee
    device = next(trainee.parameters()).device
    # sentence vectors leave out the pooler, so not every parameter has a gradient
    return DistributedDataParallel(
        trainee, device_ids=None if device.type == "cpu" else [device], find_unused_parameters=True
    )


def without_exchange(trainee: nn.Module, last: bool) -> AbstractContextManager[object]:
    """A context in which gradients are only added up; those of the last part are exchanged."""
    if last or not isinstance(trainee, DistributedDataParallel):
        return nullcontext()
    held: AbstractContextManager[object] = trainee.no_sync()
    return held


def gathered(own: Tensor, count: int) -> Tensor:
    """The outputs of all examples of a batch, from the shares `[rank::size]` of all processes.

    Args:
        own: (N, ...) the outputs of this process's share.
        count: examples of the whole batch.
    """
    _, size = place()
    if size == 1:
        return own
    most = -(-count // size)
    padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
    shares = [torch.empty_like(padded) for _ in range(size)]
    distributed.all_gather(shares, padded)
    return torch.stack(shares, dim=1).flatten(0, 1)[:count]  # share by share -> example by example


def total(number: float) -> float:
    """The sum of a number over all processes."""
    if place()[1] == 1:
        return number
    found = torch.tensor(number, dtype=torch.float64)
    distributed.all_reduce(found)
    return found.item()


def wait() -> None:
    """Wait until all processes are here."""
    if place()[1] > 1:
        distributed.barrier()
