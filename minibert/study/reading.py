"""One text, or a pair, as the model reads it: ids, tokens, and the word that each token is part of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minibert.batch import BatchEncoding
from minibert.errors import MinibertError
from minibert.text import as_list, check_text, counted, end_with_marks, short
from minibert.tokenizer import BertTokenizer


@dataclass(frozen=True)
class Reading:
    """A text, or a pair of texts, with its special tokens.

    Attributes:
        encoding: what the model is called with; (1, S) tensors.
        tokens: the S tokens.
        words: the words, in order; each special token counts as one.
        word_of: for each token, the number of its word in `words`.
        spans: for each word, (text, start, end): the text of the pair (0 or 1) and the characters in it; None for a
            special token.
    """

    encoding: BatchEncoding
    tokens: tuple[str, ...]
    words: tuple[str, ...]
    word_of: tuple[int, ...]
    spans: tuple[tuple[int, int, int] | None, ...]

    @property
    def ids(self) -> Tensor:
        """The input ids, (1, S) int64."""
        ids: Tensor = self.encoding["input_ids"]
        return ids


def as_pairs(text: str | Iterable[str], pair: str | Iterable[str] | None) -> list[tuple[str, str | None]]:
    """Each text with the second text of its pair, or with None.

    Raises:
        MinibertError: what is not text; one text and several pairs, or pairs that are not as many.
    """
    texts = as_list(text)
    if isinstance(text, str) and not (pair is None or isinstance(pair, str)):
        raise MinibertError(f"pair ({short(pair)}) must be one text, as text is")
    pairs = [None] * len(texts) if pair is None else as_list(pair)
    if isinstance(pair, str) and not isinstance(text, str):
        raise MinibertError(f"pair ({short(pair)}) must be a list as long as text ({len(texts)}), not one text")
    if len(pairs) != len(texts):
        raise MinibertError(f"pair ({counted(len(pairs), 'text')}) must be a list as long as text ({len(texts)})")
    return list(zip(texts, pairs, strict=True))


def read(tokenizer: BertTokenizer, text: str, pair: str | None, longest: int, device: torch.device) -> Reading:
    """Tokenize one text or pair.

    Args:
        longest: the most tokens that the model takes.
        device: where the tensors go.

    Raises:
        MinibertError: what is not text; more tokens than that.
    """
    texts = [text] if pair is None else [text, pair]
    check_text(texts)
    encoding = tokenizer(text, pair, truncation=False, return_tensors="pt")
    length = len(encoding.tokens())
    if length > longest:
        raise MinibertError(f"text ({length} tokens) must not exceed {longest} tokens; pass a shorter one")
    return reading(encoding.to(device), texts)


def reading(encoding: BatchEncoding, texts: Sequence[str]) -> Reading:
    """Group the tokens of one encoded text or pair into words."""
    tokens = encoding.tokens()
    [parts] = encoding.encodings
    words: list[str] = []
    spans: list[tuple[int, int, int] | None] = []
    word_of: list[int] = []
    last = None
    for token, word, source, (start, end) in zip(
        tokens, parts.word_ids, encoding.sequence_ids(), parts.offsets, strict=True
    ):
        here = None if word is None or source is None else (source, word)
        if here is None or here != last:
            words.append(token if source is None else texts[source][start:end])
            spans.append(None if source is None else (source, start, end))
        elif source is not None:
            span = spans[-1]
            begin = start if span is None else span[1]
            words[-1], spans[-1] = texts[source][begin:end], (source, begin, end)
        word_of.append(len(words) - 1)
        last = here
    for number, span in enumerate(spans):
        if span is None:
            continue
        text, following = texts[span[0]], spans[number + 1] if number + 1 < len(spans) else None
        end = end_with_marks(text, span[2], following[1] if following and following[0] == span[0] else len(text))
        words[number] = text[span[1] : end]
        if written := words[number].lstrip():  # SentencePiece's words begin with the space before them
            words[number] = written
            spans[number] = (span[0], end - len(written), end)
    return Reading(encoding, tuple(tokens), tuple(words), tuple(word_of), tuple(spans))
