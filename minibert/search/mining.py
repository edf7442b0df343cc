"""Mining: the most similar pairs of an index, and its groups of similar texts.

Both are exact. Their memory grows with the number of texts, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.bert import Bert
from minibert.errors import MinibertError
from minibert.search.index import EXACTLY, QUERIES, Contents, Hit, Index, nearest
from minibert.text import short, whole_number

BORDER = 1e-5  # scores this near to the threshold are computed again in float64


class Pair(NamedTuple):
    """Two similar texts.

    Attributes:
        score: their similarity; higher is better.
        first, second: the texts.
        numbers: their positions in the order of addition; the first is the smaller one.
    """

    score: float
    first: str
    second: str
    numbers: tuple[int, int]


def paraphrase_mining(
    index: Index | Bert, texts: Iterable[str] | None = None, *, top_k: int = 100, max_pairs: int = 500_000
) -> list[Pair]:
    """The most similar pairs of texts of an index, the best first; equal scores in the order of addition.

    Args:
        index: its similarity decides; or a model, to compare `texts` with.
        texts: with a model, what to compare.
        top_k: a pair counts if one of its texts is among the `top_k` most similar ones of the other.
        max_pairs: how many pairs at most.

    Raises:
        MinibertError: `top_k` or `max_pairs` is less than 1.

    Source: sentence-transformers' `util.paraphrase_mining`.
    """
    if isinstance(index, Index) == (texts is not None):
        raise MinibertError(
            f"texts ({short(texts)}) must be given with a model, and only then; an index has its own: pass index alone"
        )
    if not isinstance(index, Index):
        index = Index(index)
        index.add(texts or ())
    top_k, max_pairs = whole_number("top_k", top_k), whole_number("max_pairs", max_pairs)
    contents = index.snapshot()
    best: NDArray[np.void] = np.empty(0, dtype=[("score", "f4"), ("first", "i8"), ("second", "i8")])
    for start in range(0, len(contents), QUERIES):
        queries = contents.blocks[0][start : start + QUERIES]
        scores, numbers = nearest(contents.blocks, queries, top_k + 1, str(index.bert.recipe.similarity))
        own = np.arange(start, start + len(numbers))[:, None]
        kept = numbers != own
        kept &= kept.cumsum(1) <= top_k  # a text with many equal ones may not be among its own neighbours
        found = np.empty(int(kept.sum()), dtype=best.dtype)
        found["score"] = scores[kept]
        found["first"] = np.minimum(numbers, own)[kept]
        found["second"] = np.maximum(numbers, own)[kept]
        best = np.concatenate([best, found])
        if len(best) > 2 * max_pairs:
            best = _sorted(best)[:max_pairs]
    return [
        Pair(score, contents.row(first)[0], contents.row(second)[0], (first, second))
        for score, first, second in _sorted(best)[:max_pairs].tolist()
    ]


def _sorted(pairs: NDArray[np.void]) -> NDArray[np.void]:
    """Each pair once, the highest score first, then by the numbers."""
    order = np.lexsort((pairs["second"], pairs["first"], -pairs["score"]))
    pairs = pairs[order]
    _, firsts = np.unique(pairs["first"] * (2**32) + pairs["second"], return_index=True)
    return pairs[np.sort(firsts)]


def community_detection(index: Index, threshold: float = 0.75, min_community_size: int = 10) -> list[list[Hit]]:
    """Groups of texts that are all similar to one of them, the largest group first.

    The text with the most neighbours becomes the centre of the first group, which takes all of them; then the next one
    that is still free, and so on. Each text is in one group at most.

    Args:
        index: its similarity must be the cosine.
        threshold: the lowest similarity to the centre.
        min_community_size: texts of the smallest group, with its centre.

    Returns:
        The hits of each group: its centre, then the others, the most similar first.

    Raises:
        MinibertError: another similarity; a threshold outside (0, 1]; a size below 1.

    Source: sentence-transformers' `util.community_detection`.
    """
    least = whole_number("min_community_size", min_community_size)
    if not 0 < threshold <= 1:
        raise MinibertError(f"threshold ({threshold}) must be above 0 and at most 1; 0.75 is usual")
    if index.bert.recipe.similarity != "cosine":
        raise MinibertError(
            f"the similarity of the index ({index.bert.recipe.similarity}) must be the cosine for groups; "
            "build one with a recipe whose similarity is 'cosine'"
        )
    contents = index.snapshot()
    neighbours = np.zeros(len(contents), dtype=np.int64)
    for numbers, scores in _scores(contents, range(len(contents)), threshold):
        neighbours[numbers] = (scores >= np.float32(threshold)).sum(1)
    centres = np.argsort(-neighbours, kind="stable")
    centres = centres[neighbours[centres] >= least]
    free = np.ones(len(contents), dtype=bool)
    groups: list[list[Hit]] = []
    while len(centres := centres[free[centres]]):
        taken, centres = centres[:QUERIES], centres[QUERIES:]
        for numbers, scores in _scores(contents, taken.tolist(), threshold):
            for centre, row in zip(numbers, scores, strict=True):
                members = np.flatnonzero((row >= np.float32(threshold)) & free)
                if free[centre] and len(members) >= least:
                    members = members[np.lexsort((members, -row[members], members != centre))]
                    free[members] = False
                    groups.append([Hit(float(row[m]), *contents.row(m), m) for m in members.tolist()])
    return sorted(groups, key=len, reverse=True)


def _scores(
    contents: Contents, numbers: Sequence[int], threshold: float
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """The cosines of some texts with all, `QUERIES` of them at a time: (Q, N).

    Products of other shapes round differently. Near the threshold, float64 decides.
    """
    for start in range(0, len(numbers), QUERIES):
        vectors = contents.blocks[0]
        part = list(numbers[start : start + QUERIES])
        scores: NDArray[np.float32] = (vectors[part] @ vectors.T).numpy()
        rows, columns = np.nonzero(np.abs(scores - threshold) < BORDER)
        for first in range(0, len(rows), EXACTLY):
            some = slice(first, first + EXACTLY)
            a, b = (vectors[places].double() for places in (np.array(part)[rows[some]], columns[some]))
            # not a product of unit vectors, whose lengths are rounded: equal vectors have a cosine of exactly 1
            exact = ((a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()).numpy()
            scores[rows[some], columns[some]] = np.where(exact >= threshold, np.maximum(exact, threshold), -1.0)
        yield part, scores
