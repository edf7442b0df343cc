"""Unigram and BPE tokenizers in front of a BERT: the ids are transformers', and words, masks and files work."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import textwrap
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import transformers
from oracle import theirs_of
from other_tokenizers import KINDS, NAMES, SCRIPTS, trained
from tokenizers import processors

import minibert
from minibert import BertTokenizer
from minibert.lexicon.senses import static_neighbours, whole_words
from minibert.study.reading import read

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with `model_type: bert` and such a tokenizer, saved by transformers."""
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    made = trained(request.param)
    theirs_of("BertForMaskedLM", path, vocab_size=made.get_vocab_size(), initializer_range=0.5)
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **NAMES).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[BertTokenizer, Any]:
    return BertTokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> minibert.Bert:
    return minibert.load(folder)


def lines(evaldata: Path) -> list[str]:
    """10,000 lines: in all scripts, alone and beside English, and English ones."""
    with (evaldata / "stsb" / "sts-train.csv").open(encoding="utf-8", newline="") as file:
        english = [row[5] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    mixed = [f"{one} {two}" for one, two in zip(cycle(SCRIPTS.values()), english, strict=False)]
    return list(islice(cycle([*SCRIPTS.values(), *mixed, *english]), 10_000))


def assert_same(both: tuple[BertTokenizer, Any], *texts: Any, **arguments: Any) -> None:
    ours, theirs = (t(*texts, return_offsets_mapping=True, **arguments) for t in both)
    assert ours.input_ids == theirs["input_ids"]
    assert ours.attention_mask == theirs["attention_mask"]
    assert ours.offset_mapping == [[tuple(place) for place in row] for row in theirs["offset_mapping"]]
    assert not np.any(np.concatenate(ours.token_type_ids))
    for row in range(0, len(ours.encodings), 97):
        assert ours.sequence_ids(row) == theirs.sequence_ids(row)
        assert ours.word_ids(row) == theirs.word_ids(row)


@pytest.mark.slow
def test_ten_thousand_lines_in_many_scripts_get_the_ids_of_transformers(
    both: tuple[BertTokenizer, Any], evaldata: Path
) -> None:
    texts = lines(evaldata)
    assert_same(both, texts)
    assert_same(both, texts[:2000], texts[2000:4000], padding=True, truncation=True, max_length=40)


def test_every_script_gets_the_ids_of_transformers(both: tuple[BertTokenizer, Any]) -> None:
    texts = list(SCRIPTS.values())
    assert_same(both, texts)
    assert_same(both, texts, texts[::-1], padding=True, truncation=True, max_length=40)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(text=ANY_TEXT, pair=ANY_TEXT)
def test_any_unicode_gets_the_ids_of_transformers(both: tuple[BertTokenizer, Any], text: str, pair: str) -> None:
    assert_same(both, [text])
    assert_same(both, [text], [pair])
    assert both[0].decode(both[0].encode(text)) == both[1].decode(both[0].encode(text))


def test_special_tokens_have_their_roles(both: tuple[BertTokenizer, Any]) -> None:
    ours, theirs = both
    for role in ("unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    assert ours.do_lower_case is False
    assert ours.lower_cased()("BANK").input_ids == ours("bank").input_ids


def test_roles_are_found_without_a_configuration(folder: Path, both: tuple[BertTokenizer, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    assert BertTokenizer.from_pretrained(tmp_path).special_tokens == both[0].special_tokens


def test_the_roles_of_cls_and_sep_are_those_of_the_post_processor(tmp_path: Path) -> None:
    made = trained("bytes")
    ends = [(token, made.token_to_id(token)) for token in ("A", "B")]
    made.post_processor = processors.TemplateProcessing(single="A $A B", pair="A $A B $B B", special_tokens=ends)
    made.enable_padding(length=8)  # is not taken for special tokens
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token) == ("A", "B", "<pad>")


def test_xlm_robertas_class_gives_the_same_ids(tmp_path: Path) -> None:
    made = trained("unigram")
    made.normalizer = None  # transformers' class keeps no normalizer but SentencePiece's own
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **NAMES).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "XLMRobertaTokenizer"}))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    pair = BertTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(pair[1]).__name__ == "XLMRobertaTokenizer"
    texts = list(SCRIPTS.values())
    assert_same(pair, texts)
    assert_same(pair, texts, texts[::-1])


def test_a_saved_tokenizer_is_the_same_here_and_in_transformers(
    both: tuple[BertTokenizer, Any], loaded: minibert.Bert, tmp_path: Path
) -> None:
    loaded.save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.txt").exists()
    texts = list(SCRIPTS.values())
    again = BertTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert_same(again, texts)
    assert again[0](texts).input_ids == both[0](texts).input_ids
    assert again[0].special_tokens == both[0].special_tokens
    assert again[0].model_max_length == again[1].model_max_length == 64


