"""Word meaning in context: group the occurrences of a word into senses, and find words that are used like it.

For comparison there is the static token table, which has one vector for all senses of a word, as Word2Vec does.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from minibert.bert import Bert
from minibert.engine.stream import Progress
from minibert.errors import MinibertError
from minibert.inputs import check_ids
from minibert.text import as_stream, check_text, whole_number
from minibert.tokenizer import BertTokenizer
from minibert.vectors.words import Words, aligned_text, split_texts

logger = logging.getLogger("minibert")

Vectors = NDArray[np.float32]
PORTION_CHARACTERS = 50_000  # text whose word vectors are in memory at the same time: 30 MB for bert-base
# A word is scored by its best occurrences, since a rare sense has few: three, or a hundredth for a frequent word. Among
# the thousands of "the" in a novel, three are always similar to the query.
BEST, ONE_IN = 3, 100
EXAMPLE_WIDTH = 200
EXEMPLARS = 3
EXEMPLAR_WIDTH = 90
MOST_SENSES = 6
RESTARTS = 10
MOST_STEPS = 100
# Measured with all-MiniLM-L6-v2 on CoarseWSD-20: few directions separate senses best, and a good split has a silhouette
# above CONVINCING. For words with one sense it is usually below.
DIRECTIONS = 5
CONVINCING = 0.48
SENTENCE_END = re.compile(r"[.!?]['\")]*\s|\n\s*\n")


# Finding a word


class Query:
    """A word or phrase, and how to find it in texts.

    Args:
        bert: its tokenizer splits the word; its model computes the vectors.
        word: a word or a phrase; case is ignored.
        settings: keyword arguments of `Bert.words`; `truncation` defaults to "window".

    Attributes:
        bert, word, settings: the arguments.
        keys: the words of the phrase, normalized by `key_of`.

    Raises:
        MinibertError: `word` contains no word, or the settings contain `spans`.
    """

    def __init__(self, bert: Bert, word: str, settings: dict[str, Any]) -> None:
        if settings.get("spans") is not None:
            raise MinibertError(
                f"spans ({settings['spans']!r:.40}) must be left out, since words are looked up; set split= instead"
            )
        check_text([word])
        self.bert, self.word, self.settings = bert, word, {"truncation": "window", **settings}
        self.keys = [key_of(word[start:end]) for start, end in self._spans(word)]
        if not self.keys:
            raise MinibertError(f"word ({word!r}) must contain at least one word that the tokenizer keeps; change it")

    def _spans(self, text: str) -> list[tuple[int, int]]:
        spans = split_texts([text], 0, self.settings.get("split", "pretokenizer"), None)[1][0]
        if spans is None:
            encoding = self.bert.tokenizer.backend.encode(text, add_special_tokens=False)
            spans = aligned_text(self.bert.tokenizer, text, encoding).spans
        return [(start, end) for start, end in spans.tolist()]

    def is_in(self, text: str) -> bool:
        """Whether a text contains the word. A substring check avoids splitting most texts."""
        folded = fold(text)
        return all(key in folded for key in self.keys) and self.span(text) is not None

    def find(self, keys: Sequence[str]) -> list[int]:
        """The positions at which the word starts, given the keys of a text's words."""
        size = len(self.keys)
        return [
            first for first, key in enumerate(keys) if key == self.keys[0] and keys[first : first + size] == self.keys
        ]

    def span(self, text: str) -> tuple[int, int] | None:
        """The first (start, end) of the word in a text, in characters; None if it is absent."""
        spans = self._spans(text)
        found = self.find([key_of(text[start:end]) for start, end in spans])
        return (spans[found[0]][0], spans[found[0] + len(self.keys) - 1][1]) if found else None

    def uses(self, words: Words) -> list[tuple[tuple[int, int], Vectors]]:
        """The (start, end) of each occurrence in a text, and its unit vector: the mean over the words of the phrase."""
        found, spans = [], words.spans
        for first in self.find(list(map(key_of, words.words))):
            last = first + len(self.keys) - 1
            vector = words.vectors[first : last + 1].mean(0)
            if vector.any():  # zeros if the text was truncated before the word
                found.append(((spans[first][0], spans[last][1]), unit(vector)))
        return found

    def vector_in(self, context: str) -> Vectors:
        """The unit vector of the first occurrence in a sentence.

        Raises:
            MinibertError: the sentence does not contain the word.
        """
        check_text([context])
        uses = self.uses(self.bert.words(context, **self.settings))
        if not uses:
            raise self.absent(context)
        return uses[0][1]

    def absent(self, context: str) -> MinibertError:
        """The error for a sentence that does not contain the word."""
        return MinibertError(
            f"context ({context!r:.60}) must contain the word ({self.word!r}); pass a sentence that uses it"
        )


