"""From the files of a tokenizer to a tokenizer of the `tokenizers` library with BERT's settings, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from tokenizers import AddedToken, Encoding, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from minibert.errors import MinibertError, warn
from minibert.pretrained.files import write_text
from minibert.pretrained.hub import Repository
from minibert.pretrained.tokenizer_checks import (
    LONGEST_TOKEN,
    MOST_BYTES,
    MOST_TOKENS,
    check_tokenizer,
    claimed_ids,
)
from minibert.records import parsed_json
from minibert.text import counted, short

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# What SentencePiece's vocabularies, XLM-RoBERTa's for one, have in their place.
SENTENCEPIECE_TOKENS = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
# Vocabularies of other tokenizers, which are read from `tokenizer.json` alone.
OTHER_FILES = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json")
# Our names of the normalizer's switches, which are those of `tokenizer_config.json`, and the library's.
SWITCHES = {
    "do_lower_case": "lowercase",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "strip_accents": "strip_accents",
}
# Classes of transformers that take a tokenizer.json as it is, whatever tokenizer_config.json says of lower case.
AS_THE_FILE_SAYS = ("PreTrainedTokenizer", "PythonBackend", "TokenizersBackend")  # or with "Fast" at the end
# The special tokens that transformers adds if the vocabulary lacks them, in its order.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SIDES = ("padding_side", "truncation_side")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token
CACHED_WORDS = 4_000  # of BPE and Unigram; the library's 10,000 take up to 80 MB
# Larger than any real limit: what transformers writes when there is none.
NO_LIMIT = 10**9
# Classes of transformers that do to a vocab.txt what is done here.
SAME_ALGORITHM = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "PreTrainedTokenizer")


def wordpiece_tokenizer(vocab: Mapping[str, int] | str | Path, settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer over a vocabulary, given as a dictionary or as the path of a `vocab.txt`.

    Raises:
        FileNotFoundError: no such file.
        MinibertError: the vocabulary lacks a special token without which no text can be encoded.

    Source: google-research/bert `tokenization.FullTokenizer`.
    """
    entries = _read_lines(Path(vocab)) if isinstance(vocab, (str, Path)) else dict(vocab)
    names = {**SPECIAL_TOKENS, **{name: settings[name] for name in SPECIAL_TOKENS if name in settings}}
    unk, cls, sep = names["unk_token"], names["cls_token"], names["sep_token"]
    lacking = [token for token in (unk, cls, sep) if token not in entries]
    if lacking:
        count = counted(len(entries), "token")
        raise MinibertError(f"the vocabulary ({count}) must hold {', '.join(lacking)}; it is not that of a BERT")
    backend = Tokenizer(WordPiece(entries, unk_token=unk))
    backend.normalizer = normalizers.BertNormalizer(
        **{theirs: settings[ours] for ours, theirs in SWITCHES.items() if ours in settings}
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return prepared(backend, names)


def prepared(backend: Tokenizer, special_tokens: Mapping[str, str]) -> Tokenizer:
    """The tokenizer, with special tokens whole wherever they are written, and without limits of its own.

    It is never changed after this, so that threads can share it: texts are cut and padded afterwards, and tokens are
    added to a copy.
    """
    backend.no_truncation()
    backend.no_padding()
    if hasattr(backend.model, "_resize_cache"):  # BPE and Unigram, since tokenizers 0.21
        backend.model._resize_cache(CACHED_WORDS)
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for content in special_tokens.values():
        token = added.get(content, AddedToken(content, normalized=False))
        if not (content in added and token.special) and backend.token_to_id(content) is not None:
            token.special = True
            backend.add_tokens([token])
    cls, sep = special_tokens["cls_token"], special_tokens["sep_token"]
    if backend.post_processor is None:
        if backend.token_to_id(cls) is None or backend.token_to_id(sep) is None:
            raise MinibertError(f"the vocabulary must hold {cls} and {sep}; it is not that of a BERT")
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
        )
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
        MinibertError: a file that is broken, or not that of a BERT.
    """
    written = repository.object("tokenizer_config.json") or {}
    older: dict[str, Any] = {}  # which transformers reads only where the newer files do not list the added tokens
    if written.get("added_tokens_decoder") is None:
        older = repository.object("special_tokens_map.json") or {}
    added = _added_tokens(written, older, repository)
    written = {**written, **older}
    config = repository.object("config.json") or {}
    decided = {name: written[name] for name in (*SPECIAL_TOKENS, *SWITCHES, *SIDES) if written.get(name) is not None}
    for name in set(SPECIAL_TOKENS) & set(decided):
        decided[name] = _spelled(decided[name], name, repository)
    for name in set(SWITCHES) & set(decided):
        if not isinstance(decided[name], bool):
            raise MinibertError(
                f"{name} of {repository} ({short(decided[name])}) must be true or false; correct the file"
            )
    limit = written.get("model_max_length", written.get("max_len", config.get("max_position_embeddings")))
    decided["model_max_length"] = _limit(limit, repository)
    decided.update(settings)

    path = repository.file("tokenizer.json")
    if path is not None:
        kind = str(written.get("tokenizer_class") or config.get("tokenizer_class"))
        kept = kind.removesuffix("Fast") in AS_THE_FILE_SAYS
        rules = {name: value for name, value in decided.items() if name in settings or not kept}
        backend = _read_json(path, rules, settings)
        _add_tokens(backend, added, repository, in_file=backend.get_added_tokens_decoder())
        decided = {**_roles(backend, path), **decided}
        return backend, {name: value for name, value in decided.items() if name not in SWITCHES}
    path = repository.file("vocab.txt")
    if path is None:
        raise _without_vocabulary(repository)
    _check_algorithm({**config, **written}, repository)
    backend = wordpiece_tokenizer(path, decided)
    words = (token.removeprefix("##") for token in backend.get_vocab())
    capitals = any(word.isascii() and word.isalpha() and word != word.lower() for word in words)
    if capitals and "do_lower_case" not in decided:
        warn(
            f"{repository} does not say do_lower_case, and its vocabulary has capitals, which lower-casing (BERT's "
            "default, used here) never finds; pass do_lower_case=False (--lower-case no) if the model is a cased one",
        )
    _add_tokens(backend, added, repository, in_file={})
    return backend, {name: value for name, value in decided.items() if name not in SWITCHES}


def _without_vocabulary(repository: Repository) -> FileNotFoundError:
    for name in OTHER_FILES:
        if repository.file(name) is not None:
            return FileNotFoundError(
                f"{repository} must hold tokenizer.json beside {name}, which is not read here; add it with "
                "transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
    return FileNotFoundError(
        f"{repository} must hold tokenizer.json or vocab.txt; it has neither, so its text cannot become ids"
    )


def _spelled(token: Any, name: str, repository: Repository) -> str:
    """A special token, written as a string or, as an AddedToken, as an object."""
    content = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(content, str) or not 0 < len(content) <= LONGEST_TOKEN or not _is_unicode(content):
        raise MinibertError(
            f"{name} of {repository} ({short(token)}) must be a token of 1 to {LONGEST_TOKEN:,} characters; correct "
            "tokenizer_config.json"
        )
    return content


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate; a JSON file can have them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _limit(value: Any, repository: Repository) -> int | None:
    """How many tokens a text may have; None where there is no limit."""
    if value is None or (isinstance(value, (int, float)) and value >= NO_LIMIT):
        return None
    if not isinstance(value, (int, float)) or value % 1 or not value >= 3:  # NaN is not
        raise MinibertError(
            f"model_max_length of {repository} ({value!r}) must be a whole number of at least 3; correct "
            "tokenizer_config.json, or pass model_max_length="
        )
    return int(value)


def _check_algorithm(written: Mapping[str, Any], repository: Repository) -> None:
    """Refuse a vocabulary that is meant for another way of splitting text."""
    kind = str(written.get("tokenizer_class") or "BertTokenizer")
    parts = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}
    other = [f"{name} {written[name]}" for name, ours in parts.items() if written.get(name) not in (None, ours)]
    if kind.removesuffix("Fast") not in SAME_ALGORITHM or other:
        raise MinibertError(
            f"the tokenizer_class of {repository} ({', '.join([kind, *other])}) must be BertTokenizer where there "
            "is no tokenizer.json; another one would give other ids: load the tokenizer with transformers"
        )


class _Added(NamedTuple):
    """The tokens that files name beside the vocabulary."""

    numbered: dict[int, AddedToken]
    older: bool  # they are of `added_tokens.json`, which is older than what tokenizer.json has
    named: dict[str, AddedToken]  # those that have a role, by it
    others: list[AddedToken]


def _added_tokens(written: Mapping[str, Any], older: Mapping[str, Any], repository: Repository) -> _Added:
    """The tokens that `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` name.

    Source: transformers `PreTrainedTokenizerBase._from_pretrained` and `__init__`.
    """
    extra = written.get("extra_special_tokens") or written.get("additional_special_tokens")
    lists = [extra, older.get("extra_special_tokens")]
    if not any(isinstance(one, list) for one in lists):
        lists.append(older.get("additional_special_tokens"))
    for one in lists:
        if not isinstance(one, (list, Mapping, NoneType)):
            raise MinibertError(
                f"extra_special_tokens of {repository} ({short(one)}) must be a list or an object of tokens; correct "
                "the file"
            )
    others = [_token(token, "a special token", repository) for one in lists if isinstance(one, list) for token in one]
    own = {
        name: value
        for values in (older, written)
        for name, value in values.items()
        if name.endswith("_token") and name not in ROLES
        if isinstance(value.get("content") if isinstance(value, Mapping) else value, str)
    }
    both = {**written, **older}
    roles = {name: both[name] for name in ROLES if both.get(name) not in (None, "")} | own
    for one in lists:  # an object: by roles of this model alone
        roles |= one if isinstance(one, Mapping) else {}
    named = {name: _token(value, name, repository) for name, value in roles.items()}

    decoder = written.get("added_tokens_decoder")
    numbered: dict[int, AddedToken] = {}
    if decoder is None:
        special = {named[name].content for name in ROLES if name in named}
        if len(lists) == 2:  # transformers reads the third one later
            special |= {token.content for token in others}
        for content, number in (repository.object("added_tokens.json") or {}).items():
            token = AddedToken(_spelled(content, "an added token", repository), special=content in special)
            numbered[_number(number, content, repository)] = token
    elif not isinstance(decoder, Mapping):
        raise MinibertError(
            f"added_tokens_decoder of {repository} ({short(decoder)}) must be an object; correct the file"
        )
    for number, value in (decoder or {}).items():
        flagged = {"special": False, **value} if isinstance(value, Mapping) else value
        token = _token(flagged, "an added token", repository)
        numbered[_number(number, token.content, repository)] = token
    return _Added(numbered, decoder is None, named, others)


def _token(value: Any, name: str, repository: Repository) -> AddedToken:
    """A token, written as a string or as an object; a special one unless it says otherwise."""
    content = _spelled(value, name, repository)
    flags = {flag: value[flag] for flag in FLAGS if flag in value} if isinstance(value, Mapping) else {}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise MinibertError(
            f"{name} of {repository} ({short(value)}) must have flags that are true or false; correct the file"
        )
    return AddedToken(content, **{"special": True, **flags})


def _add_tokens(backend: Tokenizer, added: _Added, repository: Repository, in_file: Mapping[int, AddedToken]) -> None:
    """Add tokens to a tokenizer, so that they are found in a text before it is split.

    First those with a number, in the order of their numbers; then those that have a role, and the others.

    Args:
        backend: the tokenizer.
        added: what to add.
        repository: where it comes from.
        in_file: those that its file has, by their ids.

    Source: transformers `TokenizersBackend.__init__`.
    """
    passed = in_file if added.older else {}
    numbered = {number: token for number, token in sorted(added.numbered.items()) if number not in passed}
    present = {token.content for token in (*backend.get_added_tokens_decoder().values(), *numbered.values())}
    more = [token for token in (*added.named.values(), *added.others) if token.content not in present]
    named = {token.content for token in added.named.values()}
    for token in (*numbered.values(), *more):
        token.special = token.special or token.content in named
    backend.add_tokens([*numbered.values(), *more])
    for number, token in numbered.items():
        if backend.token_to_id(token.content) != number:
            raise MinibertError(
                f"the added token {token.content!r} of {repository} must have the id {number}, but gets "
                f"{backend.token_to_id(token.content)}; the vocabulary does not belong to it"
            )


def _number(value: Any, content: str, repository: Repository) -> int:
    """The id of an added token; JSON's keys are texts."""
    try:
        number = -1 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < MOST_TOKENS:
        raise MinibertError(
            f"the id of the added token {content!r} of {repository} ({short(value)}) must be a whole number from 0 to "
            f"{MOST_TOKENS - 1:,}; correct the file"
        )
    return number


