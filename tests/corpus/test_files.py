"""Files of texts in, files of vectors out; and what is left of an interruption."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import minibert
from minibert.cli import main
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.records import Record

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


@pytest.mark.parametrize(
    ("kind", "output"),
    [("txt", "jsonl"), ("csv", "npy"), ("csv", "jsonl"), ("jsonl", "safetensors"), ("parquet", "parquet")],
)
def test_every_kind_of_file_is_read_and_every_kind_written(
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


@pytest.mark.slow
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


def partial(tmp_path: Path, number: int = 0) -> files.VectorOutput:
    return files.VectorOutput(str(tmp_path / "out.jsonl"), {"number": number}, 2)


def computed(items: list[files.Item], first: int) -> tuple[Any, list[Record]]:
    numbers = np.arange(first, first + len(items), dtype=np.float32)
    return np.stack([numbers, -numbers], axis=1), [{"text": text} for text, _ in items]


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file of twenty texts."""
    path = tmp_path / "in.txt"
    path.write_text("".join(f"text {number}\n" for number in range(20)))
    return str(path)


@pytest.fixture
def in_threes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks have three texts."""
    monkeypatch.setattr(files, "MOST_TEXTS", 3)


def interrupted(tmp_path: Path, source: str, blocks: int) -> Path:
    """Compute so many blocks more; the folder in which they are."""
    with partial(tmp_path) as output:
        steps = files.fill(output, files.Source([source]), computed)
        for _ in range(blocks):
            next(steps)
    return output.folder


def finished(tmp_path: Path, source: str) -> list[str]:
    """Compute the rest; the texts of the output, whose vectors are checked."""
    with partial(tmp_path) as output:
        for _ in files.fill(output, files.Source([source]), computed):
            pass
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["vector"] for row in rows] == [[number, -number] for number in range(len(rows))]
    return [row["text"] for row in rows]


TWENTY = [f"text {number}" for number in range(20)]


@pytest.mark.usefixtures("in_threes")
def test_whatever_is_cut_off_is_computed_again_and_nothing_twice(tmp_path: Path, source: str) -> None:
    for stop in range(6):  # each time a little further, with rubbish left behind the last good block
        with partial(tmp_path) as output:
            assert output.texts == 3 * stop
        folder = interrupted(tmp_path, source, 1)
        for name in ("vectors", "rows", "journal"):
            with (folder / name).open("ab") as file:
                file.write(b"\xff rubbish")
    assert finished(tmp_path, source) == TWENTY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.jsonl"]


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


@pytest.mark.usefixtures("in_threes")
def test_a_full_disk_costs_nothing_that_was_done(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    for room in (9_000, 13_000, 20_000, 10**9):
        with monkeypatch.context() as patch:
            Full(patch, room)
            try:
                with partial(tmp_path) as output:
                    done.append(output.texts)
                    for _ in files.fill(output, files.Source([source]), computed):
                        pass
            except OSError:
                continue
    assert done == sorted(done)
    assert done[-1] > 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == TWENTY


def test_another_command_is_not_resumed(tmp_path: Path) -> None:
    with partial(tmp_path, 1):
        pass
    message = "must be from the same command to be resumed, but they differ (number: 1 there, 2 here); repeat that"
    with pytest.raises(ValueError, match=re.escape(message)):
        partial(tmp_path, 2)


def changed(path: Path, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.usefixtures("in_threes")
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "vectors",
            lambda data: data[:-1],
            "vectors (71 bytes) must have at least 72, as recorded in the journal; it was truncated",
        ),
        (
            "rows",
            lambda data: b"",
            "rows (0 bytes) must have at least 171, as recorded in the journal; it was truncated: delete",
        ),
        (
            "vectors",
            lambda data: data[:30] + b"x" + data[31:],
            "vectors must be unchanged, but block 2 of 3 differs from what was",
        ),
        (
            "rows",
            lambda data: data.replace(b"text 4", b"text 5"),
            "must be unchanged, but block 2 of 3 differs from what was written; delete",
        ),
        (
            "journal",
            lambda data: data.replace(b'"texts": 3', b'"texts": 4', 1),
            "must be intact and of this version, but its line 2 is not",
        ),
        (
            "journal",
            lambda data: b"".join(data.splitlines(True)[::2]),
            "must be intact and of this version, but its line 2 is not; delete",
        ),
        ("journal", lambda data: b"", "must be intact and of this version, but its line 1 is not; delete"),
        ("journal", lambda data: b"\xff\n", "must be intact and of this version, but its line 1 is not; delete"),
        ("journal", lambda data: b"[1]\n", "must be intact and of this version, but its line 1 is not; delete"),
    ],
)
def test_what_was_damaged_or_edited_is_not_resumed(
    tmp_path: Path, source: str, name: str, change: Any, message: str
) -> None:
    folder = interrupted(tmp_path, source, 3)
    changed(folder / name, change)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=re.escape(message)):
        partial(tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.partial").mkdir()
    (tmp_path / "out.jsonl.partial" / "vectors").write_text("mine")
    with pytest.raises(ValueError, match=r"partial must have a journal to be resumed, but it has only vectors; del"):
        partial(tmp_path)
    assert (tmp_path / "out.jsonl.partial" / "vectors").read_text() == "mine"


def test_hidden_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out.jsonl.partial"
    folder.mkdir()
    for name in (".journal.md", ".journal.notes123", ".journal.mydiary1"):
        (folder / name).write_text("Dear diary")
        with pytest.raises(MinibertError, match="must have a journal to be resumed"):
            partial(tmp_path)
        assert (folder / name).read_text() == "Dear diary"
        (folder / name).unlink()


@pytest.mark.usefixtures("in_threes")
def test_leftovers_of_a_killed_run_go_and_files_of_somebody_else_stay(tmp_path: Path, source: str) -> None:
    folder = interrupted(tmp_path, source, 3)
    (folder / ".journal.abc_d123").write_bytes(b"")
    (folder / "whole.jsonl").write_text("half of it")
    (folder / "notes.txt").write_text("mine")
    assert finished(tmp_path, source) == TWENTY
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("in_threes")
@pytest.mark.parametrize("name", ["", "rows", "journal", "whole.jsonl"])
def test_links_in_an_unfinished_output_are_not_followed(tmp_path: Path, source: str, name: str) -> None:
    folder = interrupted(tmp_path, source, 3)
    target = tmp_path / "elsewhere"
    if name == "whole.jsonl":
        target.write_text("of somebody else")
    else:
        (folder / name).rename(target)
    (folder / name if name else folder).symlink_to(target)
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    with pytest.raises(MinibertError, match="must not be a link"):
        partial(tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()] == before


@pytest.mark.usefixtures("in_threes")
@pytest.mark.parametrize(
    "change",
    [
        lambda block: block["bytes"].update(rows=-5),
        lambda block: block["bytes"].update(rows="5"),
        lambda block: block["bytes"].update({"../../in.txt": 0}),
        lambda block: block.update(texts=-3),
        lambda block: block.update(rows=None),
        lambda block: block.update(digests=[]),
        lambda block: block.pop("read"),
    ],
)
def test_a_forged_journal_changes_no_file(tmp_path: Path, source: str, change: Any) -> None:
    folder = interrupted(tmp_path, source, 3)
    head, *blocks = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
    change(blocks[1])
    seal, lines = "", []
    for entry in (head, *blocks):  # with digests that are right
        entry.pop("seal")
        seal = hashlib.sha256((seal + json.dumps(entry, sort_keys=True)).encode()).hexdigest()
        lines.append(json.dumps({**entry, "seal": seal}, sort_keys=True) + "\n")
    (folder / "journal").write_text("".join(lines))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(MinibertError, match="its line 3 is not"):
        partial(tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("in_threes")
@pytest.mark.parametrize("name", ["vectors", "rows"])
def test_what_is_damaged_meanwhile_is_seen_before_the_output_appears(tmp_path: Path, source: str, name: str) -> None:
    for change in (lambda data: b"?" + data[1:], lambda data: data[:-3], lambda data: data + b"more"):
        with partial(tmp_path) as output:
            steps = files.fill(output, files.Source([source]), computed)
            assert list(islice(steps, 7))[-1] == 20
            changed(output.folder / name, change)
            with pytest.raises(ValueError, match=r"must (be unchanged|have)"):
                next(steps)
        assert not (tmp_path / "out.jsonl").exists()
        shutil.rmtree(output.folder)


@pytest.mark.usefixtures("in_threes")
def test_an_output_that_appears_meanwhile_stays(tmp_path: Path, source: str) -> None:
    out = tmp_path / "out.jsonl"
    with partial(tmp_path) as output:
        steps = files.fill(output, files.Source([source]), computed)
        next(steps)
        out.write_text("somebody else's")
        with pytest.raises(FileExistsError, match=r"must not exist yet; it was created meanwhile: move it away, and"):
            list(steps)
    assert out.read_text() == "somebody else's"
    out.unlink()
    with partial(tmp_path) as output:
        assert output.texts == 20
    assert finished(tmp_path, source) == TWENTY


@pytest.mark.usefixtures("in_threes")
def test_the_output_is_on_the_disk_before_what_it_was_made_of_goes(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename, unlink = os.fsync, Path.rename, Path.unlink

    def synced(handle: int) -> None:
        status = os.fstat(handle)
        found = [path.name for path in (tmp_path, *tmp_path.rglob("*")) if os.path.samestat(path.stat(), status)]
        events.append(f"sync {found[0]}")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", lambda path, to: (events.append(f"rename {path.name}"), rename(path, to))[1])
    monkeypatch.setattr(
        Path, "unlink", lambda path, **how: (events.append(f"remove {path.name}"), unlink(path, **how))[1]
    )
    assert finished(tmp_path, source) == TWENTY
    end = events.index("sync whole.jsonl")
    assert events[end : end + 3] == ["sync whole.jsonl", "rename whole.jsonl", f"sync {tmp_path.name}"]
    assert set(events[end + 3 : end + 6]) == {"remove journal", "remove vectors", "remove rows"}
    assert not (tmp_path / "out.jsonl.partial").exists()


@pytest.mark.usefixtures("in_threes")
def test_other_texts_are_not_resumed(tmp_path: Path, source: str) -> None:
    folder = interrupted(tmp_path, source, 2)
    before = (folder / "journal").read_bytes()
    for other, place in (
        ([*TWENTY[:4], "another", *TWENTY[5:]], "differ between text 4 and 6"),
        (TWENTY[1:], "differ between text 1 and 3"),
        (TWENTY[:5], "differ between text 4 and 6"),
    ):
        Path(source).write_text("\n".join(other))
        with pytest.raises(ValueError, match=f"must be the same as before to resume, but they {place}; use"):
            finished(tmp_path, source)
    assert (folder / "journal").read_bytes() == before
    more = [*TWENTY, "one more"]  # what is done is of these texts, too
    Path(source).write_text("\n".join(more))
    assert finished(tmp_path, source) == more


@pytest.mark.parametrize("speed", [3_000, 30_000, 10**9])
def test_blocks_take_a_few_seconds_at_any_speed(tmp_path: Path, speed: int) -> None:
    short, long, longest = "ten letter\n", "ten words " * 100 + "\n", "ten words " * 10_000 + "\n"
    (tmp_path / "in.txt").write_text(short * 100_000 + longest + long * 2_000)
    now, took = 0.0, []

    def compute(block: list[files.Item], first: int) -> tuple[Any, list[Record]]:
        nonlocal now
        took.append(sum(len(text) for text, _ in block) / speed)  # characters a second
        now += took[-1]
        return np.zeros((len(block), 2), dtype=np.float32), []

    with files.VectorOutput(str(tmp_path / "out.npy"), {}, 2) as output:
        list(files.fill(output, files.Source([str(tmp_path / "in.txt")]), compute, clock=lambda: now))
    alone = len(longest) / speed  # a text is computed as a whole
    assert sorted(took)[-2] < 2 * files.SECONDS
    assert max(took) < 2 * files.SECONDS + alone
    assert max(block["texts"] for block in output.blocks) <= files.MOST_TEXTS
    if speed < 10**9:
        assert np.median(took) > files.SECONDS * 0.5  # no smaller than need be: sorting by length wants large blocks


# Processes that are killed, and several at a time


def command(source: Path | str, out: Path, model: Path) -> list[str]:
    code = (
        "import sys, minibert.corpus.files as f; f.MOST_TEXTS = 64; from minibert.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", code, "encode", str(source), "-o", str(out), "--model", str(model)]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_resumes(tmp_path: Path, minilm: Path, how: signal.Signals) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.npy"
    texts = [f"text number {number} of the bank" for number in range(3000)]
    source.write_text("\n".join(texts) + "\n")
    journal = tmp_path / "out.npy.partial" / "journal"
    reached = [0]
    for _ in range(2 if how == signal.SIGKILL else 1):
        process = subprocess.Popen(command(source, out, minilm), stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None and _done(journal) <= reached[-1] + 200:
            time.sleep(0.01)
        process.send_signal(how)
        error = process.communicate()[1]
        if process.returncode == 0:
            break
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert re.search(r"minibert: stopped after [\d,]+ texts; give the same command to resume", error)
        reached.append(_done(journal))
    assert len(reached) > (2 if how == signal.SIGKILL else 1), "it was never interrupted"
    done = subprocess.run(command(source, out, minilm), capture_output=True, text=True, check=True)
    assert f"minibert: resuming after {reached[-1]:,} texts" in done.stderr
    assert np.abs(np.load(out) - minibert.load(minilm).encode(texts)).max() < 1e-6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.npy"]


def _done(journal: Path) -> int:
    lines = journal.read_bytes().splitlines(keepends=True)[1:] if journal.exists() else []
    return sum(json.loads(line)["texts"] for line in lines if line.endswith(b"\n"))


INTERRUPTED = """
import os, signal, sys
import numpy as np
from minibert.corpus import files

