"""docs/commands.md lists every command and option as the parser has them, and its examples run."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from oracle import with_real_vocabulary

from minibert.cli import build_parser, main

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
SHARED = SECTIONS["Model and output"]
EXAMPLES = [line for text in SECTIONS.values() for line in re.findall(r"^\$ (minibert .*)$", text, re.MULTILINE)]
FILES = {
    "train.csv": "text,label\nWho wrote Hamlet?,person\nWhere is Rome?,place\n",
    "dev.csv": "text,label\nWho was it?,person\nWhere are they?,place\n",
    "questions.csv": "question\nHow do I reset my password?\nWhere is my parcel?\n",
    "faq.csv": "question,answer\nI forgot my password,Use the link.\nTrack my delivery,The link is in your mail.\n",
    "questions.txt": "How do I reset my password?\nWhere is my parcel?\nCan I pay by card?\n",
    "pairs.csv": "id,query,passage\n7,Where can I fish?,The lake is open.\n8,Where is it?,It is here.\n",
    "novel.txt": "The old man sat by the river and looked at the water, but nothing moved.\n" * 20,
    "news.txt": "The river burst its bank.\nReeds grew along the shore of the lake.\nThe bank refused the loan.\n",
}


def parsers() -> dict[str, argparse.ArgumentParser]:
    action = next(action for action in build_parser()._actions if action.dest == "command")
    assert isinstance(action.choices, dict)
    return action.choices


def row(action: argparse.Action) -> str:
    """The row of the table for an argument."""
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    value = "" if action.nargs == 0 else f"{value} ..." if action.nargs in ("+", "*") else str(value)
    value = " ".join([value] * action.nargs) if isinstance(action.nargs, int) and action.nargs else value
    name = ", ".join(action.option_strings)
    return f"| `{f'{name} {value}'.strip()}` | {(action.help or '').replace('%(default)s', str(action.default))} |"


def rows(parser: argparse.ArgumentParser) -> list[str]:
    actions = [action for action in parser._actions if action.dest != "help" and action.help != argparse.SUPPRESS]
    return [row(action) for action in actions]


@pytest.mark.parametrize("name", parsers())
def test_the_page_has_the_summary_and_every_option_of_a_command(name: str) -> None:
    section, parser = SECTIONS[name], parsers()[name]
    assert section.strip().startswith(f"{parser.description}".partition("\n")[0])
    shared = re.findall(r"^\| .* \|$", SHARED, re.MULTILINE)
    own = [line for line in rows(parser) if line not in shared]
    assert re.findall(r"^\| `.* \|$", section, re.MULTILINE) == own
    used = [line for line in rows(parser) if line in shared]
    named = re.findall(r"`(--[\w-]+)`", section.partition("Also ")[2])
    assert named == [line.split("`")[1].split()[0] for line in used]


def test_the_page_has_every_command_and_no_other() -> None:
    assert list(SECTIONS) == ["Model and output", *parsers(), "From Python"]


def test_every_shared_option_is_one_of_a_command() -> None:
    every = {line for parser in parsers().values() for line in rows(parser)}
    assert set(re.findall(r"^\| `.* \|$", SHARED, re.MULTILINE)) <= every


def test_every_command_has_an_example() -> None:
    assert {line.split()[1] for line in EXAMPLES} == set(parsers())


@pytest.mark.slow
def test_every_example_runs(
    tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_text(content, encoding="utf-8")
    masked = with_real_vocabulary(tmp_path / "masked", minilm)
    labels = {"id2label": {0: "I-LOC", 1: "B-PER", 2: "I-PER"}, "label2id": {"I-LOC": 0, "B-PER": 1, "I-PER": 2}}
    own = {
        "fill-mask": masked,
        "entities": with_real_vocabulary(tmp_path / "tagger", minilm, "BertForTokenClassification", **labels),
        "answer": with_real_vocabulary(tmp_path / "reader", minilm, "BertForQuestionAnswering"),
        "classify": with_real_vocabulary(tmp_path / "labels", minilm, "BertForSequenceClassification"),
        "rank": with_real_vocabulary(tmp_path / "reranker", minilm, "BertForSequenceClassification", num_labels=1),
    }
    for line in EXAMPLES:
        _, command, *rest = shlex.split(line)
        model = own.get(command, minilm)
        named = ["google-bert/bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"]
        rest = [str(model) if argument in named else argument for argument in rest]
        given = [] if command in ("search", "pretrain") or "--model" in rest else ["--model", str(model)]
        assert main([command, *rest, *given]) == 0, (line, capsys.readouterr().err)
        assert capsys.readouterr().out or "-o" in rest, line
