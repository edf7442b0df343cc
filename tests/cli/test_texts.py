"""Commands that write files of results: what they write is what the methods of `Bert` return, and they resume."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import with_real_vocabulary

import minibert
from minibert.cli import main
from minibert.corpus import files

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
LABELS = ["O", "O", "B-PER", "I-PER", "B-LOC"]
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "classify": ("BertForSequenceClassification", {"num_labels": 6}),
    "rank": ("BertForSequenceClassification", {"num_labels": 1}),
    "entities": (
        "BertForTokenClassification",
        {"id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)}},
    ),
    "answer": ("BertForQuestionAnswering", {}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> dict[str, str]:
    """A small random checkpoint for each command."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: str(with_real_vocabulary(folder / name, minilm, kind, **TINY, **settings))
        for name, (kind, settings) in HEADS.items()
    }


@pytest.fixture(scope="module")
def wnut(evaldata: Path) -> list[str]:
    """Sentences of WNUT-17."""
    text = (evaldata / "wnut17" / "emerging.test.annotated").read_text("utf-8")
    sentences = [" ".join(line.split("\t")[0] for line in part.splitlines()) for part in text.split("\n\n")]
    return [sentence for sentence in sentences if sentence][:400]


@pytest.fixture(scope="module")
def squad(evaldata: Path) -> list[dict[str, str]]:
    """Questions of XQuAD with their contexts."""
    data = json.loads((evaldata / "qa" / "xquad.en.json").read_text("utf-8"))["data"]
    asked = [
        {"id": one["id"], "question": one["question"], "context": paragraph["context"]}
        for article in data[:4]
        for paragraph in article["paragraphs"]
        for one in paragraph["qas"]
    ]
    return asked[::3]


@pytest.fixture(scope="module")
def trec(evaldata: Path) -> list[str]:
    """Questions of TREC."""
    lines = (evaldata / "trec" / "TREC_10.label").read_text("latin-1").splitlines()
    return [line.partition(" ")[2] for line in lines]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_results(rows: list[dict[str, Any]], expected: list[Any]) -> None:
    """The same fields, and scores but for the last digits, which depend on what is computed together."""
    assert len(rows) == len(expected)
    for row, one in zip(rows, expected, strict=True):
        other = one._asdict()
        assert row.pop("score") == pytest.approx(other.pop("score"), abs=1e-5)
        assert row == other


def test_entities_of_wnut(models: dict[str, str], wnut: list[str], tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [{"n": n, "body": text} for n, text in enumerate(wnut)])
    expected = minibert.load(models["entities"]).entities(wnut, strategy="first")
    names = ["out.jsonl", "out.csv"]
    try:
        import pyarrow.parquet

        names.append("out.parquet")
    except ImportError:
        pass
    for name in names:
        given = [source, "--text", "body", "--keep", "n", "--strategy", "first", "-o", str(tmp_path / name)]
        assert main(["entities", *given, "--model", models["entities"]]) == 0

    rows = lines_of(tmp_path / "out.jsonl")
    assert [list(row) for row in rows] == [["text", "entities", "n"]] * len(wnut)
    assert [(row["n"], row["text"]) for row in rows] == [(str(n), text) for n, text in enumerate(wnut)]
    for row, entities in zip(rows, expected, strict=True):
        assert_same_results(row["entities"], entities)

    flat = read_csv(tmp_path / "out.csv")
    assert list(flat[0]) == ["text", "label", "score", "entity", "start", "end", "n"]
    places = [
        (str(n), *((one.label, one.text, str(one.start), str(one.end)) if one else ("",) * 4))
        for n, entities in enumerate(expected)
        for one in entities or [None]
    ]
    assert [(row["n"], row["label"], row["entity"], row["start"], row["end"]) for row in flat] == places
    assert any(not entities for entities in expected), "no text without entities"
    if "out.parquet" in names:
        rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
        assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows] == flat
    assert any(len(entities) > 1 for entities in expected)


