"""Words and their vectors: the pieces that a tokenizer cuts words into, put together again.

BERT sees pieces ("em", "##bed", "##ding"), people see words. Each piece knows where in the caller's text it comes from;
so a word's vector is made of the hidden states of its own pieces, and its place in the text is kept.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from torch.nn import functional as F

from minibert.engine.engine import Engine, Pass, Plan
from minibert.engine.rows import TOKENIZED_AT_ONCE, RowMaker, Rows
from minibert.errors import MinibertError
from minibert.text import check_text, counted
from minibert.tokenizer import BertTokenizer

Spans = NDArray[np.int64]
Pieces = Literal["mean", "first", "last", "max"]
Splitter = Literal["pretokenizer", "whitespace"]
NO_SPACE = re.compile(r"[^\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
PIECES = ("mean", "first", "last", "max")
SPLITTERS = ("pretokenizer", "whitespace")


class Words:
    """The words of a text and their vectors.

    Attributes:
        text: the text; of words that came already split, they with a space between.
        spans: (start, end) of each word, in characters of `text`.
        words: the words, as they stand there.
        pieces: the tokens of each word; none for what the tokenizer drops, or for what was cut off.
        vectors: (n, H) float32; zeros for a word without pieces.
    """

    def __init__(self, text: str, aligned: Aligned, vectors: NDArray[np.float32], tokenizer: BertTokenizer) -> None:
        self.text = text
        self.vectors = vectors
        self._spans = aligned.spans
        self._ids, self._counts = aligned.ids[aligned.members], aligned.counts
        self._tokenizer = tokenizer

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(start, end) of each word."""
        return [(start, end) for start, end in self._spans.tolist()]

    @property
    def words(self) -> list[str]:
        """The words, as they stand in the text."""
        return [self.text[start:end] for start, end in self._spans.tolist()]

    @property
    def pieces(self) -> list[list[str]]:
        """The tokens of each word."""
        tokens = iter(self._tokenizer.convert_ids_to_tokens(self._ids.tolist()))
        return [list(islice(tokens, count)) for count in self._counts.tolist()]

    def _empty(self) -> list[str]:
        return [self.text[start:end] for start, end in self._spans[self._counts == 0].tolist()]

    def __len__(self) -> int:
        return len(self._spans)

    def __repr__(self) -> str:
        shown = ", ".join(repr(word) for word in self.words[:8]) + (", ..." if len(self) > 8 else "")
        return f"Words({shown}; vectors {self.vectors.shape[0]} x {self.vectors.shape[1]})"

    def find(self, word: str) -> list[int]:
        """The numbers of the words that are this one, capitals or not."""
        return [number for number, other in enumerate(self.words) if other.casefold() == word.casefold()]


