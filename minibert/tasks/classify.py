"""Texts, or pairs of texts, become labels: the scores of a classifier on the first token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from minibert.base import PretrainedModel
from minibert.batch import truncate
from minibert.config import BertConfig
from minibert.engine.device import without_autocast
from minibert.engine.engine import Engine, Pass, Plan
from minibert.engine.rows import TOKENIZED_AT_ONCE, RowMaker, Rows, token_rows
from minibert.engine.stream import Progress, chunks
from minibert.engine.twin import evaluating
from minibert.errors import MinibertError, warn
from minibert.model import BertForSequenceClassification
from minibert.tasks.heads import check_fault
from minibert.text import as_stream, check_choice, counted, whole_number, zip_texts
from minibert.tokenizer import BertTokenizer

Cutting = Literal["warn", "error"]  # there are no windows: a label is for the whole text
# The methods of `Bert`, besides `encode` and `words`, that a model can be used with.
USES = {
    "BertForMaskedLM": "fill_mask",
    "BertForPreTraining": "fill_mask",
    "BertForTokenClassification": "entities",
    "BertForQuestionAnswering": "answer",
}


class Label(NamedTuple):
    """A label of a text.

    Attributes:
        label: its name, by the checkpoint's `id2label`.
        score: its probability; for a regression, the number itself.
    """

    label: str
    score: float

    def __repr__(self) -> str:
        return f"Label({self.label!r}, {self.score:.4g})"


Labels = tuple[Label, ...]


class ScoreSettings(TypedDict, total=False):
    """Settings shared by `Bert.classify`, `label_scores`, `score` and `rank`."""

    truncation: Cutting
    batch_size: int | None
    batch_tokens: int | None
    show_progress_bar: bool | None


class LabelSettings(ScoreSettings, total=False):
    """Settings of `Bert.classify`."""

    top_k: int | None
    threshold: float | None


@dataclass(frozen=True)
class TextScorer:
    """Computes the logits of texts, or of pairs of texts, with the settings of one call.

    Attributes:
        engine: computes the hidden states.
        tokenizer, model: those of the checkpoint.
        limit: the most tokens of a text or pair, with special tokens.
        plan: how much to compute in each pass.
        truncation: whether longer ones are truncated with a warning or rejected.
        shown: whether to show a progress bar.
        what: the name of the method that computes, which the bar shows.
    """

    engine: Engine
    tokenizer: BertTokenizer
    model: BertForSequenceClassification
    limit: int
    plan: Plan
    truncation: Cutting
    shown: bool | None
    what: str

    def __call__(self, texts: Iterable[Any], total: int | None) -> Iterator[Tensor]:
        """The logits of each chunk of a stream, (N, labels) float32.

        Args:
            texts: all are texts, or all are pairs of texts; they are checked already.
            total: how many there are, if known.

        Raises:
            MinibertError: a long text with `truncation="error"`; pairs for a model without a second token type.
        """
        check_choice("truncation", self.truncation, ("warn", "error"))
        count = truncated = dropped = 0
        with Progress(total, self.shown, self.what) as progress:
            for chunk in chunks(texts):
                rows = rows_of(self.tokenizer, chunk, self.limit)
                if rows.lost and self.truncation == "error":
                    number, tokens = next(iter(rows.lost.items()))
                    raise MinibertError(
                        f"text {count + number} has {self.limit + tokens} tokens, but must have at most {self.limit}; "
                        "shorten it, or pass truncation='warn' to drop the rest"
                    )
                truncated += len(rows.lost)
                dropped += sum(rows.lost.values())
                yield self._logits(rows, progress)
                count += len(chunk)
        if truncated:
            warn(
                f"{truncated} of {counted(count, 'text')} exceed {self.limit} tokens: {counted(dropped, 'token')} were "
                "dropped; pass truncation='error' to reject such texts"
            )

    def _logits(self, rows: Rows, progress: Progress) -> Tensor:
        """The logits of rows, (N, labels)."""
        config = self.model.config
        if config.type_vocab_size < 2 and any(types.any() for types in rows.types):
            raise MinibertError(
                f"type_vocab_size ({config.type_vocab_size}) must be at least 2 for pairs of texts; the model knows "
                "single texts only"
            )
        collected = RowLogits(self.model, len(rows.ids))
        for one in self.engine.states(rows, self.plan, progress.add):
            collected.add(one)
        return collected.logits


class RowLogits:
    """Collects the logits of rows, pass by pass. Pooler and classifier run on the first tokens alone.

    Args:
        model: the classifier.
        count: how many rows there are.

    Attributes:
        logits: (count, labels) float32.
    """

    def __init__(self, model: BertForSequenceClassification, count: int) -> None:
        self.pooler: Any = model.bert.pooler  # this class always has one
        self.head = evaluating(model.classifier, {})
        self.logits = torch.empty(count, model.config.num_labels)

    @torch.inference_mode()
    def add(self, found: Pass) -> None:
        """Compute the logits of the rows of a pass."""
        indices, groups, x = found
        firsts = [place for start, count, length in groups for place in range(start, start + count * length, length)]
        with without_autocast():
            pooled = self.pooler(x[firsts[: len(indices)], None])  # (T, H) -> (N, 1, H) -> (N, H)
            self.logits[indices] = self.head(pooled).float().cpu()


def rows_of(tokenizer: BertTokenizer, texts: Sequence[Any], limit: int) -> Rows:
    """The rows of texts, or of pairs; the longer text of a pair that is too long is truncated first."""
    if isinstance(texts[0], str):
        return token_rows(tokenizer, texts, RowMaker(tokenizer, limit, "warn"))
    backend = tokenizer.backend
    room = limit - backend.num_special_tokens_to_add(True)
    ids, types, lost = [], [], {}
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = texts[start : start + TOKENIZED_AT_ONCE]
        firsts, seconds = (
            backend.encode_batch_fast(side, add_special_tokens=False) for side in zip(*part, strict=True)
        )
        for number, (first, second) in enumerate(zip(firsts, seconds, strict=True), start):
            excess = len(first) + len(second) - room
            if excess > 0:
                lost[number] = excess
                truncate(first, second, room, "longest_first", tokenizer.truncation_side)
            encoding = backend.post_process(first, second, True)
            ids.append(encoding.ids)
            types.append(encoding.type_ids)
    rows = Rows.of(ids, types)
    rows.lost = lost
    return rows


def with_pairs(texts: Any, pair: Any) -> tuple[Iterable[Any], int | None]:
    """Texts, or with `pair` tuples of two texts, as a stream, and their number if it is known.

    Raises:
        MinibertError: what is not text; one text and several pairs, or several texts and one pair.
    """
    stream, total = as_stream(texts)
    if pair is None:
        return stream, total
    if isinstance(texts, str) != isinstance(pair, str):
        raise MinibertError(f"pair ({pair!r:.40}) must be one text for one text, and several for several")
    return zip_texts(("texts", "pair"), stream, as_stream(pair)[0]), total


def text_classifier(model: PretrainedModel, source: object) -> BertForSequenceClassification:
    """The model, if it classifies texts.

    Raises:
        MinibertError: it does not; the message names what it is, and what it can do.
    """
    if isinstance(model, BertForSequenceClassification):
        return model
    check_fault(model, source)
    kind = type(model).__name__
    can = ", ".join(["encode", "words", *([USES[kind]] if kind in USES else [])])
    raise MinibertError(
        f"the model of {source} ({kind}) must be a BertForSequenceClassification for this; it can {can}: load a "
        "classifier or a reranker, ProsusAI/finbert or cross-encoder/ms-marco-MiniLM-L6-v2 for example"
    )


def scores_of(logits: Tensor, config: BertConfig) -> Tensor:
    """Logits (N, labels) as scores: softmax, or sigmoid for several labels or one output, or as they are.

    Source: huggingface/transformers `TextClassificationPipeline.postprocess`, whose rule this is.
    """
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


def label_scores(scorer: TextScorer, texts: Any, pair: Any = None) -> Iterator[Tensor]:
    """The scores of all labels, (N, labels) for each chunk of texts."""
    for logits in scorer(*with_pairs(texts, pair)):
        yield scores_of(logits, scorer.model.config)


def classify(
    scorer: TextScorer, texts: Any, pair: Any = None, *, top_k: int | None = None, threshold: float | None = None
) -> list[Labels]:
    """The labels of each text, the best first.

    Args:
        scorer: computes the logits.
        texts, pair: one text, several or a stream; with `pair`, as many second texts.
        top_k: how many labels; None means all.
        threshold: leave out labels with a lower score.

    Raises:
        MinibertError: what is not text; a setting that makes no sense; a long text with `truncation="error"`.
    """
    top_k = None if top_k is None else whole_number("top_k", top_k)
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float))):
        raise MinibertError(f"threshold ({threshold!r}) must be a number, or None for all labels")
    results: list[Labels] = []
    for scores in label_scores(scorer, texts, pair):
        for labels in labels_of(scores, scorer.model.config):
            kept = [label for label in labels if threshold is None or label.score >= threshold]
            results.append(tuple(kept[:top_k]))
    return results


def labels_of(scores: Tensor, config: BertConfig) -> Iterator[Labels]:
    """The labels of each text, the best first, from their scores (N, labels)."""
    names = config.id2label or {}
    for row in scores.tolist():
        labels = (Label(names[i], score) for i, score in enumerate(row))
        yield tuple(sorted(labels, key=lambda label: -label.score))
