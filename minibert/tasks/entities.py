"""Named entities: the labels of tokens, grouped into spans of the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch.nn import functional as F

from minibert.base import PretrainedModel
from minibert.engine.device import without_autocast
from minibert.engine.engine import Engine, Pass, Plan
from minibert.engine.rows import TOKENIZED_AT_ONCE, RowMaker, Rows, Truncation
from minibert.engine.stream import Progress, Truncated, chunks
from minibert.errors import MinibertError
from minibert.heads import Classifier
from minibert.model import BertForTokenClassification
from minibert.pretrained.source import Source
from minibert.tasks.heads import with_head
from minibert.text import as_stream, end_with_marks, without_spaces
from minibert.tokenizer import BertTokenizer

Strategy = Literal["simple", "none", "first", "average", "max"]
STRATEGIES = ("simple", "none", "first", "average", "max")
OUTSIDE = "O"
BEGIN, INSIDE, END, SINGLE = "B", "IM", "LE", "US"  # BIO, IOB1, BILOU, BIOES and BMES, by the letter before the hyphen


class Entity(NamedTuple):
    """A named entity.

    Attributes:
        label: its kind, "PER" of the labels "B-PER" and "I-PER"; the whole label with `strategy="none"`.
        score: the mean probability of the labels of its tokens or words.
        text: the entity as written, `text[start:end]`, without spaces around it.
        start, end: where it is in the text, in characters.
    """

    label: str
    score: float
    text: str
    start: int
    end: int


class EntitySettings(TypedDict, total=False):
    """Keyword arguments of `Bert.entities`."""

    strategy: Strategy
    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None
    truncation: Truncation


class Scheme:
    """How labels mark the start and the end of an entity.

    "B-X" starts an entity of kind X. So does "I-X" after another kind or after "O"; this decodes IOB1 as well as BIO.
    If all labels except "O" have one of the prefixes of BILOU, BIOES or BMES, then "L-X" and "E-X" end an entity, and
    "U-X" and "S-X" are a whole one. A label without prefix is its own kind: equal neighbours are one entity.

    Args:
        labels: the labels by number, `config.id2label`.

    Attributes:
        labels: their names, by number.
        kinds: the kind of entity that each belongs to.
        kind: the place in `kinds` for each label.
        starts, ends: whether each label always starts an entity, and always ends one.
    """

    def __init__(self, labels: Mapping[int, str]) -> None:
        self.labels = [labels[number] for number in range(len(labels))]
        letters = BEGIN + INSIDE + END + SINGLE
        tagged = [re.match(rf"[{letters}]-", label) for label in self.labels if label != OUTSIDE]
        known = letters if all(tagged) else BEGIN + "I"
        parts = [(label[0], label[2:]) if re.match(rf"[{known}]-", label) else ("I", label) for label in self.labels]
        self.kinds = sorted({kind for _, kind in parts})
        self.kind = np.array([self.kinds.index(kind) for _, kind in parts])
        self.starts = np.array([letter in BEGIN + SINGLE for letter, _ in parts])
        self.ends = np.array([letter in END + SINGLE for letter, _ in parts])


class Tokens:
    """The tokens of texts that are labelled, in order; tokens that were truncated are not among them.

    Attributes:
        rows: the texts as the model gets them.
        own: for each row, the first of its own tokens, and the first that is another row's.
        texts: (N,) the number of the text of each token.
        offsets: (N, 2) where it is in that text.
        firsts: (n,) the first token of each word, as the tokenizer splits texts into words.

    Args:
        rows: made of the encodings.
        encodings: of the texts, without special tokens.
    """

    def __init__(self, rows: Rows, encodings: Sequence[Encoding]) -> None:
        self.rows = rows
        offsets = [np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings]
        words = [np.array(encoding.word_ids, dtype=np.int64) for encoding in encodings]
        self.own = own_tokens(rows)
        owned = list(zip(self.rows.texts, self.own, strict=True))
        lengths = [end - start for start, end in self.own]
        self.texts = np.repeat(np.array(self.rows.texts, dtype=np.int64), lengths)
        self.offsets = np.concatenate([np.empty((0, 2), np.int64), *(offsets[i][slice(*own)] for i, own in owned)])
        word = np.concatenate([np.empty(0, np.int64), *(words[i][slice(*own)] for i, own in owned)])
        self.firsts = np.flatnonzero(changes(self.texts) | changes(word))


def own_tokens(rows: Rows) -> list[tuple[int, int]]:
    """Which of a text's tokens belong to each row: where windows overlap, to the one with more context around them."""
    found: list[tuple[int, int]] = []
    for row, number in enumerate(rows.texts):
        start = found[-1][1] if rows.texts[row - 1 : row] == [number] else rows.starts[row]
        found.append((start, start + rows.weights[row]))
    return found


