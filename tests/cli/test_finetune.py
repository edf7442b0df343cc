"""`minibert finetune` and `minibert evaluate`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oracle import with_real_vocabulary

import minibert
from minibert.cli import main
from minibert.training.order import Epochs

ROWS = "question,kind\nWho wrote Hamlet?,person\nWhere is Rome?,place\nWho was it?,person\nWhere are they?,place\n"
COLUMNS = ["--column", "text=question", "--column", "label=kind"]


@pytest.fixture
def given(tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that fine-tunes a small random model, in a folder with a file of rows."""
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text(ROWS)
    model = with_real_vocabulary(tmp_path / "model", minilm, "BertModel")
    rows = ["--task", "classify", "--train", "train.csv", "--dev", "train.csv", *COLUMNS]
    return ["finetune", *rows, "--model", str(model), "--epochs", "2", "-o", "run"]


def test_what_finetune_prints_is_what_evaluate_prints_of_the_model(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--learning-rate", "1e-3", "--seed", "3", "--batch-size", "2"]) == 0
    told = capsys.readouterr()
    metrics = dict(line.split("\t") for line in told.out.splitlines())
    assert list(metrics) == ["accuracy", "macro_f1"]
    assert "the model is in run" in told.err
    assert main(["evaluate", "--task", "classify", "--data", "train.csv", *COLUMNS, "--model", "run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: f"{value:.4f}" for name, value in found.items()} == metrics
    assert minibert.load("run").config.id2label == {0: "person", 1: "place"}
    assert main(["classify", "Who was it?", "--model", "run"]) == 0


def test_options_reach_the_run(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--learning-rate",
        "0.001",
        "--seed",
        "3",
        "--batch-size",
        "2",
        "--max-length",
        "20",
        "--dtype",
        "bfloat16",
    ]
    assert main([*given, *options]) == 0
    card = Path("run/README.md").read_text()
    for line in (
        "| learning_rate | 0.001 |",
        "| seed | 3 |",
        "| batch_size | 2 |",
        "| max_length | 20 |",
        "| steps | 4 |",
    ):
        assert line in card
    assert "| dtype | bfloat16 |" in card


def test_after_ctrl_c_the_same_command_resumes(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Epochs.__call__

    def interrupted(self: Any, number: int) -> Any:
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return original(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Epochs, "__call__", interrupted)
        assert main([*given, "--batch-size", "2"]) == 130
    assert "minibert: stopped after step 3 of 4; run it again to resume" in capsys.readouterr().err
    assert not Path("run/config.json").exists()
    assert main([*given, "--batch-size", "2"]) == 0
    resumed = capsys.readouterr().out
    assert main([*given, "--batch-size", "2", "-o", "whole"]) == 0
    assert capsys.readouterr().out == resumed
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_mistakes_are_one_sentence_and_exit_code_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, message in (
        (["--column", "label"], "--column (label) must be NAME=COLUMN"),
        (["--train", "absent.csv"], "train (absent.csv) must be a file that exists"),
        (["--column", "label=none"], "train.csv, line 2, must have the column 'none'"),
    ):
        assert main([*given, *wrong]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert len(told.strip().splitlines()) == 1


def test_a_run_without_a_terminal_says_what_it_does(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "minibert", *given], capture_output=True, text=True, check=True)
    assert "4 rows, 2 labels: person (2), place (2); 2 steps\n" in done.stderr
    assert "epoch 1 of 2: accuracy " in done.stderr
    assert main([*given, "--labels", "absent.txt"]) == 2
    assert "--labels (absent.txt) must be a file that exists; check the name" in capsys.readouterr().err