def fold(text: str) -> str:
    """A text in case-folded NFC form."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).casefold()


def key_of(word: str) -> str:
    """The key by which words are equal: case and surrounding punctuation are ignored; punctuation alone is kept."""
    folded = fold(word)
    if folded.isalnum():
        return folded
    start, end = 0, len(folded)
    while start < end and unicodedata.category(folded[start])[0] in "PS":
        start += 1
    while end > start and unicodedata.category(folded[end - 1])[0] in "PS":
        end -= 1
    return folded[start:end] or folded


def excerpt(text: str, start: int, end: int, width: int) -> str:
    """The sentence around a span, on one line; if it is long, about `width` characters around the span."""
    low, high = max(0, start - width), min(len(text), end + width)  # a text may be a whole book
    begins = max((match.end() for match in SENTENCE_END.finditer(text, low, start)), default=low)
    stop = SENTENCE_END.search(text, end, high)
    ends = high if stop is None else stop.end()
    room = max(0, width - (end - start))
    left = max(begins, min(start - room // 2, ends - width))
    right = max(end, min(ends, left + width))
    before, after = text[left:start], text[end:right]
    if left > begins:
        before = "…" + before.partition(" ")[2]  # no partial words
    if right < ends:
        after = after.rpartition(" ")[0] + "…"
    return " ".join((before + text[start:end] + after).split())


def portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group a stream of texts into lists that are computed together, and check each text."""
    portion: list[str] = []
    room, number = PORTION_CHARACTERS, 0
    for number, text in enumerate(texts):
        check_text([text], first=number)
        portion.append(text)
        room -= len(text)
        if room <= 0:
            yield portion
            portion, room = [], PORTION_CHARACTERS
    if portion:
        yield portion


def read(query: Query, texts: Iterable[str], holding: bool) -> Iterator[tuple[int, Words]]:
    """Compute the word vectors of texts, a portion at a time.

    Args:
        query: the word to look for, with the checkpoint and the settings.
        texts: any number of texts.
        holding: True computes only texts that contain the word, False only those that do not.

    Yields:
        The number of each text computed, and its words.
    """
    settings = {**query.settings, "show_progress_bar": False}
    shown = query.settings.get("show_progress_bar")
    shown = logger.isEnabledFor(logging.INFO) if shown is None else shown
    with Progress(len(texts) if isinstance(texts, Sized) else None, shown, "words") as progress:
        first = 0
        for portion in portions(texts):
            chosen = [number for number, text in enumerate(portion) if query.is_in(text) == holding]
            found = query.bert.words([portion[number] for number in chosen], **settings)
            for number, words in zip(chosen, found, strict=True):
                yield first + number, words
            progress.add(len(portion), sum(map(len, found)))
            first += len(portion)


