"""A server loads once and forks its workers: loading starts no threads, and a fork that cannot compute says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

SCRIPT = """
import multiprocessing, os, sys
import numpy as np
import torch
import minibert
from minibert.pretrained.checkpoint import is_finite

torch.set_num_threads(2)  # as on any machine with two cores, whatever OMP_NUM_THREADS says
kind, folder, dtype = sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3])
before = len(os.listdir("/proc/self/task"))
bert = minibert.load(folder, dtype=dtype)
started = len(os.listdir("/proc/self/task")) - before
texts = ["How do I reset my password?", "Where is my parcel?"] * 20

def encode(number):
    return bert.encode(texts)

def refused(number):
    try:
        bert.encode(texts)
    except RuntimeError as error:
        return str(error)

def alone(number):
    torch.set_num_threads(1)
    return bert.encode(texts)

with_fork = multiprocessing.get_context("fork")
if kind == "loaded":
    assert started == 0, f"loading started {started} threads"
    with with_fork.Pool(2) as pool:
        found = pool.map(encode, range(2))
    assert np.allclose(found, bert.encode(texts), atol=1e-6)
if kind == "used":
    expected = bert.encode(texts)
    with with_fork.Pool(2) as pool:
        for message in pool.map(refused, range(2)):
            assert message.startswith("this process ("), message
            assert f"must not be a fork of one that has computed already ({os.getpid()})" in message
        assert np.allclose(pool.map(alone, range(1))[0], expected, atol=1e-6)
print("done")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_children_forked_after_load_encode(minilm: Path, dtype: str) -> None:
    done = run("loaded", str(minilm), dtype)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_children_forked_after_use_say_why_they_cannot(minilm: Path) -> None:
    done = run("used", str(minilm), "float32")
    assert done.stdout == "done\n", done.stderr
