"""The files of a tokenizer: added tokens and saved tokenizers have transformers' ids, and hostile files are refused."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import sentencepiece
import transformers
from oracle import theirs_of
from other_tokenizers import SCRIPTS, trained
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import minibert
from minibert import BertTokenizer
from minibert.cli import main
from minibert.errors import MinibertError

TEXTS = [
    *SCRIPTS.values(),
    "<ent> Anna </ent> likes<ent>Rome <Ent>, newword Newword [CLS] <s> x </s> and [ENT2]!",
    "Köln  CAFÉ newword2 <|im|> naïve [cls] [mask] x<ent>y <ent>",
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
    "flags in the map": ({}, {"bos_token": {**ENT, "single_word": True}}, None),
    "flags of an ordinary kind": ({"bos_token": {**ENT, "__type": "AddedToken", "normalized": True}}, None, None),
    "lists in both": ({"additional_special_tokens": ["<ent>"]}, {"additional_special_tokens": ["</ent>"]}, None),
    "lists to merge": ({"extra_special_tokens": ["<ent>"]}, {"extra_special_tokens": ["</ent>", "<ent>"]}, None),
    "an object in the map": ({}, {"extra_special_tokens": {"ent_token": "<ent>"}}, None),
    "roles in both": ({"ent_token": "<ent>"}, {"end_token": {**ENT, "content": "</ent>"}}, None),
    "added_tokens.json, special in the map": ({}, {"additional_special_tokens": ["<ent>"]}, {"<ent>": V}),
    "added_tokens.json, a role": ({"bos_token": "<ent>"}, None, {"newword": V, "<ent>": V + 1}),
    "null": ({"bos_token": None, "extra_special_tokens": None, "additional_special_tokens": []}, None, None),
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


def test_tokens_of_tokenizer_json_win_over_added_tokens_json(tmp_path: Path, minilm: Path) -> None:
    names = {"[CLS]": 101, "newword": V}  # ordinary ones, which would be found in lower case, too
    ours, theirs = ids_of_both(checkpoint(tmp_path, minilm, "tokenizer.json", "BertTokenizer", ({}, None, names)))
    assert ours == theirs


@pytest.mark.parametrize(
    "kind",
    ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend"],
)
@pytest.mark.parametrize("switches", [{"do_lower_case": False}, {"strip_accents": False}, {"do_lower_case": True}])
def test_the_class_decides_whether_switches_count(
    kind: str, switches: dict[str, bool], tmp_path: Path, minilm: Path
) -> None:
    ours, theirs = ids_of_both(checkpoint(tmp_path, minilm, "tokenizer.json", kind, (switches, None, None)))
    assert ours == theirs


def test_the_class_may_be_in_the_configuration_of_the_model(tmp_path: Path, minilm: Path) -> None:
    checkpoint(tmp_path, minilm, "tokenizer.json", None, ({"do_lower_case": False}, None, None))
    write(tmp_path / "config.json", {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"})
    ours, theirs = ids_of_both(tmp_path)
    assert ours == theirs


def wordpiece(normalizer: Any, pre_tokenizer: Any, minilm: Path, **settings: Any) -> Tokenizer:
    """A WordPiece tokenizer as courses make one."""
    vocab = {line: i for i, line in enumerate((minilm / "vocab.txt").read_text("utf-8").splitlines())}
    made = Tokenizer(models.WordPiece(vocab, **{"unk_token": "[UNK]", **settings}))
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    return made


def with_pairs_of_roberta(minilm: Path) -> Tokenizer:
    made = wordpiece(normalizers.BertNormalizer(), BERTS(), minilm)
    made.post_processor = processors.RobertaProcessing(("[SEP]", 102), ("[CLS]", 101), trim_offsets=False)
    return made


def without_masks(minilm: Path) -> Tokenizer:
    vocab = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3, "##s": 4, "mask": 5, "[": 6, "]": 7}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), BERTS()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    made.add_special_tokens(["[CLS]", "[SEP]", "[UNK]"])
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
    "another unknown": lambda m: wordpiece(normalizers.BertNormalizer(), BERTS(), m, unk_token="[unused1]"),
    "pairs of RoBERTa": with_pairs_of_roberta,
    "without masks": without_masks,
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
    readers = (BertTokenizer.from_pretrained, transformers.AutoTokenizer.from_pretrained)
    pairs = [read(tmp_path / "saved")(TEXTS, TEXTS[::-1]) for read in readers]
    assert dict(pairs[0]) == dict(pairs[1])
    assert pairs[0]["input_ids"] == BertTokenizer.from_pretrained(tmp_path / "made")(TEXTS, TEXTS[::-1]).input_ids


def test_a_saved_tokenizer_does_not_mix_with_older_files_in_the_folder(tmp_path: Path, minilm: Path) -> None:
    write(tmp_path / "special_tokens_map.json", {"bos_token": "<ent>", "additional_special_tokens": ["newword"]})
    write(tmp_path / "added_tokens.json", {"Rome": V})
    write(tmp_path / "config.json", {"model_type": "bert"})
    made = BertTokenizer(minilm / "vocab.txt")
    made.save_pretrained(tmp_path)
    assert ids_of_both(tmp_path) == (made(TEXTS).input_ids, made(TEXTS).input_ids)


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
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    plain = [text for text in TEXTS if "[" not in text and "Ent" not in text]
    np.testing.assert_allclose(bert.encode(plain), theirs.encode(plain), atol=1e-5)


def test_capitals_in_names_of_tokens_do_not_make_a_vocabulary_cased(tmp_path: Path, minilm: Path) -> None:
    lines = (minilm / "vocab.txt").read_text("utf-8").splitlines()
    lines[1:4] = ["<S>", "[unusedX]", "[ENT]"]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    assert BertTokenizer.from_pretrained(tmp_path).tokenize("Bank") == ["bank"]  # without a warning
    lines[1000] = "Berlin"
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="pass do_lower_case=False"):
        BertTokenizer.from_pretrained(tmp_path)


@pytest.fixture
def cased(tmp_path: Path) -> Path:
    """A cased checkpoint whose files do not say so."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Berlin", "berlin", "is"]
    theirs_of("BertModel", tmp_path, vocab_size=len(words))
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return tmp_path


