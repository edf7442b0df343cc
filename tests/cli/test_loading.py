"""Which model a command takes by default, and what the demo says at its end."""

from __future__ import annotations

import argparse
from importlib.metadata import distribution
from pathlib import Path

import pytest

import minibert
from minibert.cli import build_parser, loading, main
from minibert.pretrained.files import sha256_of

HUBS_OWN = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the weights, as the Hub shows it


def test_the_default_model_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    folder = loading.installed()
    assert folder is not None
    assert sha256_of(folder / "model.safetensors") == HUBS_OWN
    assert main(["encode", "hi"]) == 0
    name, numbers = capsys.readouterr().out.split("\t")
    assert name == "hi"
    expected = minibert.load(folder).encode("hi")
    assert [float(number) for number in numbers.split()] == pytest.approx(expected, abs=1e-6)
    for command in ("encode", "words", "info", "parity", "demo"):
        options = build_parser([command]).parse_args(
            [command] if command in ("info", "parity", "demo") else [command, "hi"]
        )
        assert loading.model_of(options) == str(folder)


def test_a_name_or_a_revision_that_is_asked_for_is_that_of_the_hub() -> None:
    for given in (["--model", str(loading.MINILM)], ["--revision", "main"]):
        options = build_parser(["encode"]).parse_args(["encode", "hi", *given])
        assert loading.model_of(options) == loading.MINILM


def test_another_version_of_the_wheel_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distribution(loading.WHEEL).version == loading.VERSION
    monkeypatch.setattr(loading, "VERSION", "0.2.0")
    assert loading.installed() is None
    assert loading.model_of(argparse.Namespace(model=loading.MINILM)) == loading.MINILM
    monkeypatch.setattr(loading, "WHEEL", "no-such-wheel")
    assert loading.installed() is None


def test_the_demo_says_what_to_type_next(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["demo"]) == 0
    ended = capsys.readouterr().out.splitlines()[-4:]
    assert ended[0] == "Next, for example:"
    assert ended[1].endswith('minibert encode "How do I reset my password?"')
    minibert.load(minilm).save_pretrained(tmp_path / "my model")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--model", "my model"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("minibert info --model 'my model'")
