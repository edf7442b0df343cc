"""`minibert attention`: the largest weights, a picture, or a page."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import minibert
from minibert.cli import main

TEXT, PAIR = "The animal was tired.", "It slept."


def test_the_largest_weights_are_printed(minilm: Path, bert: minibert.Bert, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["attention", "--model", str(minilm), TEXT, "--pair", PAIR]
    assert main([*command, "--layer", "2", "--head", "3", "--top", "4"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    maps = bert.attention(TEXT, PAIR)
    assert rows == [
        [
            "2",
            "3",
            f"{link.weight:.4f}",
            f"{link.from_position} {link.from_token}",
            f"{link.to_position} {link.to_token}",
        ]
        for link in maps.top(4, layer=2, head=3)
    ]
    assert main([*command, "--json", "--skip-special-tokens"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [link._asdict() for link in maps.top(10, skip_special_tokens=True)]


def test_a_picture_or_a_page_is_written(minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    command = ["attention", "--model", str(minilm), TEXT, "-o"]
    assert main([*command, str(tmp_path / "head.svg"), "--layer", "2", "--head", "3"]) == 0
    assert ElementTree.parse(tmp_path / "head.svg").getroot().tag.endswith("svg")
    assert main([*command, str(tmp_path / "all.png")]) == 0
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, str(tmp_path / "page.html")]) == 0
    assert "<title>Attention: The animal was tired .</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["-o", "map.gif"], "map.gif"),
        (["-o", "page.html", "--layer", "1"], "page.html"),
        (["-o", "map.png", "--head", "1"], "layer (None)"),
        (["--layer", "6"], "layer (6)"),
        (["--top", "0"], "count (0)"),
    ],
)
def test_a_mistake_is_one_sentence(
    minilm: Path,
    arguments: list[str],
    value: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["attention", "--model", str(minilm), TEXT, *arguments]) == 2
    assert value in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
