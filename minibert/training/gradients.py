"""The gradients of one step. Without dropout, they depend neither on the parts of a batch nor on the processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minibert.engine.device import TOKENS_ON_A_GPU
from minibert.training.fast import fast_operations
from minibert.training.objectives import Objective
from minibert.training.packed import Example, parts_of
from minibert.training.processes import exchange, gathered, rank_and_size, total, without_exchange
from minibert.training.settings import Settings

PART_ON_A_CPU = 1_024  # tokens; twice as many take a third more memory and are no faster, half as many are slower


def gradients(
    trainee: nn.Module, objective: Objective, examples: Sequence[Example], settings: Settings, number: int
) -> float:
    """Add the gradients of a batch and return its loss.

    Each process computes its share of the examples, in parts; dropout aside, neither changes the gradients. If the loss
    does not divide, the outputs of all parts are computed first, without what their gradients need; then the loss and
    its gradient for the outputs; then each part again, to go on from there to the weights.

    Args:
        trainee: `Trainee`, in DDP if there are several processes.
        objective: the trainee's.
        examples: of all processes.
        settings, number: decide on the parts and on dropout.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache).
    """
    rank, size = rank_and_size()
    model: Any = getattr(trainee, "module", trainee).model
    device: torch.device = model.device
    own = examples[rank::size]
    most = settings.part_tokens or (PART_ON_A_CPU if device.type == "cpu" else TOKENS_ON_A_GPU)
    # a process without a share takes part in the exchange, too: an example that counts for nothing
    parts = list(parts_of(own or examples[:1], most))
    counts = objective.counts(examples)
    weight = float(size if own else 0)  # DDP takes the mean over the processes, where the sum is wanted

    def outputs(part: int) -> Any:
        _seed(settings.seed, number, part * size + rank)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"):
            return trainee(parts[part])

    def add(loss: Tensor, gradient: Tensor | None = None) -> None:
        with exchange():
            loss.backward(gradient)  # type: ignore[no-untyped-call]

    torch.clear_autocast_cache()  # the caller's autocast may hold the weights of the step before
    # within an outer context, autocast casts the weights once for all parts
    keeping = torch.autocast(device.type, enabled=False)
    with keeping, fast_operations(device), torch.random.fork_rng(_devices(device)):
        if objective.divides or len(examples) == len(parts[0]):
            loss = 0.0
            for part, chosen in enumerate(parts):
                with without_exchange(trainee, part == len(parts) - 1):
                    share = objective.loss(model, outputs(part), chosen, counts) * weight
                    add(share)
                loss += share.item() / size
            return total(loss)
        with torch.no_grad():
            computed = [outputs(part) for part in range(len(parts))]
        torch.clear_autocast_cache()  # weights that were cast without gradients
        whole = gathered(torch.cat(computed)[: len(own)], len(examples)).requires_grad_()
        loss_of_all = objective.loss(model, whole, examples, counts)
        (of_all,) = torch.autograd.grad(loss_of_all, whole)
        mine = of_all[rank::size] if own else torch.zeros_like(computed[0])
        for part, gradient in enumerate(torch.split(mine * weight, [len(chosen) for chosen in parts])):
            with without_exchange(trainee, part == len(parts) - 1):
                add(outputs(part), gradient)
        return loss_of_all.item()


def _seed(*numbers: int) -> None:
    """Seed torch for a part of a step."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


def _devices(device: torch.device) -> list[torch.device]:
    """The devices, besides the CPU, whose random numbers a step draws."""
    return [device] if device.type == "cuda" else []
