"""A small training run as a program: `python training_run.py FOLDER` writes its weights there, too.

`training_run.py FOLDER children` trains in a forked process for each line that it reads, which saves the imports, and
prints its id and, when it has ended, "ended". Under torchrun, `training_run.py FOLDER RANK STEP SIGNAL` sends a signal
to the process of this rank at a step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from oracle import TINY
from safetensors.torch import save_model
from training_cases import CASES

import minibert
from minibert.training import processes
from minibert.training.objectives import TextLabels
from minibert.training.run import History, run_in_folder
from minibert.training.settings import Settings

CASE = CASES[3]
IDENTITY = {"data": "random", "model": "tiny"}
SETTINGS = Settings(steps=12, learning_rate=1e-3, seed=1)


def new_model() -> minibert.BertForSequenceClassification:
    """Always the same weights, with dropout."""
    torch.manual_seed(0)
    return minibert.BertForSequenceClassification(minibert.BertConfig(**TINY, num_labels=3))


def go(folder: Path, settings: Settings = SETTINGS, **arguments: Any) -> tuple[History, minibert.PretrainedModel]:
    """Train in a folder."""
    model = new_model()
    arguments = {"identity": IDENTITY, "save_every": 3, "show_progress_bar": False, **arguments}
    batches: Callable[[int], Any] = arguments.pop("batches", CASE.examples)
    return run_in_folder(model, batches, TextLabels(), settings, folder, **arguments), model


def examples(number: int) -> Any:
    """The examples of a step; before, the signal if it is due."""
    if sys.argv[2:4] == [str(processes.rank_and_size()[0]), str(number)]:
        os.kill(os.getpid(), signal.Signals[sys.argv[4]])
    return CASE.examples(number)


def run(place: Path) -> None:
    """Train in a folder, and write the weights."""
    processes.join()
    _, trained = go(place, batches=examples)
    if processes.is_first():
        save_model(trained, str(place / "final.safetensors"))


def run_children(place: Path) -> None:
    """Train in a process of its own for each line of the input."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                run(place)
            finally:
                os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    (run_children if sys.argv[2:] == ["children"] else run)(Path(sys.argv[1]))
