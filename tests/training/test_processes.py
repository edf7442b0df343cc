"""Two processes beside one: the same losses and weights for every objective, whatever the size of a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_run
import training_worker as worker
from oracle import TINY
from safetensors.torch import load_file
from training_cases import NO_DROPOUT

from minibert.cli import main
from minibert.training.processes import gathered, rank_and_size, total


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[float]]]:
    """The folder with what two processes wrote, and their losses."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "config.json").write_text(json.dumps(TINY))
    done = two(worker.__file__, folder)
    assert done.returncode == 0, done.stderr
    assert "find_unused_parameters" not in done.stderr  # which DDP warns of where it is not needed
    return folder, json.loads((folder / "losses.json").read_text())


def two(program: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as two processes."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(program, *map(str, arguments)),
        ],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_train_like_one(both: tuple[Path, dict[str, list[float]]]) -> None:
    folder, found = both
    for name, (model, objective, batches) in worker.runs(folder).items():
        expected = [step.loss for step in worker.train(model, batches, objective, worker.SETTINGS)]
        assert found[name] == pytest.approx(expected, abs=1e-5), name
        weights = load_file(folder / f"{name}.safetensors")
        for key, tensor in model.state_dict().items():
            # the loss does not depend on these: their gradients are rounding errors, which Adam makes large
            without_effect = ["key.bias", "span_head.bias", "classifier.bias"]
            if name.endswith("QuestionAnswering"):  # a shift of all tokens moves the logits of all ends alike
                without_effect.append("layers.2.feed_forward_norm.bias")
            if key in weights and not key.endswith(tuple(without_effect)):
                torch.testing.assert_close(weights[key], tensor, rtol=0, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert len(found) == 11


@pytest.mark.slow
def test_a_killed_process_ends_the_training_with_a_state_to_go_on_from(tmp_path: Path) -> None:
    program = training_run.__file__
    assert two(program, tmp_path / "alone").returncode == 0
    for rank, step, saved in ((1, 5, 3), (0, 8, 6)):
        done = two(program, tmp_path / "killed", rank, step, "SIGKILL")
        assert done.returncode != 0
        told = "another process of this training has ended; start all of them again to resume; the state after step"
        assert f"{told} {saved} is in {tmp_path}/killed/states" in " ".join(done.stderr.split()), done.stderr
        assert not (tmp_path / "killed" / "final.safetensors").exists()
    done = two(program, tmp_path / "killed", 1, 9, "SIGTERM")  # the other one stops with it, once the state is saved
    assert done.returncode != 0
    assert "stopped after step 10 of 12; run it again to resume" in done.stderr
    assert (tmp_path / "killed" / "states" / "step-00000010").is_dir()
    assert two(program, tmp_path / "killed").returncode == 0
    for name in ("losses.csv", "final.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_pretrain_like_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**TINY, **NO_DROPOUT}))
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(["the", "dog", "cat", "sleeps", "runs", "here", "today."], 8)) for _ in range(200)]
    (tmp_path / "book.txt").write_text("\n".join(lines))
    options = ["pretrain", str(tmp_path / "book.txt"), "--config", str(tmp_path / "config.json"), "-o"]
    options += [str(tmp_path / "both"), "--vocab-size", "80", "--length", "32", "--batch-size", "9"]
    done = two("-m", "minibert", *options)
    assert done.returncode == 0, done.stderr
    options[-7] = str(tmp_path / "alone")
    assert main(options) == 0
    assert done.stdout == capsys.readouterr().out  # only one of the processes speaks
    both, alone = (
        np.loadtxt(tmp_path / name / "training" / "losses.csv", delimiter=",", skiprows=1) for name in ("both", "alone")
    )
    np.testing.assert_allclose(both[:, 1], alone[:, 1], rtol=0, atol=1e-5)


def test_one_process_alone_exchanges_nothing() -> None:
    assert rank_and_size() == (0, 1)
    vectors = torch.randn(3, 2)
    assert gathered(vectors, 3) is vectors
    assert total(2.5) == 2.5
