"""The house: reading order, documentation, what an import brings, and that the installed wheel is what is tested."""

from __future__ import annotations

import ast
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import load
import pytest
from oracle import theirs_of

import minibert

PACKAGE = Path(minibert.__file__).parent
# The order in which the files are read: each imports only from those before it, and from the folders it may use.
READING = [
    *("errors", "text", "records", "config", "wordpiece", "batch", "tokenizer"),
    *("embeddings", "attention", "encoder", "heads", "inputs", "outputs", "base", "model"),
]
AFTERWARDS = [
    *(
        "engine",
        "vectors",
        "tasks",
        "study",
        "summary",
        "compat",
        "bert",
        "loading",
        "search",
        "lexicon",
        "corpus",
        "pictures",
        "reports",
        "training",
    ),
    *("demo", "integrations", "__init__", "cli", "__main__"),
]
# Results that can be drawn import the drawing when it is asked for, and `Bert.finetune` the training.
DRAWN = {"study": {"pictures"}, "bert": {"training"}}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """The first names below `minibert` that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            first, _, rest = name.partition(".")
            if first == "minibert":
                found.add(rest.split(".")[0] or "__init__")
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_each_file_imports_only_from_files_above_it(path: Path) -> None:
    order = ["errors", "text", "records", "pretrained", *READING, *AFTERWARDS]
    place = path.parts[0].removesuffix(".py")
    allowed = set(order[: order.index(place)]) | ({place} if len(path.parts) > 1 else set())
    assert imports_of(path) <= allowed | DRAWN.get(place, set())
    if place in READING:
        assert imports_of(path) <= set(READING) | {"pretrained"}


def test_the_reading_order_in_the_docstring_is_that_of_the_imports() -> None:
    listed = re.findall(r"^ {4}(\w+)(?:\.py|/) ", minibert.__doc__ or "", re.MULTILINE)
    assert listed == [*READING, "summary", "compat", "bert", "loading", "cli"]


def test_the_configuration_knows_nothing_of_files() -> None:
    assert imports_of(Path("config.py")) == {"errors", "pretrained"}
    source = (PACKAGE / "config.py").read_text(encoding="utf-8")
    assert re.findall(r"minibert\.pretrained.*", source) == ["minibert.pretrained.mixin import PretrainedConfig"]
    assert not re.search(r"\b(json|open|Path|Repository|read_text|write_text)\b", source.replace("config.json", ""))


def test_nothing_is_imported_from_transformers_but_by_parity() -> None:
    for path in MODULES:
        source = (PACKAGE / path).read_text(encoding="utf-8")
        uses = re.search(r"^\s*(import|from) (transformers|sentence_transformers)\b", source, re.MULTILINE)
        assert (uses is not None) == (str(path) == os.path.join("study", "parity.py")), path  # noqa: PTH118


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_file_raises_a_plain_value_error_which_commands_take_for_a_bug(path: Path) -> None:
    source = (PACKAGE / path).read_text(encoding="utf-8")
    assert re.findall(r"\b(?:raise|return) ValueError\b", source) == []


@pytest.mark.slow
def test_importing_brings_neither_transformers_nor_anything_optional() -> None:
    code = "import sys, torch; before = set(sys.modules); import minibert; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    brought = {name.split(".")[0] for name in done.stdout.split()}
    third_party = brought - set(sys.stdlib_module_names) - {"minibert", "torch"}
    assert third_party <= {"safetensors", "tokenizers", "numpy", "typing_extensions", "huggingface_hub"}, third_party


def test_all_names_what_is_public_and_nothing_else() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minibert.")
        for alias in node.names
    }
    assert typed.keys() == set(minibert.__all__)
    assert {name: f"minibert.{module}" for name, module in minibert._MODULES.items()} == typed
    assert minibert.__all__ == sorted(minibert.__all__, key=lambda name: (name[0].islower(), name))
    assert all(getattr(minibert, name) is not None for name in (*minibert.__all__, "__version__"))
    assert set(minibert.__all__) <= set(dir(minibert))


def test_modules_are_there_without_an_import_and_nothing_else_is() -> None:
    code = "import minibert; minibert.vectors; minibert.config; minibert.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'minibert' has no attribute 'nothing'"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["encod"], []], ids=str)
def test_what_needs_no_model_imports_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        "import sys; from minibert.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = {name.split(".")[0] for name in done.stderr.splitlines()[-1].split()}
    known = {*sys.stdlib_module_names, "__main__", "_distutils_hack", "sitecustomize"}  # of Python's own start
    assert brought - known == {"minibert"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")  # umap's, when BERTopic imports it
def test_everything_public_says_what_it_is() -> None:
    silent = []
    for info in pkgutil.walk_packages([str(PACKAGE)], "minibert."):
        module = import_module(info.name) if not info.name.endswith("__main__") else minibert
        if not module.__doc__:
            silent.append(info.name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != info.name:
                continue
            if (inspect.isclass(value) or inspect.isfunction(value)) and not value.__doc__:
                silent.append(f"{info.name}.{name}")
            members = vars(value).items() if inspect.isclass(value) else ()
            for member, function in members:
                function = function.fget if isinstance(function, property) else function
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function) and not member.startswith("_") and not function.__doc__:
                    silent.append(f"{info.name}.{name}.{member}")
    assert silent == []


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.skipif("MINIBERT_INSTALLED" not in os.environ, reason="the source tree is tested, as asked")
def test_what_is_tested_is_the_installed_wheel() -> None:
    assert "site-packages" in PACKAGE.parts
    assert minibert.__version__ != "0.0.0"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc")
def test_loading_makes_no_second_copy_of_the_weights(tmp_path: Path) -> None:
    size = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    theirs_of("BertModel", tmp_path, vocab_size=30522, **size)
    _, memory = load.run(load.LOAD.format(**load.OURS), str(tmp_path))
    growth = memory / (tmp_path / "model.safetensors").stat().st_size
    assert 0.9 < growth < 1.15  # every page is read, so less would be a failure to measure
