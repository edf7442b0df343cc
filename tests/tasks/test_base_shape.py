"""Every task in bert-base's shape: transformers' results in float32, and the same ones, nearly, in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import with_real_vocabulary
from sentence_transformers import CrossEncoder

import minibert

pytestmark = pytest.mark.slow
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TEXTS = [
    "Angela Merkel met François Hollande in Straßburg-Neudorf.",
    "They fished from the bank of the river until the sun went down.",
    "ok",
]
MASKED = ["The capital of France is [MASK].", "They [MASK] from the bank.", "[MASK]"]
QUESTION = "Where was Angela Merkel born?"
CONTEXT = "Angela Merkel was born in Hamburg-Eimsbüttel; 北京 is far. She studied in Leipzig."


def models(folder: Path, minilm: Path, kind: str, **config: Any) -> tuple[minibert.Bert, minibert.Bert]:
    """A random checkpoint in bert-base's shape, in float32 and in bfloat16."""
    torch.manual_seed(0)
    with_real_vocabulary(folder, minilm, kind, **BASE, **{"initializer_range": 0.02, **config})
    return minibert.load(folder), minibert.load(folder, dtype="bfloat16")


def assert_near(exact: dict[Any, float], rough: dict[Any, float]) -> None:
    """Scores in bfloat16 differ by less than 5 %, and the best one is the best, or as near to it, in float32."""
    shared = exact.keys() & rough.keys()
    assert shared
    for name in shared:
        assert rough[name] == pytest.approx(exact[name], rel=0.05)
    best, found = max(exact, key=lambda name: exact[name]), max(rough, key=lambda name: rough[name])
    assert found == best or exact[found] > 0.95 * exact[best]


def test_labels(tmp_path: Path, minilm: Path) -> None:
    exact, rough = models(tmp_path, minilm, "BertForSequenceClassification", num_labels=3)
    theirs = transformers.pipeline("text-classification", str(tmp_path), device="cpu")(TEXTS, top_k=None)
    for ours, bfloat16, expected in zip(exact.classify(TEXTS), rough.classify(TEXTS), theirs, strict=True):
        assert [one.label for one in ours] == [one["label"] for one in expected]
        np.testing.assert_allclose([one.score for one in ours], [one["score"] for one in expected], rtol=0, atol=1e-5)
        assert_near({one.label: one.score for one in ours}, {one.label: one.score for one in bfloat16})


def test_ranks(tmp_path: Path, minilm: Path) -> None:
    exact, rough = models(tmp_path, minilm, "BertForSequenceClassification", num_labels=1)
    theirs = CrossEncoder(str(tmp_path), device="cpu").rank(QUESTION, TEXTS)
    ours = exact.rank(QUESTION, TEXTS)
    assert [one.index for one in ours] == [one["corpus_id"] for one in theirs]
    np.testing.assert_allclose([one.score for one in ours], [one["score"] for one in theirs], rtol=0, atol=1e-5)
    assert_near({one.index: one.score for one in ours}, {one.index: one.score for one in rough.rank(QUESTION, TEXTS)})


def test_entities(tmp_path: Path, minilm: Path) -> None:
    labels = dict(enumerate(["B-PER", "B-LOC"]))
    exact, rough = models(tmp_path, minilm, "BertForTokenClassification", id2label=labels)
    tagger = transformers.pipeline("token-classification", str(tmp_path), device="cpu", aggregation_strategy="none")
    ours, theirs, bfloat16 = (
        exact.entities(TEXTS, strategy="none"),
        tagger(TEXTS),
        rough.entities(TEXTS, strategy="none"),
    )
    assert [[(one.label, one.start, one.end) for one in of] for of in ours] == [
        [(one["entity"], one["start"], one["end"]) for one in of] for of in theirs
    ]
    scores = [one.score for of in ours for one in of]
    np.testing.assert_allclose(scores, [one["score"] for of in theirs for one in of], rtol=0, atol=1e-5)
    for of, near in zip(ours, bfloat16, strict=True):
        assert [(one.label, one.start, one.end) for one in near] == [(one.label, one.start, one.end) for one in of]
        assert [one.score for one in near] == pytest.approx([one.score for one in of], rel=0.05)


def test_answers(tmp_path: Path, minilm: Path) -> None:
    exact, rough = models(tmp_path, minilm, "BertForQuestionAnswering")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(QUESTION, CONTEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        output = transformers.BertForQuestionAnswering.from_pretrained(tmp_path).eval()(**batch)
    start, end = output.start_logits[0].double().numpy(), output.end_logits[0].double().numpy()
    context = [i for i, side in enumerate(batch.sequence_ids(0)) if side == 1]
    spans = {(offsets[i][0], offsets[j][1]): start[i] + end[j] for i in context for j in context if i <= j < i + 30}
    total = np.exp(list(spans.values())).sum()
    best = sorted(spans, key=lambda place: -spans[place])[:3]
    ours = exact.answer(QUESTION, CONTEXT, top_k=3)
    assert [(one.start, one.end) for one in ours] == best
    np.testing.assert_allclose(
        [one.score for one in ours], [np.exp(spans[place]) / total for place in best], rtol=0, atol=1e-5
    )
    near = rough.answer(QUESTION, CONTEXT, top_k=20)
    assert_near({place: np.exp(score) / total for place, score in spans.items()}, {one[2:]: one.score for one in near})


def test_masks(tmp_path: Path, minilm: Path) -> None:
    exact, rough = models(tmp_path, minilm, "BertForMaskedLM")
    theirs = transformers.pipeline("fill-mask", str(tmp_path), device="cpu")(MASKED, top_k=5)
    ours, bfloat16 = exact.fill_mask(MASKED, top_k=5), rough.fill_mask(MASKED, top_k=5)
    assert [[one.id for one in of] for of in ours] == [[one["token"] for one in of] for of in theirs]
    probabilities = [[one.probability for one in of] for of in ours]
    np.testing.assert_allclose(probabilities, [[one["score"] for one in of] for of in theirs], rtol=1e-3)
    for all_of_them, near in zip(exact.fill_mask(MASKED, top_k=1000), bfloat16, strict=True):
        assert_near({one.id: one.probability for one in all_of_them}, {one.id: one.probability for one in near})