def unit(vectors: Vectors) -> Vectors:
    """Vectors of length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


# Words used like a given one


class Expansion(NamedTuple):
    """A word that a corpus uses like the query.

    Attributes:
        word: in lower case.
        score: the mean cosine of its best three occurrences (fewer if it has fewer); for a word with more than 300
            occurrences, of the best hundredth.
        count: its number of occurrences, in any sense, in the texts that were compared.
        example: the sentence of its best occurrence.
    """

    word: str
    score: float
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs here
    example: str


@dataclass
class Use:
    """The statistics of a word of the corpus: its count, its best cosines, and the sentence of the best."""

    count: int = 0
    best: list[float] = field(default_factory=list)
    highest: float = -math.inf
    example: str = ""

    def add(self, cosine: float) -> None:
        """Count an occurrence, and keep its cosine if it is among the best.

        Twice as many are kept as the score uses, because the score uses more of them as the count grows.
        """
        self.count += 1
        heapq.heappush(self.best, cosine)
        if len(self.best) > max(BEST, 2 * (self.count // ONE_IN)):
            heapq.heappop(self.best)

    @property
    def score(self) -> float:
        """The mean of the best three cosines; for a frequent word, of the best hundredth."""
        best = heapq.nlargest(max(BEST, self.count // ONE_IN), self.best)
        return sum(best) / len(best)


def expand(
    bert: Bert, word: str, corpus: Iterable[str], context: str | None = None, top_k: int = 10, **settings: Any
) -> list[Expansion]:
    """Find the words that a corpus uses most like the given one, in the sense that the context shows.

    Every occurrence of a word has its own vector. A word of the corpus is scored by the mean cosine of its best three
    occurrences with the target. This finds "deposit" in its financial sense, even if most of its occurrences are
    geological. For a word with more than 300 occurrences, the best hundredth counts.

    Texts that contain the word itself are skipped, with or without a context. Attention mixes a word into its
    neighbours, so "the" beside "bank" is closer to "bank" than most nouns are. Punctuation and numbers are skipped.

    The corpus is read in portions, and no text is computed twice. Memory grows with the number of distinct words,
    hardly with the number of texts.

    Args:
        bert: a loaded checkpoint.
        word: a word or a phrase, such as "credit card"; case is ignored.
        corpus: any iterable of texts, sentences or documents. A one-shot iterator is copied to a temporary file.
        context: a sentence whose first occurrence of the word has the intended sense. None uses the mean of all
            occurrences in the corpus.
        top_k: the number of words.
        settings: keyword arguments of `Bert.words`; `truncation` defaults to "window".

    Returns:
        The words, best first.

    Raises:
        MinibertError: the context, or the corpus if there is none, does not contain the word; all texts contain it; an
            item is not a string.
    """
    query, top_k = Query(bert, word, settings), whole_number("top_k", top_k)
    corpus, _ = as_stream(corpus, words=True, name="corpus")
    with TemporaryFile("w+", encoding="utf-8") as copy:
        if isinstance(corpus, Iterator):
            corpus = Lines(copy, corpus)
        target = mean_use(query, corpus) if context is None else query.vector_in(context)
        uses: dict[str, Use] = {}
        compared = 0
        for _, words in read(query, corpus, holding=False):
            note_uses(uses, words, unit(words.vectors) @ target)
            compared += 1
    if not compared:
        raise MinibertError(
            f"the corpus must have texts that do not contain the word ({query.word!r}), to compare with it; pass more "
            "texts, or split long ones into sentences"
        )
    scored = (Expansion(key, use.score, use.count, use.example) for key, use in uses.items())
    return heapq.nsmallest(top_k, scored, key=lambda one: (-one.score, one.word))


class Lines:
    """A stream of texts, copied to a file of JSON lines so that it can be read again and again."""

    def __init__(self, file: Any, texts: Iterable[str]) -> None:
        self._file, self._count = file, 0
        for text in texts:
            check_text([text], first=self._count)
            file.write(json.dumps(text) + "\n")
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return map(json.loads, self._file)


def mean_use(query: Query, corpus: Iterable[str]) -> Vectors:
    """The mean of a word's unit vectors in a corpus, as a unit vector.

    Raises:
        MinibertError: the corpus does not hold the word.
    """
    total: Any = None
    for _, words in read(query, corpus, holding=True):
        for _, vector in query.uses(words):
            total = vector if total is None else total + vector
    if total is None:
        raise MinibertError(
            f"word ({query.word!r}) must occur in the corpus if there is no context; pass context=, a sentence that "
            "uses it"
        )
    return unit(total)


def note_uses(uses: dict[str, Use], words: Words, cosines: Vectors) -> None:
    """Update the statistics of the corpus with the words of a text."""
    spans = words.spans
    for number, (word, cosine) in enumerate(zip(words.words, cosines.tolist(), strict=True)):
        key = key_of(word)
        if not any(map(str.isalpha, key)):
            continue
        use = uses.setdefault(key, Use())
        use.add(cosine)
        if cosine > use.highest:
            use.highest, use.example = cosine, excerpt(words.text, *spans[number], EXAMPLE_WIDTH)


def substitutes(bert: Bert, word: str, context: str, top_k: int = 10) -> list[Any]:
    """Predict substitutes for a word with the masked-LM head, from the vocabulary of the checkpoint.

    Args:
        bert: a checkpoint with a masked-LM head.
        word: a word or a phrase, which one [MASK] replaces.
        context: a sentence that contains the word; its first occurrence is masked.
        top_k: the number of substitutes.

    Returns:
        `Candidate`s, most probable first. The word itself and tokens that are not whole words are left out.

    Raises:
        MinibertError: the context does not contain the word, or the checkpoint has no masked-LM head.
    """
    query, top_k = Query(bert, word, {}), whole_number("top_k", top_k)
    check_text([context])
    span = query.span(context)
    if span is None:
        raise query.absent(context)
    mask = bert.tokenizer.mask_token
    masked = context[: span[0]] + mask + context[span[1] :]
    held, whole = fold(context[span[0] : span[1]]), len(bert.tokenizer)
    asked = min(whole, 4 * (top_k + 8))
    while True:
        found = bert.fill_mask(masked, top_k=asked)
        if isinstance(found[0], list):  # the context itself contains masks
            found = found[context[: span[0]].count(mask)]
        names = {one.token: written(bert.tokenizer, one.token) for one in found}
        kept = [one for one in found if names[one.token] and fold(names[one.token]) != held]
        if len(kept) >= top_k or asked == whole:
            return kept[:top_k]
        asked = whole


# Senses: the occurrences of one word, grouped


class Occurrence(NamedTuple):
    """An occurrence of a word.

    Attributes:
        text: the number of the text.
        span: its (start, end) in the text, in characters.
        example: the sentence, shortened to one line.
    """

    text: int
    span: tuple[int, int]
    example: str


@dataclass(frozen=True)
class Sense:
    """A sense of a word: a cluster of its occurrences.

    Attributes:
        number: 0 for the most frequent sense.
        occurrences: in the order of the texts.
        centroid: (H,) the normalized mean of their unit vectors.
        exemplars: the occurrences nearest to the centroid, nearest first.
        share: its fraction of all occurrences of the word.
    """

    number: int
    occurrences: tuple[Occurrence, ...]
    centroid: Vectors = field(repr=False)
    exemplars: tuple[Occurrence, ...]
    share: float


class Senses:
    """The senses of a word. `senses` returns it; printing it shows the senses with examples.

    `len`, indexing and iteration work on `senses`.

    Attributes:
        word: the word.
        senses: the most frequent first.
        occurrences: all occurrences, in the order of the texts.
        vectors: (n, H) the unit vector of each occurrence.
        labels: (n,) the number of the sense of each occurrence.
    """

    def __init__(
        self,
        query: Query,
        occurrences: Sequence[Occurrence],
        vectors: Vectors,
        contrast: Contrast,
        labels: NDArray[np.int64],
    ) -> None:
        self._query, self._contrast = query, contrast
        self.word = query.word
        self.occurrences = tuple(occurrences)
        self.vectors = vectors
        order = np.argsort(-np.bincount(labels), kind="stable")
        self.labels = np.argsort(order)[labels]
        self.senses = tuple(self._sense(number) for number in range(len(order)))
        seen = contrast(vectors)
        self._middles = unit(np.stack([seen[self.labels == number].mean(0) for number in range(len(order))]))

    def _sense(self, number: int) -> Sense:
        members = np.flatnonzero(self.labels == number)
        centroid = unit(self.vectors[members].mean(0))
        nearest = members[np.argsort(-(self.vectors[members] @ centroid), kind="stable")]
        different: dict[str, Occurrence] = {}
        for place in nearest.tolist():
            different.setdefault(self.occurrences[place].example, self.occurrences[place])
        own = tuple(self.occurrences[place] for place in members.tolist())
        return Sense(number, own, centroid, tuple(different.values())[:EXEMPLARS], len(members) / len(self.labels))

    def __len__(self) -> int:
        return len(self.senses)

    def __getitem__(self, number: int) -> Sense:
        return self.senses[number]

    def __iter__(self) -> Iterator[Sense]:
        return iter(self.senses)

    def assign(self, text: str) -> Sense:
        """The sense of the first occurrence of the word in a text: the one with the nearest centroid.

        Raises:
            MinibertError: the text does not contain the word.
        """
        seen = self._contrast(self._query.vector_in(text))
        return self.senses[int((self._middles @ seen).argmax())]

    def __repr__(self) -> str:
        count = len(self.occurrences)
        lines = [f"Senses of {self.word!r}: {len(self)} in {count} occurrence{'s' * (count != 1)}"]
        for sense in self.senses:
            first = f"{sense.number:>3} {sense.share:>5.0%} {len(sense.occurrences):>6}  "
            for exemplar in sense.exemplars:
                lines.append(first + exemplar.example)
                first = " " * len(first)
        return "\n".join(lines)


def senses(bert: Bert, word: str, texts: Iterable[str], n_senses: int | None = None, **settings: Any) -> Senses:
    """Group the occurrences of a word by meaning.

    Spherical k-means clusters the unit vectors of the occurrences, projected on the few directions in which they vary
    most; the other directions are noise of single sentences. If `n_senses` is None, the number of clusters is the one
    from 2 to 6 with the best silhouette, or 1 if that silhouette is poor. With fewer than 25 occurrences this is a
    guess.

    Args:
        bert: a loaded checkpoint.
        word: a word or a phrase; case is ignored.
        texts: texts that contain the word; others are skipped.
        n_senses: the number of senses; None chooses it from the occurrences.
        settings: keyword arguments of `Bert.words`; `truncation` defaults to "window".

    Raises:
        MinibertError: the texts do not contain the word, or contain it fewer than `n_senses` times; an item is not a
            string.

    Source: Dhillon and Modha 2001 (spherical k-means); Arthur and Vassilvitskii 2007 (initialisation); Rousseeuw 1987
        (silhouette).
    """
    query = Query(bert, word, settings)
    n_senses = None if n_senses is None else whole_number("n_senses", n_senses)
    occurrences, vectors = [], []
    for number, words in read(query, as_stream(texts, words=True)[0], holding=True):
        for span, vector in query.uses(words):
            occurrences.append(Occurrence(number, span, excerpt(words.text, *span, EXEMPLAR_WIDTH)))
            vectors.append(vector)
    if not vectors:
        raise MinibertError(f"the texts must contain the word ({word!r}); pass texts that use it")
    if n_senses is not None and n_senses > len(vectors):
        raise MinibertError(
            f"n_senses ({n_senses}) must not exceed the number of occurrences of {word!r} ({len(vectors)}); pass more "
            "texts, or request fewer senses"
        )
    units = np.stack(vectors)
    contrast = Contrast(units)
    seen = contrast(units)
    labels = best_clusters(seen) if n_senses is None else clusters(seen, n_senses)
    return Senses(query, occurrences, units, contrast, labels)


class Contrast:
    """A projection on the directions in which the given vectors vary most: subtract the mean, rotate, keep a few.

    Args:
        units: (n, H) of length 1.
    """

    def __init__(self, units: Vectors) -> None:
        self.mean = units.mean(0)
        centred = (units - self.mean).astype(np.float64)
        variances, directions = np.linalg.eigh(centred.T @ centred / len(units))  # in ascending order of variance
        kept = np.flatnonzero(variances > 1e-9)[-DIRECTIONS:]  # empty if all vectors are equal up to rounding
        self.directions = directions[:, kept].astype(np.float32)  # (H, at most DIRECTIONS)

    def __call__(self, units: Vectors) -> Vectors:
        """(..., H) -> (..., directions), of length 1."""
        return unit((units - self.mean) @ self.directions)


def best_clusters(units: Vectors) -> NDArray[np.int64]:
    """The clustering with the best silhouette, of 1 to 6 clusters."""
    labels = np.zeros(len(units), dtype=np.int64)
    best = CONVINCING
    for number in range(2, min(MOST_SENSES, len(units) - 1) + 1):
        found = clusters(units, number)
        score = silhouette(units, found)
        if score > best:
            best, labels = score, found
    return labels


def clusters(units: Vectors, number: int, seed: int = 0) -> NDArray[np.int64]:
    """Spherical k-means: maximise the sum of the cosines of vectors with the centroid of their cluster.

    Args:
        units: (n, H) of length 1.
        number: the number of clusters.
        seed: for the random starts.

    Returns:
        (n,) the cluster of each vector, 0 to `number` - 1; there are fewer clusters if vectors are equal.
    """
    generator = np.random.default_rng(seed)
    best, labels = -np.inf, np.zeros(len(units), dtype=np.int64)
    for _ in range(RESTARTS if number > 1 else 0):
        centroids = far_apart(units, number, generator)
        found = labels
        for step in range(MOST_STEPS):
            cosines = (units @ centroids.T).round(
                5
            )  # (n, H) -> (n, number); equal vectors go together, whatever their noise
            before, found = found, cosines.argmax(1)
            if step and np.array_equal(before, found):
                break
            sums = np.eye(number, dtype=np.float32)[found].T @ units
            for empty in np.flatnonzero(np.bincount(found, minlength=number) == 0):
                worst = int(cosines.max(1).argmin())
                sums[empty], cosines[worst] = units[worst], 1
            centroids = unit(sums)
        score = float((units @ centroids.T).max(1).sum())
        if score > best:
            best, labels = score, found
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def far_apart(units: Vectors, number: int, generator: np.random.Generator) -> Vectors:
    """Initial centroids (k-means++): vectors far from those already drawn are more likely to be drawn."""
    chosen = [int(generator.integers(len(units)))]
    while len(chosen) < number:
        distances = (1 - (units @ units[chosen].T).max(1)).clip(0).astype(np.float64)
        total = distances.sum()
        chances = distances / total if total > 1e-6 else None  # all equal: draw uniformly
        chosen.append(int(generator.choice(len(units), p=chances)))
    return units[chosen]


def silhouette(units: Vectors, labels: NDArray[np.int64]) -> float:
    """The silhouette coefficient with cosine distance, -1 to 1: how much nearer vectors are to their own cluster.

    A vector alone in its cluster counts 0. The mean cosine with a cluster is the product with its mean, which avoids a
    matrix of all pairs.
    """
    number = int(labels.max()) + 1
    counts = np.bincount(labels, minlength=number)
    if number < 2:
        return 0.0
    rows, sizes = np.arange(len(units)), counts[labels]
    sums = np.eye(number, dtype=np.float32)[labels].T @ units
    towards = (units @ sums.T).astype(np.float64)  # (n, H) -> (n, number)
    own = 1 - (towards[rows, labels] - 1) / np.maximum(sizes - 1, 1)
    others = 1 - towards / counts
    others[rows, labels] = np.inf
    other = others.min(1)
    larger = np.maximum(own, other)
    scores = np.where((sizes > 1) & (larger > 1e-5), (other - own) / np.maximum(larger, 1e-5), 0)
    return float(scores.mean())


# The static table: one vector per word


class Neighbour(NamedTuple):
    """A word of the vocabulary, and the cosine of its static vector with the query's."""

    word: str
    score: float


