"""The cosine as a sum over pairs of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import minibert
from minibert.vectors.recipe import Dense

A, B = "A man is playing the harmonicas.", "Someone plays an instrument!"


def development_pairs(evaldata: Path) -> tuple[list[str], list[str]]:
    with (evaldata / "stsb" / "sts-dev.csv").open(encoding="utf-8", newline="") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    return [row[5] for row in rows], [row[6] for row in rows]


def changed(bert: minibert.Bert, **recipe: object) -> minibert.Bert:
    return minibert.Bert(bert.model, bert.tokenizer, replace(bert.recipe, **recipe))  # type: ignore[arg-type]


def test_contributions_equal_products_of_transformers_hidden_states(bert: minibert.Bert, minilm: Path) -> None:
    import transformers

    model = transformers.AutoModel.from_pretrained(minilm)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    states, tokens = [], []
    for text in (A, B):
        encoded = tokenizer(text, return_tensors="pt")
        tokens.append(tuple(tokenizer.convert_ids_to_tokens(encoded.input_ids[0])))
        with torch.no_grad():
            states.append(model(**encoded).last_hidden_state[0].double().numpy())
    expected = states[0] @ states[1].T / states[0].size * states[0].shape[1] / len(states[1])
    expected /= np.linalg.norm(states[0].mean(0)) * np.linalg.norm(states[1].mean(0))
    ours = bert.explain_similarity(A, B)
    assert (ours.a.tokens, ours.b.tokens) == tuple(tokens)
    np.testing.assert_allclose(ours.contributions, expected, atol=1e-6)


def test_100_pairs_of_the_development_set_sum_to_their_cosine(bert: minibert.Bert, evaldata: Path) -> None:
    a, b = (texts[:100] for texts in development_pairs(evaldata))
    _assert_sums(bert, a, b)


@pytest.mark.slow
def test_all_pairs_of_the_development_set_sum_to_their_cosine(bert: minibert.Bert, evaldata: Path) -> None:
    a, b = development_pairs(evaldata)
    assert len(a) == 1500
    _assert_sums(bert, a, b)


def _assert_sums(bert: minibert.Bert, a: list[str], b: list[str]) -> None:
    expected = bert.similarity_pairwise(bert.encode(a), bert.encode(b)).numpy()
    found = bert.explain_similarity(a, b)
    assert len(set(expected.round(3).tolist())) > 50
    np.testing.assert_allclose([one.cosine for one in found], expected, atol=1e-6)


def test_words_sum_their_tokens_and_the_top_is_the_largest(bert: minibert.Bert) -> None:
    found = bert.explain_similarity(A, B)
    assert found.a.words == ("[CLS]", "A", "man", "is", "playing", "the", "harmonicas", ".", "[SEP]")
    assert found.a.word_of.count(6) > 1  # harmonicas has several pieces
    table = found.by_word()
    expected = np.zeros((9, len(found.b.words)))
    for i, word in enumerate(found.a.word_of):
        for j, other in enumerate(found.b.word_of):
            expected[word, other] += found.contributions[i, j]
    np.testing.assert_allclose(table, expected, atol=1e-6)
    assert table.sum() == pytest.approx(found.cosine, abs=1e-6)
    top = found.top(5)
    assert [value for _, _, value in top] == sorted(table.flatten().tolist(), reverse=True)[:5]
    first = np.unravel_index(table.argmax(), table.shape)
    assert top[0][:2] == (found.a.words[first[0]], found.b.words[first[1]])
    assert found.to_pandas().loc["playing", "plays"] == table[4, found.b.words.index("plays")]
    assert f"{found.cosine:.4f}" in str(found)
    assert str(found).splitlines()[1].split() == [top[0][0], top[0][1], f"{top[0][2]:.4f}"]


def test_long_texts_are_truncated_with_a_warning_as_for_encode(bert: minibert.Bert) -> None:
    short = changed(bert, max_seq_length=6)
    with pytest.warns(UserWarning, match="1 of 2 texts exceed 6 tokens"):
        found = short.explain_similarity(A, "Someone plays.")
    assert found.a.tokens == ("[CLS]", "a", "man", "is", "playing", "[SEP]")
    assert found.a.words[-2:] == ("playing", "[SEP]")
    with pytest.warns(UserWarning, match="exceed 6 tokens"):
        vectors = short.encode([A, "Someone plays."])
    assert found.cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)


def test_truncation_from_the_left_keeps_the_end(bert: minibert.Bert) -> None:
    from copy import copy

    tokenizer = copy(bert.tokenizer)
    tokenizer.truncation_side = "left"
    short = minibert.Bert(bert.model, tokenizer, replace(bert.recipe, max_seq_length=6))
    with pytest.warns(UserWarning, match="exceed 6 tokens"):
        found = short.explain_similarity("one two three four five six", "six")
    assert found.a.tokens == ("[CLS]", "three", "four", "five", "six", "[SEP]")
    with pytest.warns(UserWarning, match="exceed 6 tokens"):
        vectors = short.encode(["one two three four five six", "six"])
    assert found.cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)


@pytest.mark.parametrize("include", [True, False])
def test_prompts_are_pooled_or_left_out_as_the_recipe_says(bert: minibert.Bert, include: bool) -> None:
    prompted = changed(bert, include_prompt=include, prompts={"query": "search query: "})
    found = prompted.explain_similarity(A, B, "query")
    vectors = prompted.encode([A, B], "query")
    assert found.cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    assert found.a.tokens[:2] == (("[CLS]", "search") if include else ("a", "man"))
    assert found.a.words[:2] == (("[CLS]", "search") if include else ("A", "man"))


@pytest.mark.parametrize("settings", [{"truncate_dim": 64}, {"pooling": ("mean_sqrt_len_tokens",)}], ids=str)
def test_what_keeps_the_direction_of_the_mean_is_exact(bert: minibert.Bert, settings: dict[str, object]) -> None:
    other = changed(bert, **settings)
    expected = float(other.similarity(*(other.encode(text) for text in (A, B))))
    assert other.explain_similarity(A, B).cosine == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"pooling": ("cls",)}, "cls"),
        ({"pooling": ("mean", "max")}, "mean + max"),
        ({"dense": (Dense(torch.eye(384), None),)}, "Dense"),
        ({"similarity": "dot"}, "dot"),
    ],
    ids=str,
)
def test_a_recipe_without_such_a_sum_is_refused_and_gradients_are_named(
    bert: minibert.Bert, settings: dict[str, object], value: str
) -> None:
    with pytest.raises(minibert.MinibertError, match="similar_to=") as caught:
        changed(bert, **settings).explain_similarity(A, B)
    assert value in str(caught.value)


def test_sides_of_different_numbers_are_refused(bert: minibert.Bert) -> None:
    with pytest.raises(minibert.MinibertError, match="2 and 1"):
        bert.explain_similarity([A, B], [A])
    with pytest.raises(minibert.MinibertError, match="str and list"):
        bert.explain_similarity(A, [A])  # type: ignore[call-overload]
    assert bert.explain_similarity([], []) == []


def test_a_bfloat16_model_is_decomposed_in_float32(bert: minibert.Bert, minilm: Path) -> None:
    half = minibert.load(minilm, dtype=torch.bfloat16)
    found = half.explain_similarity(A, B)
    a, b = half.encode([A, B])
    assert found.contributions.dtype == np.float32
    assert found.cosine == pytest.approx(float(a @ b), abs=1e-5)
    assert found.cosine == pytest.approx(bert.explain_similarity(A, B).cosine, abs=0.02)


def test_pairs_of_words_are_drawn(bert: minibert.Bert) -> None:
    pytest.importorskip("minibert.pictures.attention")
    found = bert.explain_similarity(A, B)
    labels = [label.get_text() for axis in found.plot().axes[:1] for label in axis.get_yticklabels()]
    assert labels == list(found.a.words)


def test_the_number_of_pairs_must_be_a_count(bert: minibert.Bert) -> None:
    with pytest.raises(minibert.MinibertError, match=r"k \(-1\)"):
        bert.explain_similarity("one", "two").top(-1)