def words_to_pandas(words: Words | Sequence[Words]) -> Any:
    """A table for people who look at tables: a row for each word.

    Returns:
        A `pandas.DataFrame` with columns text (the number of the text), word, start, end, pieces, and one for each
        number of the vectors, v0 to v(H-1).

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("words_to_pandas needs pandas, which is not installed; pip install pandas") from None
    several = [words] if isinstance(words, Words) else list(words)
    columns = {
        "text": [number for number, one in enumerate(several) for _ in range(len(one))],
        "word": [word for one in several for word in one.words],
        "start": [start for one in several for start, _ in one.spans],
        "end": [end for one in several for _, end in one.spans],
        "pieces": [" ".join(pieces) for one in several for pieces in one.pieces],
    }
    table = pandas.DataFrame(columns)
    if several:
        vectors = np.concatenate([one.vectors for one in several])
        names = [f"v{number}" for number in range(vectors.shape[1])]
        table = pandas.concat([table, pandas.DataFrame(vectors, columns=names)], axis=1)
    return table


class Aligned:
    """Which pieces make which word of a text.

    Args:
        encoding: the text's, without special tokens.
        spans: (n, 2) the words, in order; None: those of the tokenizer's pre-tokenizer.

    Attributes:
        spans: (n, 2), in characters.
        members: the pieces of the first word, then those of the second, and so on.
        counts: how many each word has.
    """

    def __init__(self, encoding: Encoding, spans: Spans | None = None) -> None:
        self.ids = np.array(encoding.ids, dtype=np.int32)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        self.members = np.arange(len(offsets))
        if spans is None:
            number = np.array(encoding.word_ids, dtype=np.int64)
            firsts = np.flatnonzero(np.diff(number, prepend=-1))
            self.counts = np.diff(firsts, append=len(number))
            lasts = firsts + self.counts - 1
            self.spans = np.stack([offsets[firsts, 0], offsets[lasts, 1]], axis=1)
            return
        self.spans = spans
        owner = owners(spans, offsets)
        self.counts = np.bincount(owner[owner >= 0], minlength=len(spans))
        self.members = self.members[owner >= 0]
        self._borrow(offsets)

    def _borrow(self, offsets: Spans) -> None:
        """Give a word that lies inside a piece of another word ("not" of "cannot", say) that piece, too."""
        inside = {}
        for word in np.flatnonzero(self.counts == 0):
            start, end = self.spans[word]
            shared = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
            if len(shared):
                inside[int(word)] = shared
        if inside:
            groups = np.split(self.members, np.cumsum(self.counts)[:-1])
            groups = [inside.get(word, group) for word, group in enumerate(groups)]
            self.members, self.counts = np.concatenate(groups), np.array([len(group) for group in groups])

    def keep(self, start: int, end: int, own: bool) -> None:
        """Drop the pieces from outside `start` to `end`, which were cut off; and the words left without any.

        Words of the caller's own stay, so that rows and words go together.
        """
        self.members, self.counts = _kept(self.members, self.counts, self.counts, start, end)
        if not own:
            self.spans, self.counts = self.spans[self.counts > 0], self.counts[self.counts > 0]

    def chosen(self, which: Pieces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The members and counts of which vectors are made: with "first" and "last", one piece of each word."""
        if which not in ("first", "last"):
            return self.members, self.counts
        ends, some = np.cumsum(self.counts), self.counts > 0
        places = ends - self.counts if which == "first" else ends - 1
        return self.members[places[some]], some.astype(np.int64)


def aligned_text(tokenizer: BertTokenizer, text: str, encoding: Encoding, spans: Spans | None = None) -> Aligned:
    """Which pieces make which word of a text; None: the words of the tokenizer, those without pieces left out."""
    found = tokenizer.word_spans(text) if spans is None else None
    if found is None:
        return Aligned(encoding, spans)
    one = Aligned(encoding, np.array(found, dtype=np.int64).reshape(-1, 2))
    one.keep(0, len(one.ids), own=False)
    return one


def owners(spans: Spans, offsets: Spans) -> NDArray[np.int64]:
    """The number of the span that each piece overlaps most, the first of equals; -1 where it overlaps none.

    Args:
        spans: (n, 2), in order, none overlapping another.
        offsets: (T, 2) where the pieces are.
    """
    if not len(spans):
        return np.full(len(offsets), -1)
    starts, ends = offsets[:, :1], offsets[:, 1:]
    first = np.searchsorted(spans[:, 1], offsets[:, 0], side="right").clip(max=len(spans) - 1)
    reach = np.searchsorted(spans[:, 0], offsets[:, 1], side="left") - first  # spans that a piece reaches into
    candidates = first[:, None] + np.arange(max(1, reach.max(initial=1)))
    candidates = candidates.clip(max=len(spans) - 1)
    overlap = np.minimum(ends, spans[candidates, 1]) - np.maximum(starts, spans[candidates, 0])
    best = overlap.argmax(1)
    rows = np.arange(len(offsets))
    return np.where(overlap[rows, best] > 0, candidates[rows, best], -1)


