"""One of several processes that train together: `torchrun worker.py FOLDER` writes the losses of each case."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import distributed
from training_cases import CASES, NO_DROPOUT, Case

import minibert
from minibert.training.loop import train
from minibert.training.objectives import Objective, Positives, ScoredPairs
from minibert.training.packed import Example
from minibert.training.settings import Settings
from minibert.vectors.recipe import Recipe

SETTINGS = Settings(steps=6, learning_rate=3e-3, part_tokens=45)
SIZES = (8, 7, 3, 1, 2, 5)  # of the batches: odd ones, and one that leaves a process without an example


def runs(folder: Path) -> dict[str, tuple[Any, Objective, Callable[[int], Sequence[Example]]]]:
    """All cases, by name: a model, an objective, batches."""
    found: dict[str, tuple[Any, Objective, Callable[[int], Sequence[Example]]]] = {}
    for number, case in enumerate(CASES):
        torch.manual_seed(number)
        config = minibert.BertConfig(**json.loads((folder / "config.json").read_text()), **NO_DROPOUT, **case.config)
        model = getattr(minibert, case.kind)(config)
        found[f"{number} {case.kind}"] = model, case.objective, lambda n, case=case: case.examples(n)[: SIZES[n]]
    pairs = Case("BertForMultipleChoice", ScoredPairs(Recipe()), lambda random, _: float(random.random()))
    for objective in (ScoredPairs(Recipe(pooling=("mean",))), Positives(Recipe(pooling=("mean",)))):
        torch.manual_seed(99)
        config = minibert.BertConfig(**json.loads((folder / "config.json").read_text()), **NO_DROPOUT)
        model = minibert.BertModel(config)
        found[type(objective).__name__] = model, objective, lambda n: pairs.examples(n)[: SIZES[n]]
    return found


def losses(folder: Path, save: bool) -> dict[str, list[float]]:
    """The losses of each case; the weights go into `folder`."""
    result = {}
    for name, (model, objective, batches) in runs(folder).items():
        result[name] = [step.loss for step in train(model, batches, objective, SETTINGS)]
        if save:
            save_model(model, str(folder / f"{name}.safetensors"))
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    place = Path(sys.argv[1])
    first = distributed.get_rank() == 0
    found = losses(place, first)
    if first:
        (place / "losses.json").write_text(json.dumps(found))
    distributed.destroy_process_group()
