"""The tokenizer gives what Google's, and transformers', gives: published cases, real data, and any Unicode at all."""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import transformers

from minibert import BertTokenizer

CASES = json.loads((Path(__file__).parent / "golden" / "tokenization_cases.json").read_text(encoding="utf-8"))
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def cases(*kinds: str) -> Any:
    chosen = [case for case in CASES if case["kind"] in kinds]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case["id"])


def with_words(words: list[str], **settings: Any) -> BertTokenizer:
    """A tokenizer whose vocabulary is just these words: any other word is [UNK]."""
    return BertTokenizer({word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}, **settings)


@pytest.fixture(scope="session")
def both(minilm: Path) -> tuple[BertTokenizer, Any]:
    """Ours and theirs, with the vocabulary of bert-base-uncased."""
    return BertTokenizer.from_pretrained(minilm), transformers.BertTokenizer.from_pretrained(minilm)


# Published cases; each names its source


@cases("full", "wordpiece")
def test_published_texts_become_the_published_tokens(case: dict[str, Any]) -> None:
    tokenizer = BertTokenizer(
        {token: i for i, token in enumerate(case["vocab"])}, do_lower_case=case.get("do_lower_case", True)
    )
    # WordPiece alone is case-sensitive, the whole tokenizer lower-cases before it
    text = case["input"].replace("X", "x") if case["kind"] == "wordpiece" else case["input"]
    assert tokenizer.tokenize(text) == case["expected"]
    if "ids" in case:
        assert tokenizer.convert_tokens_to_ids(case["expected"]) == case["ids"]
        assert tokenizer.encode(text, add_special_tokens=False) == case["ids"]


@cases("basic")
def test_published_texts_become_the_published_words(case: dict[str, Any]) -> None:
    settings = {name: case[name] for name in ("do_lower_case", "strip_accents") if name in case}
    assert with_words(case["expected"], **settings).tokenize(case["input"]) == case["expected"]


@cases("is_whitespace", "is_control", "is_punctuation")
def test_characters_are_of_the_published_kind(case: dict[str, Any]) -> None:
    character = case["input"]
    pieces = ["a", "b", "ab", character.strip() or "?", f"a{character}b", "##b"]
    tokens = with_words(pieces, do_lower_case=False).tokenize(f"a{character}b")
    told = {"is_whitespace": ["a", "b"], "is_control": ["ab"], "is_punctuation": ["a", character, "b"]}[case["kind"]]
    assert (tokens == told) is case["expected"]


@cases("normalizer")
def test_published_texts_are_normalized_as_published(case: dict[str, Any]) -> None:
    words = case["expected"].split()
    settings = {
        "do_lower_case": case.get("lowercase", False),
        "strip_accents": case.get("strip_accents", False),
        "tokenize_chinese_chars": case.get("handle_chinese_chars", False),
    }
    assert with_words(words, **settings).tokenize(case["input"]) == words


@cases("pretokenizer")
def test_published_words_have_the_published_places(case: dict[str, Any]) -> None:
    text, expected = case["input"], case["expected"]
    tokenizer = with_words([word for word, _, _ in expected], do_lower_case=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    in_bytes = [(len(text[:a].encode()), len(text[:b].encode())) for a, b in encoded.offset_mapping]
    assert [[token, *place] for token, place in zip(encoded.tokens(), in_bytes, strict=True)] == expected


@cases("postprocess")
def test_published_ids_get_the_published_special_tokens(case: dict[str, Any]) -> None:
    vocabulary = {f"t{i}": i for i in range(101)} | {"[CLS]": 101, "[SEP]": 102, "[UNK]": 103}
    texts = [None if ids is None else " ".join(f"t{i}" for i in ids) for ids in case["input"]]
    encoded = BertTokenizer(vocabulary)(*texts, return_special_tokens_mask=True)
    assert encoded.input_ids == case["expected"]["ids"]
    assert encoded.token_type_ids == case["expected"]["type_ids"]
    assert encoded.special_tokens_mask == case["expected"]["special"]


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["kind"] == "decode" and "note" not in c], ids=lambda case: case["id"]
)
def test_published_tokens_are_decoded_to_the_published_text(case: dict[str, Any]) -> None:
    tokenizer = with_words(case["input"], do_lower_case=False)
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(case["input"])) == case["expected"]