def test_answers_of_xquad(models: dict[str, str], squad: list[dict[str, str]], tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"q": one["question"], **one} for one in squad])
    asked = [one["question"] for one in squad], [one["context"] for one in squad]
    settings: dict[str, Any] = {"top_k": 2, "no_answer": True, "threshold": -1.5, "max_answer_tokens": 9}
    expected = minibert.load(models["answer"]).answer(*asked, **settings)
    options = ["--top-k", "2", "--no-answer", "--threshold", "-1.5", "--max-answer-tokens", "9", "--keep", "id"]
    for name in ("out.jsonl", "out.csv"):
        given = [source, "-o", str(tmp_path / name), "--columns", "q", "context", *options]
        assert main(["answer", *given, "--model", models["answer"]]) == 0

    rows = lines_of(tmp_path / "out.jsonl")
    names = ("id", "question", "context")
    assert [[row[name] for name in names] for row in rows] == [[one[name] for name in names] for one in squad]
    for row, answers in zip(rows, expected, strict=True):
        assert_same_results(row["answers"], answers)

    flat = read_csv(tmp_path / "out.csv")
    assert [(row["id"], row["answer"], row["start"], row["end"]) for row in flat] == [
        (one["id"], answer.text, str(answer.start), str(answer.end))
        for one, answers in zip(squad, expected, strict=True)
        for answer in answers
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_scores_of_pairs(models: dict[str, str], squad: list[dict[str, str]], tmp_path: Path, name: str) -> None:
    pairs = [(one["question"], one["context"]) for one in squad]
    half = len(squad) // 2
    rows = [{"id": one["id"], "query": one["question"], "passage": one["context"]} for one in squad]
    sources = [write_csv(tmp_path / "a.csv", rows[:half]), write_lines(tmp_path / "b.jsonl", rows[half:])]
    out = tmp_path / name
    assert main(["rank", *sources, "-o", str(out), "--keep", "id", "--model", models["rank"]]) == 0
    found: list[dict[str, Any]] = lines_of(out) if name == "out.jsonl" else list(read_csv(out))
    assert [(one["id"], one["query"], one["passage"]) for one in found] == [
        (one["id"], one["question"], one["context"]) for one in squad
    ]
    expected = np.asarray(minibert.load(models["rank"]).score(pairs))
    np.testing.assert_allclose([float(one["score"]) for one in found], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out.npy", "out.safetensors"])
def test_labels_of_trec(models: dict[str, str], trec: list[str], tmp_path: Path, name: str) -> None:
    if name == "out.parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out = tmp_path / name
    source = write_lines(tmp_path / "in.jsonl", [{"text": text, "n": n or None} for n, text in enumerate(trec)])
    assert main(["classify", source, "-o", str(out), "--keep", "n", "--model", models["classify"]]) == 0
    bert = minibert.load(models["classify"])
    scores = bert.label_scores(trec)
    if name == "out.npy":
        return np.testing.assert_allclose(np.load(out), scores, atol=1e-5)
    if name == "out.safetensors":
        from safetensors.numpy import load_file

        return np.testing.assert_allclose(load_file(out)["scores"], scores, atol=1e-5)
    if name == "out.parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out).to_pylist()
    else:
        rows = lines_of(out)
    assert [list(row) for row in rows] == [["text", "n", "label", "scores"]] * len(trec)
    assert [(row["text"], row["n"]) for row in rows] == [(text, n or None) for n, text in enumerate(trec)]
    assert [row["label"] for row in rows] == [labels[0].label for labels in bert.classify(trec, top_k=1)]
    np.testing.assert_allclose([row["scores"] for row in rows], scores, atol=1e-5)


def test_pairs_come_from_standard_input_as_json_lines(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"question": "Who?", "context": "Zürich is far."}, {"question": "Where?", "context": "Here it is."}]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    out = tmp_path / "out.jsonl"
    assert main(["answer", "-", "-o", str(out), "--model", models["answer"]]) == 0
    expected = minibert.load(models["answer"]).answer(
        [line["question"] for line in lines], [line["context"] for line in lines]
    )
    for row, line, answer in zip(lines_of(out), lines, expected, strict=True):
        assert (row["question"], row["context"]) == (line["question"], line["context"])
        assert_same_results(row["answers"], [answer])


def test_kept_columns_are_copied_whatever_is_in_them(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"q": "Who?", "c": 'She, "they" said.\nÄ', "n": value} for value in (["é", 1], None, 2.5, "a,b\n")]
    source = write_lines(tmp_path / "in.jsonl", rows)
    given = ["rank", source, "--columns", "q", "c", "--keep", "n", "c", "q", "--model", models["rank"], "-o"]
    for name in ("out.jsonl", "out.csv"):
        assert main([*given, str(tmp_path / name)]) == 0
    found = lines_of(tmp_path / "out.jsonl")
    assert [{name: row[name] for name in ("q", "c", "n")} for row in found] == rows
    flat = read_csv(tmp_path / "out.csv")
    assert [row["n"] for row in flat] == ['["é", 1]', "", "2.5", "a,b\n"]
    assert {row["c"] for row in flat} == {rows[0]["c"]}
    write_lines(tmp_path / "in.jsonl", [{**rows[0], "n": ["\udfff"]}])
    assert main([*given, str(tmp_path / "other.csv")]) == 2
    assert "line 1, must have valid Unicode in 'n'" in capsys.readouterr().err


