"""Published numbers of the real bert-base-uncased. They need the Hub: `pytest -m network`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minibert

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "model_expected.json").read_text(encoding="utf-8"))[
    "bert-base-uncased"
]
NAME = "google-bert/bert-base-uncased"
pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def base() -> minibert.Bert:
    return minibert.load(NAME)


def test_the_published_slice_of_hidden_states_is_ours(base: minibert.Bert) -> None:
    published = PUBLISHED["hidden_slice"]
    ids, mask = torch.tensor(published["input_ids"]), torch.tensor(published["attention_mask"])
    with torch.no_grad():
        hidden = base.encoder(ids, mask).last_hidden_state
    assert hidden.shape == (1, 11, 768)
    np.testing.assert_allclose(hidden[:, 1:4, 1:4], published["expected"], atol=1e-4)
    np.testing.assert_allclose(hidden[:, 1:4, 1:4], published["expected_more_digits"], atol=1e-5)


@pytest.mark.parametrize("case", PUBLISHED["fill_mask"], ids=lambda case: case["text"])
def test_the_published_candidates_are_ours(base: minibert.Bert, case: dict[str, Any]) -> None:
    expected = case.get("top5") or case["top5_partial"]
    candidates = base.fill_mask(case["text"], top_k=5)
    for candidate, (token, id_, probability) in zip(candidates, expected, strict=False):
        assert candidate.token == token
        assert id_ is None or candidate.id == id_
        assert candidate.probability == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("case", PUBLISHED["masked_lm_logits"]["cases"], ids=lambda case: case[0])
def test_the_published_logits_are_ours(base: minibert.Bert, case: list[Any]) -> None:
    text, masks = case
    encoded = base.tokenizer(text, return_tensors="pt")
    places = (encoded.input_ids[0] == base.tokenizer.mask_token_id).nonzero().flatten()
    with torch.no_grad():
        logits = base.model(**encoded).logits[0, places]
    for row, (id_, token, score) in zip(logits, masks, strict=True):
        assert row.argmax() == id_
        assert base.tokenizer.convert_ids_to_tokens(id_) == token
        assert row[id_].item() == pytest.approx(score, abs=1e-3)


def test_the_published_words_of_a_batch_without_a_mask_are_ours(base: minibert.Bert) -> None:
    texts, words = zip(*PUBLISHED["masked_lm_logits"]["argmax_unpadded_mask"], strict=True)
    encoded = base.tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = base.model(encoded.input_ids).logits  # no attention mask, as published
    best = logits[encoded.input_ids == base.tokenizer.mask_token_id].argmax(-1)
    assert base.tokenizer.convert_ids_to_tokens(best) == list(words)


def test_parity_with_transformers_holds(base: minibert.Bert) -> None:
    report = minibert.parity(NAME)
    assert report.ok, str(report)
    assert report.model == "BertForPreTraining"