@cases("uncased")
def test_the_uncased_vocabulary_gives_the_published_ids_and_places(
    case: dict[str, Any], both: tuple[BertTokenizer, Any]
) -> None:
    encoded = both[0](
        *case["input"], add_special_tokens=case.get("add_special_tokens", True), return_offsets_mapping=True
    )
    expected = case["expected"]
    got = {
        "ids": encoded.input_ids,
        "tokens": encoded.tokens(),
        "offsets": [list(place) for place in encoded.offset_mapping],
        "type_ids": encoded.token_type_ids,
    }
    assert {name: got[name] for name in expected} == expected


# Real data


def assert_same(both: tuple[BertTokenizer, Any], *texts: Any, **arguments: Any) -> None:
    """Ids, types, masks, offsets and word ids are those of transformers."""
    ours, theirs = (t(*texts, return_offsets_mapping=True, **arguments) for t in both)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert ours[name] == theirs[name], name
    rows = range(len(ours.encodings))
    places = ours.offset_mapping if isinstance(texts[0], list) else [ours.offset_mapping]
    expected = theirs["offset_mapping"] if isinstance(texts[0], list) else [theirs["offset_mapping"]]
    assert [list(map(tuple, row)) for row in places] == [list(map(tuple, row)) for row in expected]
    for row in rows:
        assert ours.word_ids(row) == theirs.word_ids(row)
        assert ours.tokens(row) == theirs.tokens(row)
        assert ours.sequence_ids(row) == theirs.sequence_ids(row)


def stsb(folder: Path) -> tuple[list[str], list[str]]:
    firsts, seconds = [], []
    for part in ("train", "dev", "test"):
        with (folder / "stsb" / f"sts-{part}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                firsts.append(row[5])
                seconds.append(row[6])
    return firsts, seconds


def wnut(folder: Path) -> Iterator[list[str]]:
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        for block in re.split(r"\n\s*\n", (folder / "wnut17" / name).read_text(encoding="utf-8")):
            words = [line.split("\t")[0] for line in block.split("\n") if line.strip()]
            if words:
                yield words


@pytest.mark.slow
def test_all_of_stsb_is_tokenized_as_by_transformers(both: tuple[BertTokenizer, Any], evaldata: Path) -> None:
    firsts, seconds = stsb(evaldata)
    assert len(firsts) == 8628
    assert_same(both, firsts)
    assert_same(both, firsts, seconds)
    assert_same(both, firsts, seconds, truncation=True, max_length=24, padding="max_length")


@pytest.mark.slow
def test_all_of_wnut17_is_tokenized_as_by_transformers(both: tuple[BertTokenizer, Any], evaldata: Path) -> None:
    sentences = list(wnut(evaldata))
    assert len(sentences) > 5000
    assert_same(both, sentences, is_split_into_words=True)
    assert_same(both, [" ".join(words) for words in sentences])
    assert_same(both, sentences, is_split_into_words=True, truncation=True, max_length=16)


# Any text at all

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PIECES = st.sampled_from(
    [
        "[MASK]",
        "[CLS]",
        " ",
        "\t",
        "\n",
        "\u200b",
        "é",
        "e\u0301",
        "ﬁ",
        "İ",
        "ß",
        "中",
        "한",
        "👩‍👩‍👧",
        "##ing",
        "un",
        "'",
        "…",
    ]
)
TEXT = st.one_of(ANY_TEXT, st.lists(PIECES | ANY_TEXT, max_size=8).map("".join))


@hypothesis.settings(deadline=None, max_examples=400)
@hypothesis.given(text=TEXT, pair=st.none() | TEXT.filter(bool))
def test_any_unicode_is_tokenized_as_by_transformers(
    both: tuple[BertTokenizer, Any], text: str, pair: str | None
) -> None:
    assert_same(both, text, pair)
    assert both[0].tokenize(text) == both[1].tokenize(text)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(words=st.lists(TEXT, max_size=6))
def test_any_words_are_tokenized_as_by_transformers(both: tuple[BertTokenizer, Any], words: list[str]) -> None:
    assert_same(both, [words, ["a"]], is_split_into_words=True)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
    lengths=st.tuples(st.integers(0, 12), st.integers(1, 12)),
    room=st.integers(0, 16),
    strategy=st.sampled_from(["longest_first", "only_first", "only_second", "do_not_truncate"]),
)
def test_every_truncation_cuts_as_transformers_does_or_refuses(
    both: tuple[BertTokenizer, Any], lengths: tuple[int, int], room: int, strategy: str
) -> None:
    first, second = "a " * lengths[0], "b " * lengths[1]
    arguments = {"truncation": strategy, "max_length": 3 + room}
    try:
        expected = both[1](first, second, **arguments)["input_ids"]
    except Exception:
        with pytest.raises(ValueError, match="must be longer than what it has to lose"):
            both[0](first, second, **arguments)
        return
    assert both[0](first, second, **arguments)["input_ids"] == expected


