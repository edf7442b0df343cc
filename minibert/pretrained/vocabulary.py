"""From the files of a tokenizer to a tokenizer of the `tokenizers` library with BERT's settings, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from minibert.errors import MinibertError, warn
from minibert.pretrained.files import write_text
from minibert.pretrained.hub import Repository
from minibert.pretrained.tokenizer_checks import LONGEST_TOKEN, MOST_TOKENS, check_tokenizer
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
AS_THE_FILE_SAYS = ("PreTrainedTokenizerFast", "TokenizersBackend")
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
    marked = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    missed = [t for t in special_tokens.values() if t not in marked and backend.token_to_id(t) is not None]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missed])
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
    if "added_tokens_decoder" not in written:  # older files, which transformers then reads in this order
        written = {**written, **(repository.object("special_tokens_map.json") or {})}
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
        kept = written.get("tokenizer_class") in AS_THE_FILE_SAYS
        rules = {name: value for name, value in decided.items() if name in settings or not kept}
        backend = _read_json(path, rules, settings)
        _add_tokens(backend, written, repository)
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
    _add_tokens(backend, written, repository)
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
    content = token.get("content") if isinstance(token, dict) else token
    whole = isinstance(content, str) and content == content.encode("utf-8", "ignore").decode()  # no lone surrogate
    if whole and isinstance(content, str) and 0 < len(content) <= LONGEST_TOKEN:
        return content
    raise MinibertError(f"{name} of {repository} ({short(token)}) must be a token; correct tokenizer_config.json")


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


def _add_tokens(backend: Tokenizer, written: Mapping[str, Any], repository: Repository) -> None:
    """Add the tokens that the files name beside the vocabulary, which are found in a text before it is split.

    First those with a number, in the order of their numbers; then the special tokens that have a role, and the others.

    Source: transformers `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__`.
    """
    named = [_spelled(written[name], name, repository) for name in ROLES if written.get(name) is not None]
    others = written.get("extra_special_tokens") or written.get("additional_special_tokens") or ()
    if isinstance(others, Mapping):  # by roles of this model alone
        others = list(others.values())
    if not isinstance(others, (list, tuple)):
        raise MinibertError(f"extra_special_tokens of {repository} ({short(others)}) must be a list; correct the file")
    named += [
        _spelled(value, name, repository)
        for name, value in written.items()
        if name.endswith("_token") and name not in ROLES and isinstance(value, str)
    ]
    special = [*named, *(_spelled(token, "a special token", repository) for token in others)]
    numbered: dict[int, AddedToken] = {}
    decoder = written.get("added_tokens_decoder")
    if decoder is None:
        for content, number in (repository.object("added_tokens.json") or {}).items():
            token = AddedToken(_spelled(content, "an added token", repository), special=content in special)
            numbered[_number(number, content, repository)] = token
    elif not isinstance(decoder, Mapping):
        raise MinibertError(
            f"added_tokens_decoder of {repository} ({short(decoder)}) must be an object; correct the file"
        )
    for number, token in (decoder or {}).items():
        content = _spelled(token, "an added token", repository)
        flags = {name: token[name] for name in FLAGS if name in token} if isinstance(token, Mapping) else {}
        if not all(isinstance(flag, bool) for flag in flags.values()):
            raise MinibertError(
                f"an added token of {repository} ({short(token)}) must have flags that are true or false"
            )
        numbered[_number(number, content, repository)] = AddedToken(content, **flags)
    for number in sorted(numbered):
        token = numbered[number]
        (backend.add_special_tokens if token.special or token.content in named else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != number:
            raise MinibertError(
                f"the added token {token.content!r} of {repository} must have the id {number}, but gets "
                f"{backend.token_to_id(token.content)}; the vocabulary does not belong to it"
            )
    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(special) if token not in present]
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


def is_bert(backend: Tokenizer) -> bool:
    """Whether a tokenizer has exactly BERT's rules, so that a vocab.txt and a few switches say all of it."""
    model, normalizer = backend.model, backend.normalizer
    return (
        isinstance(model, WordPiece)
        and model.continuing_subword_prefix == "##"
        and model.max_input_chars_per_word == 100
        and isinstance(normalizer, normalizers.BertNormalizer)
        and bool(normalizer.clean_text)
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
    )


def save(backend: Tokenizer, settings: Mapping[str, Any], folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and, of a tokenizer with BERT's rules, `vocab.txt`."""
    config: dict[str, Any] = {  # for transformers: as tokenizer.json says; its default leaves token types out
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    if is_bert(backend):
        switches = {ours: getattr(backend.normalizer, theirs, None) for ours, theirs in SWITCHES.items()}
        config = {"tokenizer_class": "BertTokenizer", **switches}
        vocab = sorted(backend.get_vocab().items(), key=itemgetter(1))
        if [number for _, number in vocab] == list(range(len(vocab))):  # otherwise lines could not be ids
            write_text(folder / "vocab.txt", "".join(f"{token}\n" for token, _ in vocab))
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_text(folder / "tokenizer_config.json", json.dumps({**config, **settings}, indent=2) + "\n")


def _read_lines(path: Path) -> dict[str, int]:
    """One token a line, whose number is its id."""
    if not path.is_file():
        raise FileNotFoundError(f"the vocabulary ({path}) must be a file with one token a line; there is none")
    try:
        with path.open(encoding="utf-8") as lines:
            return {line.rstrip("\n"): index for index, line in enumerate(lines)}
    except UnicodeDecodeError as error:
        raise MinibertError(f"the vocabulary ({path}) must be UTF-8; it is not ({error})") from None


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
    text = path.read_bytes()
    check_tokenizer(parsed_json(text, str(path), "fetch it again"), str(path))
    with library_errors(path):
        backend = Tokenizer.from_buffer(text)
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
        around = backend.post_process(backend.encode("", add_special_tokens=False)).tokens
    if len(around) != 2:
        raise MinibertError(
            f"the post_processor of {path} ({' '.join(around) or 'no special tokens'}) must put one token before a "
            "text and one after it; add [CLS] and [SEP], or what this vocabulary calls them"
        )
    return {**held, "cls_token": around[0], "sep_token": around[1]}
