"""Two processes beside one: the same losses and weights for every objective, whatever the size of a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_worker as worker
from oracle import TINY
from safetensors.torch import load_file

from minibert.training.processes import gathered, place, total


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[float]]]:
    """The folder with what two processes wrote, and their losses."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "config.json").write_text(json.dumps(TINY))
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, worker.__file__, str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "losses.json").read_text())


@pytest.mark.slow
def test_two_processes_train_like_one(both: tuple[Path, dict[str, list[float]]]) -> None:
    folder, found = both
    for name, (model, objective, batches) in worker.runs(folder).items():
        expected = [step.loss for step in worker.train(model, batches, objective, worker.SETTINGS)]
        assert found[name] == pytest.approx(expected, abs=1e-5), name
        weights = load_file(folder / f"{name}.safetensors")
        for key, tensor in model.state_dict().items():
            # the loss does not depend on these: their gradients are rounding errors, which Adam makes large
            if key in weights and not key.endswith(("key.bias", "span_head.bias", "classifier.bias")):
                torch.testing.assert_close(weights[key], tensor, rtol=0, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert len(found) == 11


def test_one_process_alone_exchanges_nothing() -> None:
    assert place() == (0, 1)
    vectors = torch.randn(3, 2)
    assert gathered(vectors, 3) is vectors
    assert total(2.5) == 2.5
