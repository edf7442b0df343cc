"""What a word means where it stands: its occurrences grouped into senses, the words that are used like it, and, beside
them, the static table, which has one vector for all senses of a word, as Word2Vec has.
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
from minibert.text import check_text, is_table, whole_number
from minibert.vectors.words import Words, aligned_text, split_texts

logger = logging.getLogger("minibert")

Vectors = NDArray[np.float32]
PORTION_CHARACTERS = 50_000  # of text whose words have their vectors in memory at once: 30 MB of bert-base's
# The best occurrences of a word say how well it fits, since a rare sense has few: three, or a hundredth of a frequent
# word. Three of the thousands of "the" in a novel are always like the word that is asked for.
BEST, ONE_IN = 3, 100
EXAMPLE_WIDTH = 200
EXEMPLARS = 3
EXEMPLAR_WIDTH = 90
MOST_SENSES = 6
RESTARTS = 10
MOST_STEPS = 100
# Measured with all-MiniLM-L6-v2: the senses of CoarseWSD-20's words are seen best in few directions, and the silhouette
# of a good split of them is above this; of words with one sense it is below, most often.
DIRECTIONS = 5
CONVINCING = 0.48
SENTENCE_END = re.compile(r"[.!?]['\")]*\s|\n\s*\n")


# Finding a word


class Query:
    """A word, or several that follow one another, and where texts hold it.

    Args:
        bert: whose tokenizer splits it, and whose vectors it has.
        word: as people write it; capitals make no difference.
        settings: those of `Bert.words`; what is too long for the model is computed in windows, unless they say else.

    Attributes:
        bert, word, settings: these.
        keys: its words, as `key_of` has them.

    Raises:
        MinibertError: it holds no word; `spans` among the settings.
    """

    def __init__(self, bert: Bert, word: str, settings: dict[str, Any]) -> None:
        if settings.get("spans") is not None:
            raise MinibertError(
                "spans must be left out here, since words are looked for; pass split= to say what words are"
            )
        check_text([word])
        self.bert, self.word, self.settings = bert, word, {"truncation": "window", **settings}
        self.keys = [key_of(word[start:end]) for start, end in self._spans(word)]
        if not self.keys:
            raise MinibertError(f"word ({word!r}) must hold at least one word that the tokenizer keeps; it holds none")

    def _spans(self, text: str) -> list[tuple[int, int]]:
        spans = split_texts([text], 0, self.settings.get("split", "pretokenizer"), None)[1][0]
        if spans is None:
            encoding = self.bert.tokenizer.backend.encode(text, add_special_tokens=False)
            spans = aligned_text(self.bert.tokenizer, text, encoding).spans
        return [(start, end) for start, end in spans.tolist()]

    def is_in(self, text: str) -> bool:
        """Whether a text holds it. Few texts need to be split for this: in most, its characters are not there."""
        folded = fold(text)
        return all(key in folded for key in self.keys) and self.span(text) is not None

    def find(self, keys: Sequence[str]) -> list[int]:
        """The numbers of the words with which it begins, among the keys of a text's words."""
        size = len(self.keys)
        return [
            first for first, key in enumerate(keys) if key == self.keys[0] and keys[first : first + size] == self.keys
        ]

    def span(self, text: str) -> tuple[int, int] | None:
        """Where a text holds it first, in characters."""
        spans = self._spans(text)
        found = self.find([key_of(text[start:end]) for start, end in spans])
        return (spans[found[0]][0], spans[found[0] + len(self.keys) - 1][1]) if found else None

    def uses(self, words: Words) -> list[tuple[tuple[int, int], Vectors]]:
        """Where words of a text are this one, in characters, and its unit vector there: the mean of its words'."""
        found, spans = [], words.spans
        for first in self.find(list(map(key_of, words.words))):
            last = first + len(self.keys) - 1
            vector = words.vectors[first : last + 1].mean(0)
            if vector.any():  # none, where the text was cut before it
                found.append(((spans[first][0], spans[last][1]), unit(vector)))
        return found

    def vector_in(self, context: str) -> Vectors:
        """Its unit vector where a sentence holds it first.

        Raises:
            MinibertError: the sentence does not hold it.
        """
        check_text([context])
        uses = self.uses(self.bert.words(context, **self.settings))
        if not uses:
            raise self.absent(context)
        return uses[0][1]

    def absent(self, context: str) -> MinibertError:
        """The error for a sentence that does not hold it."""
        return MinibertError(
            f"context ({context!r:.60}) must hold the word ({self.word!r}); it does not: pass a sentence that does"
        )


