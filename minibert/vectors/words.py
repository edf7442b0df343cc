"""Word vectors: the hidden states of a word's pieces become one vector.

BERT sees pieces ("em", "##bed", "##ding"); people see words. The tokenizer says where each piece is in the text, so the
pieces can be assigned to words, and every word keeps its place in the caller's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Literal, TypedDict
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from torch.nn import functional as F

from minibert.engine.engine import LAST, Combine, Engine, Pass, Plan
from minibert.engine.rows import TOKENIZED_AT_ONCE, RowMaker, Rows, Truncation
from minibert.engine.stream import Progress, Truncated, chunks
from minibert.errors import MinibertError, optional, warn
from minibert.text import as_stream, check_text, counted, end_with_marks
from minibert.tokenizer import BertTokenizer

Spans = NDArray[np.int64]
Pieces = Literal["mean", "first", "last", "max"]
Splitter = Literal["pretokenizer", "whitespace"]
NO_SPACE = re.compile(r"[^\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
PIECES = ("mean", "first", "last", "max")
SPLITTERS = ("pretokenizer", "whitespace")


class WordSettings(TypedDict, total=False):
    """Keyword arguments of `Bert.words`."""

    layers: int | Sequence[int] | None
    combine: Combine
    pieces: Pieces
    split: Splitter
    spans: Sequence[Any] | None
    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None
    truncation: Truncation


class Words:
    """The words of a text and their vectors.

    Args:
        text: the text; if it came as a list of words, these joined by spaces.
        spans: (n, 2) the start and end of each word, in characters of `text`.
        counts: (n,) how many pieces each word has.
        tokens: the pieces of all words, in order.
        vectors: (n, H) float32; zeros for a word without pieces.
    """

    def __init__(
        self, text: str, spans: Spans, counts: NDArray[np.int64], tokens: Sequence[str], vectors: NDArray[np.float32]
    ) -> None:
        self.text = text
        self.vectors = vectors
        self._spans, self._counts, self._tokens = spans, counts, tokens

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(start, end) of each word, in characters."""
        return [(start, end) for start, end in self._spans.tolist()]

    @property
    def words(self) -> list[str]:
        """The words as the text spells them."""
        return [self.text[start:end] for start, end in self._spans.tolist()]

    @property
    def pieces(self) -> list[list[str]]:
        """The tokens of each word; none for a word that the tokenizer drops or that was truncated."""
        tokens = iter(self._tokens)
        return [list(islice(tokens, count)) for count in self._counts.tolist()]

    def _empty(self) -> list[str]:
        return [self.text[start:end] for start, end in self._spans[self._counts == 0].tolist()]

    def __len__(self) -> int:
        return len(self._spans)

    def __repr__(self) -> str:
        shown = ", ".join(repr(word) for word in self.words[:8]) + (", ..." if len(self) > 8 else "")
        return f"Words({shown}; vectors {self.vectors.shape[0]} x {self.vectors.shape[1]})"

    def find(self, word: str) -> list[int]:
        """The indices of a word, in upper or lower case, with composed or decomposed accents."""
        key = _folded(word)
        return [number for number, other in enumerate(self.words) if _folded(other) == key]


def _folded(word: str) -> str:
    return normalize("NFC", normalize("NFC", word).casefold())