@pytest.mark.parametrize("padding", [True, "longest", "max_length"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("multiple", [None, 8])
def test_padding_is_that_of_transformers(
    both: tuple[BertTokenizer, Any], padding: Any, side: str, multiple: int | None
) -> None:
    texts = ["One.", "A few more words here.", ""]
    limit = 24 if padding == "max_length" else None
    assert_same(both, texts, padding=padding, padding_side=side, pad_to_multiple_of=multiple, max_length=limit)


def test_max_length_alone_cuts_as_in_transformers_and_says_where_it_does_not(
    both: tuple[BertTokenizer, Any],
) -> None:
    for arguments in ({"max_length": 3}, {"max_length": 3, "truncation": None}, {"max_length": 3, "truncation": False}):
        assert_same(both, ["a b c", "a"], **arguments)
    with pytest.warns(UserWarning, match=r"max_length \(3\) has no effect here; pass truncation=True"):
        assert len(both[0]("a b c", max_length=3, padding=True).input_ids) == 5


@pytest.mark.parametrize("kind", ["pt", "np"])
def test_tensors_are_those_of_transformers(both: tuple[BertTokenizer, Any], kind: str) -> None:
    texts, pairs = ["One.", "A few more words here."], ["Two!", ""]
    ours, theirs = (t(texts, pairs, padding=True, return_tensors=kind) for t in both)
    assert list(ours) == list(theirs)
    for name in theirs:
        assert type(ours[name]) is type(theirs[name])
        assert ours[name].dtype == theirs[name].dtype
        assert np.array_equal(ours[name], theirs[name])


def test_one_text_with_tensors_has_a_batch_of_one(both: tuple[BertTokenizer, Any]) -> None:
    assert both[0]("One.", return_tensors="pt").input_ids.shape == (1, 4)
    assert both[0]([], return_tensors="pt").input_ids.shape == (0, 0)
    assert both[0]("One.").to("cpu").input_ids == [101, 2028, 1012, 102]


@pytest.mark.parametrize(
    "text", ["I'm John's friend. Hello, world!", "a [MASK] here", "naïve 中文 ünï", "", "100 000.5 %"]
)
@pytest.mark.parametrize("skip", [False, True])
def test_decoding_is_that_of_transformers(both: tuple[BertTokenizer, Any], text: str, skip: bool) -> None:
    ids = both[1].encode(text)
    assert both[0].decode(ids, skip_special_tokens=skip) == both[1].decode(ids, skip_special_tokens=skip)
    assert both[0].batch_decode(torch.tensor([ids, ids])) == [both[1].decode(ids)] * 2


def test_the_vocabulary_is_that_of_transformers(both: tuple[BertTokenizer, Any]) -> None:
    ours, theirs = both
    assert ours.vocab == theirs.get_vocab()
    assert len(ours) == ours.vocab_size == len(theirs)
    for name in ("unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert ours.convert_tokens_to_ids("no-such-token") == ours.unk_token_id
    assert ours.convert_tokens_to_ids(["[CLS]", "bank"]) == theirs.convert_tokens_to_ids(["[CLS]", "bank"])
    assert ours.convert_ids_to_tokens([101, 2924], skip_special_tokens=True) == ["bank"]
    assert ours.convert_ids_to_tokens(torch.tensor([101, 2924])) == ["[CLS]", "bank"]


# Files


def test_a_vocab_txt_gives_the_same_tokenizer_as_a_tokenizer_json(tmp_path: Path, minilm: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    ours, other = BertTokenizer.from_pretrained(tmp_path), BertTokenizer.from_pretrained(minilm)
    texts = ["A, naïve [MASK] AllenNLP sentence.", "生活的真谛是", "unaffable 92000"]
    assert ours(texts).input_ids == other(texts).input_ids
    assert ours.vocab == other.vocab
    assert ours.model_max_length == other.model_max_length == 512


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("accents", [True, False, None])
def test_settings_are_saved_and_loaded_here_and_by_transformers(
    tmp_path: Path, minilm: Path, lower: bool, accents: bool | None
) -> None:
    ours = BertTokenizer(minilm / "vocab.txt", do_lower_case=lower, strip_accents=accents, model_max_length=77)
    ours.save_pretrained(tmp_path)
    text = "Ünïted States of America, 中文 [MASK]"
    for again in (BertTokenizer.from_pretrained(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path)):
        assert again(text)["input_ids"] == ours(text)["input_ids"]
        assert again.model_max_length == 77
    (tmp_path / "tokenizer.json").unlink()
    assert BertTokenizer.from_pretrained(tmp_path)(text).input_ids == ours(text).input_ids


def test_tokenizer_config_wins_over_tokenizer_json_and_arguments_over_both(tmp_path: Path, minilm: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((minilm / "tokenizer.json").read_bytes())
    assert BertTokenizer.from_pretrained(tmp_path).do_lower_case is True
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    ours = BertTokenizer.from_pretrained(tmp_path)
    assert ours.do_lower_case is False
    assert ours("Bank").input_ids == transformers.BertTokenizer.from_pretrained(tmp_path)("Bank")["input_ids"]
    assert BertTokenizer.from_pretrained(tmp_path, do_lower_case=True).do_lower_case is True


def test_a_cased_vocabulary_without_settings_is_told(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "Berlin", "berlin"]) + "\n")
    with pytest.warns(UserWarning, match="pass do_lower_case=False") as told:
        BertTokenizer.from_pretrained(tmp_path)
    assert told[0].filename == __file__
    assert BertTokenizer.from_pretrained(tmp_path, do_lower_case=False).tokenize("Berlin") == ["Berlin"]


def test_special_tokens_written_as_objects_are_understood(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["<unk>", "<s>", "</s>", "a"]) + "\n")
    added = {
        name: {"content": token, "special": True}
        for name, token in (("unk_token", "<unk>"), ("cls_token", "<s>"), ("sep_token", "</s>"))
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(added))
    assert BertTokenizer.from_pretrained(tmp_path)("a <s> b").tokens() == ["<s>", "a", "<s>", "<unk>", "</s>"]


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold tokenizer\.json or vocab\.txt; it has neither"):
        BertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be a file with one token a line"):
        BertTokenizer(tmp_path / "vocab.txt")


def test_another_algorithm_over_a_vocab_txt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "a"]) + "\n")
    for kind in ("BertTokenizerFast", "DistilBertTokenizer"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        assert BertTokenizer.from_pretrained(tmp_path).tokenize("a") == ["a"]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(ValueError, match=re.escape("(BertJapaneseTokenizer) must be BertTokenizer where there is")):
        BertTokenizer.from_pretrained(tmp_path)


def test_what_the_configuration_says_of_the_tokenizer_counts(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "a"]) + "\n")
    (tmp_path / "config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer", "max_position_embeddings": 64}')
    with pytest.raises(ValueError, match="BertJapaneseTokenizer"):
        BertTokenizer.from_pretrained(tmp_path)
    for part in ({"word_tokenizer_type": "mecab"}, {"tokenizer_class": "KoBertTokenizer"}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **part}))
        with pytest.raises(ValueError, match=r"mecab|KoBertTokenizer"):
            BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert BertTokenizer.from_pretrained(tmp_path).model_max_length == 64
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "max_len": 12}')
    assert len(BertTokenizer.from_pretrained(tmp_path)("a " * 90, truncation=True).input_ids) == 12


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
def test_sides_are_read_used_and_saved(tmp_path: Path, minilm: Path, side: str) -> None:
    shutil.copy(minilm / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({side: "left"}))
    pair = (BertTokenizer.from_pretrained(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path))
    assert_same(pair, ["a b c d e f g", "a"], padding=True, truncation=True, max_length=6)
    assert_same(pair, "a b c d e f g", "h i j k", truncation="only_first", max_length=9)
    pair[0].save_pretrained(tmp_path / "again")
    assert getattr(BertTokenizer.from_pretrained(tmp_path / "again"), side) == "left"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("added_tokens.json", {"[E1]": 30522, "two words": 30523}),
        ("tokenizer_config.json", {"additional_special_tokens": ["[unused1]"]}),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"30522": {"content": "<x>", "special": True, "normalized": False}}},
        ),
    ],
)
def test_tokens_beside_the_vocabulary_are_found_in_texts(
    tmp_path: Path, minilm: Path, file: str, content: dict[str, Any]
) -> None:
    shutil.copy(minilm / "vocab.txt", tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    pair = (BertTokenizer.from_pretrained(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path))
    for text in ("a [E1] b", "has two words here", "a [unused1] b", "a<x>b"):
        assert_same(pair, text)
    assert pair[0].vocab == pair[1].get_vocab()


def test_special_tokens_of_a_map_are_used(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["<unk>", "<s>", "</s>", "<pad>", "a"]) + "\n")
    names = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    assert BertTokenizer.from_pretrained(tmp_path)(["a", "a b"], padding=True).tokens() == ["<s>", "a", "</s>", "<pad>"]


