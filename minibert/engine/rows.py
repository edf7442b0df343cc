"""Texts as the model gets them: token ids with [CLS] and [SEP], and windows of texts that are too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from minibert.errors import MinibertError
from minibert.tokenizer import BertTokenizer

Ids = NDArray[np.int32]
Truncation = Literal["warn", "error", "window"]

TOKENIZED_AT_ONCE = 1_024  # what the tokenizer returns takes a hundred times the room of the ids


@dataclass
class Rows:
    """Texts as the model gets them: a row is a text, or a window of one that is too long.

    Attributes:
        ids: (S,) each, with [CLS] and [SEP].
        texts: the number of the text of each row.
        starts: which of the text's tokens (without special ones) is the first of the row.
        weights: how many tokens of the text are the row's own; those that windows share belong to the one in which
            they have more context on both sides.
        lost: by the number of the text, how many tokens were cut off.
        types: token types of each row, (S,); empty: all are 0.
    """

    ids: list[Ids] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    lost: dict[int, int] = field(default_factory=dict)
    types: list[Ids] = field(default_factory=list)

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = ()) -> Self:
        """Texts, or pairs of texts, that have their special tokens already: a row for each.

        Args:
            ids, types: input_ids and token_type_ids as the tokenizer gives them, without padding.
        """
        if types and list(map(len, types)) != list(map(len, ids)):
            raise MinibertError("types (of other lengths than ids) must have one number for each id")
        arrays = [[np.array(row, dtype=np.int32) for row in rows] for rows in (ids, types)]
        count = len(ids)
        return cls(arrays[0], list(range(count)), [0] * count, [len(row) for row in ids], {}, arrays[1])


class RowMaker:
    """Makes rows of the tokens of texts.

    Args:
        tokenizer: whose special tokens, and whose side to cut off.
        limit: tokens of a row, special ones included.
        truncation: what is done with more of them: "window" makes several rows, the rest cuts.
        prompt: tokens at the beginning of each text that all of its windows are to have.

    Raises:
        MinibertError: the limit leaves no room for the text.
    """

    def __init__(self, tokenizer: BertTokenizer, limit: int, truncation: Truncation, prompt: int = 0) -> None:
        self.ends = np.array([tokenizer.cls_token_id], np.int32), np.array([tokenizer.sep_token_id], np.int32)
        self.room = limit - 2
        self.windows = truncation == "window"
        self.prompt = prompt if self.windows else 0
        self.cut_left = tokenizer.truncation_side == "left"
        if self.room <= self.prompt:
            raise MinibertError(
                f"the prompt ({prompt} tokens) must leave room for text within {limit} tokens; choose a shorter one"
            )

    def add(self, rows: Rows, number: int, ids: Ids, longest_word: int = 1) -> None:
        """Append what a text's ids, without special ones, become; no word is divided between windows."""
        cls, sep = self.ends
        excess = len(ids) - self.room
        if excess <= 0 or not self.windows:
            start = max(0, excess) if self.cut_left else 0
            ids = ids[start : start + self.room]
            rows.ids.append(np.concatenate([cls, ids, sep]))
            rows.texts.append(number)
            rows.starts.append(start)
            rows.weights.append(len(ids))
            if excess > 0:
                rows.lost[number] = excess
            return
        size = self.room - self.prompt
        starts = window_starts(len(ids) - self.prompt, size, longest_word)
        borders = [0, *((one + size + other) // 2 for one, other in pairwise(starts)), len(ids) - self.prompt]
        for start, (left, right) in zip(starts, pairwise(borders), strict=True):
            start += self.prompt
            rows.ids.append(np.concatenate([cls, ids[: self.prompt], ids[start : start + size], sep]))
            rows.texts.append(number)
            rows.starts.append(start - self.prompt)
            rows.weights.append(right - left)


def window_starts(tokens: int, size: int, longest_word: int = 1) -> list[int]:
    """Where windows of `size` begin that cover `tokens` evenly; neighbours share a quarter, or the longest word."""
    if tokens <= size:
        return [0]
    shared = min(size - 1, max(size // 4, longest_word))
    gaps = -(-(tokens - size) // (size - shared))
    return [gap * (tokens - size) // gaps for gap in range(gaps + 1)]


def token_rows(tokenizer: BertTokenizer, texts: Sequence[str], row_maker: RowMaker) -> Rows:
    """The rows of texts."""
    rows = Rows()
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = texts[start : start + TOKENIZED_AT_ONCE]
        encodings = tokenizer.backend.encode_batch_fast(part, add_special_tokens=False)
        for number, encoding in enumerate(encodings, start):
            row_maker.add(rows, number, np.array(encoding.ids, dtype=np.int32))
    return rows
