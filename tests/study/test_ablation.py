"""The sweep over all heads, against each head ablated alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import with_real_vocabulary
from torch import Tensor

import minibert
from minibert.errors import MinibertError

TEXTS = ["the cat sat on the [MASK] .", "[MASK] and [MASK]"]


def loaded(folder: Path, minilm: Path, kind: str) -> minibert.Bert:
    return minibert.load(with_real_vocabulary(folder, minilm, kind), dtype="float32")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    return loaded(tmp_path_factory.mktemp("masked"), minilm, "BertForMaskedLM")


def one_by_one(bert: minibert.Bert, value: Any) -> Tensor:
    """What a value loses without each head: (L, A)."""
    whole = value(bert)
    lost = [[whole - value(bert.ablated({layer: [head]})) for head in range(4)] for layer in range(3)]
    return torch.tensor(lost)


def test_the_vectors_change_is_that_of_each_head_ablated_alone(bert: minibert.Bert) -> None:
    texts = ["a man is playing a guitar", "it rained"]
    whole = bert.encode(texts)
    found = bert.ablation(texts, target="vector")
    assert tuple(found.shape) == (6, 12)
    for layer, head in ((0, 0), (2, 7), (5, 11)):
        vectors = bert.ablated({layer: [head]}).encode(texts)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(whole, axis=1)
        expected = 1 - ((vectors * whole).sum(1) / lengths).mean()
        tolerance = 1e-6 if bert.model.dtype == torch.float32 else 2e-3
        assert float(found[layer, head]) == pytest.approx(expected, abs=tolerance)


def test_a_tokens_logit_at_the_mask(masked: minibert.Bert) -> None:
    number = masked.tokenizer.backend.token_to_id("mat")

    def value(bert: minibert.Bert) -> float:
        logits = [bert.trace(text, "mlm_head")["mlm_head"][0, :, number] for text in TEXTS]
        return float((logits[0][6] + (logits[1][1] + logits[1][3]) / 2) / 2)

    torch.testing.assert_close(masked.ablation(TEXTS, "mat"), one_by_one(masked, value), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("target", [1, "LABEL_1"])
def test_a_classs_logit(tmp_path: Path, minilm: Path, target: str | int) -> None:
    bert = loaded(tmp_path, minilm, "BertForSequenceClassification")
    expected = one_by_one(bert, lambda b: float(b.trace("a cat", "classifier")["classifier"][0, 1]))
    bert.model.train()  # it is measured in evaluation mode all the same
    torch.testing.assert_close(bert.ablation("a cat", target), expected, atol=1e-5, rtol=1e-4)
    assert bert.model.training
    with pytest.raises(MinibertError, match="LABEL_0, LABEL_1"):
        bert.ablation("a cat", 2)


def test_pairs_are_read_as_pairs(tmp_path: Path, minilm: Path) -> None:
    bert = loaded(tmp_path, minilm, "BertForSequenceClassification")
    expected = one_by_one(bert, lambda b: float(b.trace("a cat", "classifier", "a dog")["classifier"][0, 0]))
    torch.testing.assert_close(bert.ablation("a cat", 0, "a dog"), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(MinibertError, match=r"pairs \(1\)"):
        bert.ablation(["a", "b"], 0, ["c"])


def test_a_function_of_the_encoders_output(masked: minibert.Bert) -> None:
    expected = one_by_one(masked, lambda b: float(b.trace("a b", "encoder.layers.2")["encoder.layers.2"][0, 1, 3]))
    found = masked.ablation(["a b"], lambda output: output.last_hidden_state[:, 1, 3])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(MinibertError, match="13 numbers"):
        masked.ablation(["a b"], lambda output: output.last_hidden_state)


def test_a_model_that_is_edited_already_is_swept_as_it_is(masked: minibert.Bert) -> None:
    edited = masked.edited({"encoder.layers.1": lambda x: x * 2}).ablated({0: [2]})
    found = edited.ablation(["a b"], lambda output: output.last_hidden_state[:, 1, 3])
    expected = one_by_one(edited, lambda b: float(b.trace("a b", "encoder.layers.2")["encoder.layers.2"][0, 1, 3]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert float(found[0, 2]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("texts", "target", "said"),
    [
        ([], "vector", "texts"),
        (["no mask"], "mat", "no mask"),
        (["[MASK]"], "nosuchtoken", "nosuchtoken"),
        (["[MASK]"], 3, "BertForMaskedLM"),
    ],
)
def test_what_makes_no_sense_is_refused(masked: minibert.Bert, texts: list[str], target: Any, said: str) -> None:
    with pytest.raises(MinibertError, match=said):
        masked.ablation(texts, target)
