"""Rows are the model's input: token ids with [CLS] and [SEP], one row for each text or window of a long text."""

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

TOKENIZED_AT_ONCE = 1_024  # the tokenizer's encodings take a hundred times the memory of the ids


@dataclass
class Rows:
    """The model's input. A row is a text, or a window of a long text.

    Attributes:
        ids: (S,) for each row, with [CLS] and [SEP].
        texts: for each row, the number of its text.
        starts: for each row, the index of its first token in the text, special tokens not counted.
        weights: for each row, how many tokens it owns. A token that two windows share belongs to the one that gives it
            more context on both sides.
        lost: how many tokens each truncated text lost, by the number of the text.
        types: token types of each row, (S,); empty if all are 0.
    """

    ids: list[Ids] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    lost: dict[int, int] = field(default_factory=dict)
    types: list[Ids] = field(default_factory=list)

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = ()) -> Self:
        """One row for each text or pair of texts.

        Args:
            ids, types: `input_ids` and `token_type_ids` from the tokenizer: with special tokens, without padding.

        Raises:
            MinibertError: ids and types differ in length.
        """
        if types and list(map(len, types)) != list(map(len, ids)):
            raise MinibertError("types (of other lengths than ids) must have one number for each id")
        arrays = [[np.array(row, dtype=np.int32) for row in rows] for rows in (ids, types)]
        count = len(ids)
        return cls(arrays[0], list(range(count)), [0] * count, [len(row) for row in ids], {}, arrays[1])

    def append(self, ids: Sequence[int], text: int) -> int:
        """Add a row with special tokens for a text, and return its number."""
        self.ids.append(np.array(ids, dtype=np.int32))
        self.texts.append(text)
        self.starts.append(0)
        self.weights.append(len(ids))
        return len(self.ids) - 1


class RowMaker:
    """Turns the tokens of texts into rows.

    Args:
        tokenizer: gives the special tokens and the side on which texts are truncated.
        limit: the most tokens in a row, with special tokens.
        truncation: for longer texts, "window" makes several rows; the other choices truncate.
        prompt: how many tokens of a prompt begin each text; every window repeats them.

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
        """Add the row or rows of one text.

        Args:
            rows: where they are added.
            number: of the text.
            ids: the text's ids, without special tokens.
            longest_word: tokens of its longest word; windows overlap by at least as many, so none splits a word.
        """
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
    """Where windows begin that cover `tokens` evenly; neighbours overlap by a quarter, or by the longest word."""
    if tokens <= size:
        return [0]
    shared = min(size - 1, max(size // 4, longest_word))
    gaps = -(-(tokens - size) // (size - shared))
    return [gap * (tokens - size) // gaps for gap in range(gaps + 1)]


def token_rows(tokenizer: BertTokenizer, texts: Sequence[str], row_maker: RowMaker) -> Rows:
    """Tokenize texts into rows."""
    rows = Rows()
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = texts[start : start + TOKENIZED_AT_ONCE]
        encodings = tokenizer.backend.encode_batch_fast(part, add_special_tokens=False)
        for number, encoding in enumerate(encodings, start):
            row_maker.add(rows, number, np.array(encoding.ids, dtype=np.int32))
    return rows
