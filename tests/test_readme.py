"""What the README shows, runs; what it names, exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from oracle import with_real_vocabulary

import minibert
from minibert.cli import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[f"block {i}" for i in range(len(BLOCKS))])
def test_every_python_block_runs(code: str, tmp_path: Path, minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # the Hub's name stands for a checkpoint of the same kind, here
    folder = with_real_vocabulary(tmp_path, minilm, "BertForPreTraining")
    exec(compile(code.replace("google-bert/bert-base-uncased", str(folder)), "README.md", "exec"), {})


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