def test_load_takes_what_the_warning_about_capitals_advises(cased: Path) -> None:
    with pytest.warns(UserWarning, match=r"pass do_lower_case=False \(--lower-case no\) if the model is a cased"):
        assert minibert.load(cased).tokenizer.tokenize("Berlin") == ["berlin"]
    assert minibert.load(cased, do_lower_case=False).tokenizer.tokenize("Berlin") == ["Berlin"]
    assert minibert.load(cased, do_lower_case=True).tokenizer.tokenize("Berlin") == ["berlin"]
    with pytest.raises(MinibertError, match=r"do_lower_case \('no'\) must be True or False"):
        minibert.load(cased, do_lower_case="no")  # type: ignore[arg-type]


def test_load_decides_the_case_whatever_the_files_say(cased: Path) -> None:
    write(cased / "tokenizer_config.json", {"do_lower_case": True})
    write(cased / "sentence_bert_config.json", {"do_lower_case": True})
    write(cased / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ])  # fmt: skip
    (cased / "1_Pooling").mkdir()
    write(cased / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    assert minibert.load(cased).tokenizer.tokenize("Berlin") == ["berlin"]
    assert minibert.load(cased, do_lower_case=False).tokenizer.tokenize("Berlin") == ["Berlin"]


def test_commands_take_the_case(cased: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = []
    for lower in (True, False):
        main(["encode", "Berlin is", "--model", str(cased), "--lower-case", "yes" if lower else "no"])
        vectors.append([float(number) for number in capsys.readouterr().out.split("\t")[1].split()])
        np.testing.assert_allclose(vectors[-1], minibert.load(cased, do_lower_case=lower).encode("Berlin is"), 1e-5)
    assert vectors[0] != vectors[1]


def hostile(minilm: Path) -> dict[str, tuple[Any, str]]:
    """Files that would crash the library, take it forever or give a KeyError later, and what is said of each."""
    whole = json.loads((minilm / "tokenizer.json").read_text("utf-8"))
    long = "a" * 1_000_000
    unigram: Any = {"type": "Unigram", "unk_id": 0, "vocab": [["[UNK]", 0.0], ["[CLS]", -1.0], ["[SEP]", -2.0]]}
    grows = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    between = {"type": "Replace", "pattern": {"Regex": "(?=.)"}, "content": "x"}
    template = whole["post_processor"]
    cls, first = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}

    def charsmap(size: int, *units: int, texts: bytes = b"") -> dict[str, str]:
        data = b"".join(number.to_bytes(4, "little") for number in (size, *units)) + texts
        return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}

    node = 1 << 10  # whose children begin at 1, and so on up to 255
    trie = [node | 1 << 8, *([1 << 31 | 9] * 255)]

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
        "charsmap": (with_(normalizer=charsmap(4_000_000_000, 1)), "whose sizes fit"),
        "no charsmap": (with_(normalizer=charsmap(0)), "whose sizes fit"),
        "a node outside": (with_(normalizer=charsmap(4, 0xFFFFF000)), "whose sizes fit"),
        "a text outside": (with_(normalizer=charsmap(1024, *trie, texts=b"ab\0")), "whose sizes fit"),
        "half a character": (
            with_(normalizer=charsmap(1024, trie[0], *([1 << 31 | 1] * 255), texts="\u00e9".encode())),
            "whose sizes fit",
        ),
        "growth of a charsmap": (
            with_(normalizer=charsmap(1024, trie[0], *([1 << 31 | 1] * 255), texts=b"a" * 300)),
            "more than 256 times",
        ),
        "no base64": (with_(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}), "whose sizes fit"),
        "growth": (with_(normalizer={"type": "Sequence", "normalizers": [grows] * 9}), "more than 256 times"),
        "growth between": (with_(normalizer={"type": "Sequence", "normalizers": [between] * 9}), "more than 256 times"),
        "growth of bytes": (
            with_(normalizer={"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 5}),
            "more than 256 times",
        ),
        "many rules": (
            with_(normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 101}),
            r"\(102 rules\) must have at most 100",
        ),
        "prepend": (with_(normalizer={"type": "Prepend", "prepend": long}), "at most 100 characters"),
        "empty pattern": (with_(normalizer={**grows, "pattern": {"String": ""}}), "must be a String or Regex"),
        "empty regex": (with_(normalizer={**grows, "pattern": {"Regex": ""}}), "must be a String or Regex"),
        "pieces of nothing": (with_(pre_tokenizer={"type": "FixedLength", "length": 0}), "must be at least 1"),
        "strip": (with_(decoder={"type": "Strip", "content": " ", "start": 0, "stop": 2}), "must be 0"),
        "a text twice": (with_(post_processor={**template, "single": [cls, first, first, cls]}), "must have A once"),
        "no special token": (with_(post_processor={**template, "special_tokens": {}}), "only special tokens of its"),
        "another id": (
            with_(
                post_processor={
                    **template,
                    "special_tokens": {
                        **template["special_tokens"],
                        "[CLS]": {"id": "[CLS]", "ids": [5], "tokens": ["[CLS]"]},
                    },
                }
            ),
            r"'\[CLS\]' .* must have the id 5, but the vocabulary gives it 101",
        ),
        "another id of BertProcessing": (
            with_(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 999]}),
            "must have the id 999, but the vocabulary gives it 101",
        ),
        "another id of an added token": (
            with_(added_tokens=[{**ENT, "id": 7, "special": True}]),
            "must have the id 7, but the vocabulary gives it 30522",
        ),
        "ids twice": (model(vocab={**whole["model"]["vocab"], "x1y": 5}), "some of its 30,523 tokens share one"),
        "unknown kind": (with_(normalizer={"type": "Python"}), "a normalizer of .* must be one of"),
        "no kind": (with_(pre_tokenizer=[1]), "a pre_tokenizer of .* must be one of"),
        "deep": (with_(normalizer=deep), "at most 10 of them nested"),
        "no unk_id": (with_(model={**unigram, "unk_id": None}), r"unk_id of .*\(None\) must be the number of a token"),
        "no unk_id, with bytes": (
            with_(model={**unigram, "unk_id": None, "byte_fallback": True}),
            r"unk_id of .*\(None\) must be the number of a token",
        ),
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
        "no rule": (with_(post_processor={"type": "BertProcessing"}), "must be a tokenizer of the tokenizers libr"),
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
    twice = '{"model": {"type": "WordPiece"}, ' + json.dumps(hostile(minilm)["long unigram"][0])[1:]
    (tmp_path / "tokenizer.json").write_text(twice)
    with pytest.raises(MinibertError, match=r"must be valid JSON \(an object has a name twice\)"):
        BertTokenizer.from_pretrained(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(256 * 2**20 + 1)  # takes no room on the disk
    with pytest.raises(MinibertError, match=r"\(268,435,457 bytes\) must have at most 268,435,456"):
        BertTokenizer.from_pretrained(tmp_path)
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
        ("tokenizer_config.json", {"bos_token": "\ud800"}, r"bos_token .*\('\\ud800'\) must be a token"),
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


SENTENCEPIECE = [
    normalizers.Replace("``", '"'),
    normalizers.NFKD(),
    normalizers.StripAccents(),
    normalizers.Lowercase(),
]
PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)


