"""The files of a tokenizer: added tokens and saved tokenizers have transformers' ids, and hostile files are refused."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from other_tokenizers import SCRIPTS, trained
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import minibert
from minibert import BertTokenizer
from minibert.errors import MinibertError

TEXTS = [
    *SCRIPTS.values(),
    "<ent> Anna </ent> likes<ent>Rome <Ent>, newword Newword [CLS] <s> x </s> and [ENT2]!",
    "Köln  CAFÉ newword2 <|im|> naïve",
]
ENT = {"content": "<ent>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
V = 30522

# What the files say besides the vocabulary: tokenizer_config.json, special_tokens_map.json, added_tokens.json.
ADDED: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]] = {
    "additional": ({"additional_special_tokens": ["<ent>", "</ent>"]}, None, None),
    "additional in the map": ({}, {"additional_special_tokens": ["<ent>", "</ent>"]}, None),
    "extra list": ({"extra_special_tokens": ["<ent>", "</ent>"]}, None, None),
    "extra object": ({"extra_special_tokens": {"ent_token": "<ent>", "end_token": "</ent>"}}, None, None),
    "extra in the map": ({}, {"extra_special_tokens": ["<ent>", "</ent>"]}, None),
    "a role of its own": ({"ent_token": "<ent>"}, None, None),
    "bos and eos": ({"bos_token": "<s>", "eos_token": "</s>"}, None, None),
    "bos and eos in the map": ({}, {"bos_token": "<s>", "eos_token": ENT}, None),
    "decoder": ({"added_tokens_decoder": {f"{V}": {**ENT, "special": True}}}, None, None),
    "ordinary before special": (
        {
            "additional_special_tokens": ["<ent>"],
            "added_tokens_decoder": {
                f"{V}": {**ENT, "content": "newword", "normalized": True, "special": False},
                f"{V + 1}": {**ENT, "special": True},
            },
        },
        None,
        None,
    ),
    "decoder and more": (
        {"added_tokens_decoder": {f"{V}": {**ENT, "special": True}}, "extra_special_tokens": ["</ent>"]},
        None,
        None,
    ),
    "added_tokens.json": ({}, None, {"newword": V, "<ent>": V + 1}),
    "added_tokens.json, special": ({"additional_special_tokens": ["<ent>"]}, None, {"newword": V, "<ent>": V + 1}),
    "map beside a decoder": (
        {"added_tokens_decoder": {f"{V}": {**ENT, "special": True}}},
        {"bos_token": "<s>"},
        None,
    ),
    "spaces around": (
        {"added_tokens_decoder": {f"{V}": {**ENT, "lstrip": True, "rstrip": True, "special": True}}},
        None,
        None,
    ),
}


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def checkpoint(folder: Path, minilm: Path, files: str, kind: str | None, more: tuple[Any, Any, Any]) -> Path:
    """The tokenizer's files of the real model, with what `more` says."""
    shutil.copy(minilm / files, folder)
    write(folder / "config.json", {"model_type": "bert"})
    config, special, added = more
    write(folder / "tokenizer_config.json", {**({"tokenizer_class": kind} if kind else {}), **config})
    if special is not None:
        write(folder / "special_tokens_map.json", special)
    if added is not None:
        write(folder / "added_tokens.json", added)
    return folder


def ids_of_both(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    ours, theirs = BertTokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert len(ours) == len(theirs)
    return ours(TEXTS).input_ids, theirs(TEXTS)["input_ids"]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ("tokenizer.json", "BertTokenizer"),
        ("tokenizer.json", "PreTrainedTokenizerFast"),
        ("tokenizer.json", None),
        ("vocab.txt", "BertTokenizer"),
    ],
)
@pytest.mark.parametrize("name", ADDED)
def test_tokens_that_any_file_adds_have_the_ids_of_transformers(
    files: str, kind: str | None, name: str, tmp_path: Path, minilm: Path
) -> None:
    ours, theirs = ids_of_both(checkpoint(tmp_path, minilm, files, kind, ADDED[name]))
    assert ours == theirs


@pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("switches", [{"do_lower_case": False}, {"strip_accents": False}, {"do_lower_case": True}])
def test_the_class_decides_whether_switches_count(
    kind: str, switches: dict[str, bool], tmp_path: Path, minilm: Path
) -> None:
    ours, theirs = ids_of_both(checkpoint(tmp_path, minilm, "tokenizer.json", kind, (switches, None, None)))
    assert ours == theirs


def wordpiece(normalizer: Any, pre_tokenizer: Any, minilm: Path, **settings: Any) -> Tokenizer:
    """A WordPiece tokenizer as courses make one."""
    vocab = {line: i for i, line in enumerate((minilm / "vocab.txt").read_text("utf-8").splitlines())}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", **settings))
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    return made


COURSE = [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]
BERTS = pre_tokenizers.BertPreTokenizer
MADE: dict[str, Callable[[Path], Tokenizer]] = {
    "BERT": lambda m: wordpiece(normalizers.BertNormalizer(), BERTS(), m),
    "cased": lambda m: wordpiece(normalizers.BertNormalizer(lowercase=False), BERTS(), m),
    "accents": lambda m: wordpiece(normalizers.BertNormalizer(strip_accents=False), BERTS(), m),
    "no Chinese": lambda m: wordpiece(normalizers.BertNormalizer(handle_chinese_chars=False), BERTS(), m),
    "unclean": lambda m: wordpiece(normalizers.BertNormalizer(clean_text=False), BERTS(), m),
    "course": lambda m: wordpiece(normalizers.Sequence(COURSE), BERTS(), m),
    "no normalizer": lambda m: wordpiece(None, BERTS(), m),
    "white space": lambda m: wordpiece(normalizers.BertNormalizer(), pre_tokenizers.WhitespaceSplit(), m),
    "lower case": lambda m: wordpiece(normalizers.Lowercase(), pre_tokenizers.Whitespace(), m),
    "long words": lambda m: wordpiece(normalizers.BertNormalizer(), BERTS(), m, max_input_chars_per_word=20),
    "unigram": lambda m: trained("unigram"),
    "bpe": lambda m: trained("bpe"),
    "bytes": lambda m: trained("bytes"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_saved_tokenizer_has_the_same_ids_in_transformers(name: str, tmp_path: Path, minilm: Path) -> None:
    (tmp_path / "made").mkdir()
    MADE[name](minilm).save(str(tmp_path / "made" / "tokenizer.json"))
    write(tmp_path / "made" / "config.json", {"model_type": "bert"})
    write(tmp_path / "made" / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    first, theirs = ids_of_both(tmp_path / "made")
    assert first == theirs
    BertTokenizer.from_pretrained(tmp_path / "made").save_pretrained(tmp_path / "saved")
    write(tmp_path / "saved" / "config.json", {"model_type": "bert"})
    assert ids_of_both(tmp_path / "saved") == (first, first)
    types = [
        tokenizer.from_pretrained(tmp_path / "saved")("one", "two")["token_type_ids"]
        for tokenizer in (BertTokenizer, transformers.AutoTokenizer)
    ]
    assert types[0] == types[1]


@pytest.mark.slow
def test_lower_case_of_sentence_transformers_is_saved_for_transformers(tmp_path: Path, minilm: Path) -> None:
    shutil.copytree(minilm, tmp_path / "model")
    write(tmp_path / "model" / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True})
    wordpiece(normalizers.BertNormalizer(lowercase=False), BERTS(), minilm).save(
        str(tmp_path / "model" / "tokenizer.json")
    )
    write(tmp_path / "model" / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    bert = minibert.load(tmp_path / "model")
    bert.save_pretrained(tmp_path / "saved")
    ids = bert.tokenizer(TEXTS).input_ids
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")(TEXTS)["input_ids"] == ids
    assert minibert.load(tmp_path / "saved").tokenizer(TEXTS).input_ids == ids


def test_capitals_in_names_of_tokens_do_not_make_a_vocabulary_cased(tmp_path: Path, minilm: Path) -> None:
    lines = (minilm / "vocab.txt").read_text("utf-8").splitlines()
    lines[1:4] = ["<S>", "[unusedX]", "[ENT]"]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    assert BertTokenizer.from_pretrained(tmp_path).tokenize("Bank") == ["bank"]  # without a warning
    lines[1000] = "Berlin"
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="pass do_lower_case=False"):
        BertTokenizer.from_pretrained(tmp_path)


def hostile(minilm: Path) -> dict[str, tuple[Any, str]]:
    """Files that would crash the library, take it forever or give a KeyError later, and what is said of each."""
    whole = json.loads((minilm / "tokenizer.json").read_text("utf-8"))
    long = "a" * 1_000_000
    unigram: Any = {"type": "Unigram", "unk_id": 0, "vocab": [["[UNK]", 0.0], ["[CLS]", -1.0], ["[SEP]", -2.0]]}
    grows = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    charsmap = base64.b64encode((4_000_000_000).to_bytes(4, "little") + b"abcd").decode()

    def with_(**parts: Any) -> dict[str, Any]:
        return {**whole, **parts}

    def model(**parts: Any) -> dict[str, Any]:
        return with_(model={**whole["model"], **parts})

    deep: Any = {"type": "Lowercase"}
    for _ in range(50):
        deep = {"type": "Sequence", "normalizers": [deep]}
    return {
        "long unigram": (with_(model={**unigram, "vocab": [*unigram["vocab"], [long, -3.0]]}), "at most 1000 char"),
        "long token": (model(vocab={**whole["model"]["vocab"], long: 5}), "at most 1000 characters"),
        "charsmap": (with_(normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap}), "whose sizes fit"),
        "no base64": (with_(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}), "whose sizes fit"),
        "growth": (with_(normalizer={"type": "Sequence", "normalizers": [grows] * 9}), "more than 100 times"),
        "prepend": (with_(normalizer={"type": "Prepend", "prepend": long}), "at most 100 characters"),
        "empty pattern": (with_(normalizer={**grows, "pattern": {"String": ""}}), "must be a String or Regex"),
        "empty regex": (with_(pre_tokenizer={"type": "Split", "pattern": {"Regex": ""}}), "must be a String or Regex"),
        "unknown kind": (with_(normalizer={"type": "Python"}), "a normalizer of .* must be one of"),
        "no kind": (with_(pre_tokenizer=[1]), "a pre_tokenizer of .* must be one of"),
        "deep": (with_(normalizer=deep), "at most 10 of them nested"),
        "no unk_id": (with_(model={**unigram, "unk_id": None}), r"unk_id of .*\(None\) must be the number of a token"),
        "unk_id": (with_(model={**unigram, "unk_id": 7}), r"unk_id of .*\(7\) must be the number of a token"),
        "unk_token": (model(unk_token="[GONE]"), r"unk_token of .*\('\[GONE\]'\) must be a token of its vocabulary"),
        "word length": (model(max_input_chars_per_word=10**9), "max_input_chars_per_word .* must be 1 to"),
        "negative id": (model(vocab={**whole["model"]["vocab"], "x1y": -1}), r"an id of .*\(-1\) must be"),
        "huge id": (model(vocab={**whole["model"]["vocab"], "x1y": 2**31}), r"an id of .*\(2147483648\) must be"),
        "text as id": (model(vocab={**whole["model"]["vocab"], "x1y": "5"}), r"an id of .*\('5'\) must be"),
        "no vocabulary": (model(vocab=3), r"the vocab of .*\(3\) must be"),
        "empty vocabulary": (model(vocab={}), r"\(0 tokens\) must have"),
        "no model": ({"version": "1.0"}, "it has no model"),
        "list": ([1, 2], "it has no model"),
        "added": (with_(added_tokens=[{"id": 3}]), "an added token of .* must have a text"),
        "added object": (with_(added_tokens={"a": 1}), "added_tokens of .* must be a list"),
        "no rule": (with_(post_processor={"type": "TemplateProcessing"}), "must be a tokenizer of the tokenizers libr"),
    }


