"""Text becomes token ids: cleaned, lower-cased, split into words, and words into WordPieces of the vocabulary.

The work is done by the `tokenizers` library; this file gives it BERT's settings and the outputs that models take.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import AddedToken, Encoding, Tokenizer, normalizers
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from typing_extensions import Self

from minibert.batch import (
    COLUMNS,
    BatchEncoding,
    Padding,
    Side,
    Split,
    TruncationStrategy,
    as_batch,
    check_options,
    columns_of,
    is_one_text,
    kind_of,
    padded_columns,
    padded_length,
    strategy_of,
    truncate,
)
from minibert.errors import MinibertError
from minibert.pretrained import vocabulary
from minibert.pretrained.hub import Repository
from minibert.pretrained.mixin import Pretrained
from minibert.text import check_text, counted, short

Ids = Sequence[int] | torch.Tensor


class SpecialTokenId:
    """An attribute of the tokenizer: the id of a special token; MinibertError where the vocabulary lacks it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_id")

    def __get__(self, tokenizer: BertTokenizer, owner: type) -> int:
        token = tokenizer.special_tokens[self.role]
        found = tokenizer.backend.token_to_id(token)
        if found is None:
            raise MinibertError(
                f"the vocabulary ({counted(len(tokenizer), 'token')}) must hold {token} for this; it does not"
            )
        return found


