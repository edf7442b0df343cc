"""Texts side by side: one text or a batch, truncated, padded, and made into tensors. What a tokenizer returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from tokenizers import Encoding
from typing_extensions import Self

from minibert.errors import MinibertError, warn
from minibert.text import check_choice, counted, remedy_for, short, whole_number

Split = Sequence[str]  # a text that is split into words already
Side = Literal["right", "left"]
Padding = Literal["longest", "max_length", "do_not_pad"]
TruncationStrategy = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]

CHOICES: dict[str, tuple[Any, ...]] = {
    "padding": (True, False, *get_args(Padding)),
    "truncation": (True, False, *get_args(TruncationStrategy)),
    "padding_side": get_args(Side),
    "truncation_side": get_args(Side),
    "return_tensors": ("pt", "np", None),
}
# What a model or a user asks for, and the attribute of a `tokenizers.Encoding` that holds it.
COLUMNS = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
    "special_tokens_mask": "special_tokens_mask",
    "offset_mapping": "offsets",
}


class BatchEncoding(dict[str, Any]):
    """The inputs of a model, by name (`model(**encoded)`), and where each token came from.

    Keys: `input_ids`, `token_type_ids`, `attention_mask` and, when asked for, `special_tokens_mask` and
    `offset_mapping`; each is also an attribute.

    Attributes:
        encodings: one `tokenizers.Encoding` for each text; none where it was made of columns, as transformers' Trainer
            and `BertTokenizer.pad` do.
    """

    def __init__(self, values: Mapping[str, Any], encodings: Sequence[Encoding] = ()) -> None:
        super().__init__(values)
        self.encodings = list(encodings)

    @classmethod
    def of(cls, encodings: Sequence[Encoding], names: Sequence[str], kind: Literal["pt", "np"] | None) -> Self:
        """The named `COLUMNS`: lists, or int64 tensors or arrays (B, S); offsets (B, S, 2)."""
        columns = {name: [getattr(encoding, COLUMNS[name]) for encoding in encodings] for name in names}
        if kind is None:
            return cls(columns, encodings)
        lengths = sorted({len(encoding) for encoding in encodings})
        if len(lengths) > 1:
            raise MinibertError(
                f"texts of one tensor must have equally many tokens; they have {lengths[0]} to {lengths[-1]}: "
                "pass padding=True"
            )
        shape = (len(encodings), *(lengths or [0]))
        arrays = {
            name: np.array(rows, dtype=np.int64).reshape((*shape, 2) if name == "offset_mapping" else shape)
            for name, rows in columns.items()
        }
        return cls(arrays if kind == "np" else {n: torch.from_numpy(a) for n, a in arrays.items()}, encodings)

    @classmethod
    def of_columns(cls, columns: Mapping[str, list[Any]], kind: Literal["pt", "np"] | None) -> Self:
        """Columns as they are, or as tensors or arrays."""
        if kind is None:
            return cls(columns, [])
        try:
            arrays = {name: np.array(rows) for name, rows in columns.items()}
            ragged = [name for name, array in arrays.items() if array.dtype == object]
        except ValueError:  # rows of different lengths
            ragged = [name for name, rows in columns.items() if len({np.shape(row) for row in rows}) > 1]
        if ragged:
            raise MinibertError(
                f"the rows of {ragged[0]} must have the same length to be made into a tensor; pass padding=True, or "
                "pad them yourself"
            )
        return cls(arrays if kind == "np" else {name: torch.from_numpy(a) for name, a in arrays.items()}, [])

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of one text, with special tokens and padding."""
        return list(self.encodings[batch_index].tokens)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of one text, the number of its word; None for special tokens and padding."""
        return list(self.encodings[batch_index].word_ids)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token, which text of the pair it came from, 0 or 1; None for special tokens and padding."""
        encoding = self.encodings[batch_index]
        pairs = zip(encoding.sequence_ids, encoding.special_tokens_mask, strict=True)
        # the library knows which tokens are the second text's; those of the first it forgets when it joins the two
        return [None if special else int(text == 1) for text, special in pairs]

    def to(self, device: torch.device | str) -> Self:
        """Move the tensors to a device."""
        self.update({name: value.to(device) for name, value in self.items() if isinstance(value, torch.Tensor)})
        return self


def check_options(**options: Any) -> None:
    """Reject a value that is not one of the `CHOICES`; options that have none are counts, or None."""
    for name, value in options.items():
        if name not in CHOICES:
            whole_number(name, 1 if value is None else value)
        else:
            check_choice(name, value, CHOICES[name])


def as_batch(
    text: Any, pair: Any, is_split_into_words: bool
) -> tuple[bool, Sequence[str | Split], Sequence[str | Split] | None]:
    """Whether a batch was given, and the batch; one text becomes a batch of one."""
    several = isinstance(text, (list, tuple))
    if not several and not isinstance(text, str):
        raise MinibertError(
            f"text ({short(text)}) must be str or a list of str, not {type(text).__name__}; {remedy_for(text)}"
        )
    if is_split_into_words and not several:
        raise MinibertError(f"text ({short(text)}) must be a list of words with is_split_into_words=True")
    if is_split_into_words:
        several = not text or isinstance(text[0], (list, tuple))
    if not several:
        return False, [text], None if pair is None else [pair]
    if pair is not None and (not isinstance(pair, (list, tuple)) or len(pair) != len(text)):
        count = counted(len(pair), "text") if isinstance(pair, (list, tuple)) else f"one {type(pair).__name__}"
        raise MinibertError(
            f"text_pair ({count}) must be a list as long as text ({len(text)}); pass one second text for each"
        )
    return True, text, pair