def words_to_pandas(words: Words | Sequence[Words]) -> Any:
    """Make a table with one row for each word.

    Returns:
        A `pandas.DataFrame` with the columns text (the number of the text), word, start, end, pieces, and the numbers
        of the vector, v0 to v(H-1).

    Raises:
        ImportError: pandas is not installed.
    """
    pandas = optional("pandas", "words_to_pandas", "pandas")
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
    """Which pieces of a text make up which word.

    Args:
        text: the text.
        encoding: of the text, without special tokens.
        spans: (n, 2) the words, in order; None means those of the tokenizer's pre-tokenizer.

    Attributes:
        encoding: of the text.
        ids: the ids of all pieces of the text.
        spans: (n, 2) the words, in characters.
        members: the indices of the first word's pieces, then those of the second, and so on.
        counts: how many pieces each word has.
    """

    def __init__(self, text: str, encoding: Encoding, spans: Spans | None = None) -> None:
        self.ids = np.array(encoding.ids, dtype=np.int32)
        self.encoding = encoding
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        self.members = np.arange(len(offsets))
        if spans is None:
            number = np.array(encoding.word_ids, dtype=np.int64)
            firsts = np.flatnonzero(np.diff(number, prepend=-1))
            self.counts = np.diff(firsts, append=len(number))
            lasts = firsts + self.counts - 1
            ends = offsets[lasts, 1]
            if not text.isascii():
                limits = np.append(offsets[firsts[1:], 0], len(text))[: len(ends)]
                both = zip(ends.tolist(), limits.tolist(), strict=True)
                ends = np.array([end_with_marks(text, end, limit) for end, limit in both], dtype=np.int64)
            self.spans = np.stack([offsets[firsts, 0], ends], axis=1)
            return
        self.spans = spans
        owner = owners(spans, offsets)
        self.counts = np.bincount(owner[owner >= 0], minlength=len(spans))
        self.members = self.members[owner >= 0]
        self._borrow(offsets)

    @property
    def tokens(self) -> list[str]:
        """The pieces of all words, in the order of `members`."""
        tokens = self.encoding.tokens
        return [tokens[place] for place in self.members.tolist()]

    def _borrow(self, offsets: Spans) -> None:
        """Give a word inside a piece of another word (such as "not" in "cannot") that piece, too."""
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
        """Drop the pieces outside `start` to `end`, which were truncated, and the words left without pieces.

        Words that the caller defined (`own`) stay.
        """
        self.members, self.counts = _kept(self.members, self.counts, self.counts, start, end)
        if not own:
            self.spans, self.counts = self.spans[self.counts > 0], self.counts[self.counts > 0]

    def chosen(self, which: Pieces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The members and counts that make the vectors; "first" and "last" take one piece of each word."""
        if which not in ("first", "last"):
            return self.members, self.counts
        ends, some = np.cumsum(self.counts), self.counts > 0
        places = ends - self.counts if which == "first" else ends - 1
        return self.members[places[some]], some.astype(np.int64)


def aligned_text(tokenizer: BertTokenizer, text: str, encoding: Encoding, spans: Spans | None = None) -> Aligned:
    """Which pieces make which word of a text; None: the words of the tokenizer, those without pieces left out."""
    found = tokenizer.word_spans(text) if spans is None else None
    if found is None:
        return Aligned(text, encoding, spans)
    one = Aligned(text, encoding, np.array(found, dtype=np.int64).reshape(-1, 2))
    one.keep(0, len(one.ids), own=False)
    return one


def owners(spans: Spans, offsets: Spans) -> NDArray[np.int64]:
    """The index of the span that each piece overlaps most, the first one in a tie; -1 if it overlaps none.

    Args:
        spans: (n, 2), in order, without overlaps.
        offsets: (T, 2) the start and end of each piece.
    """
    if not len(spans):
        return np.full(len(offsets), -1)
    starts, ends = offsets[:, :1], offsets[:, 1:]
    first = np.searchsorted(spans[:, 1], offsets[:, 0], side="right").clip(max=len(spans) - 1)
    reach = np.searchsorted(spans[:, 0], offsets[:, 1], side="left") - first  # how many spans a piece touches
    candidates = first[:, None] + np.arange(max(1, reach.max(initial=1)))
    candidates = candidates.clip(max=len(spans) - 1)
    overlap = np.minimum(ends, spans[candidates, 1]) - np.maximum(starts, spans[candidates, 0])
    best = overlap.argmax(1)
    rows = np.arange(len(offsets))
    return np.where(overlap[rows, best] > 0, candidates[rows, best], -1)


def whitespace_spans(text: str) -> Spans:
    """The words between white space, as BERT defines it; Python counts more characters as white space."""
    return np.array([match.span() for match in NO_SPACE.finditer(text)], dtype=np.int64).reshape(-1, 2)


def joined(words: Sequence[str]) -> tuple[str, Spans]:
    """Join words with spaces; return the text and the span of each word."""
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    ends = np.cumsum(lengths + 1) - 1 if len(words) else lengths
    return " ".join(words), np.stack([ends - lengths, ends], axis=1)


def split_texts(
    texts: Sequence[Any], first: int, split: Splitter, spans: Sequence[Sequence[tuple[int, int]]] | None
) -> tuple[list[str], list[Spans | None]]:
    """The texts, with lists of words joined, and the spans of the words of each; None leaves them to the pre-tokenizer.

    Args:
        texts: each a text or a list of words.
        first: the number of the first text, for messages.
        split: what words are.
        spans: words that the caller defined, for each text.

    Raises:
        MinibertError: what is not text; spans that are outside their text or out of order.
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
    """The spans of words that the caller defined, as an array.

    Raises:
        MinibertError: they are outside the text, out of order, or overlap.
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


class WordEncoder:
    """Turns texts into words with vectors, with the settings of one call.

    Args:
        engine: computes the hidden states.
        tokenizer: that of the checkpoint.
        limit: the most tokens of a text, with special tokens.
        plan: which hidden states, and how much to compute in each pass.
        pieces, split, truncation: as for `Bert.words`.

    Raises:
        MinibertError: a setting that makes no sense.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: BertTokenizer,
        limit: int,
        *,
        plan: Plan = LAST,
        pieces: Pieces = "mean",
        split: Splitter = "pretokenizer",
        truncation: Truncation = "warn",
    ) -> None:
        for name, value, known in (("pieces", pieces, PIECES), ("split", split, SPLITTERS)):
            if value not in known:
                raise MinibertError(f"{name} ({value!r}) must be one of {', '.join(known)}")
        self.engine, self.tokenizer, self.plan, self.pieces, self.split = engine, tokenizer, plan, pieces, split
        self.truncated = Truncated(limit, truncation)
        self.row_maker = RowMaker(tokenizer, limit, truncation)

    def __call__(
        self,
        texts: Iterable[str | Sequence[str]],
        spans: Sequence[Any] | None = None,
        shown: bool | None = None,
    ) -> list[Words]:
        """The words of texts.

        Args:
            texts: several texts, each a text or a list of words.
            spans: for each text, the words that the caller defines.
            shown: as for `Progress`.
        """
        stream, total = as_stream(texts, words=True)
        found: list[Words] = []
        with Progress(total, shown, "words") as progress:
            for chunk in chunks(stream, TOKENIZED_AT_ONCE):  # small: its vectors all stay in memory
                first = len(found)
                own = None if spans is None else spans[first : first + len(chunk)]
                whole, places = split_texts(chunk, first, self.split, own)
                aligned, rows = align(self.tokenizer, whole, places, self.row_maker)
                self.truncated.note(rows.lost, first)
                vectors = WordVectors(aligned, rows, self.engine.width(self.plan), self.pieces)
                for one in self.engine.states(rows, self.plan, progress.add):
                    vectors.add(one)
                found += vectors.words(whole)
        self.truncated.warn(len(found))
        empty = [(number, word) for number, words in enumerate(found) for word in words._empty()]
        if empty:
            number, word = empty[0]
            warn(
                f"{counted(len(empty), 'word')} without tokens got a vector of zeros: the tokenizer drops them, or the "
                f"text was truncated before them; the first is {word!r} of text {number}"
            )
        return found