def fold(text: str) -> str:
    """A text without the difference of capitals, and of composed and decomposed accents."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).casefold()


def key_of(word: str) -> str:
    """What makes two words the same: capitals do not, nor punctuation around them; but punctuation alone is a word."""
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
    """The sentence around a span, in one line; of a long one, about `width` characters around the span."""
    low, high = max(0, start - width), min(len(text), end + width)  # a book may be one text
    begins = max((match.end() for match in SENTENCE_END.finditer(text, low, start)), default=low)
    stop = SENTENCE_END.search(text, end, high)
    ends = high if stop is None else stop.end()
    room = max(0, width - (end - start))
    left = max(begins, min(start - room // 2, ends - width))
    right = max(end, min(ends, left + width))
    before, after = text[left:start], text[end:right]
    if left > begins:
        before = "…" + before.partition(" ")[2]  # no half words
    if right < ends:
        after = after.rpartition(" ")[0] + "…"
    return " ".join((before + text[start:end] + after).split())


def portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut a stream of texts into lists that are computed at once, each text checked."""
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
    """Read texts a portion at a time, each word with its vector.

    Args:
        query: the word that is looked for, with the checkpoint and the settings.
        texts: any number of them.
        holding: True: only the texts that hold the word are computed; False: only those that do not.

    Yields:
        The number of the text, and its words.
    """
    settings = {**query.settings, "show_progress_bar": False}
    shown = query.settings.get("show_progress_bar")
    shown = logger.isEnabledFor(logging.INFO) if shown is None else shown
    with Progress(len(texts) if isinstance(texts, Sized) else None, shown) as progress:
        first = 0
        for portion in portions(texts):
            chosen = [number for number, text in enumerate(portion) if query.is_in(text) == holding]
            found = query.bert.words([portion[number] for number in chosen], **settings)
            for number, words in zip(chosen, found, strict=True):
                yield first + number, words
            progress.add(len(portion), sum(map(len, found)))
            first += len(portion)


def as_texts(texts: Any, name: str) -> Iterable[str]:
    """One text or several.

    Raises:
        MinibertError: neither.
    """
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, dict, set, frozenset)) or not isinstance(texts, Iterable):
        raise MinibertError(f"{name} ({texts!r:.40}) must be several str in an order, not {type(texts).__name__}")
    if is_table(texts):
        kind = type(texts).__name__
        raise MinibertError(f"{name} ({kind}) must be several str, not a table; pass a column, table['column']")
    return texts


def unit(vectors: Vectors) -> Vectors:
    """Vectors divided by their lengths; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


# Words that are used like this one


class Expansion(NamedTuple):
    """A word that a corpus uses like the one that was asked for.

    Attributes:
        word: without capitals.
        score: the mean cosine of its best three occurrences, or of as many as there are; of a word with more than 300
            occurrences, of the best hundredth.
        count: how often the texts that were compared have it, in whatever sense.
        example: the sentence of its best occurrence.
    """

    word: str
    score: float
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not missed
    example: str


@dataclass
class Use:
    """What is kept of a word of the corpus: how often it occurs, its best cosines, and where the best was."""

    count: int = 0
    best: list[float] = field(default_factory=list)
    highest: float = -math.inf
    example: str = ""

    def add(self, cosine: float) -> None:
        """Count an occurrence, and keep its cosine if it is among the best: twice as many as make the score are kept,
        since more count later.
        """
        self.count += 1
        heapq.heappush(self.best, cosine)
        if len(self.best) > max(BEST, 2 * (self.count // ONE_IN)):
            heapq.heappop(self.best)

    @property
    def score(self) -> float:
        """The mean of the best three cosines; of a frequent word, of the best hundredth."""
        best = heapq.nlargest(max(BEST, self.count // ONE_IN), self.best)
        return sum(best) / len(best)


def expand(
    bert: Bert, word: str, corpus: Iterable[str], context: str | None = None, top_k: int = 10, **settings: Any
) -> list[Expansion]:
    """Find the words that a corpus uses most like this one, in the sense that is meant.

    Each occurrence of each word has a vector of its own. A word of the corpus scores the mean cosine of its best three
    occurrences with the word in its context: so the financial sense of "deposit" is found, though most of its
    occurrences may be geological. Of a word with more than 300 occurrences, the best hundredth counts.

    Texts that hold the word itself are left out, with a context and without: attention mixes a word into its
    neighbours, so "the" beside "bank" is more like "bank" than most nouns are. Punctuation and numbers are left out.

    The corpus is read in portions, and no text is computed twice. What is kept grows with the number of different
    words, hardly with that of the texts.

    Args:
        bert: a loaded checkpoint.
        word: a word, or several that follow one another, "credit card"; capitals make no difference.
        corpus: texts, sentences or documents; any iterable. What can be read only once is copied to a temporary file.
        context: a sentence that holds the word in the sense that is meant, once or first. None: all senses that the
            corpus has, in the mean.
        top_k: how many words.
        settings: those of `Bert.words`; `truncation` is "window" unless they say else.

    Returns:
        The words, best first.

    Raises:
        MinibertError: the context, or without one the corpus, does not hold the word; all texts hold it; what is not
            text.
    """
    query, top_k = Query(bert, word, settings), whole_number("top_k", top_k)
    corpus = as_texts(corpus, "corpus")
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
            f"corpus must hold texts without the word ({query.word!r}), whose words are compared with it; it holds "
            "none: pass more texts, or split long ones into sentences"
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
            f"word ({query.word!r}) must occur in the corpus if there is no context; it does not: pass context=, a "
            "sentence that holds it"
        )
    return unit(total)


def note_uses(uses: dict[str, Use], words: Words, cosines: Vectors) -> None:
    """Add the words of a text to what is known of the corpus."""
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
    """Say what the masked-LM head would put in the place of a word: what BERT expects there, of its own vocabulary.

    Args:
        bert: a checkpoint with a masked-LM head.
        word: a word, or several that follow one another; one [MASK] takes the place of all.
        context: a sentence that holds it; its first occurrence is meant.
        top_k: how many.

    Returns:
        `Candidate`s, the most probable first; neither the word itself nor what is no whole word.

    Raises:
        MinibertError: the context does not hold the word; the checkpoint has no masked-LM head.
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
        if isinstance(found[0], list):  # the context has masks of its own
            found = found[context[: span[0]].count(mask)]
        kept = [one for one in found if is_word(one.token) and fold(one.token) != held]
        if len(kept) >= top_k or asked == whole:
            return kept[:top_k]
        asked = whole


