"""Texts side by side: told from a single text, truncated, padded, and made into tensors. What a tokenizer returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Encoding
from typing_extensions import Self

from minibert.errors import MinibertError, warn
from minibert.text import counted, remedy_for, short

Words = Sequence[str]
Side = Literal["right", "left"]
Padding = Literal["longest", "max_length", "do_not_pad"]
Truncation = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]

SIDES = ("right", "left")
PADDINGS = (True, False, "longest", "max_length", "do_not_pad")
TRUNCATIONS = (True, False, "longest_first", "only_first", "only_second", "do_not_truncate")
TENSORS = ("pt", "np", None)


class BatchEncoding(dict[str, Any]):
    """What a model wants, by name (`model(**encoded)`), and where each token came from.

    Keys: `input_ids`, `token_type_ids`, `attention_mask` and, when asked for, `offset_mapping` and
    `special_tokens_mask`; each is also an attribute.

    Attributes:
        encodings: one `tokenizers.Encoding` for each text.
    """

    def __init__(self, values: Mapping[str, Any], encodings: Sequence[Encoding]) -> None:
        super().__init__(values)
        self.encodings = list(encodings)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of one text, special ones and padding included."""
        return list(self.encodings[batch_index].tokens)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of one text, the number of its word; None for special tokens and padding."""
        return list(self.encodings[batch_index].word_ids)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token, 0 or 1: the text of the pair that it came from; None for special tokens and padding."""
        encoding = self.encodings[batch_index]
        pairs = zip(encoding.type_ids, encoding.special_tokens_mask, strict=True)
        return [None if special else kind for kind, special in pairs]

    def to(self, device: torch.device | str) -> Self:
        """Move the tensors to a device."""
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value.to(device)
        return self


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """The value; refuse one that is none of the choices."""
    if value not in choices:
        *most, last = map(repr, choices)
        raise MinibertError(f"{name} ({value!r}) must be {', '.join(most)} or {last}")
    return value


def as_batch(
    text: Any, pair: Any, is_split_into_words: bool
) -> tuple[bool, Sequence[str | Words], Sequence[str | Words] | None]:
    """Whether a batch was given, and the batch: one text becomes a batch of one."""
    if not isinstance(text, (str, list, tuple)):
        raise MinibertError(
            f"text ({short(text)}) must be str or a list of str, not {type(text).__name__}; {remedy_for(text)}"
        )
    batched = isinstance(text, (list, tuple))
    if is_split_into_words:
        if not batched:
            raise MinibertError(f"text ({short(text)}) must be a list of words with is_split_into_words=True")
        batched = not text or isinstance(text[0], (list, tuple))
    if not batched:
        return False, [text], None if pair is None else [pair]
    if pair is not None and (not isinstance(pair, (list, tuple)) or len(pair) != len(text)):
        count = counted(len(pair), "text") if isinstance(pair, (list, tuple)) else f"one {type(pair).__name__}"
        raise MinibertError(
            f"text_pair ({count}) must be a list as long as text ({len(text)}); pass one second text for each"
        )
    return True, text, pair


def strategy_of(truncation: Any, max_length: int | None, padding: Any) -> Truncation | None:
    """How texts are to be truncated, as transformers reads these arguments; None: not at all."""
    if truncation is None:
        truncation = max_length is not None and padding in (False, "do_not_pad")
        if max_length is not None and padding in (True, "longest"):
            warn(f"max_length ({max_length}) has no effect here; pass truncation=True to truncate texts to it")
    check_choice("truncation", truncation, TRUNCATIONS)
    if truncation in (False, "do_not_truncate"):
        return None
    chosen: Truncation = "longest_first" if truncation is True else truncation
    return chosen


def truncate(first: Encoding, second: Encoding | None, room: int, strategy: Truncation, side: str) -> None:
    """Shorten a text or pair to `room` tokens, in place.

    Source: huggingface/tokenizers `utils/truncation.rs`, whose rule for pairs this is.
    """
    excess = len(first) + (0 if second is None else len(second)) - room
    if excess <= 0:
        return
    if room == 0:
        for text in (first, second):
            if text is not None:
                text.truncate(0)
    elif second is not None and strategy == "longest_first":
        shorter, longer = sorted((len(first), len(second)))
        longer = shorter if shorter > room else max(shorter, room - shorter)
        if shorter + longer > room:
            shorter, longer = room // 2, room - room // 2
        keep_first, keep_second = (longer, shorter) if len(first) > len(second) else (shorter, longer)
        first.truncate(keep_first, direction=side)
        second.truncate(keep_second, direction=side)
    else:
        target = second if strategy == "only_second" else first
        if target is None:
            raise MinibertError(f"text_pair (None) must be given for truncation={strategy!r}; pass truncation=True")
        if len(target) <= excess:
            raise MinibertError(
                f"the text that truncation={strategy!r} shortens ({counted(len(target), 'token')}) must be longer than "
                f"what it has to lose ({counted(excess, 'token')}); pass a larger max_length or "
                "truncation='longest_first'"
            )
        target.truncate(len(target) - excess, direction=side)


def padded_length(encodings: Sequence[Encoding], length: int | None, multiple: int | None) -> int:
    """How long all texts of a batch become: `length`, or as long as the longest; then up to a multiple."""
    if length is None:
        length = max((len(encoding) for encoding in encodings), default=0)
    return -(-length // multiple) * multiple if multiple else length


def columns(encodings: Sequence[Encoding], special_tokens_mask: bool, offset_mapping: bool) -> dict[str, list[Any]]:
    """What was asked of the encodings, by name; one row for each text."""
    values: dict[str, list[Any]] = {
        "input_ids": [e.ids for e in encodings],
        "token_type_ids": [e.type_ids for e in encodings],
        "attention_mask": [e.attention_mask for e in encodings],
    }
    if special_tokens_mask:
        values["special_tokens_mask"] = [e.special_tokens_mask for e in encodings]
    if offset_mapping:
        values["offset_mapping"] = [e.offsets for e in encodings]
    return values


def as_tensors(values: Mapping[str, list[Any]], kind: Literal["pt", "np"]) -> dict[str, Any]:
    """Rows of equal length as (B, S) int64 tensors or arrays; offsets as (B, S, 2)."""
    rows = values["input_ids"]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise MinibertError(
            f"texts of one tensor must have equally many tokens; they have {lengths[0]} to {lengths[-1]}: "
            "pass padding=True"
        )
    shape = (len(rows), lengths[0] if lengths else 0)
    arrays = {
        name: np.array(row, dtype=np.int64).reshape((*shape, 2) if name == "offset_mapping" else shape)
        for name, row in values.items()
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()} if kind == "pt" else dict(arrays)
