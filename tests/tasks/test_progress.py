"""Progress bars say what they count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import with_real_vocabulary

import minibert

ONE = {"num_labels": 1}


@pytest.mark.parametrize(
    ("kind", "settings", "call", "name"),
    [
        ("BertForSequenceClassification", {}, lambda bert: bert.classify("a", show_progress_bar=True), "classify"),
        ("BertForSequenceClassification", ONE, lambda b: b.rank("a", ["b"], show_progress_bar=1), "rank"),
        ("BertForSequenceClassification", ONE, lambda b: b.score(("a", "b"), show_progress_bar=1), "score"),
        ("BertForTokenClassification", {}, lambda bert: bert.entities("a", show_progress_bar=True), "entities"),
        ("BertForQuestionAnswering", {}, lambda bert: bert.answer("a", "b", show_progress_bar=True), "answer"),
        ("BertForMaskedLM", {}, lambda bert: bert.fill_mask("a [MASK]", show_progress_bar=True), "fill_mask"),
        ("BertModel", {}, lambda bert: bert.words("a", show_progress_bar=True), "words"),
        ("BertModel", {}, lambda bert: bert.encode("a", show_progress_bar=True), "encode"),
    ],
)  # fmt: skip
def test_a_bar_says_what_is_computed(
    tmp_path: Path,
    minilm: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    settings: dict[str, Any],
    call: Callable[[minibert.Bert], object],
    name: str,
) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path, minilm, kind, num_hidden_layers=1, **settings))
    capsys.readouterr()
    call(bert)
    shown = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert {line.partition(":")[0].strip() for line in shown} - {""} == {name}
