"""The order of the examples: which ones each step takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Epochs(Generic[T]):
    """Batches of examples in a new random order in each epoch, by the number of the step alone.

    Each epoch takes each example once; its last batch may be smaller.

    Args:
        examples: all of them.
        batch_size: examples of a step.
        seed: of the order.
    """

    def __init__(self, examples: Sequence[T], batch_size: int, seed: int = 0) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.steps = -(-len(examples) // batch_size)  # of an epoch
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __call__(self, number: int) -> list[T]:
        """The examples of a step."""
        return [self.examples[i] for i in self.indices(number)]

    def indices(self, number: int) -> list[int]:
        """The numbers of the examples of a step."""
        epoch, place = divmod(number, self.steps)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))
            self._epoch = epoch
        taken: list[int] = self._order[place * self.batch_size : (place + 1) * self.batch_size].tolist()
        return taken