# Senses: the occurrences of one word, grouped


class Occurrence(NamedTuple):
    """Where a word occurs.

    Attributes:
        text: the number of the text.
        span: (start, end) in it, in characters.
        example: the sentence, cut to one line.
    """

    text: int
    span: tuple[int, int]
    example: str


@dataclass(frozen=True)
class Sense:
    """One meaning of a word, as its occurrences show it.

    Attributes:
        number: 0 for the most frequent.
        occurrences: in the order of the texts.
        centroid: (H,) the mean of their unit vectors, as a unit vector.
        exemplars: the occurrences nearest to the centroid, the nearest first.
        share: its part of all occurrences of the word.
    """

    number: int
    occurrences: tuple[Occurrence, ...]
    centroid: Vectors = field(repr=False)
    exemplars: tuple[Occurrence, ...]
    share: float


class Senses:
    """A word's occurrences, grouped by meaning. Made by `senses`; printing it shows the groups.

    Attributes:
        word: the word.
        senses: the most frequent first; so are `len`, indexing and iteration.
        occurrences: all of them, in the order of the texts.
        vectors: (n, H) the unit vector of each.
        labels: (n,) the number of the sense of each.
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
        """The sense in which a text uses the word, where it stands first: the group whose middle is nearest.

        Raises:
            MinibertError: the text does not hold the word.
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

    Each occurrence has a unit vector. Spherical k-means makes groups of them, in the few directions in which they
    differ most: the others are the noise of single sentences. Without `n_senses`, the number of groups is the one of 2
    to 6 with the best silhouette, and 1 where even that is poor. With fewer than 25 occurrences that is a guess.

    Args:
        bert: a loaded checkpoint.
        word: a word, or several that follow one another; capitals make no difference.
        texts: that hold it; others are skipped.
        n_senses: how many groups; None: as many as the occurrences show.
        settings: those of `Bert.words`; `truncation` is "window" unless they say else.

    Raises:
        MinibertError: the texts do not hold the word, or not as often as there should be senses; what is not text.

    Source: Dhillon and Modha 2001 (spherical k-means); Arthur and Vassilvitskii 2007 (where it starts); Rousseeuw 1987
        (silhouette).
    """
    query = Query(bert, word, settings)
    n_senses = None if n_senses is None else whole_number("n_senses", n_senses)
    occurrences, vectors = [], []
    for number, words in read(query, as_texts(texts, "texts"), holding=True):
        for span, vector in query.uses(words):
            occurrences.append(Occurrence(number, span, excerpt(words.text, *span, EXEMPLAR_WIDTH)))
            vectors.append(vector)
    if not vectors:
        raise MinibertError(
            f"texts must hold the word ({word!r}) for its senses to be found; pass texts in which it stands"
        )
    if n_senses is not None and n_senses > len(vectors):
        raise MinibertError(
            f"n_senses ({n_senses}) must not exceed the occurrences of {word!r} ({len(vectors)}); pass more texts, or "
            "ask for fewer senses"
        )
    units = np.stack(vectors)
    contrast = Contrast(units)
    seen = contrast(units)
    labels = best_clusters(seen) if n_senses is None else clusters(seen, n_senses)
    return Senses(query, occurrences, units, contrast, labels)


class Contrast:
    """Vectors seen in the directions in which these differ most: less their mean, turned, and cut to a few numbers.

    Args:
        units: (n, H) of length 1.
    """

    def __init__(self, units: Vectors) -> None:
        self.mean = units.mean(0)
        centred = (units - self.mean).astype(np.float64)
        variances, directions = np.linalg.eigh(centred.T @ centred / len(units))  # the least variance first
        kept = np.flatnonzero(variances > 1e-9)[-DIRECTIONS:]  # none, where all vectors are equal but for rounding
        self.directions = directions[:, kept].astype(np.float32)  # (H, at most DIRECTIONS)

    def __call__(self, units: Vectors) -> Vectors:
        """(..., H) -> (..., directions), of length 1."""
        return unit((units - self.mean) @ self.directions)


def best_clusters(units: Vectors) -> NDArray[np.int64]:
    """The clusters of the number, 1 to 6, that the vectors themselves speak for."""
    labels = np.zeros(len(units), dtype=np.int64)
    best = CONVINCING
    for number in range(2, min(MOST_SENSES, len(units) - 1) + 1):
        found = clusters(units, number)
        score = silhouette(units, found)
        if score > best:
            best, labels = score, found
    return labels


def clusters(units: Vectors, number: int, seed: int = 0) -> NDArray[np.int64]:
    """Spherical k-means: the groups for which the cosines of vectors with their group's centroid are largest, in sum.

    Args:
        units: (n, H) of length 1.
        number: of groups.
        seed: of the random starts.

    Returns:
        (n,) the group of each, 0 to `number` - 1; groups are fewer where vectors are equal.
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
    """Vectors to start from: the farther from those drawn before, the likelier one is drawn (k-means++)."""
    chosen = [int(generator.integers(len(units)))]
    while len(chosen) < number:
        distances = (1 - (units @ units[chosen].T).max(1)).clip(0).astype(np.float64)
        total = distances.sum()
        chances = distances / total if total > 1e-6 else None  # all equal: any
        chosen.append(int(generator.choice(len(units), p=chances)))
    return units[chosen]


