"""The page that shows the rules gives the tokens of the fast tokenizer: published cases, real data, any Unicode."""

from __future__ import annotations

import csv
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from minibert import BertTokenizer
from minibert.wordpiece import is_control, is_punctuation, normalize, split, tokenize

CASES = json.loads((Path(__file__).parent / "golden" / "tokenization_cases.json").read_text(encoding="utf-8"))
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
# Characters that Unicode 3.2 had in the category of today: the tables of Python and of `tokenizers` agree on them.
SETTLED = [
    chr(i)
    for i in range(sys.maxunicode + 1)
    if unicodedata.category(chr(i)) not in ("Cn", "Cs")
    and unicodedata.ucd_3_2_0.category(chr(i)) == unicodedata.category(chr(i))
]


def cases(*kinds: str) -> list[dict[str, Any]]:
    found = [case for case in CASES if case["kind"] in kinds]
    assert found
    return found


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def fast(request: pytest.FixtureRequest, minilm: Path) -> BertTokenizer:
    """The real vocabulary, lower-cased and not; with some capitals and accents, so that there is something to find."""
    vocab = BertTokenizer.from_pretrained(minilm).vocab
    extra = ["A", "The", "E", "É", "é", "##É", "##é", "İ", "##S", "ß", "中", "##A", "##B", "B"]
    vocab |= {token: len(vocab) + i for i, token in enumerate(t for t in extra if t not in vocab)}
    return BertTokenizer(vocab, do_lower_case=request.param)


def plain(fast: BertTokenizer, text: str) -> list[str]:
    return tokenize(text, fast.vocab, fast.do_lower_case, fast.special_tokens.values())


@pytest.mark.parametrize("case", cases("full"), ids=lambda case: case["id"])
def test_published_texts_become_the_published_tokens(case: dict[str, Any]) -> None:
    assert tokenize(case["input"], case["vocab"], case.get("do_lower_case", True)) == case["expected"]


@pytest.mark.parametrize("case", cases("wordpiece"), ids=lambda case: case["id"])
def test_published_words_become_the_published_pieces(case: dict[str, Any]) -> None:
    assert tokenize(case["input"], case["vocab"], lower_case=False) == case["expected"]


@pytest.mark.parametrize(
    "case", [case for case in cases("basic") if "strip_accents" not in case], ids=lambda case: case["id"]
)
def test_published_texts_become_the_published_words(case: dict[str, Any]) -> None:
    assert tokenize(case["input"], case["expected"], case["do_lower_case"], SPECIAL) == case["expected"]


@pytest.mark.parametrize("case", cases("is_control", "is_punctuation"), ids=lambda case: case["id"])
def test_characters_are_of_the_published_kind(case: dict[str, Any]) -> None:
    kind = {"is_control": is_control, "is_punctuation": is_punctuation}[case["kind"]]
    assert (kind(case["input"]) and case["input"] not in "\t\n\r") is case["expected"]


@pytest.mark.parametrize("case", cases("pretokenizer"), ids=lambda case: case["id"])
def test_published_texts_are_split_into_the_published_words(case: dict[str, Any]) -> None:
    assert list(split(normalize(case["input"], lower_case=False))) == [word for word, _, _ in case["expected"]]


def test_every_golden_text_gets_the_tokens_of_the_fast_tokenizer(fast: BertTokenizer) -> None:
    texts = [case["input"] for case in CASES if isinstance(case["input"], str)]
    assert len(texts) > 40
    for text in texts:
        assert plain(fast, text) == fast.tokenize(text)


@pytest.mark.slow
def test_all_of_stsb_gets_the_tokens_of_the_fast_tokenizer(fast: BertTokenizer, evaldata: Path) -> None:
    texts: list[str] = []
    for part in ("train", "dev", "test"):
        with (evaldata / "stsb" / f"sts-{part}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                texts += row[5:7]
    assert len(texts) == 2 * 8628
    expected = [encoding.tokens for encoding in fast.encode_texts(texts, add_special_tokens=False)]
    vocab, special = fast.vocab, tuple(fast.special_tokens.values())
    for text, tokens in zip(texts, expected, strict=True):
        assert tokenize(text, vocab, fast.do_lower_case, special) == tokens


@pytest.mark.slow
def test_every_character_is_treated_as_by_the_fast_tokenizer() -> None:
    """One by one, between letters: dropped, a space, a word of its own, or a letter in another form."""
    assert len(SETTLED) > 90_000
    for lower in (True, False):
        backend = BertTokenizer({token: i for i, token in enumerate(SPECIAL)}, do_lower_case=lower).backend
        for c in SETTLED:
            text = f"a{c}b"
            normal = backend.normalizer.normalize_str(text)
            assert normalize(text, lower) == normal, hex(ord(c))
            assert list(split(normal)) == [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]


PIECES = st.sampled_from(
    [
        *SPECIAL,
        " ",
        "\t",
        "\u200b",
        "\u2028",
        "é",
        "e\u0301",
        "É",
        "ﬁ",
        "İ",
        "Σ",
        "ß",
        "中",
        "한",
        "##ing",
        "un",
        "'",
        "$",
        "€",
    ]
)
TEXT = st.lists(PIECES | st.text(st.sampled_from(SETTLED), max_size=40), max_size=8).map("".join)


@pytest.mark.slow
@hypothesis.settings(deadline=None, max_examples=120)
@hypothesis.given(text=TEXT)
def test_any_unicode_gets_the_tokens_of_the_fast_tokenizer(fast: BertTokenizer, text: str) -> None:
    assert plain(fast, text) == fast.tokenize(text)


def test_a_word_of_a_hundred_characters_is_cut_into_pieces_and_a_longer_one_is_unknown(fast: BertTokenizer) -> None:
    for length, known in ((100, True), (101, False)):
        tokens = plain(fast, "a" * length)
        assert tokens == fast.tokenize("a" * length)
        assert (tokens != ["[UNK]"]) is known
