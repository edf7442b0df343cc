"""Checks of a `tokenizer.json` from somebody else, made before the `tokenizers` library reads it.

The library trusts the file. A wrong size in it can end the process, and a few rules that each make a text longer can
make it grow without bound. Only the kinds of rules and the sizes that real tokenizers have are accepted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from minibert.errors import MinibertError
from minibert.text import short

LONGEST_TOKEN = 1_000  # characters
MOST_TOKENS = 10_000_000
LONGEST_WORD = 10_000  # `max_input_chars_per_word`: WordPiece takes time with the square of it
LONGEST_INSERTION = 100  # characters that a rule puts into a text at one place
MOST_GROWTH = 100  # how much longer all normalizers together may make a text
DEEPEST = 10  # sequences of rules within sequences

KINDS = {
    "normalizer": (
        *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend"),
        *("Replace", "Sequence", "Strip", "StripAccents"),
    ),
    "pre_tokenizer": (
        *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace", "Punctuation"),
        *("Sequence", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
    ),
    "post_processor": ("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"),
    "decoder": (
        *("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Sequence", "Strip"),
        "WordPiece",
    ),
}


def check_tokenizer(content: Any, source: str) -> None:
    """Reject a parsed `tokenizer.json` that the library should not be given.

    Args:
        content: the parsed file.
        source: the file, to begin messages with.

    Raises:
        MinibertError: the first rule that it breaks.
    """
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise MinibertError(f"{source} must be a tokenizer of the tokenizers library; it has no model: fetch it again")
    ids = _check_model(content["model"], source)
    _check_added(content.get("added_tokens"), ids, source)
    growth = 1
    for part in KINDS:
        for rule in _rules(content.get(part), part, source, DEEPEST):
            growth *= _growth(rule, part, source)
    if growth > MOST_GROWTH:
        raise MinibertError(
            f"the normalizers of {source} must not make a text more than {MOST_GROWTH} times as long; they can make it "
            f"{growth:,} times as long: use a tokenizer from a source you trust"
        )


def _check_model(model: Mapping[str, Any], source: str) -> set[int]:
    """Check the vocabulary; returns the ids."""
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        tokens, ids = list(vocab), list(vocab.values())
    elif isinstance(vocab, list) and all(isinstance(row, list) and len(row) == 2 for row in vocab):  # Unigram
        tokens, ids = [token for token, _ in vocab], list(range(len(vocab)))
    else:
        raise MinibertError(f"the vocab of {source} ({short(vocab)}) must be tokens with ids or scores; fetch it again")
    if not tokens or len(tokens) > MOST_TOKENS:
        raise MinibertError(f"the vocab of {source} ({len(tokens):,} tokens) must have 1 to {MOST_TOKENS:,} tokens")
    for token in tokens:
        if not isinstance(token, str) or len(token) > LONGEST_TOKEN:
            raise MinibertError(
                f"a token of {source} ({short(token)}) must be text of at most {LONGEST_TOKEN} characters"
            )
    if not all(type(number) is int and 0 <= number < MOST_TOKENS for number in ids):
        wrong = next(number for number in ids if not (type(number) is int and 0 <= number < MOST_TOKENS))
        raise MinibertError(f"an id of {source} ({short(wrong)}) must be a whole number from 0 to {MOST_TOKENS - 1:,}")
    _check_unknown(model, vocab, source)
    longest = model.get("max_input_chars_per_word", 100)
    if type(longest) is not int or not 0 < longest <= LONGEST_WORD:
        raise MinibertError(f"max_input_chars_per_word of {source} ({short(longest)}) must be 1 to {LONGEST_WORD}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        value = model.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > LONGEST_INSERTION):
            raise MinibertError(f"{name} of {source} ({short(value)}) must be text of at most {LONGEST_INSERTION}")
    return set(ids)


def _check_unknown(model: Mapping[str, Any], vocab: Any, source: str) -> None:
    """A model needs a token for what its vocabulary lacks; BPE of bytes lacks nothing."""
    if isinstance(vocab, list):
        unknown = model.get("unk_id")
        if model.get("byte_fallback") and unknown is None:
            return
        if type(unknown) is not int or not 0 <= unknown < len(vocab):
            raise MinibertError(
                f"unk_id of {source} ({short(unknown)}) must be the number of a token, which stands for characters "
                "that the vocabulary lacks; add it to the file"
            )
        return
    unknown = model.get("unk_token")
    if (unknown is not None or "merges" not in model) and (not isinstance(unknown, str) or unknown not in vocab):
        raise MinibertError(
            f"unk_token of {source} ({short(unknown)}) must be a token of its vocabulary, which stands for words that "
            "it lacks; correct the file"
        )


def _check_added(added: Any, ids: set[int], source: str) -> None:
    if added is None:
        return
    if not isinstance(added, list):
        raise MinibertError(f"added_tokens of {source} ({short(added)}) must be a list; correct the file")
    for token in added:
        content, number = (token.get("content"), token.get("id")) if isinstance(token, dict) else (None, None)
        right = isinstance(content, str) and 0 < len(content) <= LONGEST_TOKEN
        if not right or type(number) is not int or not 0 <= number < MOST_TOKENS:
            raise MinibertError(
                f"an added token of {source} ({short(token)}) must have a text of 1 to {LONGEST_TOKEN} characters as "
                "content and a whole number as id; correct the file"
            )


def _rules(value: Any, part: str, source: str, depth: int) -> Iterator[Mapping[str, Any]]:
    """The rules of a part of the file, those of sequences included."""
    if value is None:
        return
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in KINDS[part]:
        raise MinibertError(f"a {part} of {source} ({short(kind or value)}) must be one of {', '.join(KINDS[part])}")
    inner = [value.get(name) for name in ("normalizers", "pretokenizers", "processors", "decoders") if name in value]
    if kind == "Sequence":
        if depth == 0 or len(inner) != 1 or not isinstance(inner[0], list):
            raise MinibertError(f"a Sequence of {source} must be a list of rules, and at most {DEEPEST} of them nested")
        for one in inner[0]:
            if one is not None:
                yield from _rules(one, part, source, depth - 1)
        return
    yield value


def _growth(rule: Mapping[str, Any], part: str, source: str) -> int:
    """How many times as long a rule can make a text.

    Raises:
        MinibertError: it holds something that no real tokenizer has.
    """
    kind = rule["type"]
    if kind == "Precompiled":
        _check_charsmap(rule.get("precompiled_charsmap"), source)
    inserted = [rule[name] for name in ("content", "prepend", "replacement", "prefix") if name in rule]
    if not all(isinstance(text, str) and len(text) <= LONGEST_INSERTION for text in inserted):
        raise MinibertError(
            f"a {kind} of {source} ({short(inserted)}) must put text of at most {LONGEST_INSERTION} characters into a "
            "text; use a tokenizer from a source you trust"
        )
    if kind not in ("Replace", "Split"):
        return 1
    pattern = rule.get("pattern")
    texts = list(pattern.values()) if isinstance(pattern, dict) and pattern.keys() <= {"String", "Regex"} else []
    if len(texts) != 1 or not isinstance(texts[0], str) or not 0 < len(texts[0]) <= LONGEST_TOKEN:
        raise MinibertError(
            f"the pattern of a {kind} of {source} ({short(pattern)}) must be a String or Regex that is not empty; "
            "correct the file"
        )
    if kind == "Split" or part != "normalizer":
        return 1
    # a regular expression may match a single character
    matched = len(texts[0]) if "String" in rule["pattern"] else 1
    return max(1, -(-len(rule.get("content") or "") // matched))


def _check_charsmap(charsmap: Any, source: str) -> None:
    """The size that a SentencePiece charsmap claims for its trie must be one that it has."""
    try:
        data = base64.b64decode(charsmap or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        data = b"\xff" * 4
    claimed = int.from_bytes(data[:4], "little")
    if data and (len(data) < 4 or claimed % 4 or claimed > len(data) - 4):
        raise MinibertError(
            f"precompiled_charsmap of {source} ({short(charsmap)}) must be base64 of a charsmap whose sizes fit; fetch "
            "it again"
        )