def charsmap_of(rule: str) -> bytes:
    """A charsmap that SentencePiece makes."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b"] * 9),
        model_writer=made,
        vocab_size=6,
        minloglevel=2,
        normalization_rule_name=rule,
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(made.getvalue())
    return bytes(proto.normalizer_spec.precompiled_charsmap)


def real(kind: str, normalizer: Any = None, pre_tokenizer: Any = None) -> Tokenizer:
    made = trained(kind)
    made.normalizer = normalizer or made.normalizer
    made.pre_tokenizer = pre_tokenizer or made.pre_tokenizer
    return made


REAL: dict[str, Callable[[], Tokenizer]] = {
    "XLM-RoBERTa": lambda: real(
        "unigram",
        normalizers.Sequence(
            [normalizers.Precompiled(charsmap_of("nmt_nfkc")), normalizers.Replace(Regex(" {2,}"), " ")]
        ),
    ),
    "ALBERT": lambda: real(
        "unigram",
        normalizers.Sequence(
            [
                *SENTENCEPIECE,
                normalizers.Precompiled(charsmap_of("nmt_nfkc_cf")),
                normalizers.Replace(Regex(" {2,}"), " "),
            ]
        ),
    ),
    "older SentencePiece": lambda: real(
        "bpe", normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), pre_tokenizers.Digits()
    ),
    "RoBERTa": lambda: real("bytes", None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "ModernBERT": lambda: real("bytes", normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "GPT": lambda: real(
        "bytes",
        None,
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
        ),
    ),
    "letters": lambda: real("bpe", None, pre_tokenizers.Split("", "isolated")),
    "scripts": lambda: real(
        "unigram",
        normalizers.Nmt(),
        pre_tokenizers.Sequence(
            [pre_tokenizers.UnicodeScripts(), pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace()]
        ),
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_kinds_of_rules_are_accepted(name: str, tmp_path: Path) -> None:
    REAL[name]().save(str(tmp_path / "tokenizer.json"))
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    write(tmp_path / "config.json", {"model_type": "bert"})
    ours, theirs = ids_of_both(tmp_path)
    assert ours == theirs


@pytest.mark.parametrize("whole", [True, False])
def test_bpe_of_bytes_may_have_an_unknown_token_beside_its_vocabulary(whole: bool, tmp_path: Path) -> None:
    content = json.loads(trained("bytes").to_str())
    content["model"]["unk_token"] = "<gone>"
    if not whole:
        content["pre_tokenizer"] = None
    write(tmp_path / "tokenizer.json", content)
    if whole:
        assert BertTokenizer.from_pretrained(tmp_path)("bank\U0010ffff").input_ids
    else:
        with pytest.raises(MinibertError, match=r"unk_token of .*'<gone>'\) must be a token of its vocabulary"):
            BertTokenizer.from_pretrained(tmp_path)
