"""Checks of a `tokenizer.json` from somebody else, made before the `tokenizers` library reads it.

The library trusts the file. A wrong size in it can end the process, and a few rules that each make a text longer can
make it grow without bound. Only the kinds of rules and the sizes that real tokenizers have are accepted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

from minibert.errors import MinibertError
from minibert.text import short

MOST_BYTES = 256 * 2**20  # of a file; those of real vocabularies of 250,000 tokens have some 20 MB
LONGEST_TOKEN = 1_000  # characters
LONGEST_PATTERN = 10_000  # characters; some real ones list ranges of all scripts
MOST_TOKENS = 10_000_000
LONGEST_WORD = 1_000  # `max_input_chars_per_word`: a word of 1,000 letters may take 0.05 s, one of 10,000 30 s
LONGEST_INSERTION = 100  # characters that a rule puts into a text at one place
MOST_GROWTH = 256  # how much longer all rules together may make a text; SentencePiece's own make one 36 times as long
MOST_RULES = 100
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
    _check_model(content, source)
    _check_added(content.get("added_tokens"), source)
    for parts in (("normalizer", "pre_tokenizer"), ("post_processor",), ("decoder",)):
        rules = [(part, rule) for part in parts for rule in _rules(content.get(part), part, source, DEEPEST)]
        if len(rules) > MOST_RULES:
            raise MinibertError(f"the {parts[0]} of {source} ({len(rules):,} rules) must have at most {MOST_RULES}")
        growth = 1
        for part, rule in rules:
            growth = min(growth * _growth(rule, part, source), 10**12)
        if growth > MOST_GROWTH:
            raise MinibertError(
                f"the rules of {source} must not make a text more than {MOST_GROWTH} times as long; its {parts[0]} can "
                f"make it {growth:,} times as long: use a tokenizer from a source you trust"
            )


def claimed_ids(content: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The (token, id) that a checked file says beside its vocabulary, some of which the library passes over."""
    for token in content.get("added_tokens") or ():
        yield token["content"], token["id"]
    for rule in _rules(content.get("post_processor"), "post_processor", "", DEEPEST):
        for name in ("cls", "sep"):  # of BertProcessing and RobertaProcessing
            if name in rule:
                yield tuple(rule[name])
        for special in (rule.get("special_tokens") or {}).values():
            yield from zip(special["tokens"], special["ids"], strict=True)


