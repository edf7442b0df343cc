"""`minibert entities`: texts from arguments, standard input and files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from oracle import with_real_vocabulary

import minibert
from minibert.cli import main

TEXTS = ["Angela Merkel met\nFrançois.", "", "北京 is far"]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> str:
    labels = {"id2label": {0: "I-LOC", 1: "B-PER", 2: "I-PER"}, "label2id": {"I-LOC": 0, "B-PER": 1, "I-PER": 2}}
    folder = tmp_path_factory.mktemp("tagger")
    return str(with_real_vocabulary(folder, minilm, "BertForTokenClassification", **labels))


def test_a_line_is_printed_for_each_entity(tagger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["entities", "--model", tagger, "--strategy", "first", *TEXTS]) == 0
    found = minibert.load(tagger).entities(TEXTS, strategy="first")
    expected = [
        f"{number}\t{one.start}\t{one.end}\t{one.label}\t{one.score:.4f}\t{' '.join(one.text.split())}"
        for number, entities in enumerate(found)
        for one in entities
    ]
    assert len(expected) > 1
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.slow
def test_files_and_standard_input_give_the_same_json(
    tagger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"Angela {number} met François" for number in range(1500)]  # more than are printed at once
    found = minibert.load(tagger).entities(texts)
    expected = [
        {"text": text, "entities": [one._asdict() for one in entities]}
        for text, entities in zip(texts, found, strict=True)
    ]
    (tmp_path / "a.txt").write_text("\n".join(texts[:1000]), encoding="utf-8")
    lines = "".join(json.dumps({"body": text, "id": 1}) + "\n" for text in texts[1000:])
    (tmp_path / "b.jsonl").write_text(lines, encoding="utf-8")
    out = tmp_path / "out.jsonl"
    named = [str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl"), "--text", "body", "-o", str(out)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(texts)))
    for arguments in (named, ["--json"]):
        assert main(["entities", "--model", tagger, *arguments]) == 0
        printed = capsys.readouterr().out or out.read_text("utf-8")
        rows = [json.loads(line) for line in printed.splitlines()]
        assert [row["text"] for row in rows] == texts
        for row, one in zip(rows, expected, strict=True):
            assert [entity["start"] for entity in row["entities"]] == [entity["start"] for entity in one["entities"]]


def test_wrong_use_is_told(tagger: str, minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--model", str(minilm), "Angela"], "must be a BertForTokenClassification to find entities"),
        (["--model", tagger, str(tmp_path / "none.txt"), "-o", "out.jsonl"], "must be a file that exists"),
        (["a/b", "Angela"], "the model (a/b) must be named with --model; write minibert entities --model a/b"),
    ):
        assert main(["entities", *arguments]) == 2
        assert message in capsys.readouterr().err