def test_vectors_are_those_of_transformers(
    loaded: minibert.Bert, both: tuple[BertTokenizer, Any], folder: Path
) -> None:
    model = transformers.BertModel.from_pretrained(folder).eval()
    for text in SCRIPTS.values():
        inputs = both[1](text, return_tensors="pt", truncation=True)
        with torch.no_grad():
            theirs = model(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
        ours = loaded.encode(text, pooling="mean", truncation="error")
        np.testing.assert_allclose(ours, theirs.last_hidden_state[0].mean(0), atol=1e-5)


def check_words(bert: minibert.Bert, text: str) -> None:
    words = bert.words(text, truncation="window")
    assert words.words == [text[start:end] for start, end in words.spans]
    places = [0, *(place for span in words.spans for place in span)]
    assert places == sorted(places)
    spaces = re.compile(r"[^\S\x1c-\x1f]")  # what Unicode calls white space, which is less than what Python does
    assert all(word and not spaces.search(word) for word in words.words)
    assert all(words.pieces)


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_words_are_given_as_they_were_written(loaded: minibert.Bert, text: str) -> None:
    check_words(loaded, text)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(ANY_TEXT)
def test_words_of_any_text_are_given_as_they_were_written(loaded: minibert.Bert, text: str) -> None:
    check_words(loaded, text)


def test_words_have_no_space_and_no_punctuation_in_them(loaded: minibert.Bert) -> None:
    words = loaded.words("The  old bank, by the river.")
    assert words.words == ["The", "old", "bank", ",", "by", "the", "river", "."]
    assert loaded.words([["The", "old"]])[0].words == ["The", "old"]


def test_a_word_is_found_beside_punctuation(loaded: minibert.Bert) -> None:
    assert loaded.words("The bank, and the bank!").find("bank") == [1, 5]


def test_masks_are_filled_as_by_transformers(loaded: minibert.Bert, folder: Path) -> None:
    text = "The old <mask> stood by the river."
    theirs = transformers.pipeline("fill-mask", model=str(folder), top_k=20)(text)
    ours = loaded.fill_mask(text, top_k=20)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.id == other["token"]
        assert abs(mine.probability - other["score"]) < 1e-5
        before, after = text.split("<mask>")
        begins = mine.token[:1] in "▁Ġ"
        assert mine.text.startswith(before if begins else before.rstrip())
        assert mine.text.endswith(other["token_str"].strip() + after)


def test_words_compared_at_a_mask_are_written_as_words(loaded: minibert.Bert) -> None:
    [candidate] = loaded.fill_mask("The old <mask> stood.", targets=["river"])
    assert candidate.text == "The old river stood."
    [candidate] = loaded.fill_mask("The old <mask>.", targets=["bank"])
    assert candidate.text == "The old bank."
    assert (
        loaded.tokenizer.decode(candidate.id if isinstance(candidate.id, tuple) else [candidate.id]).strip() == "bank"
    )


def test_whole_words_of_the_vocabulary_are_found_whatever_marks_them(loaded: minibert.Bert) -> None:
    tokenizer = loaded.tokenizer
    found = static_neighbours(loaded, "the", 10)
    assert len(found) == 10
    for one in found:
        assert any(map(str.isalpha, one.word))
        assert one.word == one.word.strip()
        assert not set("▁Ġ#") & set(one.word)
        assert one.word not in tokenizer.special_tokens.values()
    names = whole_words(tokenizer)
    continuing = [token for token in tokenizer.vocab if tokenizer.spelled(token)[1]]
    assert continuing
    assert not {tokenizer.vocab[token] for token in continuing} & set(names.values())


def test_words_that_are_read_have_no_space_before_them(loaded: minibert.Bert) -> None:
    text = "The old river, by the bank."
    reading = read(loaded.tokenizer, text, None, 64, loaded.model.device)
    for word, span in zip(reading.words, reading.spans, strict=True):
        if span is not None:
            assert word == word.strip() == text[span[1] : span[2]]


def test_a_post_processor_that_adds_one_token_is_refused(tmp_path: Path) -> None:
    made = trained("unigram")
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(minibert.MinibertError, match=r"tokenizer\.json \(</s>\) must put one token before a text"):
        BertTokenizer.from_pretrained(tmp_path)


def test_a_token_is_spelled_without_its_mark_and_says_whether_it_continues_a_word() -> None:
    made, ends = trained("unigram"), {"cls_token": "<s>", "sep_token": "</s>"}
    assert BertTokenizer(made, **ends).spelled("▁bank") == ("bank", False)
    assert BertTokenizer(made, **ends).spelled("bank") == ("bank", True)
    made.decoder = None
    assert BertTokenizer(made, **ends).spelled("bank") == ("bank", False)
    words = BertTokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2})
    assert words.spelled("##ing") == ("ing", True)
    assert words.spelled("ing") == ("ing", False)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json"])
def test_a_vocabulary_that_is_not_read_is_named_with_the_file_to_add(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=f"must hold tokenizer.json beside {name}, which is not read here; add"):
        BertTokenizer.from_pretrained(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_random_strings_leave_memory_where_it_was(kind: str, tmp_path: Path) -> None:
    trained(kind).save(str(tmp_path / "tokenizer.json"))
    script = """
        import random, resource, sys
        from minibert import BertTokenizer
        from minibert.engine.rows import RowMaker, token_rows

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

        def strings(count):
            return ["".join(map(chr, random.choices(LETTERS, k=random.randint(1, 120)))) for _ in range(count)]

        LETTERS = [*range(32, 0x3000), *range(0x4E00, 0x9FFF), *range(0xAC00, 0xD000)]
        tokenizer = BertTokenizer.from_pretrained(sys.argv[1])
        maker = RowMaker(tokenizer, 64, "warn")
        token_rows(tokenizer, strings(1000), maker)
        before = resident()
        for _ in range(100):
            token_rows(tokenizer, strings(1000), maker)
        print(resident() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50
