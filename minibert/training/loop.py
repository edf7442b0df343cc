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
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from minibert.base import PretrainedModel
from minibert.engine.device import TOKENS_ON_A_GPU, check_fork
from minibert.errors import MinibertError
from minibert.text import check_choice, whole_number
from minibert.training.fast import fast_operations
from minibert.training.objectives import Objective
from minibert.training.packed import Example, parts_of
from minibert.training.processes import Trainee, gathered, joined, place, total, without_exchange

PART_ON_A_CPU = 1_024  # tokens; twice as many take a third more memory and are no faster, half as many are slower


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        steps: how many steps in all.
        learning_rate: the highest; it rises from 0 during the warm-up, then falls to 0.
        warmup: the part of the steps that is the warm-up.
        schedule: how the rate falls after the warm-up: "linear", "cosine" or, not at all, "constant".
        weight_decay: of all weights but norms and biases, as in BERT.
        betas, eps: of Adam.
        max_grad_norm: longer gradients are scaled down to this length.
        part_tokens: how many tokens of a batch are computed at once; more take more memory. Without dropout, the result
            does not depend on it. None: 1,024 on a CPU, 16,384 elsewhere.
        seed: of dropout, and of the order of the examples.
        dtype: of products and attention: "float32", or "bfloat16" by autocast. Weights are float32 in both.

    Raises:
        MinibertError: a setting that makes no sense.
    """

    steps: int
    learning_rate: float = 5e-5
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    part_tokens: int | None = None
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        whole_number("steps", self.steps)
        if self.part_tokens is not None:
            whole_number("part_tokens", self.part_tokens)
        check_choice("schedule", self.schedule, ("linear", "cosine", "constant"))
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        if not 0 < self.learning_rate < math.inf:
            raise MinibertError(f"learning_rate ({self.learning_rate!r}) must be a number above 0; 5e-5 is usual")
        if not 0 <= self.warmup <= 1:
            raise MinibertError(f"warmup ({self.warmup!r}) must be a part of the steps, 0 to 1; 0.1 is usual")
        for name in ("weight_decay", "max_grad_norm", "eps"):
            if not getattr(self, name) >= 0:
                raise MinibertError(f"{name} ({getattr(self, name)!r}) must be a number of at least 0")

    def rate(self, number: int) -> float:
        """The learning rate of a step, the first being number 0."""
        rising = math.ceil(self.warmup * self.steps)
        if number < rising:
            return self.learning_rate * number / rising
        left = (self.steps - number) / max(1, self.steps - rising)
        falling = {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}
        return self.learning_rate * falling[self.schedule]


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
        optimizer: `adamw(model, settings)` when None; with its saved state, to go on.
        start: the number of the first step.

    Raises:
        DivergenceError: a loss or a gradient is not finite; the weights are those after the step before.
        RuntimeError: as for `check_fork`.
    """
    check_fork()
    optimizer = adamw(model, settings) if optimizer is None else optimizer
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    trainee = joined(Trainee(model, objective))
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


def gradients(
    trainee: nn.Module, objective: Objective, examples: Sequence[Example], settings: Settings, number: int
) -> float:
    """Add the gradients of a batch and return its loss.

    Each process computes its share of the examples, in parts. Neither changes the loss or the gradients. If the loss
    does not divide, the outputs of all parts are computed first, without what their gradients need; then the loss and
    its gradient for the outputs; then each part again, to go on from there to the weights.

    Args:
        trainee: `Trainee`, in DDP if there are several processes.
        objective: the trainee's.
        examples: of all processes.
        settings, number: decide on the parts and on dropout.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache).
    """
    rank, size = place()
    model: Any = getattr(trainee, "module", trainee).model
    device: torch.device = model.device
    own = examples[rank::size]
    most = settings.part_tokens or (PART_ON_A_CPU if device.type == "cpu" else TOKENS_ON_A_GPU)
    # a process without a share takes part in the exchange, too: an example that counts for nothing
    parts = list(parts_of(own or examples[:1], most))
    counts = objective.counts(examples)
    weight = float(size if own else 0)  # DDP takes the mean over the processes, where the sum is wanted

    def outputs(part: int) -> Any:
        _seed(device, settings.seed, number, part * size + rank)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"):
            return trainee(parts[part])

    def add(loss: Tensor, gradient: Tensor | None = None) -> None:
        loss.backward(gradient)  # type: ignore[no-untyped-call]

    with fast_operations(device), torch.random.fork_rng(_devices(device)):
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
        whole = gathered(torch.cat(computed)[: len(own)], len(examples)).requires_grad_()
        loss_of_all = objective.loss(model, whole, examples, counts)
        (of_all,) = torch.autograd.grad(loss_of_all, whole)
        mine = of_all[rank::size] if own else torch.zeros_like(computed[0])
        for part, gradient in enumerate(torch.split(mine * weight, [len(chosen) for chosen in parts])):
            with without_exchange(trainee, part == len(parts) - 1):
                add(outputs(part), gradient)
        return loss_of_all.item()


def _seed(device: torch.device, *numbers: int) -> None:
    """Seed torch for a part of a step."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


def _devices(device: torch.device) -> list[torch.device]:
    """The devices, besides the CPU, whose random numbers a step draws."""
    return [device] if device.type == "cuda" else []
