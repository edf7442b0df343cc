"""Training in several processes: each computes its share of a batch, and torch's DDP averages their gradients.

`torchrun` starts the processes. In one process alone, everything here does nothing.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from minibert.errors import MinibertError
from minibert.training.objectives import Objective
from minibert.training.packed import Example


def rank_and_size() -> tuple[int, int]:
    """The number of this process, and how many there are: (0, 1) for one alone."""
    several = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)


def join() -> None:
    """Join the process group if torchrun started this process, unless it has joined; it is left at exit."""
    started = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() and int(os.environ["WORLD_SIZE"]) > 1
    if not started or not distributed.is_available() or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    # one process may tokenize a large corpus while the others wait; if it ends, they learn that at once
    distributed.init_process_group(timeout=timedelta(days=1))
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this is the one process that writes."""
    return rank_and_size()[0] == 0


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs the block, then the others do: they find the files that it has made."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


class LostProcessError(MinibertError):
    """Another process of the training has ended."""


@contextmanager
def exchange() -> Iterator[None]:
    """A context in which processes exchange tensors.

    Raises:
        LostProcessError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:  # gloo has no class for its errors
        if rank_and_size()[1] > 1 and re.search(r"[Cc]onnection (closed|reset|refused)", str(error)):
            raise LostProcessError("another process of this training has ended; start all of them again") from error
        raise


class Trainee(nn.Module):
    """A model and its objective as one module, from examples to outputs, as DDP needs it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, examples: Sequence[Example]) -> Any:
        """The outputs of the objective."""
        return self.objective.outputs(self.model, examples)


def in_ddp(trainee: Trainee, examples: Callable[[], Sequence[Example]]) -> nn.Module:
    """The trainee, in DDP if there are several processes; all then have the weights of the first.

    Args:
        trainee: a model with its objective.
        examples: returns some; not called for one process.
    """
    if rank_and_size()[1] == 1:
        return trainee
    device = next(trainee.parameters()).device
    return DistributedDataParallel(
        trainee,
        device_ids=None if device.type == "cpu" else [device],
        find_unused_parameters=_leaves_out_parameters(trainee, examples()[:1]),
    )


def _leaves_out_parameters(trainee: Trainee, examples: Sequence[Example]) -> bool:
    """Whether parameters have no part in the outputs, as those of the pooler have none in sentence vectors."""
    with torch.random.fork_rng([]):
        outputs = trainee(examples)
    whole = sum(part.sum() for part in (outputs if isinstance(outputs, tuple) else (outputs,)))
    parameters = [p for p in trainee.parameters() if p.requires_grad]
    return any(gradient is None for gradient in torch.autograd.grad(whole, parameters, allow_unused=True))


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
    _, size = rank_and_size()
    if size == 1:
        return own
    most = -(-count // size)
    padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
    shares = [torch.empty_like(padded) for _ in range(size)]
    with exchange():
        distributed.all_gather(shares, padded)
    return torch.stack(shares, dim=1).flatten(0, 1)[:count]  # share by share -> example by example


def total(number: float) -> float:
    """The sum of a number over all processes."""
    if rank_and_size()[1] == 1:
        return number
    found = torch.tensor(number, dtype=torch.float64)
    with exchange():
        distributed.all_reduce(found)
    return found.item()


def wait() -> None:
    """Wait until all processes are here."""
    if rank_and_size()[1] > 1:
        with exchange():
            distributed.barrier()