def silhouette(units: Vectors, labels: NDArray[np.int64]) -> float:
    """How much nearer vectors are to their own group than to the next: the mean over vectors, -1 to 1, in cosines.

    A vector that is a group of its own counts 0. The mean of cosines with a group is the cosine with its mean, so that
    no table of all pairs is needed.
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


# The static table, where a word has one vector


class Neighbour(NamedTuple):
    """A word of the vocabulary, and the cosine of its static vector with that of the word asked for."""

    word: str
    score: float


def static_vectors(bert: Bert, words: str | Sequence[str]) -> Vectors:
    """The vectors that words have before any context: rows of the checkpoint's token table, as Word2Vec has them.

    Args:
        bert: a loaded checkpoint.
        words: one or several; one of several pieces has the mean of its pieces' rows.

    Returns:
        (H,) for one word, (N, H) for several; float32.

    Raises:
        MinibertError: a word that is not made of the vocabulary's pieces.
    """
    single = isinstance(words, str)
    asked = [words] if isinstance(words, str) else list(words)
    check_text(asked)
    table = bert.encoder.embeddings.token.weight.detach()
    vectors = np.empty((len(asked), table.shape[1]), dtype=np.float32)
    for number, encoding in enumerate(bert.tokenizer.backend.encode_batch(asked, add_special_tokens=False)):
        if not encoding.ids or bert.tokenizer.unk_token_id in encoding.ids:
            raise MinibertError(
                f"word ({asked[number]!r}) must be made of the vocabulary's pieces; it is not: choose another word"
            )
        vectors[number] = table[encoding.ids].float().mean(0).cpu().numpy()
    return vectors[0] if single else vectors


def static_neighbours(bert: Bert, word: str, top_k: int = 10) -> list[Neighbour]:
    """The whole words of the vocabulary whose static vectors are nearest to that of a word, by cosine: all its senses
    at once, whatever sentence it stands in.

    Raises:
        MinibertError: a word that is not made of the vocabulary's pieces.
    """
    top_k = whole_number("top_k", top_k)
    own = torch.from_numpy(static_vectors(bert, word))
    tokens = {token: row for token, row in bert.tokenizer.vocab.items() if is_word(token) and fold(token) != fold(word)}
    rows = bert.encoder.embeddings.token.weight.detach()[list(tokens.values())].float().cpu()
    cosines = F.normalize(rows, dim=-1) @ F.normalize(own, dim=-1)  # (words, H) -> (words,)
    names = list(tokens)
    top = cosines.topk(min(top_k, len(names)))
    return [
        Neighbour(names[place], score) for place, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def is_word(token: str) -> bool:
    """Whether a token of the vocabulary is a word by itself: no piece that goes on from another, no mark, no number."""
    special = token.startswith("[") and token.endswith("]")
    return any(map(str.isalpha, token)) and not token.startswith("##") and not special
