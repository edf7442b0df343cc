"""Why two texts are similar: their cosine as a sum over pairs of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert.engine.engine import Engine
from minibert.engine.rows import Rows
from minibert.engine.stream import Truncated
from minibert.errors import MinibertError, optional
from minibert.study.reading import Reading, reading
from minibert.text import whole_number
from minibert.tokenizer import BertTokenizer
from minibert.vectors.recipe import Recipe
from minibert.vectors.sentences import not_pooled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS_AT_ONCE = 500
SCALED_MEANS = ("mean", "mean_sqrt_len_tokens")  # both have the direction of the mean


@dataclass(frozen=True)
class Side:
    """The tokens of one of the two texts, without those that the recipe does not pool.

    Attributes:
        tokens: the S tokens.
        words: the words, in order; each special token counts as one.
        word_of: for each token, the number of its word in `words`.
    """

    tokens: tuple[str, ...]
    words: tuple[str, ...]
    word_of: tuple[int, ...]


@dataclass(frozen=True)
class SimilarityMap:
    """What each pair of tokens adds to the cosine of two texts. Printing it prints the largest pairs of words.

    Attributes:
        a, b: the two texts' tokens and words.
        contributions: (tokens of a, tokens of b) float32; they add up to the cosine.
    """

    a: Side
    b: Side
    contributions: NDArray[np.float32]

    @property
    def cosine(self) -> float:
        """The cosine of the two texts: the sum of all contributions."""
        return float(self.contributions.sum(dtype=np.float64))

    def by_word(self) -> NDArray[np.float32]:
        """The contributions of pairs of words, (words of a, words of b): the sums over their tokens."""
        whole = np.zeros((len(self.a.words), len(self.b.words)), dtype=np.float64)
        np.add.at(whole, (np.array(self.a.word_of)[:, None], np.array(self.b.word_of)[None]), self.contributions)
        return whole.astype(np.float32)

    def top(self, k: int = 10) -> list[tuple[str, str, float]]:
        """The `k` pairs of words that add most: (word of a, word of b, contribution)."""
        whole_number("k", k)
        table = self.by_word()
        largest = np.argsort(-table, axis=None, kind="stable")[:k].tolist()
        places = [divmod(place, len(self.b.words)) for place in largest]
        return [(self.a.words[i], self.b.words[j], float(table[i, j])) for i, j in places]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with one row for each word of a and one column for each word of b.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = optional("pandas", "to_pandas", "pandas")

        return pandas.DataFrame(self.by_word(), index=list(self.a.words), columns=list(self.b.words))

    def plot(self, title: str = "") -> Figure:
        """Draw the words of a against the words of b."""
        from minibert.pictures.attention import plot_matrix

        return plot_matrix(self.by_word(), self.a.words, self.b.words, title=title or f"cosine {self.cosine:.3f}")

    def __str__(self) -> str:
        rows = self.top(10)
        width = max(len(a) for a, _, _ in rows)
        other = max(len(b) for _, b, _ in rows)
        lines = [f"{a:<{width}}  {b:<{other}}  {value:8.4f}" for a, b, value in rows]
        return "\n".join([f"cosine {self.cosine:.4f}; the pairs of words that add most:", *lines])

    __repr__ = __str__


def explain_similarity(
    engine: Engine,
    tokenizer: BertTokenizer,
    recipe: Recipe,
    limit: int,
    prompt: str,
    a: Sequence[str],
    b: Sequence[str],
) -> list[SimilarityMap]:
    """Decompose the cosine of the first text of `a` and the first of `b`, the second and the second, and so on.

    With mean pooling, cos(a, b) = sum over i, j of h_i . h_j / (n_a n_b |mean of h_i| |mean of h_j|), where h are the
    last hidden states: an identity, without gradients. It decomposes the last layer only: by then each token's state
    holds something of all others.

    Args:
        engine: of the model.
        recipe: how sentence vectors are made.
        limit: the most tokens of a text; the rest is dropped with a warning, as `Bert.encode` does.
        prompt: put before each text; its tokens are left out if the recipe does not pool them.

    Raises:
        MinibertError: the recipe's cosine is not such a sum; not as many texts on both sides.
    """
    check_exact(recipe)
    if len(a) != len(b):
        raise MinibertError(
            f"the texts ({len(a)} and {len(b)}) must be equally many; pass one for each of the other side"
        )
    skip = not_pooled(tokenizer, recipe, prompt)
    cut = Truncated(limit, "warn", "pass shorter texts to compare all of them")
    maps = []
    for first in range(0, len(a), PAIRS_AT_ONCE):
        pairs = zip(a[first : first + PAIRS_AT_ONCE], b[first : first + PAIRS_AT_ONCE], strict=True)
        texts = [prompt + text for text in chain.from_iterable(pairs)]
        readings = [reading(tokenizer(text, truncation=False, return_tensors="pt"), [text]) for text in texts]
        kept = [places(len(one.tokens), limit, tokenizer.truncation_side == "left") for one in readings]
        lost = {
            number: len(one.tokens) - len(own) for number, (one, own) in enumerate(zip(readings, kept, strict=True))
        }
        cut.note({number: tokens for number, tokens in lost.items() if tokens}, 2 * first)
        ids = [one.ids[0, own].tolist() for one, own in zip(readings, kept, strict=True)]
        states: list[Tensor] = [torch.empty(0)] * len(texts)
        for indices, groups, x in engine.states(Rows.of(ids)):
            parts = (x[start : start + count * length].view(count, length, -1) for start, count, length in groups)
            for index, part in zip(indices, chain.from_iterable(parts), strict=False):  # the rest has no meaning
                states[index] = part.float().cpu()[min(skip, len(part) - 1) :, : recipe.truncate_dim]
        sides = [
            side(one, own[len(own) - len(state) :]) for one, own, state in zip(readings, kept, states, strict=True)
        ]
        units = [state / (len(state) * state.mean(0).norm().clamp(min=1e-12)) for state in states]
        maps += [
            SimilarityMap(sides[i], sides[i + 1], (units[i] @ units[i + 1].T).numpy()) for i in range(0, len(texts), 2)
        ]
    cut.warn(2 * len(a))
    return maps


def check_exact(recipe: Recipe) -> None:
    """Refuse a recipe whose similarity is not a sum over pairs of tokens.

    Raises:
        MinibertError: it has another pooling than the mean, maps, or another similarity than the cosine.
    """
    for name, value, fits, rule in (
        ("pooling", " + ".join(recipe.pooling), len(recipe.pooling) == 1 and recipe.pooling[0] in SCALED_MEANS, "mean"),
        ("Dense modules", len(recipe.dense), not recipe.dense, "none: they or whitening map the mean on"),
        ("similarity", recipe.similarity, recipe.similarity == "cosine", "cosine"),
    ):
        if not fits:
            raise MinibertError(
                f"{name} of the recipe ({value}) must be {rule}, or the similarity is no sum over pairs of tokens; use "
                "gradients instead: bert.explain(a, similar_to=b)"
            )


def places(length: int, limit: int, from_left: bool) -> list[int]:
    """The tokens of a text that fit into `limit`: [CLS], as much of the text as there is room for, [SEP]."""
    excess = max(0, length - limit)
    start = 1 + (excess if from_left else 0)
    return [0, *range(start, start + length - 2 - excess), length - 1]


def side(whole: Reading, kept: Sequence[int]) -> Side:
    """Some of a text's tokens, and the words that they are part of."""
    own = sorted({whole.word_of[place] for place in kept})
    numbers = {word: number for number, word in enumerate(own)}
    return Side(
        tuple(whole.tokens[place] for place in kept),
        tuple(whole.words[word] for word in own),
        tuple(numbers[whole.word_of[place]] for place in kept),
    )