def static_vectors(bert: Bert, words: str | Sequence[str]) -> Vectors:
    """Context-free vectors of words: rows of the checkpoint's token embeddings, comparable to Word2Vec.

    Args:
        bert: a loaded checkpoint.
        words: one word or several; a word of several pieces gets the mean of its pieces' rows.

    Returns:
        (H,) for one word, (N, H) for several; float32.

    Raises:
        MinibertError: a word does not consist of pieces of the vocabulary.
    """
    single = isinstance(words, str)
    asked = [words] if isinstance(words, str) else list(words)
    check_text(asked)
    table = bert.encoder.embeddings.token.weight.detach()
    vectors = np.empty((len(asked), table.shape[1]), dtype=np.float32)
    for number, encoding in enumerate(bert.tokenizer.backend.encode_batch(asked, add_special_tokens=False)):
        if not encoding.ids or bert.tokenizer.unk_token_id in encoding.ids:
            raise MinibertError(
                f"word ({asked[number]!r}) must consist of pieces of the vocabulary; choose another word"
            )
        check_ids(torch.tensor(encoding.ids), bert.encoder.embeddings.token, "a token id", "vocab_size")
        vectors[number] = table[encoding.ids].float().mean(0).cpu().numpy()
    return vectors[0] if single else vectors


