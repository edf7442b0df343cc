"""How a model is trained: the length, the learning rate of each step, the optimizer's constants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from minibert.errors import MinibertError
from minibert.text import check_choice, whole_number


def as_float(value: Any) -> float:
    """A number as a float; NaN, which is in no range, for anything else and for numbers that are too large."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        steps: how many steps in all.
        learning_rate: the highest; it rises to it during the warm-up, step by step, then falls towards 0.
        warmup: the part of the steps that is the warm-up.
        schedule: how the rate falls after the warm-up: "linear", "cosine" or, not at all, "constant".
        weight_decay: of all weights but norms and biases, as in BERT.
        betas, eps: of Adam.
        max_grad_norm: longer gradients are scaled down to this length.
        part_tokens: how many tokens of a batch are computed at once; more take more memory. Without dropout, the result
            does not depend on it. None: 1,024 on a CPU, 16,384 elsewhere.
        seed: of dropout.
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
        if not 0 < as_float(self.learning_rate) < math.inf:
            raise MinibertError(f"learning_rate ({self.learning_rate!r:.40}) must be a number above 0; 5e-5 is usual")
        if not 0 <= as_float(self.warmup) <= 1:
            raise MinibertError(
                f"warmup ({self.warmup!r:.40}) must be a fraction of the steps, from 0 to 1; 0.1 is usual"
            )
        if not (isinstance(self.seed, Integral) and 0 <= self.seed < 2**63):
            raise MinibertError(f"seed ({self.seed!r:.40}) must be a whole number of at least 0, and less than 2**63")
        if not as_float(self.max_grad_norm) > 0:
            raise MinibertError(f"max_grad_norm ({self.max_grad_norm!r:.40}) must be above 0; math.inf never clips")
        for name in ("weight_decay", "eps"):
            if not 0 <= as_float(getattr(self, name)) < math.inf:
                raise MinibertError(f"{name} ({getattr(self, name)!r:.40}) must be a number of at least 0")
        pair = isinstance(self.betas, (tuple, list)) and len(self.betas) == 2
        if not (pair and all(0 <= as_float(beta) < 1 for beta in self.betas)):
            raise MinibertError(
                f"betas ({self.betas!r:.40}) must be two numbers of at least 0 and below 1; (0.9, 0.999) is usual"
            )

    def rate(self, number: int) -> float:
        """The learning rate of a step, the first being number 0."""
        rising = math.ceil(self.warmup * self.steps)
        if number < rising:
            return self.learning_rate * (number + 1) / rising  # a rate of 0 would waste the first step
        left = (self.steps - number) / max(1, self.steps - rising)
        falling = {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}
        return self.learning_rate * falling[self.schedule]
