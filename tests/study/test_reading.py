"""A text as the model reads it: tokens, words, and where each word is in the text."""

from __future__ import annotations

import pytest
import torch

import minibert
from minibert.study.reading import Reading, read


def reading(bert: minibert.Bert, text: str, pair: str | None = None, longest: int = 512) -> Reading:
    """The text as the real tokenizer has it."""
    return read(bert.tokenizer, text, pair, longest, torch.device("cpu"))


def test_ids_and_tokens_are_the_tokenizers(bert: minibert.Bert) -> None:
    found = reading(bert, "antediluvian times", "and later")
    assert found.ids.tolist() == [bert.tokenizer("antediluvian times", "and later").input_ids]
    assert found.tokens == ("[CLS]", *bert.tokenizer.tokenize("antediluvian times"), "[SEP]", "and", "later", "[SEP]")
    assert found.encoding["token_type_ids"][0, -3:].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the the",
        "Zürich, 北京 e\u0301te!",
        "Say 😀 or שלום.",
        "The [MASK] sat [SEP] down",
        "ﬁne \u200b½ <b>&amp;",
        "cafe\u0301 मे\u0902, noir\u0308\u200d!\u0301",
    ],
)
def test_words_are_spelled_as_in_the_text(bert: minibert.Bert, text: str) -> None:
    found = reading(bert, text, "the " + text)
    texts = (text, "the " + text)
    for word, span in zip(found.words, found.spans, strict=True):
        assert word in ("[CLS]", "[SEP]") if span is None else word == texts[span[0]][span[1] : span[2]]
    characters = [{span[1:] for span in found.spans if span and span[0] == number} for number in (0, 1)]
    for number, spans in enumerate(characters):
        covered = "".join(texts[number][start:end] for start, end in sorted(spans))
        assert covered == "".join(texts[number].replace("\u200b", " ").split())


def test_each_token_has_its_word_and_each_special_token_is_one(bert: minibert.Bert) -> None:
    found = reading(bert, "the antediluvian", "the")
    assert found.words == ("[CLS]", "the", "antediluvian", "[SEP]", "the", "[SEP]")
    pieces = len(bert.tokenizer.tokenize("antediluvian"))
    assert pieces > 1
    assert found.word_of == (0, 1, *[2] * pieces, 3, 4, 5)
    assert found.spans == (None, (0, 0, 3), (0, 4, 16), None, (1, 0, 3), None)


def test_a_text_that_is_too_long_or_no_text_is_refused(bert: minibert.Bert) -> None:
    assert len(reading(bert, "a b", longest=4).tokens) == 4
    with pytest.raises(minibert.MinibertError, match="5 tokens"):
        reading(bert, "a b c", longest=4)
    with pytest.raises(minibert.MinibertError, match="must be str"):
        reading(bert, None)  # type: ignore[arg-type]