def changes(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value differs from the one before it; the first one does."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


class TokenScores:
    """Collects the probabilities of the labels of tokens, pass by pass.

    Args:
        classifier: the model's head.
        tokens: of the texts.

    Attributes:
        scores: (N, labels) the probability of each label, for each token.
    """

    def __init__(self, classifier: Classifier, tokens: Tokens) -> None:
        self.classifier, self.tokens = classifier, tokens
        self.places = np.cumsum([0, *(end - start for start, end in tokens.own)])
        self.scores = np.empty((self.places[-1], classifier.out_features), dtype=np.float32)

    @torch.inference_mode()
    def add(self, found: Pass) -> None:
        """Label the tokens of a pass."""
        (indices, _, x), rows, places = found, self.tokens.rows, self.places
        begins = np.cumsum([0, *(len(rows.ids[index]) for index in indices)])
        chosen = [
            np.arange(*self.tokens.own[index]) + (begin + 1 - rows.starts[index])  # 1: [CLS]
            for index, begin in zip(indices, begins, strict=False)
        ]
        own_states = x[torch.from_numpy(np.concatenate(chosen)).to(x.device)]
        with without_autocast():  # no dropout, whatever mode the head is in
            logits = F.linear(own_states, self.classifier.weight, self.classifier.bias)
        there = np.concatenate([np.arange(places[index], places[index + 1]) for index in indices])
        self.scores[there] = logits.float().softmax(-1).cpu().numpy()


def entities(
    scheme: Scheme,
    tokens: Tokens,
    scores: NDArray[np.float32],
    texts: Sequence[str],
    strategy: Strategy = "simple",
) -> list[list[Entity]]:
    """The entities of texts.

    Args:
        scheme: of the labels.
        tokens: of the texts.
        scores: (N, labels) the probability of each label, for each token.
        texts: the texts.
        strategy: as for `Bert.entities`.
    """
    starts = ends = np.arange(len(scores))  # the first and the last token of each thing that has a label
    if strategy not in ("none", "simple") and len(scores):
        starts, ends = tokens.firsts, np.append(tokens.firsts[1:], len(scores)) - 1
        scores = of_words(scores, starts, strategy)
    labels = scores.argmax(1)
    best: NDArray[np.float64] = scores.max(1).astype(np.float64)
    number, names = tokens.texts[starts], scheme.labels
    if strategy != "none" and len(labels):
        kinds, names = scheme.kind[labels], scheme.kinds
        new = scheme.starts[labels] | changes(number) | changes(kinds) | np.roll(scheme.ends[labels], 1)
        first = np.flatnonzero(new)
        counts = np.diff(first, append=len(labels))
        best = np.add.reduceat(best, first) / counts
        labels, number, starts, ends = kinds[first], number[first], starts[first], ends[first + counts - 1]
    found: list[list[Entity]] = [[] for _ in texts]
    wanted = np.flatnonzero(np.array([name != OUTSIDE for name in names])[labels])
    begins, stops = tokens.offsets[starts[wanted], 0], tokens.offsets[ends[wanted], 1]
    columns = (number[wanted], labels[wanted], best[wanted], begins, stops, ends[wanted])
    for text, label, score, begin, stop, last in zip(*(column.tolist() for column in columns), strict=True):
        limit = len(texts[text])
        if last + 1 < len(tokens.texts) and tokens.texts[last + 1] == text:
            limit = tokens.offsets[last + 1, 0]
        stop = end_with_marks(texts[text], stop, limit)
        start, end = without_spaces(texts[text], begin, stop)  # tokens of some tokenizers begin with the space
        if start < end:
            found[text].append(Entity(names[label], score, texts[text][start:end], start, end))
    return found


def of_words(scores: NDArray[np.float32], firsts: NDArray[np.int64], strategy: Strategy) -> NDArray[np.float32]:
    """The probabilities of words, (n, labels), from those of tokens, (N, labels)."""
    counts = np.diff(firsts, append=len(scores))
    if strategy == "average":
        return (np.add.reduceat(scores, firsts) / counts[:, None]).astype(np.float32)
    if strategy == "max":  # the token of each word that is surest of its label, the first of equals
        word = np.repeat(np.arange(len(firsts)), counts)
        return scores[np.lexsort((-scores.max(1), word))[firsts]]
    return scores[firsts]


def tagger_of(model: PretrainedModel, source: Source) -> BertForTokenClassification:
    """The model, if it has a head for tokens; MinibertError otherwise."""
    return with_head(model, BertForTokenClassification, source, "find entities", "dslim/bert-base-NER")


def check_strategy(strategy: str) -> None:
    """Raise MinibertError unless this is a strategy."""
    if strategy not in STRATEGIES:
        raise MinibertError(f"strategy ({strategy!r}) must be one of {', '.join(STRATEGIES)}")


def find_entities(
    model: BertForTokenClassification,
    engine: Engine,
    tokenizer: BertTokenizer,
    max_tokens: int,
    texts: Iterable[str],
    plan: Plan,
    strategy: Strategy,
    truncation: Truncation,
    show_progress_bar: bool | None,
) -> list[list[Entity]]:
    """The entities of a stream of texts; the arguments are as for `Bert.entities`.

    Raises:
        MinibertError: as for `Bert.entities`.
    """
    check_strategy(strategy)
    row_maker = RowMaker(tokenizer, max_tokens, truncation)
    stream, total = as_stream(texts)
    scheme, cut = Scheme(model.config.id2label or {}), Truncated(max_tokens, truncation)
    found: list[list[Entity]] = []
    with Progress(total, show_progress_bar, "entities") as progress:
        for chunk in chunks(stream, TOKENIZED_AT_ONCE):
            encodings, rows = tokenizer.backend.encode_batch(chunk, add_special_tokens=False), Rows()
            for number, encoding in enumerate(encodings):
                row_maker.add(rows, number, np.array(encoding.ids, dtype=np.int32))
            cut.note(rows.lost, len(found))
            tokens = Tokens(rows, encodings)
            labelled = TokenScores(model.classifier, tokens)
            for one in engine.states(rows, plan, progress.add):
                labelled.add(one)
            found += entities(scheme, tokens, labelled.scores, chunk, strategy)
    cut.warn(len(found))
    return found
