"""Text becomes token ids: cleaned, lower-cased, split into words, and words into WordPieces of the vocabulary.

The work is done by the `tokenizers` library; this file gives it BERT's settings and the shape that models want.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer, normalizers
from typing_extensions import Self

from minibert.batch import (
    PADDINGS,
    SIDES,
    TENSORS,
    BatchEncoding,
    Padding,
    Side,
    Truncation,
    Words,
    as_batch,
    as_tensors,
    check_choice,
    columns,
    padded_length,
    strategy_of,
    truncate,
)
from minibert.errors import MinibertError
from minibert.pretrained import vocabulary
from minibert.pretrained.hub import Repository
from minibert.pretrained.mixin import Pretrained
from minibert.pretrained.vocabulary import SPECIAL_TOKENS
from minibert.text import check_text, counted, whole_number


class SpecialTokenId:
    """An attribute of the tokenizer: the id of a special token; ValueError where the vocabulary lacks it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, tokenizer: BertTokenizer, owner: type) -> int:
        token = tokenizer.special_tokens[self.name]
        found = tokenizer.backend.token_to_id(token)
        if found is None:
            raise MinibertError(
                f"the vocabulary ({counted(len(tokenizer), 'token')}) must hold {token} for this; it does not"
            )
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
        MinibertError: the vocabulary lacks a special token without which no text can be encoded.

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
        self.padding_side = check_choice("padding_side", padding_side, SIDES)
        self.truncation_side = check_choice("truncation_side", truncation_side, SIDES)
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
            MinibertError: an id that no token has.
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
        padding: bool | Padding = False,
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
            MinibertError: what is not text; lengths that cannot be made into a tensor; a limit that cannot be kept.
        """
        batched, firsts, seconds = as_batch(text, text_pair, is_split_into_words)
        for name, value in (("max_length", max_length), ("pad_to_multiple_of", pad_to_multiple_of)):
            if value is not None:
                whole_number(name, value)
        check_choice("padding", padding, PADDINGS)
        check_choice("return_tensors", return_tensors, TENSORS)
        side = check_choice("padding_side", padding_side or self.padding_side, SIDES)
        strategy = strategy_of(truncation, max_length, padding)
        limit = max_length if max_length is not None else self.model_max_length
        if limit is None and (strategy is not None or padding == "max_length"):
            asked = "truncation" if strategy is not None else "padding='max_length'"
            raise MinibertError(
                f"{asked} needs max_length, since the tokenizer's own limit is unknown; pass max_length="
            )

        encodings = self.encode_texts(
            firsts,
            seconds,
            add_special_tokens=add_special_tokens,
            strategy=strategy,
            max_length=limit,
            is_split_into_words=is_split_into_words,
        )
        if padding not in (False, "do_not_pad"):
            length = padded_length(encodings, limit if padding == "max_length" else None, pad_to_multiple_of)
            for encoding in encodings:
                encoding.pad(length, direction=side, pad_id=self.pad_token_id, pad_token=self.pad_token)
        values: dict[str, Any] = columns(encodings, return_special_tokens_mask, return_offsets_mapping)
        if return_tensors is not None:
            values = as_tensors(values, return_tensors)
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
                truncate(first, second, max_length - special, strategy, self.truncation_side)
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