def test_a_tokenizer_json_without_a_post_processor_still_gets_cls_and_sep(tmp_path: Path, minilm: Path) -> None:
    content = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
    assert BertTokenizer.from_pretrained(tmp_path)("a", "b").tokens() == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]
    sequence = {"type": "Sequence", "normalizers": [{"type": "NFC"}, content["normalizer"]]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "normalizer": sequence}))
    assert BertTokenizer.from_pretrained(tmp_path).do_lower_case is True
    with pytest.raises(ValueError, match="do_lower_case cannot be set where"):
        BertTokenizer.from_pretrained(tmp_path, do_lower_case=False)


def test_a_vocabulary_with_holes_is_saved_without_shifting_ids(tmp_path: Path) -> None:
    vocabulary = {token: i for i, token in enumerate(SPECIAL)} | {"a": 7}
    BertTokenizer(vocabulary).save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.txt").exists()
    assert BertTokenizer.from_pretrained(tmp_path).vocab == vocabulary


def test_a_vocabulary_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"vocab\.txt\) must be UTF-8; it is not"):
        BertTokenizer.from_pretrained(tmp_path)


def test_ids_of_any_integer_type_are_understood(both: tuple[BertTokenizer, Any]) -> None:
    assert both[0].convert_ids_to_tokens(np.int64(101)) == "[CLS]"
    assert both[0].decode(np.array([2924, 2003])) == "bank is"
    with pytest.raises(ValueError, match="use batch_decode for several"):
        both[0].decode([[101], [102]])


