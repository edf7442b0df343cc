"""Vectors, words and what the model's head says of them, from one pass through the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from minibert.base import PretrainedModel
from minibert.engine.rows import TOKENIZED_AT_ONCE, Rows, Truncation
from minibert.engine.stream import Progress, chunks
from minibert.errors import warn
from minibert.model import BertForSequenceClassification, BertForTokenClassification
from minibert.tasks.classify import Labels, RowLogits, labels_of, scores_of
from minibert.tasks.entities import Entity, Scheme, Strategy, Tokens, TokenScores, entities
from minibert.text import counted
from minibert.vectors.sentences import PooledTexts, SentenceEncoder
from minibert.vectors.words import WordEncoder, Words, WordVectors, align, split_texts


class Annotation(NamedTuple):
    """What one pass through the encoder says of a text.

    Attributes:
        vector: its vector, as by `Bert.encode`.
        words: its words, as by `Bert.words`.
        entities: its entities, as by `Bert.entities`; None if the model is no tagger.
        labels: its labels, as by `Bert.classify`; None if the model is no classifier of texts.
    """

    vector: NDArray[np.float32]
    words: Words
    entities: list[Entity] | None
    labels: Labels | None

    def __repr__(self) -> str:
        says = self.entities if self.entities is not None else self.labels
        return f"Annotation(vector of {len(self.vector)}; {self.words!r}" + (")" if says is None else f"; {says!r})")


class AnnotateSettings(TypedDict, total=False):
    """Keyword arguments of `Bert.annotate`."""

    strategy: Strategy
    pooling: str | Sequence[str] | None
    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None
    truncation: Truncation


@dataclass(frozen=True)
class Annotator:
    """Computes vectors, words, and entities or labels, with the settings of one call.

    One pass computes all of them, with two exceptions: words of other layers than the last, and text vectors with a
    prompt, take a pass of their own. In one pass, the vector of a long text is made of the words' windows.

    Attributes:
        words, sentences: make the vectors; `sentences` uses the last layer.
        model: the model whose head is used; a `BertModel` has none.
        strategy: as for `Bert.entities`.
    """

    words: WordEncoder
    sentences: SentenceEncoder
    model: PretrainedModel
    strategy: Strategy = "simple"

    def stream(self, texts: Iterable[str], total: int | None, shown: bool | None) -> Iterator[Annotation]:
        """Annotate texts, reading them as they are needed.

        Args:
            texts: texts that are checked already.
            total, shown: as for `Progress`.

        Raises:
            MinibertError: a long text with `truncation="error"`.
        """
        count = 0
        with Progress(total, shown, "annotate") as progress:
            for chunk in chunks(texts, TOKENIZED_AT_ONCE):  # small: the vectors of its words stay in memory
                yield from self(chunk, first=count, done=progress.add)
                count += len(chunk)
        self.words.truncated.warn(count)

    def __call__(
        self,
        texts: Sequence[str],
        spans: Sequence[Any] | None = None,
        first: int = 0,
        done: Callable[[int, int], object] = lambda texts, tokens: None,
    ) -> list[Annotation]:
        """Annotate texts.

        Args:
            texts: several texts.
            spans: as for `Bert.words`; words without tokens get zeros, without a warning.
            first: the number of the first text, for messages.
            done: as for `Engine.states`.
        """
        words, sentences, model, engine = self.words, self.sentences, self.model, self.words.engine
        whole, places = split_texts(texts, first, words.split, spans)
        aligned, rows = align(words.tokenizer, whole, places, words.row_maker)
        words.truncated.note(rows.lost, first)
        vectors = WordVectors(aligned, rows, engine.width(words.plan), words.pieces)
        pooled = None if sentences.prompt else PooledTexts(rows, engine.width(), sentences.modes)
        tokens = logits = None
        if isinstance(model, BertForTokenClassification):
            tokens = TokenScores(model.classifier, Tokens(rows, [one.encoding for one in aligned]))
        elif isinstance(model, BertForSequenceClassification):
            logits = RowLogits(model, len(rows.ids))

        last = [collector for collector in (pooled, tokens, logits) if collector is not None]  # of the last layer
        for found in engine.states(rows, words.plan, done):
            for collector in (vectors, *([] if words.plan.layers else last)):
                collector.add(found)
        if words.plan.layers and last:
            for found in engine.states(rows, replace(words.plan, layers=())):
                for collector in last:
                    collector.add(found)

        encoded = sentences(whole, shown=False) if pooled is None else sentences.finish(pooled.whole()).numpy()
        tagged: Sequence[list[Entity] | None] = [None] * len(whole)
        labels: Sequence[Labels | None] = [None] * len(whole)
        if tokens is not None:
            tagged = entities(Scheme(model.config.id2label or {}), tokens.tokens, tokens.scores, whole, self.strategy)
        if logits is not None:
            chosen = rows_with_labels(rows, len(whole), words.tokenizer.truncation_side)
            labels = list(labels_of(scores_of(logits.logits[chosen], model.config), model.config))
        return list(map(Annotation, np.asarray(encoded), vectors.words(whole), tagged, labels))


def rows_with_labels(rows: Rows, texts: int, truncation_side: str) -> NDArray[np.int64]:
    """The row of each text that a classifier reads: of several windows, the one that truncation would keep."""
    counts = np.bincount(rows.texts, minlength=texts)
    long = int((counts > 1).sum())
    if long:
        warn(
            f"{long} of {counted(texts, 'text')} were split into windows, and their labels are those of the "
            f"{'last' if truncation_side == 'left' else 'first'} one; a classifier reads no more of a text"
        )
    last = counts.cumsum() - 1
    return last if truncation_side == "left" else last - counts + 1
