"""The order of the examples: which ones each step takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

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
            self._order = self.order(np.random.default_rng([self.seed, epoch]))
            self._epoch = epoch
        taken: list[int] = self._order[place * self.batch_size : (place + 1) * self.batch_size].tolist()
        return taken

    def order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The numbers of all examples in a random order."""
        return random.permutation(len(self.examples))


class SpreadEpochs(Epochs[Example]):
    """The same, but examples that share a text are spread evenly over the epoch, so that few of them meet in a batch.

    Of the texts of an example, the one that most examples have counts.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int = 0) -> None:
        super().__init__(examples, batch_size, seed)
        texts = [{row.tobytes() for row in example.rows} for example in examples]
        common = Counter(text for own in texts for text in own)
        shared = [max(sorted(own), key=common.__getitem__) for own in texts]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(shared))}
        self._text = np.array([numbers[text] for text in shared])
        self._count = np.bincount(self._text)

    def order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The numbers of all examples: those of a text begin at a random place, at equal distances from one another."""
        shuffled = random.permutation(len(self.examples))
        text = self._text[shuffled]
        by_text = np.argsort(text, kind="stable")
        which = np.empty(len(text), np.int64)  # of the examples of its text
        which[by_text] = np.arange(len(text)) - np.repeat(np.cumsum(self._count) - self._count, self._count)
        places = (random.random(len(self._count))[text] + which) / self._count[text]
        return shuffled[np.argsort(places, kind="stable")]
