"""One pass through the encoder gives what `encode`, `words`, `entities` and `classify` give, each with its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from oracle import assert_same_vectors, with_real_vocabulary
from sentence_transformers import SentenceTransformer

import minibert
from minibert import Annotation, Entity, MinibertError

TEXTS = [
    "Angela Merkel met François Hollande in Straßburg-Neudorf.",
    "",
    "北京大学 and 東京, Zürich: cafés! 👍🏽",
    "She works for Apple in Paris.",
]
LONG = "He robbed the bank by the river bank in Paris. " * 80
LABELS = {"id2label": dict(enumerate(["O", "B-PER", "I-PER", "B-LOC"]))}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return with_real_vocabulary(tmp_path_factory.mktemp("tagger"), minilm, "BertForTokenClassification", **LABELS)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return with_real_vocabulary(
        tmp_path_factory.mktemp("classifier"), minilm, "BertForSequenceClassification", num_labels=4
    )


def places_of(entities: list[Entity]) -> list[tuple[str, int, int]]:
    return [(entity.label, entity.start, entity.end) for entity in entities]


def passes_of(bert: minibert.Bert) -> list[int]:
    """Grows by one with each pass through the encoder."""
    passes: list[int] = []
    bert.encoder.embeddings.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    return passes


@pytest.mark.parametrize("kind", ["tagger", "classifier"])
def test_texts_take_one_pass(kind: str, request: pytest.FixtureRequest) -> None:
    bert = minibert.load(request.getfixturevalue(kind))
    passes = passes_of(bert)
    assert len(list(bert.annotate(TEXTS, pooling="mean"))) == len(TEXTS)
    assert len(passes) == 1
    (
        bert.encode(TEXTS, pooling="mean"),
        bert.words(TEXTS),
        bert.classify(TEXTS) if kind == "classifier" else bert.entities(TEXTS),
    )
    assert len(passes) == 4


@pytest.mark.parametrize("strategy", ["simple", "first"])
def test_entities_are_those_of_the_pipeline(tagger: Path, strategy: Any) -> None:
    pipeline = transformers.pipeline("token-classification", str(tagger), device="cpu", aggregation_strategy=strategy)
    total = 0
    for one, expected in zip(
        minibert.load(tagger).annotate(TEXTS, strategy=strategy, pooling="mean"), pipeline(TEXTS), strict=True
    ):
        assert one.labels is None
        assert one.entities is not None
        assert places_of(one.entities) == [
            (theirs["entity_group"], theirs["start"], theirs["end"]) for theirs in expected
        ]
        np.testing.assert_allclose([x.score for x in one.entities], [x["score"] for x in expected], atol=1e-5)
        total += len(expected)
    assert total > 5


def test_labels_are_those_of_the_pipeline(classifier: Path) -> None:
    theirs = transformers.pipeline("text-classification", str(classifier), device="cpu", top_k=None)
    for one, expected in zip(
        minibert.load(classifier).annotate(iter(TEXTS), batch_size=2, pooling="cls"), theirs(TEXTS), strict=True
    ):
        assert one.entities is None
        assert one.labels is not None
        assert [label.label for label in one.labels] == [label["label"] for label in expected]
        np.testing.assert_allclose([x.score for x in one.labels], [x["score"] for x in expected], atol=1e-5)


def test_vectors_and_words_are_those_of_encode_and_words(minilm: Path) -> None:
    bert = minibert.load(minilm)
    found = list(bert.annotate(TEXTS))
    assert_same_vectors(np.stack([one.vector for one in found]), SentenceTransformer(str(minilm)).encode(TEXTS))
    for one, words in zip(found, bert.words(TEXTS), strict=True):
        assert one.words.pieces == words.pieces
        np.testing.assert_allclose(one.words.vectors, words.vectors, atol=1e-5)
    assert {(one.entities, one.labels) for one in found} == {(None, None)}  # it has no head


def test_words_and_entities_have_their_marks(tagger: Path) -> None:
    found = minibert.load(tagger).annotate("cafe\u0301 e\u0301te\u0301", pooling="mean", strategy="first")
    assert found.words.words == ["cafe\u0301", "e\u0301te\u0301"]
    assert found.entities is not None
    assert {one.text.split()[-1] for one in found.entities} <= {"cafe\u0301", "e\u0301te\u0301"}


def test_one_text_gives_one_result_and_several_are_read_as_they_are_needed(minilm: Path) -> None:
    bert = minibert.load(minilm)
    assert isinstance(bert.annotate("one"), Annotation)
    assert list(bert.annotate([])) == []

    def endless() -> Iterator[str]:
        while True:
            yield "one"

    assert_same_vectors(next(bert.annotate(endless())).vector, bert.encode("one"))


def test_a_prompt_is_for_the_vector_alone(minilm: Path) -> None:
    bert = minibert.load(minilm)
    bert.recipe = replace(bert.recipe, prompts={"query": "query: "}, prompt="query: ")
    one = bert.annotate(TEXTS[3])
    assert_same_vectors(one.vector, SentenceTransformer(str(minilm)).encode("query: " + TEXTS[3]))
    assert one.words.words == ["She", "works", "for", "Apple", "in", "Paris", "."]


def test_windows_give_all_entities_of_a_long_text(tagger: Path) -> None:
    bert = minibert.load(tagger)
    texts = [TEXTS[0], LONG, TEXTS[3]]
    for one, expected in zip(
        bert.annotate(texts, truncation="window", pooling="mean"),
        bert.entities(texts, truncation="window"),
        strict=True,
    ):
        assert one.entities is not None
        assert places_of(one.entities) == places_of(expected)
        assert [x.score for x in one.entities] == pytest.approx([x.score for x in expected], abs=1e-5)
    assert_same_vectors(
        bert.annotate(LONG, truncation="window", pooling="max").vector,
        bert.encode(LONG, truncation="window", pooling="max"),
    )


@pytest.mark.parametrize(("side", "named"), [("right", "first"), ("left", "last")])
def test_windows_give_the_labels_of_the_part_that_truncation_keeps(classifier: Path, side: str, named: str) -> None:
    bert = minibert.load(classifier)
    bert.tokenizer.truncation_side = side
    texts = [LONG + TEXTS[0], TEXTS[0], TEXTS[3] + LONG, TEXTS[3]]
    with pytest.warns(UserWarning, match="2 of 4 texts exceed 512 tokens"):
        expected = bert.classify(texts)
    message = f"2 of 4 texts were split into windows, and their labels are those of the {named} one; a classifier"
    with pytest.warns(UserWarning, match=message):
        found = list(bert.annotate(texts, truncation="window", pooling="mean"))
    for one, labels in zip(found, expected, strict=True):
        assert one.labels is not None
        assert [label.label for label in one.labels] == [label.label for label in labels]
        assert [label.score for label in one.labels] == pytest.approx([label.score for label in labels], abs=1e-5)


def test_long_texts_are_truncated_with_a_warning_or_rejected(tagger: Path) -> None:
    bert = minibert.load(tagger)
    with pytest.warns(UserWarning, match="1 of 2 texts exceed 512 tokens"):
        found = list(bert.annotate([TEXTS[0], LONG], pooling="mean"))
    with pytest.warns(UserWarning, match="1 of 1 texts exceed 512 tokens"):
        expected = bert.entities([LONG])
    assert found[1].entities is not None
    assert places_of(found[1].entities) == places_of(expected[0])
    with pytest.raises(MinibertError, match=r"text 1 has \d+ tokens, but must have at most 512"):
        list(bert.annotate([TEXTS[0], LONG], pooling="mean", truncation="error"))


def test_vectors_that_nobody_trained_are_reported_once(tagger: Path) -> None:
    bert = minibert.load(tagger)
    with pytest.warns(UserWarning, match="which nobody trained; use bert.entities, or pass pooling='mean'"):
        bert.annotate("one")
    bert.annotate("one")


def test_a_long_text_alone_is_truncated_with_a_warning(tagger: Path) -> None:
    with pytest.warns(UserWarning, match="1 of 1 texts exceed 512 tokens"):
        minibert.load(tagger).annotate(LONG, pooling="mean")


def test_what_is_not_text_is_rejected_at_once(minilm: Path) -> None:
    for wrong in (7, ["one", None]):
        with pytest.raises(MinibertError, match="must be"):
            minibert.load(minilm).annotate(wrong)  # type: ignore[call-overload]


def test_it_prints_in_a_line(tagger: Path, classifier: Path, minilm: Path) -> None:
    assert repr(minibert.load(minilm).annotate("one")) == "Annotation(vector of 384; Words('one'; vectors 1 x 384))"
    assert "; (Label('LABEL_" in repr(minibert.load(classifier).annotate("one", pooling="mean"))
    assert repr(minibert.load(tagger).annotate("", pooling="mean")).endswith("; [])")


def test_a_strategy_that_there_is_not_is_rejected_at_once(minilm: Path) -> None:
    with pytest.raises(MinibertError, match="best"):
        minibert.load(minilm).annotate([], strategy="best")  # type: ignore[call-overload]