class BertTokenizer(Pretrained):
    """BERT's tokenizer.

    Args:
        vocab: the WordPiece vocabulary, as a dictionary or the path of a `vocab.txt`; or a tokenizer of the
            `tokenizers` library, which has rules of its own in place of the three settings that follow.
        do_lower_case: the model is an uncased one.
        tokenize_chinese_chars: each Chinese character is a word of its own.
        strip_accents: remove accents; None: if `do_lower_case`.
        model_max_length: the number of tokens that `truncation=True` leaves; None: unknown.
        padding_side, truncation_side: where texts are padded and truncated, "right" or "left".
        unk_token, sep_token, pad_token, cls_token, mask_token: the special tokens as the vocabulary spells them.

    Raises:
        MinibertError: the vocabulary lacks a special token without which no text can be encoded.

    Source: Devlin et al. 2018, sec. 3; google-research/bert `tokenization.FullTokenizer`.
    """

    unk_token: str
    sep_token: str
    pad_token: str
    cls_token: str
    mask_token: str
    unk_token_id = SpecialTokenId()
    sep_token_id = SpecialTokenId()
    pad_token_id = SpecialTokenId()
    cls_token_id = SpecialTokenId()
    mask_token_id = SpecialTokenId()
    model_input_names = ("input_ids", "token_type_ids", "attention_mask")  # transformers' Trainer reads this

    def __init__(
        self,
        vocab: Mapping[str, int] | str | Path | Tokenizer,
        *,
        do_lower_case: bool = True,
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        model_max_length: int | None = None,
        padding_side: Side = "right",
        truncation_side: Side = "right",
        **special_tokens: str,
    ) -> None:
        wrong = sorted(special_tokens.keys() - vocabulary.SPECIAL_TOKENS)
        if wrong:
            raise TypeError(
                f"{', '.join(wrong)} must be an argument of BertTokenizer; see help(minibert.BertTokenizer)"
            )
        self.special_tokens = {**vocabulary.SPECIAL_TOKENS, **special_tokens}
        vars(self).update(self.special_tokens)
        if isinstance(vocab, Tokenizer):
            self.backend = vocabulary.prepared(vocab, self.special_tokens)
        else:
            rules = {
                "do_lower_case": do_lower_case,
                "tokenize_chinese_chars": tokenize_chinese_chars,
                "strip_accents": strip_accents,
            }
            self.backend = vocabulary.wordpiece_tokenizer(vocab, {**rules, **self.special_tokens})
        self.model_max_length = model_max_length
        check_options(padding_side=padding_side, truncation_side=truncation_side)
        self.padding_side, self.truncation_side = padding_side, truncation_side

    @classmethod
    def from_repository(cls, repository: Repository, **settings: Any) -> Self:
        """The tokenizer of an opened checkpoint: its `tokenizer.json`, or its `vocab.txt`.

        `settings` are the arguments of the class. They win over the files, and `tokenizer_config.json` over the others.
        """
        backend, decided = vocabulary.read(repository, settings)
        return cls(backend, **decided)

    def _save(self, folder: Path) -> None:
        settings = {name: getattr(self, name) for name in (*vocabulary.SIDES, "model_max_length")}
        known = {name: value for name, value in settings.items() if value is not None}
        vocabulary.save(self.backend, self.special_tokens, known, folder)

    # Vocabulary

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id."""
        return self.backend.get_vocab()

    def __len__(self) -> int:
        return self.backend.get_vocab_size()

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self)

    def lower_cased(self) -> Self:
        """This tokenizer or, if it keeps capitals, a copy of it that does not."""
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
        return normalizer is not None and "A" not in normalizer.normalize_str("A")

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the special tokens: those with a role that the vocabulary holds, then those added as special."""
        ids = [self.backend.token_to_id(token) for token in self.special_tokens.values()]
        ids += [number for number, token in self.backend.get_added_tokens_decoder().items() if token.special]
        return [found for found in dict.fromkeys(ids) if found is not None]

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens to the end of the vocabulary. They are found whole in texts, before these are split into words.

        The model needs a row for each: `model.resize_token_embeddings(len(tokenizer))`; until then, it rejects a text
        with one of them. The tokenizer gets another backend in one step, so a thread that encodes meanwhile does so
        with or without all of the new tokens. This takes as long as reading a tokenizer.json: add all tokens at once.

        Args:
            new_tokens: a token, or several; an `AddedToken` of the `tokenizers` library says how it is found.
            special_tokens: `decode` skips them if asked to, and masking leaves them alone.

        Returns:
            How many were added, as the library counts them: a token that only the vocabulary had counts.

        Raises:
            MinibertError: what is no token.
        """
        tokens = list(new_tokens) if isinstance(new_tokens, (list, tuple)) else [new_tokens]
        for token in tokens:
            if not isinstance(token, (str, AddedToken)) or str(token) != str(token).encode("utf-8", "ignore").decode():
                raise MinibertError(
                    f"new_tokens ({short(token)}) must be a str without lone surrogates or an AddedToken"
                )
        if not tokens:
            return 0
        backend = vocabulary.prepared(copy.deepcopy(self.backend), self.special_tokens)
        added: int = (backend.add_special_tokens if special_tokens else backend.add_tokens)(tokens)
        self.backend = backend
        return added

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """`add_tokens` with transformers' names for special ones, `{"additional_special_tokens": ["[E1]", "[E2]"]}`.

        Raises:
            MinibertError: a token for a role, such as `pad_token`, other than the one that has it.
        """
        tokens: list[str | AddedToken] = []
        for name, value in special_tokens_dict.items():
            if name in ("additional_special_tokens", "extra_special_tokens"):
                tokens += value if isinstance(value, (list, tuple)) else [value]
            elif str(value) != self.special_tokens.get(name):
                raise MinibertError(
                    f"{name} ({short(str(value))}) must be {self.special_tokens.get(name)!r:.40} here; pass {name}= "
                    "when you load the tokenizer, or add the token as one of additional_special_tokens"
                )
        return self.add_tokens(tokens, special_tokens=True) if tokens else 0

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or of each token of a list; that of [UNK] for what the vocabulary lacks."""
        if isinstance(tokens, str):
            found = self.backend.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Ids, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each id of a list.

        Raises:
            MinibertError: an id that no token has.
        """
        ids = _plain(ids)
        if isinstance(ids, int):
            token = self.backend.id_to_token(ids) if ids >= 0 else None
            if token is None:
                raise MinibertError(f"id ({ids}) must be that of a token; the vocabulary has {len(self)}")
            return token
        skipped = self.all_special_ids if skip_special_tokens else ()
        return [self.convert_ids_to_tokens(int(i)) for i in ids if int(i) not in skipped]

    # Text to ids

    def word_spans(self, text: str) -> list[tuple[int, int]] | None:
        """(start, end) of the words of a text, punctuation marks included, where the tokenizer's own are not words.

        None for WordPiece. The words of other tokenizers may begin with a space and end with a comma, so theirs are
        those that BERT's would find.
        """
        if isinstance(self.backend.model, WordPiece):
            return None
        return [span for _, span in BertPreTokenizer().pre_tokenize_str(text)]

    def spelled(self, token: str) -> tuple[str, bool]:
        """A token as text, and whether it continues the word before it: ("ing", True) for `##ing`."""
        if isinstance(self.backend.model, WordPiece):
            prefix = self.backend.model.continuing_subword_prefix
            return token.removeprefix(prefix), token.startswith(prefix)
        if self.backend.decoder is None:
            return token, False
        after = self.backend.decoder.decode(["a", token])[1:]  # a space is only written between two tokens
        return after.strip(), not after.startswith(" ")

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text; special tokens that are written in it stay whole."""
        return self(text, pair, add_special_tokens=add_special_tokens).tokens()

    def encode(self, text: str | Split, text_pair: str | Split | None = None, **arguments: Any) -> Any:
        """The ids of one text or pair; `arguments` as for a call."""
        return self(text, text_pair, **arguments)["input_ids"]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Split],
        text_pair: str | Sequence[str] | Sequence[Split] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | Padding = False,
        truncation: bool | TruncationStrategy | None = None,
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
            truncation: True or "longest_first": the longer text of a pair first; "only_first"; "only_second"; False.
                None, as in transformers: True if `max_length` is given and `padding` is not.
            max_length: tokens, special ones included; `model_max_length` when None.
            pad_to_multiple_of: with padding, round the length up to a multiple of this.
            padding_side: the tokenizer's when None.
            return_tensors: "pt" or "np"; lists when None.
            return_offsets_mapping: for each token, its (start, end) in characters of its text.

        Returns:
            int64 `input_ids`, `token_type_ids` and `attention_mask`: (B, S) tensors or lists; flat lists for one text.

        Raises:
            MinibertError: what is not text; lengths that cannot be made into a tensor; a limit that cannot be kept.
        """
        side = padding_side or self.padding_side
        check_options(padding=padding, padding_side=side, return_tensors=return_tensors)
        check_options(max_length=max_length, pad_to_multiple_of=pad_to_multiple_of)
        batched, firsts, seconds = as_batch(text, text_pair, is_split_into_words)
        strategy = strategy_of(truncation, max_length, padding)
        limit = max_length or self.model_max_length
        if limit is None and (strategy or padding == "max_length"):
            asked = "truncation" if strategy else "padding='max_length'"
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
        optional = {"special_tokens_mask": return_special_tokens_mask, "offset_mapping": return_offsets_mapping}
        encoded = BatchEncoding.of(encodings, [name for name in COLUMNS if optional.get(name, True)], return_tensors)
        if not batched and return_tensors is None:
            encoded.update({name: rows[0] for name, rows in encoded.items()})
        return encoded

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | Padding = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: Literal["pt", "np"] | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pad texts that were encoded one by one. The data collators of transformers call this.

        Args:
            encoded_inputs: a list of dicts with `input_ids`, a dict of lists of them, or one text.
            padding, max_length, pad_to_multiple_of, padding_side: as for a call.
            return_tensors: as for a call; but None gives tensors or arrays where these are given.
            return_attention_mask: False adds none where there is none.
            verbose: ignored.

        Returns:
            The columns; those that are not the tokenizer's own, such as labels, are not padded.

        Raises:
            MinibertError: texts without `input_ids`; columns that cannot be made into a tensor.
        """
        side = padding_side or self.padding_side
        check_options(padding=padding, padding_side=side, return_tensors=return_tensors)
        check_options(max_length=max_length, pad_to_multiple_of=pad_to_multiple_of)
        single = isinstance(encoded_inputs, Mapping) and is_one_text(encoded_inputs.get("input_ids"))
        columns = columns_of([encoded_inputs] if single else encoded_inputs)
        ids = columns["input_ids"]
        if return_attention_mask is not False:
            columns.setdefault("attention_mask", [[1] * len(row) for row in ids])
        if padding not in (False, "do_not_pad"):
            limit = (max_length or self.model_max_length) if padding == "max_length" else None
            length = padded_length(ids, limit, pad_to_multiple_of)
            fillers = {"input_ids": self.pad_token_id, "attention_mask": 0, "token_type_ids": 0}
            columns = padded_columns(columns, length, side, {**fillers, "special_tokens_mask": 1})
        encoded = BatchEncoding.of_columns(columns, return_tensors or kind_of(encoded_inputs))
        if single:
            encoded.update({name: rows[0] for name, rows in encoded.items()})
        return encoded

    def get_special_tokens_mask(
        self, token_ids_0: Ids, token_ids_1: Ids | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """For each token, 1 if it is a special one. transformers' collator for masked language models calls this.

        Raises:
            MinibertError: ids without their special tokens.
        """
        if not already_has_special_tokens or token_ids_1 is not None:
            raise MinibertError(
                f"already_has_special_tokens ({already_has_special_tokens}) must be True, with the ids of one call; "
                "pass return_special_tokens_mask=True to the tokenizer for the masks of texts"
            )
        special = set(self.all_special_ids)
        return [int(int(i) in special) for i in _plain(token_ids_0)]

    def encode_texts(
        self,
        firsts: Sequence[str | Split],
        seconds: Sequence[str | Split] | None = None,
        *,
        add_special_tokens: bool = True,
        strategy: TruncationStrategy | None = None,
        max_length: int | None = None,
        is_split_into_words: bool = False,
    ) -> list[Encoding]:
        """The encodings of a batch, truncated by `strategy` if there is one, and not padded.

        The library's own truncation is a setting of the tokenizer that all threads share, so it is not used.
        """
        backend = self.backend  # one for the whole batch, whatever `add_tokens` does meanwhile
        sides: list[list[Encoding]] = []
        for texts in (firsts,) if seconds is None else (firsts, seconds):
            check_text(texts, is_split_into_words)
            sides.append(backend.encode_batch(texts, is_pretokenized=is_split_into_words, add_special_tokens=False))
        pairs = list(zip(*sides, strict=True)) if seconds is not None else [(first, None) for first in sides[0]]
        if strategy is not None and max_length is not None:
            special = backend.num_special_tokens_to_add(seconds is not None) if add_special_tokens else 0
            if max_length < special:
                raise MinibertError(
                    f"max_length ({max_length}) must be at least {special}, the number of special tokens"
                )
            for first, second in pairs:
                truncate(first, second, max_length - special, strategy, self.truncation_side)
        return [backend.post_process(first, second, add_special_tokens) for first, second in pairs]

    # Ids to text

    def decode(self, ids: int | Ids, skip_special_tokens: bool = False) -> str:
        """The text of ids: pieces joined to words, words by spaces, none before punctuation.

        It is the text after the tokenizer's rules: lower-cased, say.
        """
        ids = _plain(ids)
        values = [ids] if isinstance(ids, int) else list(ids)
        if not all(isinstance(i, (int, np.integer)) for i in values):
            raise MinibertError(
                f"ids ({values!r:.40}) must be whole numbers, those of one text; use batch_decode for several"
            )
        self.convert_ids_to_tokens(values)  # rejects ids that no token has
        return self.backend.decode(values, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, batch: Sequence[Ids] | torch.Tensor, skip_special_tokens: bool = False) -> list[str]:
        """`decode` of each row."""
        return [self.decode(ids, skip_special_tokens) for ids in batch]


def _plain(ids: Any) -> Any:
    """A tensor or array as numbers of Python."""
    return ids.tolist() if isinstance(ids, (torch.Tensor, np.ndarray, np.integer)) else ids
