"""`minibert classify` and `minibert rank` print, and write files, what the methods of `Bert` return."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from oracle import with_real_vocabulary

import minibert
from minibert.cli import main

TEXTS = ["How do I reset my password?", "Where is my parcel?", "ok"]


def made(folder: Path, minilm: Path, labels: int) -> Path:
    return with_real_vocabulary(folder, minilm, "BertForSequenceClassification", num_labels=labels)


def test_classify_prints_labels_and_writes_scores_to_a_file(
    tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path / "model", minilm, 3)
    bert = minibert.load(folder)
    assert main(["classify", *TEXTS, "--json", "--top-k", "2", "--model", str(folder)]) == 0
    for line, labels in zip(capsys.readouterr().out.splitlines(), bert.classify(TEXTS, top_k=2), strict=True):
        assert [tuple(label.values()) for label in json.loads(line)["labels"]] == [tuple(label) for label in labels]
    assert main(["classify", "a  b", "--model", str(folder)]) == 0
    [best] = bert.classify("a  b", top_k=1)
    assert capsys.readouterr().out == f"{best.score:.4f}\t{best.label}\ta b\n"

    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    for name in ("scores.npy", "scores.jsonl"):
        given = ["classify", str(tmp_path / "texts.txt"), "-o", str(tmp_path / name), "--model", str(folder)]
        assert main(given) == 0
    scores = bert.label_scores(TEXTS)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), scores, atol=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert [row["label"] for row in rows] == [labels[0].label for labels in bert.classify(TEXTS)]


def test_rank_prints_documents_of_arguments_or_standard_input_in_order(
    tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "model", minilm, 1)
    expected = minibert.load(folder).rank("a query", TEXTS)
    assert main(["rank", "a query", *TEXTS, "--json", "--model", str(folder)]) == 0
    assert [tuple(json.loads(line).values()) for line in capsys.readouterr().out.splitlines()] == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS)))
    assert main(["rank", "a query", "--top-k", "2", "--model", str(folder)]) == 0
    lines = [f"{one.score:.4f}\t{one.index}\t{one.text}" for one in expected[:2]]
    assert capsys.readouterr().out.splitlines() == lines