def test_hostile_tokenizers_are_refused_at_once(tmp_path: Path, minilm: Path) -> None:
    for name, (content, message) in hostile(minilm).items():
        folder = tmp_path / name
        folder.mkdir()
        write(folder / "tokenizer.json", content)
        start = time.monotonic()
        with pytest.raises(MinibertError, match=message) as told:
            BertTokenizer.from_pretrained(folder)
        assert time.monotonic() - start < 5, name
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 600
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(MinibertError, match=r"tokenizer\.json must be valid JSON \(it is nested too deeply\)"):
        BertTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, r"added_tokens_decoder .* must be an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": ENT}}, r"the id of the added token '<ent>' .*\('x'\)"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"-1": ENT}}, r"the id of the added token .*\('-1'\)"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1" * 5000: ENT}}, "the id of the added token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"30522": 5}}, r"an added token .*\(5\) must be a token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"30522": {**ENT, "lstrip": "no"}}}, "flags that are true"),
        ("tokenizer_config.json", {"extra_special_tokens": 5}, r"extra_special_tokens .*\(5\) must be a list"),
        ("tokenizer_config.json", {"extra_special_tokens": [["a"]]}, r"a special token .* must be a token"),
        ("tokenizer_config.json", {"additional_special_tokens": [None]}, r"a special token .* must be a token"),
        ("tokenizer_config.json", {"bos_token": 7}, r"bos_token .*\(7\) must be a token"),
        ("tokenizer_config.json", {"cls_token": ["[CLS]"]}, r"cls_token .* must be a token"),
        ("tokenizer_config.json", {"model_max_length": "512"}, r"model_max_length .*\('512'\) must be"),
        ("tokenizer_config.json", {"model_max_length": float("nan")}, r"model_max_length .*\(nan\) must be"),
        ("tokenizer_config.json", {"do_lower_case": "yes"}, r"do_lower_case .*\('yes'\) must be true or false"),
        ("tokenizer_config.json", {"padding_side": "up"}, r"padding_side \('up'\) must be"),
        ("special_tokens_map.json", {"unk_token": {"content": 3}}, r"unk_token .* must be a token"),
        ("added_tokens.json", {"a": "b"}, r"the id of the added token 'a' .*\('b'\)"),
        ("added_tokens.json", {"a": 10**400}, r"the id of the added token 'a'"),
        ("added_tokens.json", {"": 30522}, r"an added token .*\(''\) must be a token"),
        ("added_tokens.json", [1], r"added_tokens.json .* must be a JSON object"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("vocabulary", ["tokenizer.json", "vocab.txt"])
def test_broken_files_beside_the_vocabulary_are_one_sentence(
    vocabulary: str, name: str, content: Any, message: str, tmp_path: Path, minilm: Path
) -> None:
    shutil.copy(minilm / vocabulary, tmp_path)
    write(tmp_path / name, content)
    with pytest.raises(MinibertError, match=message):
        BertTokenizer.from_pretrained(tmp_path)


def test_real_kinds_of_rules_are_accepted(tmp_path: Path) -> None:
    made = trained("bytes")
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "▁"), normalizers.Strip()])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\\p{N}{1,3}", "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    made.add_tokens([AddedToken(" " * 128)])
    made.save(str(tmp_path / "tokenizer.json"))
    assert len(BertTokenizer.from_pretrained(tmp_path)) == made.get_vocab_size()
