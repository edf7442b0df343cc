"""Files of texts in, files of vectors out; and what is left of an interruption."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import minibert
from minibert.cli import main
from minibert.vectors import files

TEXTS = [
    "How do I reset my password?",
    'He said "no, thanks", and left.',
    "Zürich, 北京 👍",
    "",
    "two\nlines",
    "the bank of the river",
]
LINES = [text.replace("\n", " ") for text in TEXTS]


@pytest.fixture(scope="module")
def vectors(minilm: Path) -> Any:
    return minibert.load(minilm).encode(TEXTS)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """The texts in each kind of file."""
    found = {kind: tmp_path / f"texts.{kind}" for kind in ("txt", "csv", "jsonl")}
    found["txt"].write_text("\n".join(LINES) + "\n", encoding="utf-8")
    with found["csv"].open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(TEXTS))
    found["jsonl"].write_text("".join(json.dumps({"id": 1, "text": text}) + "\n\n" for text in TEXTS), encoding="utf-8")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return found
    found["parquet"] = tmp_path / "texts.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS, "id": list(range(6))}), found["parquet"])
    return found


def read(path: Path) -> Any:
    """The vectors of a file, by a reader that is not ours."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".safetensors":
        return load_file(path)["vectors"]
    if path.suffix == ".jsonl":
        return np.array([json.loads(line)["vector"] for line in path.read_text("utf-8").splitlines()], dtype=np.float32)
    import pyarrow.parquet

    return np.stack(pyarrow.parquet.read_table(path)["vector"].to_numpy())


@pytest.mark.parametrize("output", ["npy", "safetensors", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "parquet"])
def test_every_kind_of_file_becomes_every_other(
    inputs: dict[str, Path], tmp_path: Path, minilm: Path, vectors: Any, kind: str, output: str
) -> None:
    if "parquet" in (kind, output):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out = tmp_path / f"out.{output}"
    assert main(["encode", str(inputs[kind]), "-o", str(out), "--model", str(minilm)]) == 0
    got = read(out)
    assert got.dtype == np.float32
    same = [0, 1, 2, 3, 5] if kind == "txt" else slice(None)
    assert got.shape == vectors.shape
    assert np.abs(got[same] - vectors[same]).max() < 1e-6
    assert not out.with_name(out.name + ".partial").exists()
    if output == "jsonl":
        texts = [json.loads(line)["text"] for line in out.read_text("utf-8").splitlines()]
        assert texts == (LINES if kind == "txt" else TEXTS)


def test_several_files_are_one_after_the_other(
    inputs: dict[str, Path], tmp_path: Path, minilm: Path, vectors: Any
) -> None:
    out = tmp_path / "out.npy"
    main(["encode", str(inputs["csv"]), str(inputs["jsonl"]), "-o", str(out), "--model", str(minilm)])
    assert np.abs(np.load(out) - np.concatenate([vectors, vectors])).max() < 1e-6


@pytest.mark.parametrize("output", ["safetensors", "jsonl", "parquet"])
def test_words_keep_their_places(tmp_path: Path, minilm: Path, output: str) -> None:
    if output == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / "in.txt").write_text("He robbed the bank.\n\nembedding\n", encoding="utf-8")
    out = tmp_path / f"out.{output}"
    assert main(["words", str(tmp_path / "in.txt"), "-o", str(out), "--model", str(minilm)]) == 0
    expected = minibert.load(minilm).words(["He robbed the bank.", "", "embedding"])
    assert np.abs(read(out) - np.concatenate([words.vectors for words in expected])).max() < 1e-5
    places = [(0, 0, 2), (0, 3, 9), (0, 10, 13), (0, 14, 18), (0, 18, 19), (2, 0, 9)]
    if output == "safetensors":
        tensors = load_file(out)
        assert list(zip(*(tensors[name].tolist() for name in ("text", "start", "end")), strict=True)) == places
    if output == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [(row["text"], row["start"], row["end"]) for row in rows] == places
        assert rows[-1]["word"] == "embedding"


def test_no_texts_make_an_empty_file(tmp_path: Path, minilm: Path) -> None:
    (tmp_path / "in.txt").write_text("")
    for output in ("npy", "safetensors"):
        out = tmp_path / f"out.{output}"
        assert main(["encode", str(tmp_path / "in.txt"), "-o", str(out), "--model", str(minilm)]) == 0
        assert read(out).shape == (0, 384)


# Interruptions


def partial(tmp_path: Path, number: int = 0) -> files.Output:
    return files.Output(str(tmp_path / "out.jsonl"), {"number": number}, 2)


def computed(texts: list[str], first: int) -> tuple[Any, list[files.Row]]:
    numbers = np.arange(first, first + len(texts), dtype=np.float32)
    return np.stack([numbers, -numbers], axis=1), [{"text": text} for text in texts]


def test_whatever_is_cut_off_is_computed_again_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 3)
    source = tmp_path / "in.txt"
    source.write_text("".join(f"text {number}\n" for number in range(20)))
    for stop in range(6):  # each time a little further, with rubbish left behind the last good block
        output = partial(tmp_path)
        assert output.texts == 3 * stop
        steps = files.fill(output, [str(source)], "text", computed)
        next(steps)
        for name in ("vectors", "rows"):
            with (output.folder / name).open("ab") as file:
                file.write(b"\xff rubbish")
    for _ in files.fill(partial(tmp_path), [str(source)], "text", computed):
        pass
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [{"text": f"text {number}", "vector": [number, -number]} for number in range(20)]