def whitespace_spans(text: str) -> Spans:
    """Where the words between white space are: what BERT takes for it, which is less than what Python does."""
    return np.array([match.span() for match in NO_SPACE.finditer(text)], dtype=np.int64).reshape(-1, 2)


def joined(words: Sequence[str]) -> tuple[str, Spans]:
    """Words that came already split, with a space between, and where each is."""
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    ends = np.cumsum(lengths + 1) - 1 if len(words) else lengths
    return " ".join(words), np.stack([ends - lengths, ends], axis=1)


def split_texts(
    texts: Sequence[Any], first: int, split: Splitter, spans: Sequence[Sequence[tuple[int, int]]] | None
) -> tuple[list[str], list[Spans | None]]:
    """The texts, those that came as lists of words joined; and the words of each, None for the pre-tokenizer's.

    Raises:
        MinibertError: what is not text; spans that are not in their text, or not in order.
    """
    whole: list[str] = []
    places: list[Spans | None] = []
    for number, text in enumerate(texts, first):
        if isinstance(text, (list, tuple)):
            check_text([text], is_split_into_words=True, first=number)
            text, own = joined(text)
            places.append(own)
        elif spans is not None:
            places.append(checked_spans(text, spans[number - first], number))
        else:
            check_text([text], first=number)
            places.append(whitespace_spans(text) if split == "whitespace" else None)
        whole.append(text)
    return whole, places


def checked_spans(text: str, spans: Sequence[tuple[int, int]], number: int) -> Spans:
    """Words of the caller's own as an array.

    Raises:
        MinibertError: they are not in the text, not in order, or overlap.
    """
    check_text([text], first=number)
    array = np.array(spans, dtype=np.int64).reshape(-1, 2)
    flat = array.ravel()
    wrong = np.flatnonzero((np.diff(flat, prepend=0) < 0) | (flat > len(text)))
    if len(wrong):
        raise MinibertError(
            f"spans of text {number} ({spans[wrong[0] // 2]}) must be in order, not overlap, and lie within its "
            f"{len(text)} characters"
        )
    return array


def warn_empty(found: Sequence[Words]) -> None:
    """Say, once a call, which words have no vector."""
    empty = [(number, word) for number, one in enumerate(found) if not one._counts.all() for word in one._empty()]
    if empty:
        number, word = empty[0]
        warnings.warn(
            f"{counted(len(empty), 'word')} without tokens got a vector of zeros: the tokenizer drops them, or the "
            f"text was truncated before them; the first is {word!r} of text {number}",
            stacklevel=3,
        )


def align(
    tokenizer: BertTokenizer, texts: Sequence[str], spans: Sequence[Spans | None], row_maker: RowMaker
) -> tuple[list[Aligned], Rows]:
    """Which pieces make which words of texts, and the texts as the model gets them.

    Args:
        tokenizer: the tokenizer.
        texts: as the caller has them.
        spans: the words of each; None: those of the pre-tokenizer.
        row_maker: what makes rows of the texts, and deals with those that are too long.
    """
    aligned: list[Aligned] = []
    rows = Rows()
    for first in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = list(texts[first : first + TOKENIZED_AT_ONCE])
        for number, encoding in enumerate(tokenizer.backend.encode_batch(part, add_special_tokens=False), first):
            one = aligned_text(tokenizer, texts[number], encoding, spans[number])
            row_maker.add(rows, number, one.ids, int(one.counts.max(initial=1)))
            if number in rows.lost:
                one.keep(rows.starts[-1], rows.starts[-1] + row_maker.room, own=spans[number] is not None)
            aligned.append(one)
    return aligned, rows