def test_a_broken_or_foreign_tokenizer_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json must be valid JSON"):
        BertTokenizer.from_pretrained(tmp_path)
    path.write_text('{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}')
    with pytest.raises(ValueError, match=r"tokenizer\.json \(no special tokens\) must put one token before a text and"):
        BertTokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_without_special_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the vocabulary \(1 token\) must hold \[UNK\]"):
        BertTokenizer({"a": 0})
    with pytest.raises(ValueError, match=r"must hold \[CLS\], \[SEP\]; it is not"):
        BertTokenizer({"[UNK]": 0})
    with pytest.raises(TypeError, match="bos_token must be an argument of BertTokenizer"):
        BertTokenizer(dict.fromkeys(SPECIAL, 0), bos_token="<s>")


# Bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "text (None) must be str or a list of str, not NoneType; leave missing texts out, or pass ''"),
        (3.5, "text (3.5) must be str or a list of str, not float; convert it with str()"),
        (b"abc", "text (b'abc') must be str or a list of str, not bytes; decode it: text.decode('utf-8')"),
        (np.array(["a"]), "must be str or a list of str, not ndarray; pass list(texts)"),
        (
            [("a", "b")],
            "text 0 (('a', 'b')) must be str, not tuple; pass one str for each text",
        ),
        (["a", None], "text 1 (None) must be str, not NoneType; leave missing texts out, or pass ''"),
        (["a", ["b"]], "text 1 (['b']) must be str, not list; pass one str for each text"),
        (["a", "b\ud83d"], "text 1 holds a lone surrogate ('\\ud83d' at 1), but must be valid Unicode"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(both: tuple[BertTokenizer, Any], text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        both[0](text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation": "middle"}, "truncation ('middle') must be True, False, 'longest_first'"),
        ({"padding": "both"}, "padding ('both') must be True, False, 'longest', 'max_length'"),
        ({"return_tensors": "tf"}, "return_tensors ('tf') must be 'pt', 'np' or None"),
        ({"return_tensors": "pt"}, "they have 3 to 4: pass padding=True"),
        ({"max_length": 0}, "max_length (0) must be a whole number of at least 1"),
        ({"max_length": "3"}, "max_length ('3') must be a whole number of at least 1"),
        ({"pad_to_multiple_of": -3}, "pad_to_multiple_of (-3) must be a whole number of at least 1"),
        ({"padding_side": "top"}, "padding_side ('top') must be 'right' or 'left'"),
        ({"truncation": True, "max_length": 1}, "max_length (1) must be at least 2, the number of special tokens"),
        ({"text_pair": ["x"]}, "text_pair (1 text) must be a list as long as text (2)"),
        ({"text_pair": "x"}, "text_pair (one str) must be a list as long as text (2)"),
        (
            {"truncation": "only_second", "max_length": 3},
            "text_pair (None) must be given for truncation='only_second'; pass truncation=True",
        ),
        (
            {"truncation": "only_first", "max_length": 4, "text": "a", "text_pair": "b c"},
            "the text that truncation='only_first' shortens (1 token) must be longer than what it has to lose "
            "(2 tokens); pass a larger max_length or truncation='longest_first'",
        ),
        ({"is_split_into_words": True, "text": "a b"}, "must be a list of words with is_split_into_words=True"),
    ],
)
def test_arguments_that_cannot_be_honoured_are_refused(
    both: tuple[BertTokenizer, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        both[0](**{"text": ["a", "b c"], **arguments})


def test_truncation_without_a_known_limit_is_refused() -> None:
    tokenizer = with_words(["a"])
    with pytest.raises(ValueError, match="truncation needs max_length"):
        tokenizer("a", truncation=True)
    with pytest.raises(ValueError, match="padding='max_length' needs max_length"):
        tokenizer("a", padding="max_length")


def test_ids_that_no_token_has_are_refused(both: tuple[BertTokenizer, Any]) -> None:
    for bad in (-1, 30522):
        with pytest.raises(
            ValueError, match=re.escape(f"id ({bad}) must be that of a token; the vocabulary has 30522")
        ):
            both[0].decode([101, bad])


def test_a_missing_special_token_is_named_when_it_is_needed() -> None:
    tokenizer = BertTokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3})
    with pytest.raises(ValueError, match=re.escape("the vocabulary (4 tokens) must hold [PAD] for this; it does not")):
        tokenizer(["a", "a a"], padding=True)


def test_threads_share_a_tokenizer(both: tuple[BertTokenizer, Any]) -> None:
    texts = ["a few words " * n for n in range(1, 30)]
    settings = [{"max_length": n, "truncation": True, "padding": True} for n in (5, 9, 17, 33)]
    alone = [both[0](texts, **setting).input_ids for setting in settings]
    results: dict[int, list[Any]] = {i: [] for i in range(4)}

    def work(i: int) -> None:
        results[i] = [both[0](texts, **settings[i]).input_ids for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == alone[i] for i in range(4) for result in results[i])
    assert all(len(results[i]) == 20 for i in range(4))
