"""The state of a training run on disk: written whole or not at all, checked when it is read.

    states/step-00000500/weights.safetensors, optimizer.safetensors, state.json

A state is written to a folder beside, flushed to the disk, and then renamed. `state.json` has the digests of the two
other files, and one of itself. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from minibert.errors import MinibertError, warn
from minibert.pretrained.checkpoint import save_tensors
from minibert.pretrained.files import path_to_disk, sha256_of
from minibert.records import parsed_json

SAVING = ".saving"
FACTS, WEIGHTS, OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"


class Checkpoints:
    """The saved states of one training run.

    Args:
        folder: where they are; created with the first one.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, then delete those that are too old.

        States after a later step are deleted, too: they were damaged, or the run would go on from them.

        Args:
            step: how many steps are done.
            model, optimizer: what they hold.
            facts: anything that JSON can hold.
        """
        tensors = {WEIGHTS: dict(model.state_dict()), OPTIMIZER: optimizer_tensors(model, optimizer)}
        newest = self._of(step)
        _write(newest, tensors, {"step": step, **facts})
        states = self._all()
        end = states.index(newest) + 1
        for path in states[: max(0, end - self.keep)] + states[end:]:
            shutil.rmtree(path)

    def tidy(self, best: int | None) -> None:
        """Delete what a killed process has left beside the newest states and the best weights of a run that ended."""
        shutil.rmtree(self.folder / SAVING, ignore_errors=True)
        for path in self._all()[: -self.keep]:
            shutil.rmtree(path)
        if best is not None:
            self.forget_best(best)

    def save_best(self, step: int, model: nn.Module, facts: Mapping[str, Any]) -> None:
        """Write the weights after `step` steps, the best ones so far. The older ones stay until `forget_best`."""
        _write(self._best(step), {WEIGHTS: dict(model.state_dict())}, {"step": step, **facts})

    def forget_best(self, step: int) -> None:
        """Delete all best weights but those of a step: once a state names them, no run goes back to others."""
        for path in self.folder.glob("best-*"):
            if path != self._best(step):
                shutil.rmtree(path)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Give a model and its optimizer the newest state that is whole, and return its facts.

        A damaged state is passed over with a warning. None if there is none.
        """
        facts: dict[str, Any] | None = None
        damaged = []
        for path in reversed(self._all()):
            try:
                facts, tensors = _read(path, (WEIGHTS, OPTIMIZER))
            except (OSError, ValueError) as error:
                damaged.append(f"{path} is damaged ({error})")
                continue
            model.load_state_dict(tensors[WEIGHTS])
            load_optimizer(model, optimizer, tensors[OPTIMIZER])
            break
        if damaged:
            rest = f"resumes from the state after step {facts['step']}" if facts else "starts over, without a state"
            warn(f"{'; '.join(damaged)}; training {rest}")
        return facts

    def newest(self) -> dict[str, Any] | None:
        """The facts of the newest state that can be read, without its tensors; None if there is none."""
        for path in reversed(self._all()):
            try:
                return _facts(path)
            except (OSError, ValueError):
                continue
        return None

    def load_best(self, step: int, model: nn.Module) -> None:
        """Give a model the best weights, which are those after `step` steps."""
        path = self._best(step)
        try:
            _, tensors = _read(path, (WEIGHTS,))
        except (OSError, ValueError) as error:
            raise MinibertError(
                f"the best weights ({path}) must be as they were written ({error}); train again in another folder"
            ) from error
        model.load_state_dict(tensors[WEIGHTS])

    def _of(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step:08d}"

    def _all(self) -> list[Path]:
        """The states, the oldest first."""
        return sorted(self.folder.glob("step-*"))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer holds for each parameter: `NAME:exp_avg` and so on."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}:{key}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition(":")
        # Adam counts its steps on the CPU
        device = "cpu" if key == "step" else parameters[parameter].device
        optimizer.state[parameters[parameter]][key] = tensor.to(device)


def _write(path: Path, files: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write a state whole."""
    saving = path.with_name(SAVING)
    shutil.rmtree(saving, ignore_errors=True)  # what a killed process has left
    try:
        saving.mkdir(parents=True)
        for name, tensors in files.items():
            save_tensors(tensors, saving / name)
        content = {**facts, "digests": {name: sha256_of(saving / name) for name in files}}
        text = json.dumps({"state": content, "digest": _digest_of(content)}, indent=1, ensure_ascii=False)
        (saving / FACTS).write_text(text + "\n", encoding="utf-8")
        for part in (*saving.iterdir(), saving):
            path_to_disk(part)
        shutil.rmtree(path, ignore_errors=True)  # a damaged state of this step
        saving.rename(path)
        path_to_disk(path.parent)
        path_to_disk(path.parent.parent)  # which has the name of a new folder of states
    except (OSError, SafetensorError) as error:
        shutil.rmtree(saving, ignore_errors=True)
        raise OSError(
            f"the state after step {facts['step']} could not be written to {path.parent} ({error}); make room, and "
            "start again: training resumes from the state before it"
        ) from error


def _read(path: Path, files: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The facts and tensors of a state.

    Raises:
        OSError: a file is missing.
        ValueError: a file is not what was written.
    """
    facts = _facts(path)
    for name in files:
        if sha256_of(path / name) != facts["digests"].get(name):
            raise MinibertError(f"{name} is not what was written")
    try:
        return facts, {name: load_file(path / name) for name in files}
    except SafetensorError as error:
        raise MinibertError(f"its tensors cannot be read ({error})") from None


def _facts(path: Path) -> dict[str, Any]:
    try:
        written = parsed_json((path / FACTS).read_bytes(), FACTS)
        content: dict[str, Any] = written["state"]
        whole = isinstance(content, dict) and written["digest"] == _digest_of(content)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise MinibertError(f"{FACTS} is not what was written")
    return content


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