def test_a_column_of_parquet_may_start_with_nulls_but_has_one_type(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    monkeypatch.setattr(files, "BLOCK", 2)
    for name, last in (("a", 2.5), ("b", "text")):
        values = [None, None, 1, 2, last]
        source = write_lines(tmp_path / f"{name}.jsonl", [{"text": "one", "n": value} for value in values])
        given = [source, "-o", str(tmp_path / f"{name}.parquet"), "--keep", "n", "--model", models["classify"]]
        assert main(["classify", *given]) == (0 if name == "a" else 2)
    assert parquet.read_table(tmp_path / "a.parquet")["n"].to_pylist() == [None, None, 1, 2, 2.5]
    assert "the columns to keep must have values of one type each for .parquet" in capsys.readouterr().err


def test_no_texts_make_a_file_without_rows(models: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("")
    for name, content in (("out.jsonl", ""), ("out.csv", "text,label,score,entity,start,end\n")):
        given = [str(tmp_path / "in.txt"), "-o", str(tmp_path / name), "--model", models["entities"]]
        assert main(["entities", *given]) == 0
        assert (tmp_path / name).read_text() == content


def done(journal: Path) -> int:
    lines = journal.read_bytes().splitlines(keepends=True)[1:] if journal.exists() else []
    return sum(json.loads(line)["texts"] for line in lines if line.endswith(b"\n"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [("classify", "jsonl"), ("rank", "csv"), ("entities", "jsonl"), ("answer", "csv")]
)
def test_a_killed_command_resumes_and_writes_the_same_bytes(
    models: dict[str, str], squad: list[dict[str, str]], tmp_path: Path, name: str, kind: str
) -> None:
    rows = [{"n": n, **one} for n, one in enumerate(squad * 15)]
    source = write_lines(tmp_path / "in.jsonl", rows)
    columns = ["--text", "context"] if name in ("classify", "entities") else ["--columns", "question", "context"]
    once, out = tmp_path / f"once.{kind}", tmp_path / f"out.{kind}"
    arguments = [sys.executable, "-m", "minibert", name, source, *columns, "--keep", "n", "--model", models[name], "-o"]
    subprocess.run([*arguments, str(once)], check=True, capture_output=True)
    journal, reached = tmp_path / f"out.{kind}.partial" / "journal", [0]
    for _ in range(2 if name == "classify" else 1):
        process = subprocess.Popen([*arguments, str(out)], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None and done(journal) <= reached[-1] + 60:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not out.exists(), "it was never interrupted"
        reached.append(done(journal))
    assert reached == sorted(set(reached))
    assert reached[-1] < len(rows)
    last = subprocess.run([*arguments, str(out)], check=True, capture_output=True, text=True)
    assert f"minibert: resuming after {reached[-1]:,} texts" in last.stderr
    assert out.read_bytes() == once.read_bytes()
    assert not journal.parent.exists()


def with_other(part: str, model: str, folder: Path) -> None:
    """Save a model in a folder, with another part of the head."""
    bert = minibert.load(model)
    network: Any = bert.model
    with torch.no_grad():
        if part == "labels":
            network.config = network.config.replace(
                id2label={number: f"other {number}" for number in range(network.config.num_labels)}
            )
        elif part == "pooler":
            network.bert.pooler.dense.bias[3] += 0.5
        elif part == "head":
            head = getattr(network, "classifier", None) or network.span_head
            head.weight[0, 1] += 0.5
    bert.save_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "part"),
    [("classify", "head"), ("classify", "pooler"), ("classify", "labels"), ("rank", "head"), ("entities", "head"),
     ("entities", "labels"), ("answer", "head")],
)  # fmt: skip
def test_results_of_another_head_are_not_resumed(
    models: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    part: str,
) -> None:
    monkeypatch.setattr(files, "MOST_TEXTS", 1)
    source = write_lines(
        tmp_path / "in.jsonl", [{"question": "one", "context": "two"}, {"question": "", "context": "a"}]
    )
    columns = ["--text", "context"] if name in ("classify", "entities") else ["--columns", "question", "context"]
    out, folder = tmp_path / "out.jsonl", tmp_path / "model"
    arguments = [name, source, *columns, "--model", str(folder), "-o", str(out)]
    with_other("nothing", models[name], folder)
    with monkeypatch.context() as patch:
        patch.setattr(files.Output, "finish", lambda output: (_ for _ in ()).throw(OSError("the power fails")))
        assert main(arguments) == 2
    with_other(part, models[name], folder)
    capsys.readouterr()
    assert main(arguments) == 2
    what = "config" if part == "labels" else "head"
    assert f"must be from the same command to be resumed, but they differ ({what}: " in capsys.readouterr().err
    assert not out.exists()
    with_other("nothing", models[name], folder)
    assert main(arguments) == 0
    assert len(lines_of(out)) == 2


def test_other_settings_or_texts_are_not_resumed(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": f"Who is {n}?", "context": "Angela met François.", "n": n} for n in range(9)]
    source, out = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    given = ["answer", source, "-o", str(out), "--keep", "n", "--model", models["answer"]]
    with monkeypatch.context() as patch:
        patch.setattr(files.Output, "finish", lambda output: (_ for _ in ()).throw(OSError("the power fails")))
        assert main(given) == 2
    assert done(tmp_path / "out.jsonl.partial" / "journal") == 9
    for other in (["--top-k", "2"], ["--no-answer"], ["--threshold", "1"], ["--columns", "context", "question"]):
        capsys.readouterr()
        assert main([*given, *other]) == 2
        assert "must be from the same command to be resumed" in capsys.readouterr().err
    for column, value in (("context", "Another text."), ("n", -1)):  # not only the first text counts
        write_lines(tmp_path / "in.jsonl", [*rows[:5], {**rows[5], column: value}, *rows[6:]])
        assert main(given) == 2
        assert "must be the same as before to resume, but they differ" in capsys.readouterr().err
    write_lines(tmp_path / "in.jsonl", rows)
    assert main(given) == 0
    assert [row["n"] for row in lines_of(out)] == list(range(9))


def test_wrong_uses_are_told_in_one_sentence(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = write_lines(tmp_path / "a.jsonl", [{"question": "Who?", "context": "She.", "query": "q", "passage": 7}])
    texts, out = str(tmp_path / "a.txt"), str(tmp_path / "out.jsonl")
    Path(texts).write_text("one\n")
    for arguments, message in (
        (["entities", texts, "-o", "out.npy"], "(out.npy) must end in one of .jsonl, .csv, .parquet; change its name"),
        (["entities", "-o", out], "the inputs ([]) must be at least one file when -o is given"),
        (["entities", pairs, "-o", out, "--text", "context", "--keep", "label"], "the column to keep (label) must not"),
        (["entities", pairs, "-o", out, "--text", "context", "--keep", "id"], "must have the column 'id'"),
        (["rank", texts, "-o", out], "the columns to read (query, passage) must be of a file with columns, not"),
        (["rank", pairs, "-o", out], "line 1, must have a text in 'passage', not 7; remove such rows"),
        (["rank", pairs, "-o", out, "--top-k", "3"], "--top-k (3) must not be given with -o; a file has all pairs"),
        (["answer", pairs, "-o", out, "--columns", "q", "context"], "name the column with --columns"),
        (["answer", "Who?", "one", "two"], "the context (2 texts) must be one text"),
        (["classify", texts, "-o", out, "--threshold", "0"], "--threshold (0.0) must not be given with -o"),
    ):
        assert main([*arguments, "--model", models[arguments[0]]]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.txt"]


HOSTILE = "a \x1b[31mred\x1b[0m b\x07ank \x9b2J \u202egnp\u202c word\x7f"


def test_control_characters_do_not_reach_a_terminal(
    models: dict[str, str], minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(tmp_path / "index")
    bert = minibert.load(minilm)
    made = minibert.Index(bert)
    made.add([HOSTILE], [HOSTILE])
    made.save(index)
    write_lines(tmp_path / "in.jsonl", [{"text": HOSTILE}])
    commands = [
        ["search", index, HOSTILE, "--model", str(minilm)],
        ["encode", HOSTILE, "--model", str(minilm)],
        ["words", HOSTILE, "--model", str(minilm)],
        ["explain-similarity", HOSTILE, HOSTILE, "--model", str(minilm)],
        ["classify", HOSTILE, "--model", models["classify"]],
        ["rank", HOSTILE, HOSTILE, "--model", models["rank"]],
        ["entities", HOSTILE, "--model", models["entities"]],
        ["answer", HOSTILE, HOSTILE, "--model", models["answer"]],
        ["attention", HOSTILE, "--model", str(minilm)],
        ["expand", "bank", "--corpus", str(tmp_path / "in.jsonl"), "--model", str(minilm)],
        ["encode", "x", "--model", f"no such {HOSTILE}"],
        ["encode", f"{HOSTILE}.txt", "-o", str(tmp_path / "out.npy")],
    ]
    for command in commands:
        assert main(command) in (0, 2), command
        shown = "".join(capsys.readouterr())
        assert shown, command
        assert not set(shown) & set("\x1b\x07\x9b\x7f\u202e\u202c\r"), command
    assert main(["search", index, "a", "--json", "--model", str(minilm)]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == HOSTILE
