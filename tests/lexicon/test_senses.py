"""Senses: a word's occurrences grouped by meaning, words used like it, and the static table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import transformers
from oracle import assert_same_vectors, with_real_vocabulary

import minibert
from minibert.lexicon import senses as module
from minibert.lexicon.senses import (
    clusters,
    excerpt,
    expand,
    senses,
    silhouette,
    static_neighbours,
    static_vectors,
    substitutes,
)

CORPUS = [
    "He opened an account at the bank and made a deposit.",
    "The bank refused the loan, so the firm asked another lender.",
    "They fished from the grassy bank of the river until 7 p.m.",
    "Reeds grew along the shore of the lake.",
    "Her credit card was refused; a card for her birthday came too.",
    "The lender asked 4% for the loan.",
]
MONEY = "She borrowed money from the bank at a high rate of interest."
RIVER = "The river burst its bank after the rain."
WITHOUT = [  # the word
    "Reeds grew along the shore of the lake until 7 p.m.",
    "She made a deposit; the lender asked 4% for the loan.",
    "The river rose after the rain, and washed the grassy shore away.",
    "His account shows the money of the firm.",
]


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> Any:
    model = transformers.BertModel.from_pretrained(minilm).eval()
    return model, transformers.AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="module")
def masked(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return with_real_vocabulary(tmp_path_factory.mktemp("masked"), minilm)


def words_of(theirs: Any, text: str) -> Iterator[tuple[str, np.ndarray]]:
    """The words of a text and their unit vectors, as transformers has them."""
    model, tokenizer = theirs
    encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        states = model(**encoded).last_hidden_state[0].numpy()
    numbers = encoded.word_ids(0)
    for word in range(max(number for number in numbers if number is not None) + 1):
        own = [place for place, number in enumerate(numbers) if number == word]
        vector = states[own].mean(0)
        yield text[offsets[own[0]][0] : offsets[own[-1]][1]], vector / np.linalg.norm(vector)


def gold(evaldata: Path, word: str, most: int, parts: tuple[str, ...] = ("train",)) -> tuple[list[str], np.ndarray]:
    """Sentences of CoarseWSD-20 that hold a word once, at most so many of each sense, and the senses."""
    sentences: list[str] = []
    labels: list[int] = []
    for part in parts:
        folder = evaldata / "coarsewsd20" / word
        lines = (folder / f"{part}.data.txt").read_text("utf-8").splitlines()
        for line, label in zip(lines, (folder / f"{part}.gold.txt").read_text("utf-8").split(), strict=True):
            sentence = line.partition("\t")[2]
            if re.findall(r"\w+", sentence).count(word) == 1 and labels.count(int(label)) < most:
                sentences.append(sentence)
                labels.append(int(label))
    return sentences, np.array(labels)


def purity(labels: np.ndarray, truth: np.ndarray) -> float:
    """The share of occurrences whose true sense is the most frequent one of their group."""
    return sum(np.bincount(truth[labels == label]).max() for label in np.unique(labels)) / len(truth)


# Words that are used alike


def test_a_words_score_is_the_mean_cosine_of_its_best_three_occurrences(bert: minibert.Bert, theirs: Any) -> None:
    more = ["A deposit is money.", "The deposit of sand grew.", "Deposit it, she said."]
    corpus = [*CORPUS, *WITHOUT, *more, "The banker made a deposit of money."]
    target = dict(words_of(theirs, MONEY))["bank"]
    cosines: dict[str, list[float]] = {}
    for text in corpus:
        for word, vector in words_of(theirs, text) if not re.search(r"\bbank\b", text) else ():
            if any(map(str.isalpha, word)):
                cosines.setdefault(word.lower(), []).append(float(vector @ target))
    scores = {word: np.mean(sorted(values)[-3:]) for word, values in cosines.items()}
    found = expand(bert, "bank", corpus, MONEY, top_k=1000)
    assert {one.word for one in found} == set(cosines)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert one.score == pytest.approx(scores[one.word], abs=1e-5)
        assert one.count == len(cosines[one.word])
        assert re.search(rf"\b{one.word}\b", one.example.lower())
    assert len(cosines["deposit"]) == 5


@pytest.mark.parametrize("context", [None, MONEY])
def test_words_of_texts_that_hold_the_word_do_not_count(bert: minibert.Bert, context: str | None) -> None:
    texts = [text.replace("Bank", "bank") for text in (*CORPUS, "The Bank!")]
    found = expand(bert, "bank", [*texts, *WITHOUT], context, top_k=1000)
    alone = expand(bert, "bank", [text for text in [*texts, *WITHOUT] if "bank" not in text], MONEY, top_k=1000)
    assert {(one.word, one.count) for one in found} == {(one.word, one.count) for one in alone}
    assert all("bank" not in one.example for one in found)


@pytest.mark.parametrize("context", [None, MONEY])
@pytest.mark.parametrize("kind", [list, iter])
def test_no_text_is_computed_twice(
    bert: minibert.Bert, kind: Any, context: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    words = type(bert).words

    def noted(self: Any, texts: Any, **settings: Any) -> Any:
        asked.extend([texts] if isinstance(texts, str) else texts)
        return words(self, texts, **settings)

    monkeypatch.setattr(type(bert), "words", noted)
    corpus = [*CORPUS, *WITHOUT, "A banker."]
    expand(bert, "bank", kind(corpus), context)
    without = [text for text in corpus if not re.search(r"\bbank\b", text)]
    assert sorted(asked) == sorted([MONEY, *without] if context else corpus)


def test_of_a_frequent_word_the_best_hundredth_counts() -> None:
    cosines = np.random.default_rng(0).normal(0.1, 0.1, 5000)
    use = module.Use()
    for count, cosine in enumerate(cosines.tolist(), 1):
        use.add(cosine)
        if count in (1, 2, 3, 10, 299):
            assert use.score == pytest.approx(np.sort(cosines[:count])[-3:].mean())
        if count in (400, 1000, 5000):
            assert use.score == pytest.approx(np.sort(cosines[:count])[-count // 100 :].mean(), abs=1e-3)
    assert use.count == 5000
    assert len(use.best) <= 100


@pytest.mark.slow
def test_the_words_of_a_novel_are_no_function_words(bert: minibert.Bert, evaldata: Path) -> None:
    text = (evaldata / "gutenberg" / "pg1661_sherlock_holmes.txt").read_text("utf-8")[:180_000]
    lines = [line for line in text.splitlines() if line.strip()]
    function_words = {"a", "an", "the", "and", "of", "to", "in", "it", "he", "she", "his", "i", "your", "s", "was"}
    for word, expected in (("doctor", "medical"), ("husband", "wife")):
        found = [one.word for one in expand(bert, word, lines)]
        assert expected in found
        assert not function_words & set(found)


@pytest.mark.parametrize("corpus", [list, iter])
def test_progress_counts_the_texts(bert: minibert.Bert, corpus: Any, capsys: pytest.CaptureFixture[str]) -> None:
    expand(bert, "bank", corpus([*CORPUS, *WITHOUT]), show_progress_bar=True)
    assert "10/10" in capsys.readouterr().err
    expand(bert, "bank", corpus([*CORPUS, *WITHOUT]), show_progress_bar=False)
    assert capsys.readouterr().err == ""


def test_the_sense_in_the_context_decides(bert: minibert.Bert) -> None:
    money = {one.word: one.score for one in expand(bert, "bank", WITHOUT, MONEY, top_k=1000)}
    river = {one.word: one.score for one in expand(bert, "Bank", WITHOUT, RIVER, top_k=1000)}
    gain = {word: river[word] - money[word] for word in money}
    assert min(gain[word] for word in ("river", "shore", "lake")) > 0
    assert max(gain[word] for word in ("lender", "loan", "deposit")) < 0
    assert next(iter(money)) in ("account", "deposit", "lender", "loan", "money")
    assert next(iter(river)) == "river"


def test_without_context_the_mean_of_the_corpus_is_taken(bert: minibert.Bert, theirs: Any) -> None:
    own = [vector for text in CORPUS for word, vector in words_of(theirs, text) if word == "bank"]
    target = np.mean(own, axis=0)
    target /= np.linalg.norm(target)
    shore = dict(words_of(theirs, CORPUS[3]))["shore"]
    found = {one.word: one for one in expand(bert, "bank", CORPUS, top_k=1000)}
    assert found["shore"].score == pytest.approx(float(shore @ target), abs=1e-5)
    assert found["shore"].example == CORPUS[3]
    streamed = expand(bert, "bank", (text for text in CORPUS), top_k=1000)  # can be read once, is needed twice
    assert [one.word for one in streamed] == list(found)
    assert [one.score for one in streamed] == pytest.approx([one.score for one in found.values()])


def test_portions_change_nothing(bert: minibert.Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, groups = expand(bert, "bank", CORPUS, MONEY), senses(bert, "bank", CORPUS, 2)
    asked = []
    monkeypatch.setattr(module, "PORTION_CHARACTERS", 60)
    words = type(bert).words
    monkeypatch.setattr(
        type(bert), "words", lambda self, texts, **settings: asked.append(texts) or words(self, texts, **settings)
    )
    parts = expand(bert, "bank", iter(CORPUS), MONEY)
    assert [(one.word, one.count, one.example) for one in parts] == [
        (one.word, one.count, one.example) for one in whole
    ]
    assert len(asked) > 3
    assert [sense.occurrences for sense in senses(bert, "bank", CORPUS, 2)] == [sense.occurrences for sense in groups]


def test_a_phrase_has_the_mean_of_its_words(bert: minibert.Bert, theirs: Any) -> None:
    context = "Do you take a Credit Card or cash?"
    vectors = dict(words_of(theirs, context))
    model_words = bert.words(context)
    places = [model_words.find("credit")[0], model_words.find("card")[0]]
    target = model_words.vectors[places].mean(0)
    assert_same_vectors(
        vectors["Credit"], model_words.vectors[places[0]] / np.linalg.norm(model_words.vectors[places[0]])
    )
    found = {one.word: one for one in expand(bert, "credit card", CORPUS, context, top_k=1000)}
    loan = [vector for text in CORPUS for word, vector in words_of(theirs, text) if word == "loan"]
    assert found["loan"].score == pytest.approx(
        float(np.mean(loan, axis=0) @ target / np.linalg.norm(target)), abs=1e-5
    )
    assert "credit" not in found  # the text that holds the phrase is left out,
    assert "card" not in found
    more = expand(bert, "credit card", [*CORPUS, "A card for her birthday, to her credit."], context, top_k=1000)
    assert {one.word for one in more if one.count == 1} >= {"card", "credit"}  # one that holds its words is not
    assert senses(bert, "credit card", CORPUS).occurrences[0].span == (4, 15)


def test_words_are_those_of_the_settings(bert: minibert.Bert) -> None:
    found = {one.word for one in expand(bert, "bank", WITHOUT, MONEY, top_k=1000, split="whitespace")}
    assert {"deposit", "loan", "river", "p.m"} <= found  # without the marks around them
    first = expand(bert, "bank", WITHOUT, MONEY, layers=0)[0]
    assert first.score != pytest.approx(expand(bert, "bank", WITHOUT, MONEY)[0].score)
    hyphen = senses(bert, "un-American", ["He is Un-American.", "An unAmerican one."])
    assert [one.span for one in hyphen.occurrences] == [(6, 17)]


def test_words_far_inside_of_a_long_text_are_found(bert: minibert.Bert) -> None:
    long = "Nothing happens here at all. " * 200 + RIVER
    found = senses(bert, "bank", [long, MONEY])
    assert [long[slice(*one.span)] for one in found.occurrences[:1]] == ["bank"]
    assert found.occurrences[0].example == RIVER
    long = "Nothing happens here at all. " * 200 + WITHOUT[2]
    assert {"river", "shore"} <= {one.word for one in expand(bert, "bank", [long], RIVER)}


# Substitutes


def test_substitutes_are_what_the_head_proposes(masked: Path) -> None:
    bert = minibert.load(masked)
    pipeline = transformers.pipeline("fill-mask", model=str(masked), top_k=30522)
    context = "We sat on the Bank."
    expected = [
        (one["token_str"], one["score"])
        for one in pipeline("We sat on the [MASK].")
        if re.search(r"[^\W\d_]", one["token_str"])
        and not re.match(r"##|\[.+\]$|bank$", bert.tokenizer.convert_ids_to_tokens(one["token"]))
    ]
    found = substitutes(bert, "bank", context, top_k=200)
    assert [one.token for one in found] == [token for token, _ in expected[:200]]
    assert [one.probability for one in found] == pytest.approx([score for _, score in expected[:200]], rel=1e-4)
    assert found[0].text == f"We sat on the {found[0].token}."
    several = substitutes(bert, "bank", "[MASK] sat on the bank [MASK].", top_k=3)
    assert [one.text for one in several] == [f"[MASK] sat on the {one.token} [MASK]." for one in several]
    assert len(substitutes(bert, "credit card", "Use a credit card.", top_k=2)) == 2


def test_a_checkpoint_without_a_head_has_no_substitutes(bert: minibert.Bert) -> None:
    with pytest.raises(ValueError, match=r"must have a masked-LM head to fill masks; .* load a checkpoint that has it"):
        substitutes(bert, "bank", MONEY)


# Senses


@pytest.mark.slow
@pytest.mark.parametrize(("word", "number", "least"), [("bank", 2, 0.9), ("spring", 3, 0.85), ("seal", 4, 0.85)])
def test_groups_are_the_senses_that_people_see(
    bert: minibert.Bert, evaldata: Path, word: str, number: int, least: float
) -> None:
    sentences, truth = gold(evaldata, word, 20)
    found = senses(bert, word, sentences, number)
    assert len(found) == number
    assert len(found.labels) == len(truth)
    majority = np.bincount(truth).max() / len(truth)
    assert majority < 0.6
    assert purity(found.labels, truth) > least


@pytest.mark.slow
def test_a_new_occurrence_gets_its_sense(bert: minibert.Bert, evaldata: Path) -> None:
    sentences, truth = gold(evaldata, "bank", 20)
    found = senses(bert, "bank", sentences, 2)
    meaning = [int(np.bincount(truth[found.labels == number]).argmax()) for number in range(2)]
    others, expected = gold(evaldata, "bank", 20, ("test",))
    right = [meaning[found.assign(text).number] == label for text, label in zip(others, expected, strict=True)]
    assert np.mean(right) > 0.9


@pytest.mark.slow
def test_the_number_of_senses_is_that_of_the_occurrences(bert: minibert.Bert, evaldata: Path) -> None:
    assert len(senses(bert, "bank", gold(evaldata, "bank", 20)[0])) == 2
    assert len(senses(bert, "seal", gold(evaldata, "seal", 20)[0])) == 4
    sentences = [sentence for word in ("bank", "seal", "spring") for sentence in gold(evaldata, word, 300)[0]]
    assert len(senses(bert, "government", sentences)) == 1
    assert len(senses(bert, "water", sentences)) == 1


def test_senses_tell_what_they_are(bert: minibert.Bert) -> None:
    texts = [*CORPUS[:3], "No such word.", "", RIVER, MONEY, "Bank, bank!"]
    found = senses(bert, "bank", texts, n_senses=2)
    assert [one.text for one in found.occurrences] == [0, 1, 2, 5, 6, 7, 7]
    assert {texts[one.text][slice(*one.span)].lower() for one in found.occurrences} == {"bank"}
    assert len(found) == len(list(found)) == 2
    assert sum(sense.share for sense in found) == pytest.approx(1)
    assert [sense.number for sense in found] == [0, 1]
    assert len(found[0].occurrences) >= len(found[1].occurrences)
    for sense in found:
        members = found.vectors[found.labels == sense.number]
        assert_same_vectors(sense.centroid, members.mean(0) / np.linalg.norm(members.mean(0)))
        cosines = {one: float(vector @ sense.centroid) for one, vector in zip(sense.occurrences, members, strict=True)}
        nearest = {one.example: one for one in sorted(cosines, key=cosines.__getitem__)}  # the last of equal ones stays
        assert sense.exemplars == tuple(sorted(nearest.values(), key=lambda one: -cosines[one]))[:3]
    assert found.assign("We rested on the bank of the stream.") is found[int(found.labels[2])]
    lines = repr(found).splitlines()
    assert lines[0] == "Senses of 'bank': 2 in 7 occurrences"
    assert re.fullmatch(r"  0   \d\d%      \d  \S.*", lines[1])
    assert str(found) == repr(found)
    assert max(map(len, lines)) <= 120


def test_one_occurrence_has_one_sense_and_equal_ones_too(bert: minibert.Bert) -> None:
    assert repr(senses(bert, "bank", MONEY)) == f"Senses of 'bank': 1 in 1 occurrence\n  0  100%      1  {MONEY}"
    alike = senses(bert, "bank", [MONEY] * 9)
    assert len(alike) == 1
    assert len(alike[0].exemplars) == 1  # not the same sentence three times
    assert len(senses(bert, "bank", [MONEY] * 9, 3)) == 1


def test_groups_of_random_vectors_are_those_they_were_drawn_from() -> None:
    generator = np.random.default_rng(0)
    middles = generator.normal(size=(4, 20))
    truth = np.repeat(range(4), (90, 30, 9, 60))
    units = middles[truth] + 0.3 * generator.normal(size=(len(truth), 20))
    units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)
    labels = module.best_clusters(units)
    assert labels.max() == 3
    assert purity(labels, truth) == 1
    assert np.array_equal(labels, module.best_clusters(units))


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.integers(3, 60), st.integers(2, 5), st.integers(0, 10**6))
def test_the_silhouette_is_that_of_scikit_learn(size: int, number: int, seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    generator = np.random.default_rng(seed)
    units = generator.normal(size=(size, 5))
    units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)
    labels = clusters(units, min(number, size - 1), seed)
    expected = metrics.silhouette_score(units, labels, metric="cosine")
    assert silhouette(units, labels) == pytest.approx(expected, abs=1e-4)


def test_groups_are_as_tight_as_those_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    units = np.random.default_rng(0).normal(size=(200, 8)) + np.eye(8)[np.arange(200) % 5] * 2
    units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)

    def tightness(labels: np.ndarray) -> float:
        return sum(float(np.linalg.norm(units[labels == label].sum(0))) for label in np.unique(labels))

    theirs = cluster.KMeans(5, n_init=10, random_state=0).fit_predict(units)
    assert tightness(clusters(units, 5)) > 0.995 * tightness(theirs)


# The static table


def test_a_static_vector_is_the_row_of_the_token_table(bert: minibert.Bert, theirs: Any) -> None:
    model, tokenizer = theirs
    table = model.get_input_embeddings().weight.detach().numpy()
    words = ["bank", "Embeddings", "credit card"]
    expected = [table[tokenizer(word, add_special_tokens=False)["input_ids"]].mean(0) for word in words]
    assert_same_vectors(static_vectors(bert, words), np.stack(expected))
    assert np.array_equal(static_vectors(bert, "bank"), table[tokenizer.convert_tokens_to_ids("bank")])
    assert static_vectors(bert, []).shape == (0, 384)
    half = minibert.load(str(bert.source), dtype=torch.bfloat16)
    assert static_vectors(half, "bank").dtype == np.float32


def test_static_neighbours_are_the_nearest_rows(bert: minibert.Bert, theirs: Any) -> None:
    model, tokenizer = theirs
    table = model.get_input_embeddings().weight.detach().numpy()
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosines = table @ table[tokenizer.convert_tokens_to_ids("bank")]
    names = tokenizer.convert_ids_to_tokens(range(len(table)))
    ranked = [names[row] for row in np.argsort(-cosines)]
    expected = [name for name in ranked if re.search(r"[^\W\d_]", name) and not re.match(r"##|\[.+\]$|bank$", name)]
    found = static_neighbours(bert, "Bank", top_k=8)
    assert [one.word for one in found] == expected[:8]
    assert found[0].score == pytest.approx(float(cosines[tokenizer.convert_tokens_to_ids(found[0].word)]), abs=1e-5)


def test_a_word_has_one_static_vector_and_many_in_context(bert: minibert.Bert) -> None:
    money, river = (bert.words(text) for text in (MONEY, RIVER))
    vectors = np.stack([words.vectors[words.find("bank")[0]] for words in (money, river)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] < 0.9
    both = static_vectors(bert, ["bank", "bank"])
    assert np.array_equal(both[0], both[1])


# Mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: expand(b, "bank", CORPUS, "No word."), "context ('No word.') must contain the word ('bank')"),
        (lambda b: expand(b, "yacht", CORPUS), "word ('yacht') must occur in the corpus if there is no context"),
        (lambda b: expand(b, "yacht", iter([])), "word ('yacht')"),
        (lambda b: expand(b, "bank", [RIVER]), "must have texts that do not contain the word ('bank')"),
        (lambda b: expand(b, "bank", [], MONEY), "must have texts that do not contain the word ('bank')"),
        (lambda b: expand(b, "bank", CORPUS, MONEY, top_k=0), "top_k (0)"),
        (lambda b: expand(b, "", CORPUS), "word ('') must contain at least one word that the tokenizer keeps"),
        (lambda b: expand(b, 7, CORPUS), "text 0 (7) must be str"),
        (lambda b: expand(b, "bank", ["one", None], MONEY), "text 1 (None)"),
        (lambda b: expand(b, "bank", 7), "corpus (7)"),
        (lambda b: expand(b, "bank", CORPUS, MONEY, split="spacy"), "split ('spacy') must be one of pretok"),
        (lambda b: expand(b, "bank", CORPUS, MONEY, spans=[]), "spans ([]) must be left out, since"),
        (lambda b: senses(b, "yacht", CORPUS), "the texts must contain the word ('yacht'); pass"),
        (lambda b: senses(b, "bank", CORPUS, 4), "n_senses (4) must not exceed the number of occurrences of 'bank'"),
        (lambda b: senses(b, "bank", CORPUS, True), "n_senses (True)"),
        (lambda b: senses(b, "bank", {"a": 1}), "texts (dict) must be a str or a list of str, not a table"),
        (lambda b: senses(b, "bank", CORPUS).assign("no"), "context ('no')"),
        (lambda b: substitutes(b, "bank", "no"), "context ('no')"),
        (lambda b: static_vectors(b, ["bank", "🦄"]), "word ('🦄')"),
        (lambda b: static_vectors(b, ""), "word ('')"),
        (lambda b: static_neighbours(b, "bank", -1), "top_k (-1)"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_sentence(bert: minibert.Bert, call: Any, message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        call(bert)


@hypothesis.given(st.text("ab .!?\n", max_size=80), st.text("ab .!?\n", max_size=80), st.integers(10, 40))
def test_an_excerpt_is_one_short_line_with_the_word(before: str, after: str, width: int) -> None:
    text = f"{before}WORD{after}"
    line = excerpt(text, len(before), len(before) + 4, width)
    assert "WORD" in line
    assert "\n" not in line
    assert len(line) <= width + 2
    assert line.strip("…") in " ".join(text.split())


def test_an_excerpt_is_the_sentence() -> None:
    text = "One is here. Two stand there!  A third one? Yes."
    assert excerpt(text, 17, 22, 80) == "Two stand there!"
    assert excerpt(text, 0, 3, 80) == "One is here."
    assert excerpt(text, 44, 47, 80) == "Yes."
    long = "word " * 100
    assert excerpt(long, 250, 254, 30) == "…word word word word word…"


def test_the_documentation_runs(minilm: Path, masked: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "senses.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        code = code.replace("google-bert/bert-base-uncased", str(masked))
        exec(compile(code.replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm)), "senses.md", "exec"), names)


def test_a_table_is_no_corpus(bert: minibert.Bert) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"bank": ["one"], "river": ["two"]})
    with pytest.raises(
        minibert.MinibertError, match=r"corpus \(DataFrame\) must be a str or a list of str, not a table; pass a col"
    ):
        minibert.expand(bert, "bank", table)
    with pytest.raises(
        minibert.MinibertError, match=r"texts \(DataFrame\) must be a str or a list of str, not a table; pass a col"
    ):
        minibert.senses(bert, "bank", table)