def word_vectors(
    engine: Engine,
    tokenizer: BertTokenizer,
    texts: Sequence[str],
    aligned: Sequence[Aligned],
    rows: Rows,
    plan: Plan,
    pieces: Pieces = "mean",
    done: Callable[[int, int], object] = lambda texts, tokens: None,
    seen: Callable[[Pass], object] = lambda found: None,
) -> list[Words]:
    """The words of texts.

    Args:
        engine: of the model.
        tokenizer: its tokenizer.
        texts: as the caller has them.
        aligned, rows: what `align` makes of them.
        plan: which hidden states.
        pieces: which of a word's pieces its vector is made of: all ("mean", "max"), the first or the last.
        done: as for `Engine.states`.
        seen: given each pass, for what else is to be made of the same hidden states.
    """
    firsts = np.cumsum([0, *(len(one.counts) for one in aligned)])
    parts = _parts_of_rows(rows, [one.chosen(pieces) for one in aligned], firsts)
    vectors = np.zeros((firsts[-1], engine.width(plan)), dtype=np.float32)
    for found in engine.states(rows, plan, done):
        seen(found)
        indices, _, x = found
        begins = np.cumsum([0, *(len(rows.ids[index]) for index in indices)])
        tokens = np.concatenate([parts[index][0] + begin for index, begin in zip(indices, begins, strict=False)])
        counts = np.concatenate([parts[index][1] for index in indices])
        words = np.concatenate([parts[index][2] for index in indices])
        if len(tokens):
            vectors[words] = _pieces_to_words(x, tokens, counts, pieces)
    return [
        Words(text, one, vectors[start : start + len(one.counts)], tokenizer)
        for text, one, start in zip(texts, aligned, firsts.tolist(), strict=False)
    ]


def _parts_of_rows(
    rows: Rows, chosen: Sequence[tuple[NDArray[Any], NDArray[Any]]], firsts: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """For each row: which of its tokens make words, how many each word, and which words of all these are.

    A word is taken from the window that its middle belongs to: there it has most context on both sides.
    """
    parts = []
    own = 0  # the first of the text's tokens that are the row's own
    for row, number in enumerate(rows.texts):
        members, counts = chosen[number]
        words = firsts[number] + np.arange(len(counts))
        begins, goes_on = rows.texts[row - 1 : row] != [number], rows.texts[row + 1 : row + 2] == [number]
        if begins and goes_on:
            own = 0
        if goes_on or not begins:
            middles = _middles(members, counts)
            here = (middles >= own) & (middles < own + rows.weights[row])
            own += rows.weights[row]
            end = rows.starts[row] + len(rows.ids[row]) - 2
            members, counts = _kept(members, np.where(here, counts, 0), counts, rows.starts[row], end)
            words, counts = words[here], counts[here]
        parts.append((members - rows.starts[row] + 1, counts, words))
    return parts


def _middles(members: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    """The token in the middle of each word; -1 for a word without pieces."""
    ends, some = np.cumsum(counts), counts > 0
    middles = np.full(len(counts), -1)
    middles[some] = (members[(ends - counts)[some]] + members[ends[some] - 1]) // 2
    return middles


def _kept(
    members: NDArray[Any], wanted: NDArray[Any], counts: NDArray[Any], start: int, end: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members and counts of the wanted words, without the pieces outside of `start` to `end`."""
    word = np.repeat(np.arange(len(counts)), counts)
    kept = (wanted[word] > 0) & (members >= start) & (members < end)
    return members[kept], np.bincount(word[kept], minlength=len(counts))


def _pieces_to_words(x: Tensor, tokens: NDArray[Any], counts: NDArray[Any], pieces: Pieces) -> NDArray[np.float32]:
    """The vectors of words, (n, H), from hidden states (T, H); `counts` says how many of `tokens` each word has."""
    offsets = torch.from_numpy(np.cumsum(counts) - counts).to(x.device)
    members = torch.from_numpy(tokens).to(x.device)
    mode = "max" if pieces == "max" else "mean"
    return F.embedding_bag(members, x.float(), offsets, mode=mode).cpu().numpy()
