"""Text becomes token ids: cleaned, lower-cased, split into words, and words into WordPieces of the vocabulary.

The work is done by the `tokenizers` library; this file gives it BERT's settings and the shape that models want.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer, normalizers
from typing_extensions import Self

from minibert.errors import MinibertError
from minibert.pretrained import vocabulary
from minibert.pretrained.hub import Repository
from minibert.pretrained.mixin import Pretrained
from minibert.pretrained.vocabulary import SPECIAL_TOKENS
from minibert.text import check_text, remedy_for, short, whole_number

Words = Sequence[str]
Side = Literal["right", "left"]
Truncation = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]


class BatchEncoding(dict[str, Any]):
    """What a model wants, by name (`model(**encoded)`), and where each token came from.

    Keys: `input_ids`, `token_type_ids`, `attention_mask` and, when asked for, `offset_mapping` and
    `special_tokens_mask`; each is also an attribute.

    Attributes:
        encodings: one `tokenizers.Encoding` a text.
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


class SpecialTokenId:
    """An attribute of the tokenizer: the id of a special token; ValueError where the vocabulary lacks it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, tokenizer: BertTokenizer, owner: type) -> int:
        token = tokenizer.special_tokens[self.name]
        found = tokenizer.backend.token_to_id(token)
        if found is None:
            raise MinibertError(f"the vocabulary ({len(tokenizer)} tokens) must hold {token} for this; it does not")
        return found


class BertTokenizer(Pretrained):
    """BERT's WordPiece tokenizer.

    Args:
        vocab: the vocabulary, as a dictionary or the path of a `vocab.txt`.
        do_lower_case: the model is an uncased one.
        tokenize_chinese_chars: each Chinese character is a word of its own.
        strip_accents: remove accents; None: if `do_lower_case`.
        model_max_length: how many tokens `truncation=True` leaves; None: unknown.
        padding_side, truncation_side: where texts are padded and cut, "right" or "left".
        unk_token, sep_token, pad_token, cls_token, mask_token: the special tokens as the vocabulary spells them.

    Raises:
        ValueError: the vocabulary lacks a special token without which no text can be encoded.

    Source: Devlin et al. 2018, sec. 3; google-research/bert `tokenization.FullTokenizer`.
    """

    def __init__(
        self,
        vocab: Mapping[str, int] | str | Path,
        *,
        do_lower_case: bool = True,
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        model_max_length: int | None = None,
        padding_side: Side = "right",
        truncation_side: Side = "right",
        **special_tokens: str,
    ) -> None:
        settings: dict[str, Any] = {
            "do_lower_case": do_lower_case,
            "tokenize_chinese_chars": tokenize_chinese_chars,
            "strip_accents": strip_accents,
        }
        backend = vocabulary.wordpiece(vocab, {**settings, **special_tokens})
        self._attach(backend, model_max_length, padding_side, truncation_side, **special_tokens)

    def _attach(
        self,
        backend: Tokenizer,
        model_max_length: int | None = None,
        padding_side: Side = "right",
        truncation_side: Side = "right",
        **special_tokens: str,
    ) -> None:
        wrong = sorted(set(special_tokens) - set(SPECIAL_TOKENS))
        if wrong:
            raise TypeError(
                f"{', '.join(wrong)} must be an argument of BertTokenizer; see help(minibert.BertTokenizer)"
            )
        self.backend = backend
        self.model_max_length = model_max_length
        self.padding_side = check_side("padding_side", padding_side)
        self.truncation_side = check_side("truncation_side", truncation_side)
        self.special_tokens = names = {**SPECIAL_TOKENS, **special_tokens}
        self.unk_token, self.sep_token, self.pad_token = names["unk_token"], names["sep_token"], names["pad_token"]
        self.cls_token, self.mask_token = names["cls_token"], names["mask_token"]

    @classmethod
    def from_repository(cls, repository: Repository, **settings: Any) -> Self:
        """The tokenizer of an opened checkpoint: its `tokenizer.json`, or its `vocab.txt`.

        `settings` are the arguments of the class; they win over the files, `tokenizer_config.json` over the others.
        """
        backend, decided = vocabulary.read(repository, settings)
        tokenizer = cls.__new__(cls)
        switches = vocabulary.SWITCHES
        tokenizer._attach(backend, **{name: value for name, value in decided.items() if name not in switches})
        return tokenizer

    def _save(self, folder: Path) -> None:
        settings = {name: getattr(self, name) for name in (*vocabulary.SIDES, "model_max_length")}
        told = {name: value for name, value in settings.items() if value is not None}
        vocabulary.save(self.backend, {**self.special_tokens, **told}, folder)

    # Vocabulary

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id."""
        return self.backend.get_vocab()

    def __len__(self) -> int:
        return self.backend.get_vocab_size()

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self)

    def lower_cased(self) -> Self:
        """This tokenizer, or, if it keeps capitals, a copy of it that does not."""
        if self.do_lower_case:
            return self
        other = copy.deepcopy(self)
        rules = [] if self.backend.normalizer is None else [self.backend.normalizer]
        other.backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rules])
        return other

    @property
    def do_lower_case(self) -> bool:
        """Whether text is lower-cased."""
        normalizer = self.backend.normalizer
        return normalizer is not None and normalizer.normalize_str("A") == "a"

    unk_token_id = SpecialTokenId("unk_token")
    sep_token_id = SpecialTokenId("sep_token")
    pad_token_id = SpecialTokenId("pad_token")
    cls_token_id = SpecialTokenId("cls_token")
    mask_token_id = SpecialTokenId("mask_token")

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the special tokens that the vocabulary holds."""
        ids = (self.backend.token_to_id(token) for token in self.special_tokens.values())
        return [found for found in ids if found is not None]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or of each token of a list; that of [UNK] for what the vocabulary lacks."""
        if isinstance(tokens, str):
            found = self.backend.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Sequence[int] | torch.Tensor, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each id of a list.

        Raises:
            ValueError: an id that no token has.
        """
        if isinstance(ids, (torch.Tensor, np.ndarray, np.integer)):
            ids = ids.tolist()
        if isinstance(ids, int):
            token = self.backend.id_to_token(ids) if ids >= 0 else None
            if token is None:
                raise MinibertError(f"id ({ids}) must be that of a token; the vocabulary has {len(self)}")
            return token
        special = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.convert_ids_to_tokens(int(i)) for i in ids if int(i) not in special]

    # Text to ids

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text; special tokens that are written in it stay whole."""
        return self(text, pair, add_special_tokens=add_special_tokens).tokens()

    def encode(self, text: str | Words, text_pair: str | Words | None = None, **arguments: Any) -> Any:
        """The ids of one text or pair; `arguments` as for a call."""
        return self(text, text_pair, **arguments)["input_ids"]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Words],
        text_pair: str | Sequence[str] | Sequence[Words] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | Literal["longest", "max_length", "do_not_pad"] = False,
        truncation: bool | Truncation | None = None,
        max_length: int | None = None,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        return_tensors: Literal["pt", "np"] | None = None,
        return_offsets_mapping: bool = False,
        return_special_tokens_mask: bool = False,
    ) -> BatchEncoding:
        """Turn texts, or pairs of texts, into ids.

        Args:
            text: one text or a list; with `is_split_into_words`, one list of words or a list of them.
            text_pair: the second texts of pairs, as many as there are first ones.
            add_special_tokens: [CLS] first [SEP], and second [SEP].
            padding: True or "longest": to the longest of the batch; "max_length": to `max_length`.
            truncation: True or "longest_first": cut the longer of a pair first; "only_first"; "only_second"; False.
                None, as in transformers: True if `max_length` is given and `padding` is not.
            max_length: tokens, special ones included; `model_max_length` when None.
            padding_side: the tokenizer's when None.
            return_tensors: "pt" or "np"; lists when None.
            return_offsets_mapping: for each token, where it is in its text: (start, end) in characters.

        Returns:
            int64 `input_ids`, `token_type_ids` and `attention_mask`: (B, S) tensors or lists; flat lists for one text.

        Raises:
            ValueError: what is not text; lengths that cannot be made into a tensor; a limit that cannot be kept.
        """
        batched, firsts, seconds = _batch(text, text_pair, is_split_into_words)
        if truncation is None:
            truncation = max_length is not None and padding in (False, "do_not_pad")
            if max_length is not None and padding in (True, "longest"):
                warnings.warn(
                    f"max_length ({max_length}) changes nothing here; pass truncation=True to cut texts to it",
                    stacklevel=2,
                )
        strategy = _strategy(truncation)
        for name, value in (("max_length", max_length), ("pad_to_multiple_of", pad_to_multiple_of)):
            if value is not None:
                whole_number(name, value)
        side = check_side("padding_side", padding_side or self.padding_side)
        limit = max_length if max_length is not None else self.model_max_length
        if strategy is not None and limit is None:
            raise MinibertError(
                "truncation needs max_length, since the tokenizer's own limit is unknown; pass max_length="
            )
        if padding == "max_length" and limit is None:
            raise MinibertError("padding='max_length' needs max_length, since the tokenizer's own limit is unknown")
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise MinibertError(f"padding ({padding!r}) must be True, False, 'longest', 'max_length' or 'do_not_pad'")
        if return_tensors not in ("pt", "np", None):
            raise MinibertError(f"return_tensors ({return_tensors!r}) must be 'pt', 'np' or None")

        encodings = self.encode_texts(
            firsts,
            seconds,
            add_special_tokens=add_special_tokens,
            strategy=strategy,
            max_length=limit,
            is_split_into_words=is_split_into_words,
        )
        if padding not in (False, "do_not_pad"):
            longest = max((len(e) for e in encodings), default=0)
            length = limit if padding == "max_length" and limit is not None else longest
            if pad_to_multiple_of:
                length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
            for encoding in encodings:
                encoding.pad(length, direction=side, pad_id=self.pad_token_id, pad_token=self.pad_token)

        values: dict[str, Any] = {
            "input_ids": [e.ids for e in encodings],
            "token_type_ids": [e.type_ids for e in encodings],
            "attention_mask": [e.attention_mask for e in encodings],
        }
        if return_special_tokens_mask:
            values["special_tokens_mask"] = [e.special_tokens_mask for e in encodings]
        if return_offsets_mapping:
            values["offset_mapping"] = [e.offsets for e in encodings]
        if return_tensors is not None:
            lengths = sorted({len(e) for e in encodings})
            if len(lengths) > 1:
                raise MinibertError(
                    f"texts of one tensor must have equally many tokens; they have {lengths[0]} to {lengths[-1]}: "
                    "pass padding=True"
                )
            shape = (len(encodings), lengths[0] if lengths else 0)
            for name, rows in values.items():
                full = (*shape, 2) if name == "offset_mapping" else shape
                array = np.array(rows, dtype=np.int64).reshape(full)
                values[name] = torch.from_numpy(array) if return_tensors == "pt" else array
        elif not batched:
            values = {name: rows[0] for name, rows in values.items()}
        return BatchEncoding(values, encodings)

    def encode_texts(
        self,
        firsts: Sequence[str | Words],
        seconds: Sequence[str | Words] | None = None,
        *,
        add_special_tokens: bool = True,
        strategy: Truncation | None = None,
        max_length: int | None = None,
        is_split_into_words: bool = False,
    ) -> list[Encoding]:
        """The encodings of a batch, cut if asked, not padded; what `__call__` stands on."""
        check_text(firsts, is_split_into_words)
        whole = self.backend.encode_batch(firsts, is_pretokenized=is_split_into_words, add_special_tokens=False)
        if seconds is None:
            pairs: list[tuple[Encoding, Encoding | None]] = [(first, None) for first in whole]
        else:
            check_text(seconds, is_split_into_words)
            others = self.backend.encode_batch(seconds, is_pretokenized=is_split_into_words, add_special_tokens=False)
            pairs = list(zip(whole, others, strict=True))
        if strategy is not None and max_length is not None:
            special = self.backend.num_special_tokens_to_add(seconds is not None) if add_special_tokens else 0
            if max_length < special:
                raise MinibertError(
                    f"max_length ({max_length}) must be at least {special}, the number of special tokens"
                )
            for first, second in pairs:
                _cut(first, second, max_length - special, strategy, self.truncation_side)
        return [self.backend.post_process(first, second, add_special_tokens) for first, second in pairs]

    # Ids to text

    def decode(
        self,
        ids: int | Sequence[int] | torch.Tensor,
        skip_special_tokens: bool = False,
    ) -> str:
        """The text of ids: pieces joined to words, words by spaces, none before punctuation.

        It is the tokenizer's text, not the original one: lower-cased, say.
        """
        if isinstance(ids, (torch.Tensor, np.ndarray, np.integer)):
            ids = ids.tolist()
        values = [ids] if isinstance(ids, int) else list(ids)
        if not all(isinstance(i, (int, np.integer)) for i in values):
            raise MinibertError(
                f"ids ({values!r:.40}) must be whole numbers, those of one text; use batch_decode for several"
            )
        self.convert_ids_to_tokens(values)  # refuses ids that no token has
        return self.backend.decode(values, skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self, batch: Sequence[Sequence[int]] | torch.Tensor, skip_special_tokens: bool = False
    ) -> list[str]:
        """`decode` of each row."""
        return [self.decode(ids, skip_special_tokens) for ids in batch]