def align(
    tokenizer: BertTokenizer, texts: Sequence[str], spans: Sequence[Spans | None], row_maker: RowMaker
) -> tuple[list[Aligned], Rows]:
    """Assign the pieces of texts to words, and make rows of the texts.

    Args:
        tokenizer: the tokenizer.
        texts: the caller's texts.
        spans: the words of each text; None means those of the pre-tokenizer.
        row_maker: makes the rows.
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


class WordVectors:
    """Collects the vectors of the words of texts, pass by pass.

    Args:
        aligned, rows: the texts, from `align`.
        width: the size of a token's hidden state.
        pieces: which pieces of a word make its vector: all ("mean", "max"), the first or the last.
    """

    def __init__(self, aligned: Sequence[Aligned], rows: Rows, width: int, pieces: Pieces = "mean") -> None:
        self.aligned, self.rows, self.pieces = aligned, rows, pieces
        self.ends = np.cumsum([0, *(len(one.counts) for one in aligned)])
        self.parts = _parts_of_rows(rows, [one.chosen(pieces) for one in aligned], self.ends)
        self.vectors = np.zeros((self.ends[-1], width), dtype=np.float32)

    def add(self, found: Pass) -> None:
        """Make the vectors of the words in a pass."""
        begins = np.cumsum([0, *(len(self.rows.ids[index]) for index in found.indices)])
        parts = [self.parts[index] for index in found.indices]
        tokens = np.concatenate([part[0] + begin for part, begin in zip(parts, begins, strict=False)])
        counts, words = (np.concatenate([part[which] for part in parts]) for which in (1, 2))
        if len(tokens):
            self.vectors[words] = _pieces_to_words(found.states, tokens, counts, self.pieces)

    def words(self, texts: Sequence[str]) -> list[Words]:
        """The words of the texts, once all passes were added."""
        return [
            Words(text, one.spans, one.counts, one.tokens, self.vectors[start : start + len(one.counts)])
            for text, one, start in zip(texts, self.aligned, self.ends.tolist(), strict=False)
        ]


def _parts_of_rows(
    rows: Rows, chosen: Sequence[tuple[NDArray[Any], NDArray[Any]]], firsts: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """For each row: the tokens that make words, how many each word has, and the indices of these words.

    A word is taken from the window that owns its middle, where it has most context on both sides.
    """
    parts = []
    own = 0  # the first of the text's tokens that the row owns
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
    """The middle token of each word; -1 for a word without pieces."""
    ends, some = np.cumsum(counts), counts > 0
    middles = np.full(len(counts), -1)
    middles[some] = (members[(ends - counts)[some]] + members[ends[some] - 1]) // 2
    return middles


def _kept(
    members: NDArray[Any], wanted: NDArray[Any], counts: NDArray[Any], start: int, end: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members and counts of the wanted words, without pieces outside `start` to `end`."""
    word = np.repeat(np.arange(len(counts)), counts)
    kept = (wanted[word] > 0) & (members >= start) & (members < end)
    return members[kept], np.bincount(word[kept], minlength=len(counts))


def _pieces_to_words(x: Tensor, tokens: NDArray[Any], counts: NDArray[Any], pieces: Pieces) -> NDArray[np.float32]:
    """The vectors of words, (n, H), from hidden states (T, H); each word has `counts` of the `tokens`."""
    offsets = torch.from_numpy(np.cumsum(counts) - counts).to(x.device)
    members = torch.from_numpy(tokens).to(x.device)
    mode = "max" if pieces == "max" else "mean"
    return F.embedding_bag(members, x.float(), offsets, mode=mode).cpu().numpy()
