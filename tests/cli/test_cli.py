"""The commands, as people and programs run them."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracle import with_real_vocabulary

import minibert
from minibert.cli import build_parser, info, main
from minibert.errors import MinibertError
from minibert.study.parity import ParityReport, Row


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> str:
    return str(with_real_vocabulary(tmp_path_factory.mktemp("masked"), minilm))


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A fresh process of `python -m minibert`."""
    return subprocess.run(
        [sys.executable, "-m", "minibert", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def test_encode_prints_a_line_for_each_text(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["He robbed the bank.", "two\nlines"]
    assert main(["encode", "--model", str(minilm), *texts]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["He robbed the bank.", "two lines"]
    vectors = np.array([line[1].split() for line in lines], dtype=np.float32)
    np.testing.assert_array_equal(vectors, minibert.load(minilm).encode(texts))


def test_encode_reads_lines_and_writes_json(
    minilm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\r\nZürich 北京\n\n"))
    assert main(["encode", "--model", str(minilm), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["first", "Zürich 北京", ""]
    np.testing.assert_allclose(
        [row["vector"] for row in rows], minibert.load(minilm).encode(["first", "Zürich 北京", ""]), atol=1e-6
    )


def test_fill_mask_prints_candidates(masked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", "--model", masked, "Hello I'm a [MASK] model.", "--top-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        probability, _, text = line.split("\t")
        assert 0 <= float(probability) <= 1
        assert text.startswith("Hello I'm a")
    assert main(["fill-mask", "--model", masked, "a [MASK] b [MASK]", "--json", "--targets", "bank", "embeddings"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [sorted(c["token"] for c in candidates) for candidates in row["masks"]] == [["bank", "embeddings"]] * 2


def test_info_tells_what_a_checkpoint_is(masked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--model", masked]) == 0
    assert re.search(r"heads +masked LM", capsys.readouterr().out)
    assert main(["info", "--model", masked, "--json", "--dtype", "bfloat16"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["dtype"] == "bfloat16"
    assert info["heads"] == ["masked LM"]


def test_parity_prints_the_table_and_exits_by_it(
    minilm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["parity", "--model", str(minilm), "one text", "another"]) == 0
    out = capsys.readouterr().out
    assert "layer 5 output" in out
    assert "parity: the largest difference is 0" in out
    assert main(["parity", "--model", str(minilm), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["tensor"] == "input ids"
    over = ParityReport("here", "BertModel", (Row("embeddings", (1,), 0.5, (0,)),), 1e-6, "torch")
    monkeypatch.setattr(minibert, "parity", lambda *arguments, **keywords: over)
    assert main(["parity", "--model", str(minilm)]) == 1
    assert "NO parity: embeddings is the first over 1e-06: 0.5 at [0]" in capsys.readouterr().out


def test_demo_shows_the_job(minilm: Path, masked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--model", str(minilm)]) == 0
    out = capsys.readouterr().out
    for question in ("I can't log in any more, what now?", "my package still hasn't come", "Do you take Visa?"):
        assert question in out
    after = out[out.index("I can't log in") :]
    assert "How do I reset my password?" in after.splitlines()[1]
    same, other, another = (float(x) for x in re.findall(r"(\d\.\d\d)  [ab] and [bc]", out))
    assert same > max(other, another)
    assert f"Weights from {minilm}" in out
    assert re.search(r"Time: load \d+\.\d\d s, match", out)
    assert main(["demo", "--model", masked]) == 0
    assert "3. Predictions for [MASK]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "--model", "./nowhere", "a"], "minibert: the folder (./nowhere) must exist; check the path"),
        (
            ["info", "--model", "two words"],
            "minibert: the checkpoint ('two words') must be a folder that exists or a name like",
        ),
        *(
            (
                ["info", "--model", name],
                f"minibert: the checkpoint ({name!r})",
            )
            for name in ("a--b", "a..b/c", "a/b.git", "émile/bert", "a" * 100)
        ),
        (
            ["encode", "--model", "MINILM", "a", "--batch-size", "0"],
            "minibert: batch_size (0)",
        ),
        (
            ["encode", "--model", "MINILM", "word " * 300, "--truncation", "error"],
            "minibert: text 0 has 302 tokens",
        ),
        (
            ["info", "--model", "MINILM", "--device", "banana"],
            "minibert: device (banana)",
        ),
        (
            ["info", "MINILM"],
            "minibert: the model (MINILM) must be named with --model; write minibert info --model MINILM",
        ),
        (
            ["info", "a/b", "--json"],
            "minibert: the model (a/b)",
        ),
        (["info", "two words"], "minibert: info takes no texts ('two words'); name the model with --model"),
        (["parity", "a/b"], "minibert: the model (a/b)"),
        (["fill-mask", "a/b", "a [MASK]"], "minibert: the model (a/b)"),
        (
            ["parity", "--model", "MINILM", "--tolerance", "nan"],
            "minibert: tolerance (nan)",
        ),
        (
            ["fill-mask", "--model", "MINILM", "a [MASK]"],
            "must have a masked-LM head",
        ),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_exit_code_2(
    minilm: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.replace("MINILM", str(minilm)) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert message.replace("MINILM", str(minilm)) in told.err
    assert len(told.err.splitlines()) == 1
    assert told.out == ""


@pytest.mark.slow
def test_a_fresh_process_says_the_same_without_a_traceback(minilm: Path) -> None:
    done = run("fill-mask", "--model", str(minilm), "a [MASK]")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    done = run("encode", "--model", str(minilm), stdin="word " * 300)
    assert done.returncode == 0
    assert re.fullmatch("minibert: warning: 1 of 1 texts exceed 256 tokens: .*\n", done.stderr)
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_name_that_is_not_in_the_cache_is_told_offline() -> None:
    done = run("info", "--model", "someone/never-downloaded")
    assert done.returncode == 2
    assert "config.json of someone/never-downloaded at main must be in the cache to be loaded offline" in done.stderr
    assert len(done.stderr.splitlines()) == 1


COMMANDS = [
    *("encode", "words", "index", "search", "expand", "plot", "fill-mask", "entities", "answer"),
    *("finetune", "evaluate", "pretrain", "attention", "explain-similarity", "info", "parity", "study", "demo"),
]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "usage: minibert" in out
    assert ("examples:" in out) == (command == [])
    assert max(map(len, out.splitlines())) <= 120
    assert "None" not in out
    assert ("--model MODEL" in out) == (command not in ([], ["pretrain"]))  # pretrain has --from


def test_the_model_of_each_command_is_the_one_its_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    needed = {
        "index": ["a.txt", "-o", "b"],
        "search": ["a"],
        "expand": ["a", "--corpus", "b"],
        "plot": ["a", "-o", "b"],
        "answer": ["a"],
        "finetune": ["--task", "qa", "--train", "a", "-o", "b"],
        "evaluate": ["--task", "qa", "--data", "a"],
        "attention": ["a"],
        "explain-similarity": ["a", "b"],
        "study": ["published"],
    }
    for name in COMMANDS:
        if name == "pretrain":  # makes one
            continue
        model = build_parser().parse_args([name, *needed.get(name, [])]).model
        with pytest.raises(SystemExit):
            main([name, "--help"])
        told = capsys.readouterr().out
        told = re.sub(r"\s+", "", told[told.rindex("--model") :])
        assert f"(default:{model or 'themodelthatmadetheindex'})" in told
        assert build_parser().parse_args([name, *needed.get(name, []), "--model", "x/y"]).model == "x/y"


def test_a_wrong_command_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["dance"], ["search"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_no_text_for_fill_mask_is_told(
    masked: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["fill-mask", "--model", masked, "--targets", "dog", "a [MASK]"]) == 2
    assert "texts ([]) must contain at least one with [MASK]; write texts before --targets" in capsys.readouterr().err


def test_a_missing_file_is_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(tmp_path / "absent.txt"), "-o", str(tmp_path / "out.index")]) == 2
    told = capsys.readouterr().err
    assert f"minibert: the input ({tmp_path / 'absent.txt'}) must be a file" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        MinibertError("top_k (0) must be at least 1"),
        FileNotFoundError("the folder (x) must exist"),
        PermissionError("x is gated"),
        ConnectionError("the Hub must be reachable"),
        BlockingIOError("another process\nholds the lock"),
        OSError(errno.ENOSPC, "No space left on device", "out.npy"),
        ImportError("plots need matplotlib, which is not installed; pip install matplotlib"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_values_files_networks_and_absent_packages_are_mistakes(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "run", raising(error))
    assert main(["info"]) == 2
    assert capsys.readouterr().err == f"minibert: {' '.join(str(error).split())}\n"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        RuntimeError("a shape"),
        ValueError("an array"),
        TypeError("an argument"),
        ModuleNotFoundError("No module named 'minibert.gone'", name="minibert.gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_shows_its_traceback_asks_for_a_report_and_exits_with_1(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "run", raising(error))
    assert main(["info", "--model", "two\nlines"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    first, *_, cause, request = told.err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert cause == f"{type(error).__name__}: {error}"
    assert request == (
        "minibert: this is a bug; please report it with the traceback, the command (minibert info --model 'two lines') "
        f"and the version ({minibert.__version__})"
    )


def raising(error: Exception) -> Callable[[object], None]:
    def fail(options: object) -> None:
        raise error

    return fail


def test_ctrl_c_exits_with_130_and_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "run", lambda options: signal.raise_signal(signal.SIGINT))
    assert main(["info"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_pipe_that_is_closed_before_the_first_line_is_no_error(minilm: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "minibert", "info", "--model", str(minilm)]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_standard_input_that_is_not_unicode_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Zürich".encode("latin-1")), encoding="utf-8"))
    assert main(["encode"]) == 2
    told = capsys.readouterr().err
    assert "must be utf-8; convert it, for example with iconv" in told
    assert len(told.splitlines()) == 1


def test_a_character_that_the_output_cannot_hold_is_one_sentence(
    minilm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["encode", "北京", "--model", str(minilm)]) == 2
    told = capsys.readouterr().err
    assert told == "minibert: the encoding of the output (ascii) must include '北'; set PYTHONIOENCODING=utf-8\n"


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_error(minilm: Path) -> None:
    texts = "\n".join(["some text"] * 2000)
    command = f"{sys.executable} -m minibert encode --model {minilm} --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], input=texts, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_words_are_printed_with_their_places(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["words", "He robbed the bank.", "one", "--model", str(minilm), "--pieces", "first"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:4] for row in rows] == [
        ["0", "0", "2", "He"],
        ["0", "3", "9", "robbed"],
        ["0", "10", "13", "the"],
        ["0", "14", "18", "bank"],
        ["0", "18", "19", "."],
        ["1", "0", "3", "one"],
    ]
    vectors = minibert.load(minilm).words("He robbed the bank.").vectors
    np.testing.assert_allclose([float(x) for x in rows[0][4].split()], vectors[0], atol=1e-5)


CORPUS = [
    "He sat on the bank of the river.",
    "The bank lent him money.",
    "The shore of the river was steep.",
    "Money, money.",
]


@pytest.mark.slow
def test_expansion_is_printed(minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "news.txt").write_text("\n".join(CORPUS))
    command = ["expand", "bank", "--corpus", str(tmp_path / "news.txt"), "--context", CORPUS[0], "--top-k", "3"]
    assert main([*command, "--model", str(minilm)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    expected = minibert.expand(minibert.load(minilm), "bank", CORPUS, CORPUS[0], 3)
    assert [row[1] for row in rows] == [one.word for one in expected]
    masked = with_real_vocabulary(tmp_path / "masked", minilm)
    assert main([*command, "--model", str(masked), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(row) for row in rows] == [{"word", "score", "count", "example"}] * 3 + [
        {"substitute", "probability"}
    ] * 3


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_expansion_shows_its_progress_on_a_terminal(
    minilm: Path,
    tmp_path: Path,
    on_a_terminal: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "news.txt").write_text("\n".join(CORPUS))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_a_terminal, raising=False)
    assert main(["expand", "bank", "--corpus", str(tmp_path / "news.txt"), "--model", str(minilm)]) == 0
    told = capsys.readouterr().err
    assert ("4/4" in told) == ("texts/s" in told) == on_a_terminal
    assert on_a_terminal or not told


@pytest.mark.parametrize("nothing", [[], ["--kind", "similarity"], ["--word", "bank"]], ids=str)
def test_a_picture_of_nothing_is_one_sentence(
    tmp_path: Path, nothing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text("text\n")
    assert main(["plot", str(tmp_path / "empty.csv"), "-o", str(tmp_path / "map.png"), *nothing]) == 2
    told = f"minibert: the inputs ({tmp_path / 'empty.csv'}) must contain at least one text; add one\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("more", [[], ["--kind", "similarity"], ["--word", "bank"], ["--group", "kind"]], ids=str)
def test_pictures_are_drawn(minilm: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    source, picture = tmp_path / "texts.jsonl", tmp_path / "map.png"
    source.write_text(
        "".join(json.dumps({"text": text, "kind": number % 2}) + "\n" for number, text in enumerate(CORPUS))
    )
    command = ["plot", str(source), "-o", str(picture), "--model", str(minilm), *more]
    assert main(command) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    command[3] = "map.gif"
    assert main(command) == 2
    assert "the output (map.gif) must end in " in capsys.readouterr().err


def test_prompts_and_shorter_vectors_are_those_of_encode(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = minibert.load(minilm)
    expected = bert.encode("one", prompt="query: ", truncate_dim=7)
    options = ["--prompt", "query: ", "--truncate-dim", "7", "--model", str(minilm)]
    assert main(["encode", "one", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["vector"] == pytest.approx(expected.tolist(), abs=1e-6)
    (tmp_path / "texts.txt").write_text("one\n")
    assert main(["encode", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "v.npy"), *options]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected[None], atol=1e-6)
    assert main(["encode", "one", "--prompt-name", "qeury", "--model", str(minilm)]) == 2
    assert "prompt_name ('qeury') must be a prompt of the checkpoint ('query', 'document')" in capsys.readouterr().err