def check_side(name: str, side: Any) -> Side:
    """Refuse a side that is neither."""
    if side not in ("right", "left"):
        raise MinibertError(f"{name} ({side!r}) must be 'right' or 'left'")
    return side  # type: ignore[no-any-return]


def _batch(
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
        count = f"{len(pair)} texts" if isinstance(pair, (list, tuple)) else f"one {type(pair).__name__}"
        raise MinibertError(
            f"text_pair ({count}) must be a list as long as text ({len(text)}); pass one second text for each"
        )
    return True, text, pair


def _strategy(truncation: object) -> Truncation | None:
    if truncation is False or truncation == "do_not_truncate":
        return None
    if truncation is True:
        return "longest_first"
    if truncation == "longest_first" or truncation == "only_first" or truncation == "only_second":
        return truncation
    raise MinibertError(
        f"truncation ({truncation!r}) must be True, False, 'longest_first', 'only_first', 'only_second' or "
        "'do_not_truncate'"
    )


def _cut(first: Encoding, second: Encoding | None, room: int, strategy: Truncation, side: str) -> None:
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
        return
    if second is not None and strategy == "longest_first":
        short, long = sorted((len(first), len(second)))
        long = short if short > room else max(short, room - short)
        if short + long > room:
            short, long = room // 2, room - room // 2
        keep_first, keep_second = (long, short) if len(first) > len(second) else (short, long)
        first.truncate(keep_first, direction=side)
        second.truncate(keep_second, direction=side)
        return
    target = second if strategy == "only_second" else first
    if target is None or len(target) <= excess:
        held = "no second text" if target is None else f"{len(target)} tokens"
        raise MinibertError(
            f"truncation={strategy!r} must remove {excess} tokens from a text with {held}; "
            "pass a larger max_length or truncation='longest_first'"
        )
    target.truncate(len(target) - excess, direction=side)