def _check_model(content: Mapping[str, Any], source: str) -> None:
    model = content["model"]
    vocab = model.get("vocab")
    ids: list[Any] = []
    if isinstance(vocab, dict):
        tokens, ids = list(vocab), list(vocab.values())
    elif isinstance(vocab, list) and set(map(type, vocab)) <= {list} and set(map(len, vocab)) <= {2}:  # Unigram
        tokens = [token for token, _ in vocab]
    else:
        raise MinibertError(f"the vocab of {source} ({short(vocab)}) must be tokens with ids or scores; fetch it again")
    if not tokens or len(tokens) > MOST_TOKENS:
        raise MinibertError(f"the vocab of {source} ({len(tokens):,} tokens) must have 1 to {MOST_TOKENS:,} tokens")
    # whole lists at once, since a vocabulary may have 250,000 tokens
    if set(map(type, tokens)) != {str} or max(map(len, tokens)) > LONGEST_TOKEN:
        wrong = next(token for token in tokens if not isinstance(token, str) or len(token) > LONGEST_TOKEN)
        raise MinibertError(f"a token of {source} ({short(wrong)}) must be text of at most {LONGEST_TOKEN} characters")
    if ids and (set(map(type, ids)) != {int} or min(ids) < 0 or max(ids) >= MOST_TOKENS):
        wrong = next(number for number in ids if type(number) is not int or not 0 <= number < MOST_TOKENS)
        raise MinibertError(f"an id of {source} ({short(wrong)}) must be a whole number from 0 to {MOST_TOKENS - 1:,}")
    if len(set(ids)) < len(ids):
        raise MinibertError(
            f"the ids of {source} must differ; some of its {len(ids):,} tokens share one: fetch it again"
        )
    _check_unknown(content, vocab, source)
    longest = model.get("max_input_chars_per_word", 100)
    if type(longest) is not int or not 0 < longest <= LONGEST_WORD:
        raise MinibertError(f"max_input_chars_per_word of {source} ({short(longest)}) must be 1 to {LONGEST_WORD}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        value = model.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > LONGEST_INSERTION):
            raise MinibertError(f"{name} of {source} ({short(value)}) must be text of at most {LONGEST_INSERTION}")


def _check_unknown(content: Mapping[str, Any], vocab: Any, source: str) -> None:
    """A model needs a token for what its vocabulary lacks; BPE of bytes lacks nothing, Unigram of bytes needs it."""
    model = content["model"]
    if isinstance(vocab, list):
        unknown = model.get("unk_id")
        if type(unknown) is not int or not 0 <= unknown < len(vocab):
            raise MinibertError(
                f"unk_id of {source} ({short(unknown)}) must be the number of a token, which stands for characters "
                "that the vocabulary lacks; add it to the file"
            )
        return
    unknown = model.get("unk_token")
    if "merges" in model and (unknown is None or _has_all_bytes(content, vocab, source)):
        return
    if not isinstance(unknown, str) or unknown not in vocab:
        raise MinibertError(
            f"unk_token of {source} ({short(unknown)}) must be a token of its vocabulary, which stands for words that "
            "it lacks; correct the file"
        )


def _has_all_bytes(content: Mapping[str, Any], vocab: Mapping[str, Any], source: str) -> bool:
    parts = ("normalizer", "pre_tokenizer")
    kinds = [rule["type"] for part in parts for rule in _rules(content.get(part), part, source, DEEPEST)]
    return "ByteLevel" in kinds and vocab.keys() >= set(pre_tokenizers.ByteLevel.alphabet())


def _check_added(added: Any, source: str) -> None:
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
    """How many times as many characters a rule can make of a text, at most.

    Raises:
        MinibertError: it holds something that no real tokenizer has.
    """
    kind = rule["type"]
    inserted = [rule[name] for name in ("content", "prepend", "replacement", "prefix") if name in rule]
    if not all(isinstance(text, str) and len(text) <= LONGEST_INSERTION for text in inserted):
        raise MinibertError(
            f"a {kind} of {source} ({short(inserted)}) must put text of at most {LONGEST_INSERTION} characters into a "
            "text; use a tokenizer from a source you trust"
        )
    if kind == "Precompiled":
        return _check_charsmap(rule.get("precompiled_charsmap"), source)
    if kind == "ByteLevel":
        return 4  # a character has up to four bytes, each of which becomes a character
    if kind == "Metaspace":
        return 2  # it begins each piece of a text, which may be a character
    if kind == "Prepend":
        return 1 + len(rule.get("prepend") or "")  # the same for what is between two added tokens
    if kind in ("Replace", "Split"):
        return _check_pattern(rule, kind, source)
    if kind == "TemplateProcessing":
        _check_template(rule, source)
    length, stop = rule.get("length", 1), rule.get("stop", 0)
    if kind == "FixedLength" and not (type(length) is int and length > 0):
        raise MinibertError(f"the length of a FixedLength of {source} ({short(length)}) must be at least 1; correct it")
    if part == "decoder" and kind == "Strip" and stop != 0:  # where a token is shorter, the library panics
        raise MinibertError(f"stop of a Strip of {source} ({short(stop)}) must be 0; use a normalizer to strip the end")
    return 1


def _check_pattern(rule: Mapping[str, Any], kind: str, source: str) -> int:
    """Check what a rule looks for; returns its growth."""
    pattern = rule.get("pattern")
    texts = list(pattern.values()) if isinstance(pattern, dict) and pattern.keys() <= {"String", "Regex"} else []
    shortest = 0 if kind == "Split" else 1  # Split at nothing makes pieces of single characters
    if len(texts) != 1 or not isinstance(texts[0], str) or not shortest <= len(texts[0]) <= LONGEST_PATTERN:
        raise MinibertError(
            f"the pattern of a {kind} of {source} ({short(pattern)}) must be a String or Regex of {shortest} to "
            f"{LONGEST_PATTERN:,} characters; correct the file"
        )
    if kind == "Split":
        return 1
    content = len(rule.get("content") or "")
    if "Regex" in rule["pattern"]:  # which may match nothing, before each character
        return 1 + content
    return max(1, -(-content // len(texts[0])))


def _check_template(rule: Mapping[str, Any], source: str) -> None:
    """A template has each of its texts once, since more would multiply a text, and knows its special tokens."""
    special = rule.get("special_tokens")
    right = isinstance(special, dict) and all(
        isinstance(one, dict)
        and isinstance(one.get("ids"), list)
        and isinstance(one.get("tokens"), list)
        and len(one["ids"]) == len(one["tokens"]) <= MOST_RULES
        for one in special.values()
    )
    if not isinstance(special, dict) or not right:
        raise MinibertError(
            f"the special_tokens of a template of {source} ({short(special)}) must be objects with ids and tokens, as "
            "many of each; correct the file"
        )
    for name, texts in (("single", ["A"]), ("pair", ["A", "B"])):
        pieces = rule.get(name)
        found: dict[str, list[Any]] = {"Sequence": [], "SpecialToken": []}
        for piece in pieces if isinstance(pieces, list) else []:
            for kind, value in piece.items() if isinstance(piece, dict) else ():
                found.setdefault(kind, []).append(value.get("id") if isinstance(value, dict) else None)
        known = all(isinstance(one, str) and one in special for one in found["SpecialToken"])
        if found["Sequence"] != texts or not known or len(found) > 2 or len(found["SpecialToken"]) > MOST_RULES:
            raise MinibertError(
                f"the template {name} of {source} ({short(pieces)}) must have {' and '.join(texts)} once, and only "
                "special tokens of its special_tokens beside; correct the file"
            )


def _check_charsmap(charsmap: Any, source: str) -> int:
    """Check that no place that a SentencePiece charsmap points to is outside of it; returns its growth.

    It is the size of a double-array trie in bytes, the trie, and texts that end with a zero byte.

    Source: huggingface/spm_precompiled, which reads it without these checks.
    """
    try:
        data = base64.b64decode(charsmap or "", validate=True)
        size = int.from_bytes(data[:4], "little")
        trie = np.frombuffer(data, "<u4", size // 4, 4)
        texts = data[4 + size // 4 * 4 :].decode()
        units = np.arange(len(trie), dtype=np.uint32) ^ ((trie >> 10) << ((trie & 512) >> 6))  # where children begin
        nodes = trie >> 31 == 0
        nodes[0] = True
        fits = bool(((units[nodes] | 255) < len(trie)).all())
        if fits:
            values = trie[units[nodes & (trie >> 8 & 1 == 1)]] & (2**31 - 1)
            ends = np.frombuffer(texts.encode() + b"\0", np.uint8)
            fits = bool((values < len(ends)).all()) and bool((ends[values] & 0xC0 != 0x80).all())
    except (TypeError, ValueError, IndexError, binascii.Error):  # of base64, of numpy, and UnicodeDecodeError
        fits, texts = False, ""
    if not fits:
        raise MinibertError(
            f"precompiled_charsmap of {source} ({short(charsmap)}) must be base64 of a charsmap whose sizes fit; fetch "
            "it again"
        )
    return max(1, *map(len, texts.split("\0")), 1)