def static_neighbours(bert: Bert, word: str, top_k: int = 10) -> list[Neighbour]:
    """The whole words of the vocabulary with the static vectors nearest to a word's, by cosine.

    The static vector mixes all senses of the word.

    Raises:
        MinibertError: a word does not consist of pieces of the vocabulary.
    """
    top_k = whole_number("top_k", top_k)
    own = torch.from_numpy(static_vectors(bert, word))
    table = bert.encoder.embeddings.token.weight.detach()
    tokens = {
        name: row
        for name, row in whole_words(bert.tokenizer).items()
        if fold(name) != fold(word) and row < len(table)  # a vocabulary may have tokens without a row
    }
    rows = table[list(tokens.values())].float().cpu()
    cosines = F.normalize(rows, dim=-1) @ F.normalize(own, dim=-1)  # (words, H) -> (words,)
    names = list(tokens)
    top = cosines.topk(min(top_k, len(names)))
    return [
        Neighbour(names[place], score) for place, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def written(tokenizer: BertTokenizer, token: str) -> str:
    """A token that is a whole word, as it is written; empty if it is none.

    A whole word is no continuation of a word, not special, and has at least one letter.
    """
    name, continues = tokenizer.spelled(token)
    special = name in tokenizer.special_tokens.values() or (name.startswith("[") and name.endswith("]"))
    return "" if continues or special or not any(map(str.isalpha, name)) else name


def whole_words(tokenizer: BertTokenizer) -> dict[str, int]:
    """The words of the vocabulary, as they are written, and their ids."""
    names = {written(tokenizer, token): number for token, number in tokenizer.vocab.items()}
    names.pop("", None)
    return names
