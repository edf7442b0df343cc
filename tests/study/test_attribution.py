"""Integrated gradients, against captum and against what must hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import with_real_vocabulary
from torch import Tensor

import minibert

TEXT = "Paris is the [MASK] of France."


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> dict[str, Path]:
    """Small random checkpoints with the real vocabulary, one for each kind of head."""
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "masked": ("BertForMaskedLM", {}),
        "pretraining": ("BertForPreTraining", {}),
        "classifier": ("BertForSequenceClassification", {"id2label": {0: "no", 1: "perhaps", 2: "yes"}}),
        "reranker": ("BertForSequenceClassification", {"num_labels": 1}),
        "tagger": ("BertForTokenClassification", {"id2label": {0: "O", 1: "B-LOC", 2: "I-LOC"}}),
        "next": ("BertForNextSentencePrediction", {}),
    }
    return {
        name: with_real_vocabulary(tmp_path_factory.mktemp(name), minilm, kind, initializer_range=0.2, **config)
        for name, (kind, config) in kinds.items()
    }


def of_captum(folder: Path, kind: str, text: str, pair: str | None, steps: int, logit: Any) -> np.ndarray:
    """captum's attributions of transformers' model to its word embeddings."""
    captum = pytest.importorskip("captum.attr")
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text, pair, return_tensors="pt")
    ids = encoded.input_ids
    special = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)

    def forward(input_ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        return logit(model(input_ids=input_ids, token_type_ids=types, attention_mask=mask))

    method = captum.LayerIntegratedGradients(forward, model.bert.embeddings.word_embeddings)
    found = method.attribute(
        ids,
        baselines=ids.masked_fill(~special, tokenizer.pad_token_id),
        additional_forward_args=(encoded.token_type_ids, encoded.attention_mask),
        n_steps=steps,
        method="gausslegendre",
    )
    return found[0].sum(-1).detach().numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Setting forward:UserWarning")
@pytest.mark.parametrize(
    ("name", "kind", "text", "pair", "asked", "logit"),
    [
        ("masked", "BertForMaskedLM", TEXT, None, {"target": "capital"}, lambda out: out.logits[:, 4, 3007]),
        (
            "pretraining",
            "BertForPreTraining",
            TEXT,
            "It is large.",
            {"target": 3007},
            lambda out: out.prediction_logits[:, 4, 3007],
        ),
        ("classifier", "BertForSequenceClassification", "Fine!", None, {"target": "yes"}, lambda out: out.logits[:, 2]),
        ("reranker", "BertForSequenceClassification", "Who?", "Nobody knows.", {}, lambda out: out.logits[:, 0]),
        (
            "tagger",
            "BertForTokenClassification",
            "He lives in Paris.",
            None,
            {"target": "B-LOC", "position": 4},
            lambda out: out.logits[:, 4, 1],
        ),
        ("next", "BertForNextSentencePrediction", "One.", "Two.", {"target": 1}, lambda out: out.logits[:, 1]),
    ],
    ids=["masked", "pretraining", "classifier", "reranker", "tagger", "next"],
)
def test_scores_equal_captums_with_the_same_layer_baseline_and_steps(
    folders: dict[str, Path],
    name: str,
    kind: str,
    text: str,
    pair: str | None,
    asked: dict[str, Any],
    logit: Any,
) -> None:
    bert = minibert.load(folders[name])
    assert type(bert.model).__name__ == kind
    ours = bert.explain(text, pair=pair, steps=50, **asked)
    theirs = of_captum(folders[name], kind, text, pair, 50, logit)
    assert ours.scores.dtype == np.float32
    assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours.scores, theirs, atol=1e-5)
    assert ours.steps == 50


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Setting forward:UserWarning")
def test_scores_of_a_real_cosine_equal_captums(bert: minibert.Bert, minilm: Path) -> None:
    captum = pytest.importorskip("captum.attr")
    a, b = "A man plays the guitar.", "Someone makes music."
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    ids, other = (tokenizer(text, return_tensors="pt").input_ids for text in (a, b))
    with torch.no_grad():
        fixed = model(other).last_hidden_state.mean(1)
    method = captum.LayerIntegratedGradients(
        lambda x: torch.cosine_similarity(model(x).last_hidden_state.mean(1), fixed), model.embeddings.word_embeddings
    )
    padded = torch.zeros_like(ids)
    padded[0, 0], padded[0, -1] = ids[0, 0], ids[0, -1]
    theirs = method.attribute(ids, baselines=padded, n_steps=100, method="gausslegendre")[0].sum(-1).detach()
    ours = bert.explain(a, similar_to=b, steps=100)
    np.testing.assert_allclose(ours.scores, theirs, atol=1e-5)
    assert ours.value == pytest.approx(float(bert.similarity(bert.encode(a), bert.encode(b))), abs=1e-5)
    assert ours.scores.sum() == pytest.approx(ours.value - ours.baseline, abs=1e-2)


def test_steps_are_doubled_until_the_sum_is_the_difference(bert: minibert.Bert) -> None:
    found = bert.explain("Cats sleep.", similar_to="A cat is asleep.")
    assert found.converged
    assert found.steps in (50, 100, 200, 400, 800)
    difference = found.value - found.baseline
    assert abs(found.scores.sum(dtype=np.float64) - difference) <= 1.01e-3 * abs(difference)
    assert found.gap == pytest.approx(abs(found.scores.sum(dtype=np.float64) / difference - 1), abs=1e-5)


def test_what_does_not_converge_says_so_with_its_gap(bert: minibert.Bert) -> None:
    found = bert.explain("A man plays the guitar.", similar_to="Someone makes music.", steps=1)
    assert not found.converged
    assert found.gap > 0.01
    assert "NOT converged" in str(found)


def test_the_model_is_not_touched(folders: dict[str, Path]) -> None:
    bert = minibert.load(folders["masked"])
    bert.model.train()  # dropout would make the scores random
    before = {name: value.clone() for name, value in bert.model.state_dict().items()}
    first = bert.explain(TEXT, "capital", steps=20)
    with torch.no_grad():
        second = bert.explain(TEXT, "capital", steps=20)
    with torch.inference_mode():
        third = bert.explain(TEXT, "capital", steps=20)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.scores, third.scores)
    assert all(module.training for module in bert.model.modules())
    assert all(one.grad is None and one.requires_grad for one in bert.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in bert.model.state_dict().items())
    assert not any(module._forward_hooks for module in bert.model.modules())


def test_batches_of_steps_do_not_change_the_scores(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    bert = minibert.load(folders["masked"])
    whole = bert.explain(TEXT, "capital", steps=20)
    monkeypatch.setattr("minibert.study.attribution.TOKENS_AT_ONCE", 30)
    np.testing.assert_allclose(bert.explain(TEXT, "capital", steps=20).scores, whole.scores, atol=1e-5)


def test_without_a_target_the_largest_logit_is_explained(folders: dict[str, Path]) -> None:
    masked = minibert.load(folders["masked"])
    best = masked.fill_mask(TEXT, top_k=1)[0].token
    assert masked.explain(TEXT, steps=5).target == best
    classifier = minibert.load(folders["classifier"])
    with torch.no_grad():
        logits = classifier.model(**classifier.tokenizer("Fine!", return_tensors="pt")).logits[0]
    found = classifier.explain("Fine!", steps=5)
    assert found.target == ["no", "perhaps", "yes"][int(logits.argmax())]
    assert found.value == pytest.approx(float(logits.max()), abs=1e-5)


def test_words_sum_their_tokens(folders: dict[str, Path]) -> None:
    found = minibert.load(folders["masked"]).explain("Harmonicas are [MASK].", "Loud", steps=5)
    assert found.target == "loud"
    assert found.words == ("[CLS]", "Harmonicas", "are", "[MASK]", ".", "[SEP]")
    pieces = [score for score, word in zip(found.scores, found.word_of, strict=True) if word == 1]
    assert len(pieces) > 1
    assert found.by_word()[1] == pytest.approx(sum(pieces), abs=1e-5)
    top = found.top(6)
    assert [abs(score) for _, score in top] == sorted((abs(score) for _, score in top), reverse=True)
    assert set(top) == set(zip(found.words, found.by_word().tolist(), strict=True))


def test_the_baseline_is_padding_and_can_be_another_token(folders: dict[str, Path]) -> None:
    bert = minibert.load(folders["classifier"])
    padded = bert.explain("very good", "yes", steps=5)
    with torch.no_grad():
        logits = bert.model(torch.tensor([[101, 0, 0, 102]])).logits[0]
        masked = bert.model(torch.tensor([[101, 103, 103, 102]])).logits[0]
    assert padded.baseline == pytest.approx(float(logits[2]), abs=1e-5)
    assert bert.explain("very good", "yes", steps=5, baseline="[MASK]").baseline == pytest.approx(
        float(masked[2]), abs=1e-5
    )
    assert padded.scores[[0, 3]].tolist() == [0, 0]  # [CLS] and [SEP] are in both
    with pytest.raises(minibert.MinibertError, match="NOTHING"):
        bert.explain("very good", "yes", baseline="NOTHING")


def test_prompts_and_maps_of_the_recipe_are_part_of_the_cosine(bert: minibert.Bert) -> None:
    recipe = replace(bert.recipe, prompt="query: ", include_prompt=False, pooling=("max",), normalize=False)
    white = minibert.Bert(bert.model, bert.tokenizer, recipe).whiten(["one", "two", "three", "four"], rotate=False)
    a, b = "A man plays.", "Someone makes music."
    found = white.explain(a, similar_to=b, steps=5)
    assert found.words[:4] == ("[CLS]", "query", ":", "A")
    assert found.value == pytest.approx(float(white.similarity(white.encode(a), white.encode(b))), abs=1e-5)


def test_a_bfloat16_model_is_explained_in_float32(folders: dict[str, Path]) -> None:
    half = minibert.load(folders["classifier"], dtype=torch.bfloat16)
    whole = minibert.load(folders["classifier"])
    whole.model.load_state_dict({name: value.float() for name, value in half.model.state_dict().items()})
    ours, expected = (bert.explain("very good", "yes", steps=10) for bert in (half, whole))
    np.testing.assert_array_equal(ours.scores, expected.scores)
    assert half.model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "text", "asked", "value"),
    [
        ("masked", "no mask", {"target": "a"}, "0 times"),
        ("masked", "[MASK] [MASK]", {"target": "a"}, "2 times"),
        ("masked", TEXT, {"target": "harmonicas"}, "harmonicas"),
        ("masked", TEXT, {"target": 30522}, "30522"),
        ("masked", TEXT, {"target": 1.5}, "1.5"),
        ("masked", TEXT, {"target": "a", "position": 9}, "9"),
        ("masked", TEXT, {"target": "a", "similar_to": "b"}, "target"),
        ("masked", TEXT, {"steps": 0}, "steps"),
        ("classifier", "x", {"target": "maybe"}, "no, perhaps, yes"),
        ("classifier", "x", {"position": 1}, "position"),
        ("tagger", "x", {"target": "O"}, "position"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    folders: dict[str, Path], name: str, text: str, asked: dict[str, Any], value: str
) -> None:
    with pytest.raises(minibert.MinibertError, match=value):
        minibert.load(folders[name]).explain(text, **asked)


def test_a_model_without_a_head_names_the_cosine(bert: minibert.Bert) -> None:
    with pytest.raises(minibert.MinibertError, match="similar_to="):
        bert.explain("x", "y")


def test_shaded_text_is_drawn(folders: dict[str, Path]) -> None:
    pytest.importorskip("minibert.pictures.attention")
    figure = minibert.load(folders["classifier"]).explain("Harmonicas!", "yes", steps=5).plot()
    written = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert "Harmonicas" in written


def test_the_number_of_words_must_be_a_count(bert: minibert.Bert) -> None:
    with pytest.raises(minibert.MinibertError, match=r"k \(0\)"):
        bert.explain("one", similar_to="two").top(0)