def is_bert(backend: Tokenizer, special_tokens: Mapping[str, str]) -> bool:
    """Whether a tokenizer has exactly BERT's rules, so that a vocabulary and a few switches say all of it."""
    model, normalizer, decoder = backend.model, backend.normalizer, backend.decoder
    if not (
        isinstance(model, WordPiece)
        and model.unk_token == special_tokens["unk_token"]
        and model.continuing_subword_prefix == "##"
        and model.max_input_chars_per_word == 100
        and isinstance(normalizer, normalizers.BertNormalizer)
        and bool(normalizer.clean_text)
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(decoder, decoders.WordPiece)
        and decoder.prefix == "##"
        and bool(decoder.cleanup)
    ):
        return False
    one, pair = _around(backend)
    cls, sep = special_tokens["cls_token"], special_tokens["sep_token"]
    return one.tokens == [cls, sep] and (pair.tokens, pair.type_ids) == ([cls, sep, sep], [0, 0, 1])


def _around(backend: Tokenizer) -> tuple[Encoding, Encoding]:
    """What the post-processor puts around an empty text, and around two."""
    nothing = backend.encode("", add_special_tokens=False)
    return backend.post_process(nothing), backend.post_process(nothing, nothing)


def save(backend: Tokenizer, special_tokens: Mapping[str, str], settings: Mapping[str, Any], folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and, of a tokenizer with BERT's rules, `vocab.txt`.

    All added tokens are in `tokenizer_config.json`, so that readers pass over older files in the folder.
    """
    held = {role: token for role, token in special_tokens.items() if backend.token_to_id(token) is not None}
    config: dict[str, Any] = {  # for transformers: as tokenizer.json says; its default leaves token types out
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **held,
    }
    if is_bert(backend, special_tokens):
        switches = {ours: getattr(backend.normalizer, theirs, None) for ours, theirs in SWITCHES.items()}
        # transformers' class adds the roles that it has by default, except those that are null
        config = {"tokenizer_class": "BertTokenizer", **switches, **dict.fromkeys(special_tokens), **held}
        vocab = sorted(backend.get_vocab().items(), key=itemgetter(1))
        if [number for _, number in vocab] == list(range(len(vocab))):  # otherwise lines could not be ids
            write_text(folder / "vocab.txt", "".join(f"{token}\n" for token, _ in vocab))
    config["added_tokens_decoder"] = {
        str(number): {"content": token.content, **{flag: getattr(token, flag) for flag in FLAGS}}
        for number, token in backend.get_added_tokens_decoder().items()
    }
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_text(folder / "tokenizer_config.json", json.dumps({**config, **settings}, indent=2) + "\n")


def _read_lines(path: Path) -> dict[str, int]:
    """One token a line, whose number is its id."""
    if not path.is_file():
        raise FileNotFoundError(f"the vocabulary ({path}) must be a file with one token a line; there is none")
    _check_size(path)
    try:
        with path.open(encoding="utf-8") as lines:
            return {line.rstrip("\n"): index for index, line in enumerate(lines)}
    except UnicodeDecodeError as error:
        raise MinibertError(f"the vocabulary ({path}) must be UTF-8; it is not ({error})") from None


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise MinibertError(f"{path} ({size:,} bytes) must have at most {MOST_BYTES:,}; use that of a real tokenizer")


@contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """Errors of the library become MinibertError; it raises nothing more exact, and its panics are no `Exception`."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MinibertError(f"{path} must be a tokenizer of the tokenizers library; it is not: {reason}") from None


def _read_json(path: Path, decided: Mapping[str, Any], settings: Mapping[str, Any]) -> Tokenizer:
    _check_size(path)
    text = path.read_bytes()
    content = parsed_json(text, str(path), "fetch it again", unique=True)
    check_tokenizer(content, str(path))
    with library_errors(path):
        backend = Tokenizer.from_buffer(text)
    for token, number in claimed_ids(content):
        if backend.token_to_id(token) != number:
            raise MinibertError(
                f"the token {token!r:.40} of {path} must have the id {number}, but the vocabulary gives it "
                f"{backend.token_to_id(token)}; correct its added_tokens and post_processor"
            )
    normalizer = backend.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        for ours, theirs in SWITCHES.items():
            if ours in decided:
                setattr(normalizer, theirs, decided[ours])
        backend.normalizer = normalizer
    elif set(settings) & set(SWITCHES):
        raise MinibertError(
            f"{', '.join(sorted(set(settings) & set(SWITCHES)))} cannot be set where {path} has another normalizer "
            f"({type(normalizer).__name__}) than BERT's; change that file"
        )
    return backend


def _roles(backend: Tokenizer, path: Path) -> dict[str, str]:
    """The special tokens by their roles: BERT's or SentencePiece's, or what the post-processor puts around a text.

    Raises:
        MinibertError: it does not put one token before a text and one after it.
    """
    held = {role: token for role, token in SENTENCEPIECE_TOKENS.items() if backend.token_to_id(token) is not None}
    held |= {role: token for role, token in SPECIAL_TOKENS.items() if backend.token_to_id(token) is not None}
    if backend.post_processor is None and isinstance(backend.model, WordPiece):
        return held  # `prepared` adds BERT's
    backend.no_truncation()
    backend.no_padding()
    with library_errors(path):
        around = _around(backend)[0].tokens
    if len(around) != 2:
        raise MinibertError(
            f"the post_processor of {path} ({' '.join(around) or 'no special tokens'}) must put one token before a "
            "text and one after it; add [CLS] and [SEP], or what this vocabulary calls them"
        )
    return {**held, "cls_token": around[0], "sep_token": around[1]}
