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
            order = np.random.default_rng([seed, epoch]).permutation(len(examples)).tolist()
            self.batches += _distinct(order, texts, batch_size)

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return len(self.batches)

    def __call__(self, number: int) -> list[Example]:
        """The examples of a step."""
        return [self.examples[i] for i in self.batches[number]]


def _distinct(order: Sequence[int], texts: Sequence[set[bytes]], batch_size: int) -> list[list[int]]:
    """Batches in which no text is twice: each example goes to the first one that has room and none of its texts.

    Args:
        order: the numbers of the examples.
        texts: those of each example, by its number.
        batch_size: the most examples of a batch.
    """
    batches: list[list[int]] = []
    following: list[int] = [0]  # for a batch without room, one after it; for others, the batch itself
    there: dict[bytes, set[int]] = {}  # the batches that have a text
    first: dict[bytes, int] = {}  # no batch with room before this one can take a text

    def with_room(batch: int) -> int:
        """This batch or the next one with room; batch `len(batches)` is new."""
        while following[batch] != batch:
            following[batch] = following[following[batch]]  # a shorter way for the next time
            batch = following[batch]
        return batch

    for i in order:
        batch = with_room(max((first.get(text, 0) for text in texts[i]), default=0))
        while any(batch in there.get(text, ()) for text in texts[i]):
            batch = with_room(batch + 1)
        if batch == len(batches):
            batches.append([])
            following.append(batch + 1)
        batches[batch].append(i)
        if len(batches[batch]) == batch_size:
            following[batch] = batch + 1
        for text in texts[i]:
            there.setdefault(text, set()).add(batch)
            place = with_room(first.get(text, 0))
            while place in there[text]:
                place = with_room(place + 1)
            first[text] = place
    return batches
