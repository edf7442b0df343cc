"""What the README shows, runs; what it names, exists."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from oracle import with_real_vocabulary

import minibert
from minibert import config, errors
from minibert.cli import build_parser, main
from minibert.pretrained import tokenizer_checks as checks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[f"block {i}" for i in range(len(BLOCKS))])
def test_every_python_block_runs(code: str, tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # the Hub's name stands for a checkpoint of the same kind, here
    folder = with_real_vocabulary(tmp_path, minilm, "BertForPreTraining")
    exec(compile(code.replace("google-bert/bert-base-uncased", str(folder)), "README.md", "exec"), {})


def test_the_figures_that_the_readme_prints_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(code for code in BLOCKS if "from minibert.attention import" in code)
    exec(compile(code, "README.md", "exec"), {})
    printed = [float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out)]
    shown = re.findall(r"print\(.*\) *# (\S+) to itself, the rest shared", code)
    assert [f"{printed[0]:.2f}"] == shown
    assert printed[1:] == pytest.approx([(1 - printed[0]) / 2] * 2, abs=1e-4)


def test_the_candidates_that_the_readme_shows_are_the_published_ones() -> None:
    # test_published_values.py compares them with ours, and needs the Hub
    published = json.loads((ROOT / "tests" / "golden" / "model_expected.json").read_text(encoding="utf-8"))
    text, shown = re.findall(r'fill_mask\("(.+)"\) +# (.+), \.\.\.$', README, re.MULTILINE)[0]
    case = next(case for case in published["bert-base-uncased"]["fill_mask"] if case["text"] == text)
    best = case["top5"][: shown.count(",") + 1]
    assert shown == ", ".join(f"{token} {probability:.3f}" for token, _, probability in best)


def test_the_table_that_parity_prints_is_the_one_that_the_readme_shows(
    minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = re.findall(r"^\$ minibert parity --model \S+all-MiniLM-L6-v2\n(.*?)```", README, re.MULTILINE | re.DOTALL)
    shown = [line for line in listing[0].splitlines() if line != "..."]
    assert main(["parity", "--model", str(minilm)]) == 0
    printed = capsys.readouterr().out.splitlines()[2:]  # without the line of the versions
    columns = [re.split(" {2,}", line)[:2] for line in printed]  # the differences may be others on another CPU
    assert [re.split(" {2,}", line)[:2] for line in shown[:-1]] == columns[: len(shown) - 1]
    assert re.sub(r"is \S+,", "is 0,", printed[-1]) == shown[-1]


@pytest.mark.slow
def test_the_shapes_that_are_shown_are_those_of_bert_base(tmp_path: Path, minilm: Path) -> None:
    page = (ROOT / "docs" / "drop-in.md").read_text(encoding="utf-8")
    blocks = [*BLOCKS, *re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    wide = with_real_vocabulary(tmp_path, minilm, "BertForPreTraining", hidden_size=768)  # as bert-base is
    compared = 0
    for code in blocks:
        code, names = code.replace("google-bert/bert-base-uncased", str(wide)), dict[str, Any]()
        for statement in ast.parse(code).body:
            exec(compile(ast.Module([statement], []), "README.md", "exec"), names)
            shown = re.search(r"# .*?(\(\d[\d, ]*\))", code.splitlines()[statement.lineno - 1])
            if shown:
                made = statement.targets[0] if isinstance(statement, ast.Assign) else statement.value
                assert str(tuple(eval(ast.unparse(made), names).shape)) == shown[1]
                compared += 1
    assert compared == 2


@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")  # umap's, when BERTopic imports it
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_of_the_docs_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    assert code
    for module in ("pandas", "spacy", "sklearn", "usearch", "matplotlib", "umap", "chromadb", "keybert", "bertopic"):
        if re.search(rf"\b(import {module}|from {module})\b|needs {module}", code):
            pytest.importorskip(module, reason=f"{module} is not installed")
    folder = with_real_vocabulary(tmp_path / "masked", minilm, "BertForPreTraining")
    tags = {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}, "label2id": {"O": 0, "B-PER": 1, "I-PER": 2}}
    tagger = with_real_vocabulary(tmp_path / "tagger", minilm, "BertForTokenClassification", **tags)
    labels = with_real_vocabulary(tmp_path / "labels", minilm, "BertForSequenceClassification")
    reranker = with_real_vocabulary(tmp_path / "reranker", minilm, "BertForSequenceClassification", num_labels=1)
    reader = with_real_vocabulary(tmp_path / "reader", minilm, "BertForQuestionAnswering")
    for name, stands_for in (
        ("deepset/bert-base-cased-squad2", reader),
        ("dslim/bert-base-NER", tagger),
        ("nlptown/bert-base-multilingual-uncased-sentiment", labels),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", reranker),
        ("google-bert/bert-base-uncased", folder),
        ("sentence-transformers/all-MiniLM-L6-v2", minilm),
    ):
        code = code.replace(name, str(stands_for))
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_the_page_on_long_texts_shows_what_is_printed(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "long-texts.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    exec(code.replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm)), {})
    shown = [line.removesuffix("...") for line in re.findall(r"^ *print\(.*\) +# (.+)$", code, re.MULTILINE)]
    printed = capsys.readouterr().out.splitlines()
    assert [line[: len(part)] for line, part in zip(printed, shown, strict=True)] == shown
    assert len(shown) == 2


@pytest.mark.slow
def test_the_page_on_attention_shows_what_is_printed(
    tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    exec(code.replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm)), {})
    # beside a print, or below a loop or a long print
    shown = re.findall(r"^(?:print\(.*\)  )?# (.+)$", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == shown
    assert len(shown) == 22


def test_the_limits_of_the_page_on_security_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    shown = [int(number.replace(",", "")) for number in re.findall(r"^\| .* \| ([\d,]+) \|$", page, re.MULTILINE)]
    sizes = [config.LARGEST_SIZE, config.MOST_LAYERS, config.MOST_LABELS, checks.MOST_TOKENS]
    longest = [checks.LONGEST_TOKEN, checks.LONGEST_WORD, checks.LONGEST_INSERTION]
    assert shown == [*sizes, *longest, checks.MOST_GROWTH, checks.DEEPEST, errors.LONGEST_MESSAGE]


TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_lines_are_short_and_links_lead_somewhere(text: Path) -> None:
    content = text.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", content, flags=re.DOTALL).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.startswith("|")] == []
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", content)
    assert [link for link in links if not (text.parent / link).exists()] == []


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 160


def test_every_page_of_the_docs_is_named_in_the_readme() -> None:
    assert [page.name for page in PAGES if f"docs/{page.name}" not in README] == []


def test_every_command_of_the_readme_is_one() -> None:
    commands = set(re.findall(r"^\$ minibert ([\w-]+)", README, re.MULTILINE))
    actions = [action for action in build_parser()._actions if action.choices]
    assert commands == set(actions[0].choices or ())


def test_every_file_and_class_of_the_readme_exists() -> None:
    for path in re.findall(r"`((?:tools|benchmarks|minibert)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"`(\w+\.py)`", README):
        assert (ROOT / "minibert" / module).exists(), module
    for name in re.findall(r"`(Bert\w+)`", README):
        assert hasattr(minibert, name), name


def test_no_text_installs_the_other_package_of_that_name() -> None:
    other = re.compile(r"pip install (-\S+ )*" + "minibert")
    for pattern in ("*.md", "*.toml", "minibert/**/*.py", "tools/*", "docs/**/*.md"):
        for path in ROOT.glob(pattern):
            assert not path.is_file() or not other.search(path.read_text(encoding="utf-8")), path
