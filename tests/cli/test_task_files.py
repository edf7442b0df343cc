"""Answers of files: what the Python API gives, in each format, resumed to the byte."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import with_real_vocabulary

import minibert
from minibert.cli import main
from minibert.corpus import files

LABELS = {"id2label": {0: "O", 1: "B-LOC", 2: "B-PER"}, "label2id": {"O": 0, "B-LOC": 1, "B-PER": 2}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> dict[str, str]:
    """Small random checkpoints by command."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "entities": str(with_real_vocabulary(folder / "a", minilm, "BertForTokenClassification", **LABELS)),
        "classify": str(with_real_vocabulary(folder / "b", minilm, "BertForSequenceClassification", **LABELS)),
        "rank": str(with_real_vocabulary(folder / "c", minilm, "BertForSequenceClassification", num_labels=1)),
        "answer": str(with_real_vocabulary(folder / "d", minilm, "BertForQuestionAnswering")),
    }


@pytest.fixture(scope="module")
def pairs(evaldata: Path) -> list[tuple[str, str]]:
    """Questions and contexts of XQuAD."""
    articles = json.loads((evaldata / "qa" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [(paragraph["qas"][0]["question"], paragraph["context"]) for paragraph in paragraphs[:30]]


@pytest.fixture
def sources(pairs: list[tuple[str, str]], tmp_path: Path) -> dict[str, list[str]]:
    """The arguments that name the input, by command."""
    contexts = [context for _, context in pairs]
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(text.split()) for text in contexts), encoding="utf-8")
    for name, columns in (("qa.jsonl", ("question", "context")), ("pairs.jsonl", ("query", "passage"))):
        lines = [json.dumps({**dict(zip(columns, pair, strict=True)), "id": 7}) for pair in pairs]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    return {
        "entities": [str(tmp_path / "texts.txt")],
        "classify": [str(tmp_path / "texts.txt")],
        "rank": ["--files", str(tmp_path / "pairs.jsonl")],
        "answer": ["--files", str(tmp_path / "qa.jsonl")],
    }


def expected_rows(command: str, bert: minibert.Bert, pairs: list[tuple[str, str]], kind: str) -> list[dict[str, Any]]:
    """The rows of a file, by the Python API."""
    texts = [" ".join(context.split()) for _, context in pairs]
    if command == "entities":
        found = bert.entities(texts)
        if kind == ".jsonl":
            return [{"text": t, "entities": [e._asdict() for e in es]} for t, es in zip(texts, found, strict=True)]
        return [{"number": n, **e._asdict()} for n, es in enumerate(found) for e in es]
    if command == "rank":
        return [{"query": q, "passage": p, "score": float(bert.score([(q, p)])[0])} for q, p in pairs]
    answers = bert.answer([q for q, _ in pairs], [c for _, c in pairs])
    return [
        {"question": q, "answer": a.text, "score": a.score, "start": a.start, "end": a.end}
        for (q, _), a in zip(pairs, answers, strict=True)
    ]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(path).to_pylist())


@pytest.mark.filterwarnings("ignore:.*exceed 512 tokens")
@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("command", ["entities", "rank", "answer"])
def test_a_file_gets_what_the_python_api_gives(
    command: str,
    kind: str,
    models: dict[str, str],
    sources: dict[str, list[str]],
    pairs: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    path = tmp_path / f"out{kind}"
    assert main([command, "--model", models[command], *sources[command], "-o", str(path), "--dtype", "float32"]) == 0
    expected = expected_rows(command, minibert.load(models[command], dtype="float32"), pairs, kind)
    found = read(path)
    assert len(found) == len(expected) > 20
    for got, wanted in zip(found, expected, strict=True):
        assert list(got) == list(wanted)
        for name, value in wanted.items():
            if isinstance(value, float):
                assert float(got[name]) == pytest.approx(value, abs=1e-5)
            elif name == "entities":
                assert [(e["label"], e["start"], e["end"], e["text"]) for e in got[name]] == [
                    (e["label"], e["start"], e["end"], e["text"]) for e in value
                ]
            else:
                assert str(got[name]) == str(value)


@pytest.mark.filterwarnings("ignore:.*exceed 512 tokens")
@pytest.mark.parametrize("command", ["entities", "rank", "answer", "classify"])
def test_an_interrupted_file_is_resumed_to_the_byte(
    command: str,
    models: dict[str, str],
    sources: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(files, "FIRST_BLOCK", 3_000)
    monkeypatch.setattr(files, "MOST_CHARACTERS", 3_000)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    given = [command, "--model", models[command], *sources[command], "-o"]
    assert main([*given, str(whole)]) == 0
    original, blocks = files.Output.add, 0

    def dying(output: files.Output, *arguments: Any) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 4:
            raise KeyboardInterrupt
        original(output, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(files.Output, "add", dying)
        assert main([*given, str(cut)]) == 130
    assert not cut.exists()
    assert main([*given, str(cut), *(["--batch-size", "5"] if command == "rank" else [])]) == 0
    assert "resuming after" in capsys.readouterr().err
    if command != "rank":  # another batch size may round differently
        assert cut.read_bytes() == whole.read_bytes()


def test_scores_of_a_classifier_are_named_for_what_they_are(
    models: dict[str, str], sources: dict[str, list[str]], pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    given = ["classify", "--model", models["classify"], *sources["classify"], "-o"]
    assert main([*given, str(tmp_path / "out.jsonl")]) == 0
    rows = read(tmp_path / "out.jsonl")
    assert list(rows[0]) == ["text", "label", "scores"]
    bert = minibert.load(models["classify"])
    expected = bert.label_scores([row["text"] for row in rows])
    np.testing.assert_allclose([row["scores"] for row in rows], expected, atol=1e-5)
    assert [row["label"] for row in rows] == [LABELS["id2label"][i] for i in expected.argmax(1).tolist()]


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("answer", ["-o", "out.jsonl"], "--files and -o must be given together"),
        ("rank", ["--files", "x.jsonl"], "--files and -o must be given together"),
        ("rank", ["a query", "--files", "x.jsonl", "-o", "out.csv"], "'a query') must not be given beside --files"),
        ("answer", [], "answer must be given its arguments, or --files and -o"),
        ("entities", ["-o", "out.jsonl"], "the inputs ([]) must be at least one file"),
    ],
)
def test_wrong_uses_get_one_sentence(
    command: str, arguments: list[str], message: str, models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--model", models[command], *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_formats_and_columns_that_do_not_fit_are_named(
    models: dict[str, str], sources: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["answer", "--model", models["answer"], *sources["answer"], "-o"]
    assert main([*given, str(tmp_path / "out.npy")]) == 2
    assert "must end in one of .jsonl, .csv, .parquet" in capsys.readouterr().err
    assert main([*given, str(tmp_path / "out.csv"), "--question-column", "ask"]) == 2
    assert "must have the column 'ask'" in capsys.readouterr().err
    assert main([*given, str(tmp_path / "out.csv"), "--context-column", "id"]) == 2
    assert "must have a text in 'id', not 7" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