def strategy_of(truncation: Any, max_length: int | None, padding: Any) -> TruncationStrategy | None:
    """The truncation strategy, as transformers reads these arguments; None: texts are not truncated."""
    if truncation is None:
        truncation = max_length is not None and padding in (False, "do_not_pad")
        if max_length is not None and padding in (True, "longest"):
            warn(f"max_length ({max_length}) has no effect here; pass truncation=True to truncate texts to it")
    check_options(truncation=truncation)
    if truncation in (False, "do_not_truncate"):
        return None
    chosen: TruncationStrategy = "longest_first" if truncation is True else truncation
    return chosen


def truncate(first: Encoding, second: Encoding | None, room: int, strategy: TruncationStrategy, side: Side) -> None:
    """Shorten a text or pair to `room` tokens, in place.

    Source: huggingface/tokenizers `utils/truncation.rs`, whose rule for pairs this is.
    """
    texts = [first] if second is None else [first, second]
    excess = sum(map(len, texts)) - room
    if excess <= 0:
        return
    if room == 0:
        lengths = [0 for _ in texts]
    elif second is not None and strategy == "longest_first":
        shorter, longer = sorted(map(len, texts))
        longer = shorter if shorter > room else max(shorter, room - shorter)
        if shorter + longer > room:
            shorter, longer = room // 2, room - room // 2
        lengths = [longer, shorter] if len(first) > len(second) else [shorter, longer]
    else:
        lengths = [len(text) for text in texts]
        which = 1 if strategy == "only_second" else 0
        if which == len(texts):
            raise MinibertError(f"text_pair (None) must be given for truncation={strategy!r}; pass truncation=True")
        if lengths[which] <= excess:
            raise MinibertError(
                f"the text that truncation={strategy!r} shortens ({counted(lengths[which], 'token')}) must be longer "
                f"than what it has to lose ({counted(excess, 'token')}); pass a larger max_length or "
                "truncation='longest_first'"
            )
        lengths[which] -= excess
    for text, length in zip(texts, lengths, strict=True):
        text.truncate(length, direction=side)


def padded_length(encodings: Sequence[Any], length: int | None, multiple: int | None) -> int:
    """The length of all texts of a padded batch: `length`, or that of the longest; rounded up to a multiple."""
    if length is None:
        length = max(map(len, encodings), default=0)
    return -(-length // multiple) * multiple if multiple else length


def columns_of(rows: Any) -> dict[str, list[Any]]:
    """Encoded texts by column, as lists: from a list of dicts, or from a dict of lists, arrays or tensors.

    Raises:
        MinibertError: it is neither, or its dicts have different keys.
    """
    if isinstance(rows, Mapping):
        columns = {name: [_listed(row) for row in values] for name, values in rows.items()}
    elif isinstance(rows, (list, tuple)) and rows and all(isinstance(row, Mapping) for row in rows):
        if any(row.keys() != rows[0].keys() for row in rows):
            raise MinibertError("the texts to pad must have the same keys; leave out the keys that some of them lack")
        columns = {name: [_listed(row[name]) for row in rows] for name in rows[0]}
    else:
        raise MinibertError(f"the texts to pad ({short(rows)}) must be a list of dicts, or a dict of lists")
    if "input_ids" not in columns or not all(isinstance(ids, list) for ids in columns["input_ids"]):
        raise MinibertError(
            f"the texts to pad (keys: {', '.join(columns) or 'none'}) must have input_ids, a list for each"
        )
    return columns


def is_one_text(ids: Any) -> bool:
    """Whether ids are those of one text, rather than of several."""
    return isinstance(ids, (list, tuple, torch.Tensor, np.ndarray)) and len(ids) > 0 and np.ndim(ids[0]) == 0


def kind_of(rows: Any) -> Literal["pt", "np"] | None:
    """What encoded texts are made of: tensors, arrays or lists."""
    ids = rows["input_ids"] if isinstance(rows, Mapping) else rows[0]["input_ids"]
    while isinstance(ids, (list, tuple)) and ids:
        ids = ids[0]
    return "pt" if isinstance(ids, torch.Tensor) else "np" if isinstance(ids, np.ndarray) else None


def _listed(values: Any) -> Any:
    return values.tolist() if isinstance(values, (torch.Tensor, np.ndarray)) else values


def padded_columns(
    columns: Mapping[str, list[Any]], length: int | None, side: Side, fillers: Mapping[str, int]
) -> dict[str, list[Any]]:
    """Columns in which each row has `length` numbers, if it has fewer; columns without a filler stay as they are."""
    return {
        name: [
            [*row, *[fillers[name]] * ((length or 0) - len(row))]
            if side == "right"
            else [*[fillers[name]] * ((length or 0) - len(row)), *row]
            for row in rows
        ]
        if name in fillers
        else rows
        for name, rows in columns.items()
    }
