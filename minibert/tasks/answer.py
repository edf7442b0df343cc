"""Answers to questions: the span of a text, its context, that a reader scores highest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from minibert.base import PretrainedModel
from minibert.engine.device import without_autocast
from minibert.engine.engine import Engine, Plan
from minibert.engine.rows import TOKENIZED_AT_ONCE, Rows, Truncation, window_starts
from minibert.engine.stream import Progress, Truncated, chunks
from minibert.errors import MinibertError
from minibert.model import BertForQuestionAnswering
from minibert.pretrained.source import Source
from minibert.tasks.heads import with_head
from minibert.text import as_stream, end_with_marks, short, whole_number, without_spaces, zip_texts
from minibert.tokenizer import BertTokenizer

Scores = NDArray[np.float64]
Window = tuple[int, Scores, Scores]  # number of its first token in the context; start and end logits of its tokens


class Answer(NamedTuple):
    """An answer.

    Attributes:
        text: the answer as written, `context[start:end]`, without spaces around it; empty for "no answer".
        score: its probability among all spans that are allowed.
        start, end: where it is in the context, in characters.
    """

    text: str
    score: float
    start: int
    end: int

    def __repr__(self) -> str:
        return f"Answer({self.text!r}, score={self.score:.4g}, start={self.start}, end={self.end})"


Answers = list[list[Answer]]


class AnswerSettings(TypedDict, total=False):
    """Keyword arguments of `Bert.answer`, besides `top_k`."""

    max_answer_tokens: int
    no_answer: bool
    threshold: float
    truncation: Truncation
    batch_size: int | None
    batch_tokens: int | None
    show_progress_bar: bool | None


class Reader(NamedTuple):
    """Answers questions, with the settings of one call.

    Attributes:
        engine: computes the hidden states.
        tokenizer, model: those of the checkpoint.
        limit: the most tokens of a question and its context, with special tokens.
        plan: how much to compute in each pass.
        longest: the most tokens of an answer.
        no_answer, threshold, truncation: as for `Bert.answer`.
    """

    engine: Engine
    tokenizer: BertTokenizer
    model: BertForQuestionAnswering
    limit: int
    plan: Plan
    longest: int
    no_answer: bool
    threshold: float
    truncation: Truncation

    def __call__(self, asked: Iterable[tuple[str, str]], total: int | None, top_k: int, shown: bool | None) -> Answers:
        """The answers to a stream of questions with their contexts, the best first.

        Raises:
            MinibertError: a question that leaves no room for its context; a long context with `truncation="error"`.
        """
        cut = Truncated(self.limit, self.truncation)
        found: list[list[Answer]] = []
        with Progress(total, shown, "answer") as progress:
            for chunk in chunks(asked, TOKENIZED_AT_ONCE):
                rows, prefixes, offsets = self.rows(chunk, len(found))
                cut.note(rows.lost, len(found))
                windows: list[list[Window]] = [[] for _ in chunk]
                nulls = np.full(len(chunk), np.inf)
                for row, logits in self._logits(rows, prefixes, progress.add):
                    text = rows.texts[row]
                    nulls[text] = min(nulls[text], logits[0].sum())
                    windows[text].append((rows.starts[row], logits[1:, 0], logits[1:, 1]))
                for (_, context), place, own, null in zip(chunk, offsets, windows, nulls.tolist(), strict=True):
                    spans = span_scores(own, len(place), self.longest)
                    spans[blank_spans(context, place, spans.shape[1])] = -np.inf
                    empty = self.no_answer or not np.isfinite(spans).any()
                    found.append(best(context, place, spans, null - self.threshold if empty else None, top_k))
        cut.warn(len(found))
        return found

    def rows(self, asked: Sequence[tuple[str, str]], first: int) -> tuple[Rows, list[int], list[NDArray[np.int64]]]:
        """The rows of questions with the windows of their contexts.

        Args:
            asked: the questions with their contexts.
            first: the number of the first question, for messages.

        Returns:
            The rows; for each, how many tokens come before its part of the context; for each context, (N, 2), where
            its tokens are in it.

        Raises:
            MinibertError: as for a call.
        """
        backend, rows, prefixes, places = self.tokenizer.backend, Rows(), [], []
        questions, contexts = (
            backend.encode_batch(list(side), add_special_tokens=False) for side in zip(*asked, strict=True)
        )
        for number, (question, context) in enumerate(zip(questions, contexts, strict=True)):
            places.append(np.array(context.offsets, dtype=np.int64).reshape(-1, 2))
            tokens = len(context)
            pair = backend.post_process(question, context, True)
            ids, types = np.array(pair.ids, dtype=np.int32), np.array(pair.type_ids, dtype=np.int32)
            prefix = next((i for i, side in enumerate(pair.sequence_ids) if side == 1), len(ids))
            if types.max(initial=0) >= self.model.config.type_vocab_size:
                raise MinibertError(
                    f"type_vocab_size ({self.model.config.type_vocab_size}) must be at least 2 for a question and its "
                    "context; the model knows single texts only"
                )
            room = self.limit - (len(ids) - tokens)
            if room < 1:
                raise MinibertError(
                    f"question {first + number} ({len(question)} tokens) must leave room for its context within "
                    f"{self.limit} tokens; shorten it"
                )
            starts = window_starts(tokens, room, self.longest)
            if tokens > room and self.truncation != "window":
                starts = [tokens - room if self.tokenizer.truncation_side == "left" else 0]
                rows.lost[number] = tokens - room
            for start in starts:
                before, after = prefix + start, prefix + min(start + room, tokens)
                for joined, whole in ((rows.ids, ids), (rows.types, types)):
                    joined.append(np.concatenate([whole[:prefix], whole[before:after], whole[prefix + tokens :]]))
                rows.texts.append(number)
                rows.starts.append(start)
                rows.weights.append(after - before)
                prefixes.append(prefix)
        return rows, prefixes, places

    @torch.inference_mode()
    def _logits(
        self, rows: Rows, prefixes: list[int], done: Callable[[int, int], object]
    ) -> Iterator[tuple[int, Scores]]:
        """The start and end logits of each row, (1 + N, 2): of [CLS], then of its N tokens of the context."""
        head = self.model.span_head
        for indices, _, x in self.engine.states(rows, self.plan, done):
            begins = np.cumsum([0, *(len(rows.ids[index]) for index in indices)])
            chosen = [
                np.append(begin, begin + prefixes[index] + np.arange(rows.weights[index]))
                for index, begin in zip(indices, begins, strict=False)
            ]
            states = x[torch.from_numpy(np.concatenate(chosen)).to(x.device)]
            with without_autocast():
                logits = F.linear(states, head.weight, head.bias).double().cpu().numpy()
            yield from zip(indices, np.split(logits, np.cumsum([len(own) for own in chosen])[:-1]), strict=True)


def span_scores(windows: Sequence[Window], tokens: int, longest: int) -> Scores:
    """The score of each span of a context, (tokens, lengths): start logit + end logit, the best of all windows.

    Spans that are in no window, or that end past the context, have -inf.
    """
    scores = np.full((tokens, max(1, min(longest, tokens))), -np.inf)
    for first, start, end in windows:
        count = len(start)
        for more in range(min(scores.shape[1], count)):
            part = scores[first : first + count - more, more]
            np.maximum(part, start[: count - more] + end[more:], out=part)
    return scores


def blank_spans(context: str, offsets: NDArray[np.int64], lengths: int) -> NDArray[np.bool_]:
    """Which spans, (tokens, lengths), are nothing but white space: some tokenizers have tokens for it."""
    visible = np.array([bool(context[start:end].strip()) for start, end in offsets.tolist()], dtype=np.int64)
    before = np.append(0, visible.cumsum())  # how many visible tokens come before each
    places = np.arange(len(visible))[:, None]
    found: NDArray[np.bool_] = before[places] == before[np.minimum(places + np.arange(1, lengths + 1), len(visible))]
    return found


def best(context: str, offsets: NDArray[np.int64], spans: Scores, null: float | None, top_k: int) -> list[Answer]:
    """The answers with the highest scores, each place once.

    Args:
        context: the text.
        offsets: (N, 2) where its tokens are.
        spans: (N, lengths) their scores.
        null: the score of "no answer"; None if there must be one.
        top_k: the most to return.
    """
    scores = np.append(spans.ravel(), -np.inf if null is None else null)
    odds = np.exp(scores - scores.max())
    found: dict[tuple[int, int], Answer] = {}
    for candidate in np.argsort(-scores, kind="stable"):
        if len(found) == top_k or not np.isfinite(scores[candidate]):
            break
        start, end = 0, 0
        if candidate < spans.size:
            first, more = divmod(int(candidate), spans.shape[1])
            last = first + more
            limit = int(offsets[last + 1, 0]) if last + 1 < len(offsets) else len(context)
            stop = end_with_marks(context, int(offsets[last, 1]), limit)
            start, end = without_spaces(context, int(offsets[first, 0]), stop)
        answer = Answer(context[start:end], float(odds[candidate] / odds.sum()), start, end)
        found.setdefault((start, end), answer)  # several spans of tokens may be the same text
    return list(found.values())


def reader_of(model: PretrainedModel, source: Source) -> BertForQuestionAnswering:
    """The model, if it has a head for answers; MinibertError otherwise."""
    return with_head(model, BertForQuestionAnswering, source, "answer questions", "deepset/bert-base-cased-squad2")


def answer(
    reader: Reader, question: str | Iterable[str], context: str | Iterable[str], top_k: int, shown: bool | None
) -> Answers:
    """The best answers to each question; the arguments are as for `Bert.answer`.

    Raises:
        MinibertError: as for `Bert.answer`.
    """
    whole_number("top_k", top_k)
    whole_number("max_answer_tokens", reader.longest)
    if isinstance(question, str) != isinstance(context, str):
        raise MinibertError(
            f"question and context ({short(question)} and {short(context)}) must be both one text or both several"
        )
    questions, total = as_stream(question, name="question")
    contexts, _ = as_stream(context, name="context")
    return reader(zip_texts(("question", "context"), questions, contexts), total, top_k, shown)
