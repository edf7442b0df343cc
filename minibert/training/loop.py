"""The training loop.

    for step in train(model, batches, objective, settings):
        print(step.number, step.loss)

A step is a function of the weights, the state of the optimizer, the seed and the step's number, and of nothing else:
`batches(number)` returns its examples, and its dropout is seeded. So training can stop after any step, and go on from
saved weights and a saved state of the optimizer as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from minibert.base import PretrainedModel
from minibert.engine.device import check_fork
from minibert.errors import MinibertError
from minibert.training.gradients import gradients
from minibert.training.objectives import Objective
from minibert.training.packed import Example
from minibert.training.processes import Trainee, in_ddp, join
from minibert.training.settings import Settings


class Step(NamedTuple):
    """What a step reports.

    Attributes:
        number: from 0.
        loss: of the batch, before the update.
        learning_rate: of the update.
        grad_norm: the length of the gradient, before it is scaled down.
        tokens: computed, without padding.
    """

    number: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int


class DivergenceError(MinibertError):
    """The loss or the gradient of a step is not finite. The weights are those after the step before."""

    def __init__(self, number: int, loss: float, norm: float, examples: Sequence[Example]) -> None:
        super().__init__(
            f"the loss ({loss}) and the gradient's length ({norm}) of step {number} must be finite; choose a lower "
            "learning rate, or look at the texts of this step"
        )
        self.number = number
        self.examples = examples


def adamw(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """BERT's optimizer: Adam with decoupled weight decay, but none for norms and biases.

    Source: google-research/bert `optimization.AdamWeightDecayOptimizer`; with the bias correction that it lacks.
    """
    norms = {p for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in trained if name.endswith("bias") or p in norms]
    decayed = [p for name, p in trained if not (name.endswith("bias") or p in norms)]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        fused=all(p.device.type in ("cpu", "cuda") for _, p in trained),
    )


def train(
    model: PretrainedModel,
    batches: Callable[[int], Sequence[Example]],
    objective: Objective,
    settings: Settings,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    start: int = 0,
) -> Iterator[Step]:
    """Train a model, and yield after each step. The caller may evaluate, log, save or stop in between.

    Args:
        model: its weights change in place.
        batches: the examples of a step, by its number.
        objective: what the model learns to predict.
        settings: rates, sizes, the seed.
        optimizer: `adamw(model, settings)` when None; with its saved state, to resume.
        start: the number of the first step.

    Raises:
        DivergenceError: a loss or a gradient is not finite; the weights are those after the step before.
        RuntimeError: as for `check_fork`.
    """
    check_fork()
    join()
    optimizer = adamw(model, settings) if optimizer is None else optimizer
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    trainee = in_ddp(Trainee(model, objective), lambda: batches(start))
    for number in range(start, settings.steps):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(number)
        optimizer.zero_grad()
        examples = batches(number)
        loss = gradients(trainee, objective, examples, settings, number)
        norm = float(nn.utils.clip_grad_norm_(trained, settings.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergenceError(number, loss, norm, examples)
        optimizer.step()
        model.eval()
        yield Step(number, loss, settings.rate(number), norm, sum(example.tokens for example in examples))