class Full:
    """A disk that is full after some bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.write = room, os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle: int) -> None:
        self.room -= os.fstat(handle).st_size
        if self.room < 0:
            raise OSError(28, "No space left on device")
        self.write(handle)


def test_a_full_disk_costs_nothing_that_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 3)
    source = tmp_path / "in.txt"
    source.write_text("".join(f"text {number}\n" for number in range(20)))
    done = []
    for room in (700, 2_500, 6_000, 10**9):
        with monkeypatch.context() as patch:
            Full(patch, room)
            try:
                output = partial(tmp_path)
                done.append(output.texts)
                for _ in files.fill(output, [str(source)], "text", computed):
                    pass
            except OSError:
                continue
    assert done == sorted(done)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"text {number}" for number in range(20)]


def test_another_command_is_not_gone_on_with(tmp_path: Path) -> None:
    partial(tmp_path, 1)
    message = "must be of the same command to go on with it; it is of another one (number: 1 there, 2 here): give that"
    with pytest.raises(ValueError, match=re.escape(message)):
        partial(tmp_path, 2)


COMMAND = (
    "import sys, minibert.vectors.files as f; f.BLOCK = 64; from minibert.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on(tmp_path: Path, minilm: Path, how: signal.Signals) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.npy"
    texts = [f"text number {number} of the bank" for number in range(3000)]
    source.write_text("\n".join(texts) + "\n")
    command = [sys.executable, "-c", COMMAND, "encode", str(source), "-o", str(out), "--model", str(minilm)]
    journal = tmp_path / "out.npy.partial" / "journal.json"
    reached = [0]
    for _ in range(3):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None and _done(journal) <= reached[-1] + 200:
            time.sleep(0.01)
        process.send_signal(how)
        error = process.communicate()[1]
        if process.returncode == 0:
            break
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert re.search(r"minibert: stopped after [\d,]+ texts; give the same command to go on", error)
        reached.append(_done(journal))
    assert len(reached) > 2, "it was never interrupted"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"minibert: going on after {reached[-1]:,} texts" in done.stderr
    assert np.abs(np.load(out) - minibert.load(minilm).encode(texts)).max() < 1e-6


def _done(journal: Path) -> int:
    return json.loads(journal.read_text())["texts"] if journal.exists() else 0


# Mistakes


@pytest.fixture
def bad(tmp_path: Path) -> Any:
    """A file with some content."""

    def make(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\ntw\xffo\n", "a.txt, line 2, must be UTF-8; it is not, from its byte 2 on: convert the file"),
        ("a.csv", b"id,text\n1,one\n2\n", "a.csv, line 3, must have 2 values, as the header has; it has 1"),
        ("a.csv", b"id,body\n1,one\n", "a.csv, line 2, must have the column 'text'; it has 'id', 'body': name the col"),
        ("a.csv", b"", "a.csv must begin with the names of its columns; it is empty"),
        ("a.csv", b'text\n"one" x\n', "a.csv, line 2, must be CSV; it is not ("),
        ("a.jsonl", b'{"text": "one"}\n{"text": \n', "a.jsonl, line 2, must be JSON; it is not ("),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1, must be a JSON object, or a text; it is a list"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl, line 1, must hold a text in 'text', not 7; leave such rows out"),
        ("a.xml", b"", "a.xml) must end in .txt, .csv, .jsonl, .parquet, or be - for standard input"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(bad: Any, name: str, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        list(files.read_rows(bad(name, content)))


def test_mistakes_of_the_command_are_one_sentence(
    bad: Any, tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, model = bad("a.txt", b"one\n"), ["--model", str(minilm)]
    (tmp_path / "there.npy").write_bytes(b"")
    for arguments, message in (
        ([source, "-o", str(tmp_path / "out.xls")], "out.xls) must end in .npy, .safetensors, .jsonl, .parquet"),
        (
            [source, "-o", str(tmp_path / "there.npy")],
            "there.npy) must not exist yet; choose another name, or delete it",
        ),
        ([str(tmp_path / "no.txt"), "-o", "x.npy"], "no.txt) must be a file; there is none of that name"),
        (["-o", "x.npy"], "the inputs must be files, or - for standard input, where there is an output; name them"),
    ):
        assert main(["encode", *arguments, *model]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert main(["words", source, "-o", str(tmp_path / "x.npy"), *model]) == 2
    assert "must end in .safetensors, .jsonl or .parquet, for words" in capsys.readouterr().err
    assert list(files.read_rows(bad("b.jsonl", b'"a text"\n{"text": "b", "n": [1]}\n'), keep=())) == [
        ("a text", {}),
        ("b", {}),
    ]


def test_columns_are_kept(bad: Any) -> None:
    path = bad("a.csv", b"question,answer,n\nq1,a1,1\n")
    assert list(files.read_rows(path, "question", ["answer"])) == [("q1", {"answer": "a1"})]
    with pytest.raises(ValueError, match=re.escape("columns to keep (answer) need a file with columns, which")):
        list(files.read_rows(bad("a.txt", b"one"), keep=["answer"]))


def test_standard_input(tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch, vectors: Any) -> None:
    out = tmp_path / "out.npy"
    done = subprocess.run(
        [sys.executable, "-m", "minibert", "encode", "-", "-o", str(out), "--model", str(minilm)],
        input="\n".join(LINES).encode(),
        capture_output=True,
        check=True,
    )
    assert b"6 vectors of 384 numbers" in done.stderr
    assert np.abs(np.load(out)[:4] - vectors[:4]).max() < 1e-6
