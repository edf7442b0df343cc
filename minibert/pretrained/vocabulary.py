"""From the files of a tokenizer to a tokenizer of the `tokenizers` library with BERT's settings, and back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from minibert.pretrained.files import write_text
from minibert.pretrained.hub import Repository

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# Our names of the normalizer's switches, which are those of `tokenizer_config.json`, and the library's.
SWITCHES = {
    "do_lower_case": "lowercase",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "strip_accents": "strip_accents",
}
# Larger than any real limit: what transformers writes when there is none.
NO_LIMIT = 10**9


def wordpiece(vocab: Mapping[str, int] | str | Path, settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer over a vocabulary, given as a dictionary or as the path of a `vocab.txt`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the vocabulary lacks a special token without which no text can be encoded.

    Source: google-research/bert `tokenization.FullTokenizer`.
    """
    entries = _read_lines(Path(vocab)) if isinstance(vocab, (str, Path)) else dict(vocab)
    names = {**SPECIAL_TOKENS, **{name: settings[name] for name in SPECIAL_TOKENS if name in settings}}
    unk, cls, sep = names["unk_token"], names["cls_token"], names["sep_token"]
    lacking = [token for token in (unk, cls, sep) if token not in entries]
    if lacking:
        raise ValueError(
            f"the vocabulary ({len(entries)} entries) must hold {', '.join(lacking)}; it is not that of a BERT"
        )
    backend = Tokenizer(WordPiece(entries, unk_token=unk))
    backend.normalizer = normalizers.BertNormalizer(
        **{theirs: settings[ours] for ours, theirs in SWITCHES.items() if ours in settings}
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, entries[token]) for token in (cls, sep)],
    )
    return prepared(backend, names)


def prepared(backend: Tokenizer, special_tokens: Mapping[str, str]) -> Tokenizer:
    """The tokenizer, with special tokens whole wherever they are written, and without limits of its own.

    Its settings are never changed after this, so that threads can share it: texts are cut and padded afterwards.
    """
    backend.no_truncation()
    backend.no_padding()
    present = [token for token in special_tokens.values() if backend.token_to_id(token) is not None]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in present])
    return backend


def read(repository: Repository, settings: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer of a repository: `tokenizer.json` or else `vocab.txt`, as `tokenizer_config.json` says.

    Args:
        repository: where the files are.
        settings: win over the files; `tokenizer_config.json` wins over `tokenizer.json`.

    Returns:
        The tokenizer, and what was decided: special tokens, switches, `model_max_length`.

    Raises:
        FileNotFoundError: the repository has no vocabulary.
        ValueError: a file that is broken, or not that of a BERT.
    """
    written = repository.json("tokenizer_config.json") or {}
    names = (*SPECIAL_TOKENS, *SWITCHES, "model_max_length")
    decided = {name: written[name] for name in names if written.get(name) is not None}
    for name in SPECIAL_TOKENS:
        if isinstance(decided.get(name), dict):  # an AddedToken, spelled out
            decided[name] = decided[name]["content"]
    decided.update(settings)
    if decided.get("model_max_length") is not None and decided["model_max_length"] >= NO_LIMIT:
        del decided["model_max_length"]

    path = repository.file("tokenizer.json")
    if path is not None:
        return _read_json(path, decided), decided
    kind = str(written.get("tokenizer_class") or "BertTokenizer")
    if not kind.removesuffix("Fast").endswith("BertTokenizer"):
        raise ValueError(
            f"the tokenizer_class of {repository} ({kind}) must be BertTokenizer where there is no tokenizer.json; "
            "another one would give other ids: load the tokenizer with transformers"
        )
    path = repository.file("vocab.txt")
    if path is None:
        raise FileNotFoundError(
            f"{repository} must hold tokenizer.json or vocab.txt; it has neither, so its text cannot become ids"
        )
    backend = wordpiece(path, decided)
    special = {*SPECIAL_TOKENS.values(), *(decided.get(name) for name in SPECIAL_TOKENS)}
    capitals = any(token.isascii() and token != token.lower() for token in set(backend.get_vocab()) - special)
    if capitals and "do_lower_case" not in decided:
        warnings.warn(
            f"{repository} does not say do_lower_case, and its vocabulary has capitals, which lower-casing (BERT's "
            "default, used here) never finds; pass do_lower_case=False if the model is a cased one",
            stacklevel=4,
        )
    return backend, decided


def save(backend: Tokenizer, settings: Mapping[str, Any], folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `vocab.txt` into `folder`."""
    switches = {ours: getattr(backend.normalizer, theirs, None) for ours, theirs in SWITCHES.items()}
    config = {"tokenizer_class": "BertTokenizer", **switches, **settings}
    vocab = backend.get_vocab()
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)))


def _read_lines(path: Path) -> dict[str, int]:
    """One token a line, whose number is its id."""
    if not path.is_file():
        raise FileNotFoundError(f"the vocabulary ({path}) must be a file with one token a line; there is none")
    with path.open(encoding="utf-8") as lines:
        return {line.rstrip("\n"): index for index, line in enumerate(lines)}


def _read_json(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    try:
        backend = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more exact
        raise ValueError(f"{path} must be a tokenizer of the tokenizers library; it is not: {error}") from error
    if not isinstance(backend.model, WordPiece):
        kind = type(backend.model).__name__
        raise ValueError(f"the model of {path} ({kind}) must be WordPiece; load it with the tokenizers library")
    normalizer = backend.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        for ours, theirs in SWITCHES.items():
            if ours in settings:
                setattr(normalizer, theirs, settings[ours])
        backend.normalizer = normalizer
    return prepared(
        backend, {**SPECIAL_TOKENS, **{name: settings[name] for name in SPECIAL_TOKENS if name in settings}}
    )
