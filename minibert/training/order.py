"""The order of the examples: which ones each step takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

from minibert.training.packed import Example

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


class DistinctEpochs:
    """Batches of examples in a new random order in each epoch; no text is twice in a batch, by the step's number alone.

    Each epoch takes each example once. An example goes to the first batch that has room and none of its texts; so the
    last batches of an epoch may be smaller, and epochs may differ by a few steps.

    Args:
        examples: all of them.
        batch_size: the most examples of a step.
        epochs: how often each example is taken.
        seed: of the order.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, epochs: int, seed: int = 0) -> None:
        self.examples = examples
        texts = [{row.tobytes() for row in example.rows} for example in examples]
        self.batches: list[list[int]] = []  # of all epochs
        for epoch in range(epochs):
            open_: list[tuple[list[int], set[bytes]]] = []  # batches with room
            for i in np.random.default_rng([seed, epoch]).permutation(len(examples)).tolist():
                place = next((n for n, (_, there) in enumerate(open_) if there.isdisjoint(texts[i])), len(open_))
                if place == len(open_):
                    open_.append(([], set()))
                    self.batches.append(open_[place][0])
                batch, there = open_[place]
                batch.append(i)
                there |= texts[i]
                if len(batch) == batch_size:
                    del open_[place]

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return len(self.batches)

    def __call__(self, number: int) -> list[Example]:
        """The examples of a step."""
        return [self.examples[i] for i in self.batches[number]]