now = [0.0]

def compute(texts, first):
    now[0] += len(texts) / 1000  # seconds
    if first >= 20_000:
        print(first, len(texts), flush=True)
        os.kill(os.getpid(), signal.SIGINT)
    return np.zeros((len(texts), 2), dtype=np.float32), []

with files.VectorOutput(sys.argv[2], {}, 2) as output:
    for _ in files.fill(output, files.Source([sys.argv[1]]), compute, clock=lambda: now[0]):
        pass
"""


@pytest.mark.slow
def test_an_interrupt_costs_one_block_of_a_few_seconds(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a text\n" * 50_000)
    arguments = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "in.txt"), str(tmp_path / "out.npy")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stderr.endswith("KeyboardInterrupt\n")
    first, lost = map(int, done.stdout.split())
    assert _done(tmp_path / "out.npy.partial" / "journal") == first
    assert lost <= 1000 * files.SECONDS


@pytest.mark.slow
def test_one_process_at_a_time_makes_an_output(tmp_path: Path, minilm: Path) -> None:
    out = tmp_path / "out.npy"
    first = subprocess.Popen(  # it waits for its texts
        command("-", out, minilm), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert first.stdin is not None
    deadline = time.monotonic() + 60
    while not (tmp_path / "out.npy.partial" / "vectors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "in.txt").write_text("another text\n" * 100)
    second = subprocess.run(command(tmp_path / "in.txt", out, minilm), capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stderr == (
        f"minibert: the output ({out}) is being written by another process; wait for it, or choose another name\n"
    )
    assert first.communicate("one\ntwo\nthree\n")[1].endswith(f"minibert: 3 vectors of 384 numbers in {out}\n")
    assert np.abs(np.load(out) - minibert.load(minilm).encode(["one", "two", "three"])).max() < 1e-6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.npy"]


@pytest.mark.slow
def test_other_weights_in_the_same_folder_are_not_resumed(
    tmp_path: Path, minilm: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_TEXTS", 3)
    folder = tmp_path / "model"
    arguments = ["encode", source, "-o", str(tmp_path / "out.npy"), "--model", str(folder)]
    bert = minibert.load(minilm)
    bert.save_pretrained(folder)
    with monkeypatch.context() as patch:
        patch.setattr(files.Output, "finish", lambda output: (_ for _ in ()).throw(OSError("the power fails")))
        assert main(arguments) == 2
    journal = tmp_path / "out.npy.partial" / "journal"
    assert _done(journal) == 20
    capsys.readouterr()

    def refused(what: str) -> None:
        assert main(arguments) == 2
        assert f"must be from the same command to be resumed, but they differ ({what}: " in capsys.readouterr().err

    with torch.no_grad():  # the last bit of one number
        weight = bert.encoder.encoder.layers[3].feed_forward.up.weight
        weight[5, 7] = torch.nextafter(weight[5, 7], torch.tensor(9.0))
    bert.save_pretrained(folder)
    refused("weights")
    minibert.Bert(minibert.load(minilm).model, bert.tokenizer, replace(bert.recipe, pooling=("cls",))).save_pretrained(
        folder
    )
    refused("recipe")
    minibert.load(minilm).save_pretrained(folder)
    changed(folder / "tokenizer.json", lambda data: data.replace(b'"lowercase": true', b'"lowercase": false'))
    changed(
        folder / "tokenizer_config.json", lambda data: data.replace(b'"do_lower_case": true', b'"do_lower_case": false')
    )
    refused("tokenizer")
    minibert.load(minilm).save_pretrained(folder)
    assert main(arguments) == 0
    assert "resuming after 20 texts" in capsys.readouterr().err


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
        ("a.txt", b"one\ntw\xffo\n", "a.txt, line 2, must be UTF-8, but its byte 2 is not; convert the file"),
        ("a.csv", b"id,text\n1,one\n2\n", "a.csv, line 3, must have 2 values, like the header, but it has 1; fix it"),
        ("a.csv", b"id,body\n1,one\n", "a.csv, line 2, must have the column 'text'; it has 'id', 'body': name the col"),
        ("a.csv", b"", "a.csv must start with a header, but it is empty; add"),
        ("a.csv", b'text\n"one" x\n', "a.csv, line 2, must be valid CSV ("),
        ("a.jsonl", b'{"text": "one"}\n{"text": \n', "a.jsonl, line 2, must be valid JSON ("),
        ("a.parquet", b"PAR1 and no more", "a.parquet must be valid Parquet ("),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1, must be a JSON object or string, not list; fix it"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl, line 1, must have a text in 'text', not 7; remove such rows"),
        (
            "a.jsonl",
            b'{"text": "one"}\n{"text": "a \\ud800"}\n',
            "a.jsonl, line 2, must have valid Unicode in 'text', but it has a lone surrogate ('\\ud800' at 2); fix or",
        ),
        ("a.xml", b"", "a.xml) must end in one of .txt, .csv, .tsv, .jsonl, .parquet; use - for standard input"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(bad: Any, name: str, content: bytes, message: str) -> None:
    with pytest.raises(MinibertError, match=re.escape(message)):
        list(files.read_records(bad(name, content)))


def test_mistakes_of_the_command_are_one_sentence(
    bad: Any, tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, model = bad("a.txt", b"one\n"), ["--model", str(minilm)]
    (tmp_path / "there.npy").write_bytes(b"")
    for arguments, message in (
        ([source, "-o", str(tmp_path / "out.xls")], "out.xls) must end in one of .npy, .safetensors, .jsonl, .parquet"),
        (
            [source, "-o", str(tmp_path / "there.npy")],
            "there.npy) must not exist yet; choose another name, or delete it",
        ),
        ([str(tmp_path / "no.txt"), "-o", "x.npy"], "no.txt) must be a file that exists; check the name"),
        (
            ["-o", "x.npy"],
            "the inputs ([]) must be at least one file when -o is given; name files, or - for standard input",
        ),
    ):
        assert main(["encode", *arguments, *model]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert main(["words", source, "-o", str(tmp_path / "x.npy"), *model]) == 2
    assert "x.npy) must end in .safetensors, .jsonl or .parquet; change its name" in capsys.readouterr().err
    assert list(files.read_records(bad("b.jsonl", b'"a text"\n{"text": "b", "n": [1]}\n'), keep=())) == [
        ("a text", {}),
        ("b", {}),
    ]


def test_fields_of_any_length_are_read_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "word " * 100_000
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        path = tmp_path / f"long{suffix}"
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([["id", "text"], ["1", long], ["2", "short"]])
        assert list(files.read_records(str(path), keep=["id"])) == [(long, {"id": "1"}), ("short", {"id": "2"})]
    assert csv.field_size_limit() == limit


def test_columns_are_kept(bad: Any) -> None:
    path = bad("a.csv", b"question,answer,n\nq1,a1,1\n")
    assert list(files.read_records(path, "question", ["answer"])) == [("q1", {"answer": "a1"})]
    with pytest.raises(
        ValueError, match=re.escape("the columns to read (text, answer) must be of a file with columns, not")
    ):
        list(files.read_records(bad("a.txt", b"one"), keep=["answer"]))


@pytest.mark.slow
def test_a_lone_surrogate_is_reported_before_anything_is_computed(
    bad: Any, tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bad("a.jsonl", b'{"text": "fine", "n": "fine"}\n' * 5000 + b'{"text": "fine", "n": "\\udfff"}\n')
    message = f"{path}, line 5001, must have valid Unicode in 'n', but it has a lone surrogate ('\\udfff' at 0); fix or"
    for arguments in (["encode", path, "--text", "n"], ["index", path, "--keep", "n"]):
        assert main([*arguments, "-o", str(tmp_path / "out.npy"), "--model", str(minilm)]) == 2
        assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.slow
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
