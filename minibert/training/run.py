"""A training run in a folder: it logs, evaluates and saves, and the same call again goes on where it stopped."""

from __future__ import annotations

import csv
import json
import math
import platform
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from typing_extensions import Self

from minibert.base import PretrainedModel
from minibert.errors import MinibertError, warn
from minibert.pretrained.files import locked, path_to_disk, to_disk, written_whole
from minibert.text import whole_number
from minibert.training.loop import DivergenceError, Settings, Step, adamw, train
from minibert.training.objectives import Objective
from minibert.training.packed import Example
from minibert.training.processes import place, total, wait
from minibert.training.state import Checkpoints

Metrics = Mapping[str, float]


@dataclass
class History:
    """What happened in a run.

    Attributes:
        steps: of the whole run, also those before it went on.
        evaluations: what each evaluation returned, and after how many steps ("step").
        best: the best evaluation, if a metric decides.
        stopped_early: whether the metric had not improved for `patience` evaluations.
    """

    steps: list[Step] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    stopped_early: bool = False


def folder_of(output: str | Path) -> Path:
    """The folder for a run, which may not exist yet.

    Raises:
        MinibertError: it is a file.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise MinibertError(f"the output ({folder}) must be a folder, not a file; choose another name")
    return folder


def run_in_folder(
    model: PretrainedModel,
    batches: Callable[[int], Sequence[Example]],
    objective: Objective,
    settings: Settings,
    folder: str | Path,
    *,
    identity: Mapping[str, Any],
    save_every: int,
    evaluate: Callable[[int], Metrics] | None = None,
    evaluate_every: int | None = None,
    best: str | None = None,
    patience: int | None = None,
    describe: Callable[[Example], str] | None = None,
    show_progress_bar: bool | None = None,
) -> History:
    """Train a model, and keep everything that is needed to go on in a folder.

    `losses.csv` has a line for each step, `metrics.csv` one for each evaluation. Ctrl-C finishes the step and saves.

    Args:
        model, batches, objective, settings: as for `train`.
        folder: of this run alone.
        identity: what decides on the result besides the settings: data, model, task. It must be equal to go on.
        save_every: in steps. The last step is always saved.
        evaluate: returns metrics after so many steps; the model is in evaluation mode.
        evaluate_every: in steps; the last step is always evaluated. None: only that one.
        best: the metric, higher being better, by which the weights are kept that the model has at the end; None keeps
            the last.
        patience: stop after this many evaluations without a better one.
        describe: the text of an example, for messages.
        show_progress_bar: None shows it if standard error is a terminal.

    Raises:
        BlockingIOError: another process uses the folder.
        MinibertError: the folder's run has another identity or other settings; or `best` is no metric of `evaluate`.
        DivergenceError: a loss is not finite; the last saved state is in the folder.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    whole_number("save_every", save_every)
    if best is not None and evaluate is None:
        raise MinibertError(f"best ({best!r}) must be given with evaluate, which returns it; pass evaluate=")
    if patience is not None and best is None:
        raise MinibertError(f"patience ({patience}) must be given with best, the metric it waits for; pass best=")
    folder = Path(folder)
    first = place()[0] == 0  # of several processes, one writes
    busy = f"another process trains in {folder}; wait for it, or choose another folder"
    with locked(folder / ".lock", busy) if first else nullcontext():
        kept = Checkpoints(folder / "states")
        what = json.loads(json.dumps({**identity, "settings": vars(settings)}, default=str))
        _check_identity(kept, what, folder)
        optimizer = adamw(model, settings)
        state = kept.load(model, optimizer)
        start = state["step"] if state else 0
        history = History(**state["history"]) if state else History()
        log = Log(folder / "losses.csv", start, writes=first)
        history.steps = log.steps
        if history.stopped_early:
            start = settings.steps

        def save(done: int) -> None:
            if first:
                log.flush()
                rest = {key: value for key, value in vars(history).items() if key != "steps"}
                kept.save(done, model, optimizer, {"identity": what, "machine": _machine(), "history": rest})

        def measure(done: int) -> None:
            found = {"step": done, **(evaluate(done) if evaluate else {})}
            history.evaluations.append(found)
            if best and best not in found:
                raise MinibertError(f"best ({best!r}) must be one of the metrics {', '.join(found)}")
            if best and (history.best is None or _better(found[best], history.best[best])):
                history.best = found
                if first:
                    kept.save_best(done, model, {"metrics": found})
            gains = [e["step"] for e in history.evaluations].index(history.best["step"]) if history.best else 0
            history.stopped_early = patience is not None and len(history.evaluations) - 1 - gains >= patience
            if first:
                _write_metrics(folder / "metrics.csv", history.evaluations, done)

        with Interruption() as asked, Bar(settings.steps, start, show_progress_bar if first else False) as bar:
            try:
                for step in train(model, batches, objective, settings, optimizer=optimizer, start=start):
                    done = step.number + 1
                    log.add(step)
                    bar.add(step)
                    stop = total(asked.yes) > 0  # in all processes, or in none
                    last = done == settings.steps
                    if evaluate and (last or (evaluate_every and done % evaluate_every == 0)):
                        measure(done)
                    if last or stop or history.stopped_early or done % save_every == 0:
                        save(done)
                    if stop and not last:
                        raise KeyboardInterrupt(f"stopped after step {done} of {settings.steps}; start again to go on")
                    if history.stopped_early:
                        break
            except DivergenceError as error:
                log.flush()
                raise _told(error, kept, describe) from None
        wait()  # until the first has written
        if best:
            kept.load_best(model)
    return history


def _better(new: float, old: float) -> bool:
    """Whether a metric has improved; one that is undefined, like a correlation with a constant, is the lowest."""
    return new > old or (math.isnan(old) and not math.isnan(new))


@contextmanager
def _named(path: Path, done: int) -> Iterator[None]:
    """The system's errors name the file and the step."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written after step {done} ({error}); make room, and start again: training goes on "
            "from its last state"
        ) from error


def _check_identity(kept: Checkpoints, what: Mapping[str, Any], folder: Path) -> None:
    """Compare a run with the one that the folder has."""
    facts = kept.newest()
    if facts is None:
        return
    old = _flat(facts["identity"])
    differing = [name for name in sorted(old.keys() | _flat(what).keys()) if old.get(name) != _flat(what).get(name)]
    if differing:
        listed = ", ".join(f"{name}: {old.get(name)!r}, now {_flat(what).get(name)!r}" for name in differing)
        raise MinibertError(
            f"{folder} has a run with other settings ({listed}); repeat them to go on, or choose another folder"
        )
    machine = {name: (value, _machine()[name]) for name, value in facts["machine"].items()}
    changed = [f"{name} {before}, now {now}" for name, (before, now) in machine.items() if before != now]
    if changed:
        warn(f"the run in {folder} was started with {'; '.join(changed)}: its last bits may differ from here on")


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values under joined names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _machine() -> dict[str, Any]:
    """What can change the last bits of a result."""
    names = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": names or platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def _told(error: DivergenceError, kept: Checkpoints, describe: Callable[[Example], str] | None) -> DivergenceError:
    """The error with what a person needs to know."""
    texts = "; ".join(f"{describe(example)!r:.60}" for example in error.examples[:3]) if describe else ""
    state = kept.newest()
    error.args = (
        f"{error.args[0]}{f' ({texts}, ...)' if texts else ''}; "
        + (f"the state after step {state['step']} is in {kept.folder}" if state else "no state was saved before it"),
    )
    return error


class Log:
    """The file of losses, a line for each step.

    Args:
        path: the file. Lines after the step to go on from are cut off.
        start: the number of steps that are done.
        writes: whether this process writes it.
    """

    def __init__(self, path: Path, start: int, writes: bool) -> None:
        self.steps: list[Step] = []
        self.path, self.writes = path, writes
        if start:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1 : start + 1]
            with suppress(ValueError, IndexError):
                self.steps = [Step(int(r[0]), float(r[1]), float(r[2]), float(r[3]), int(r[4])) for r in rows]
            if [step.number for step in self.steps] != list(range(start)):
                raise MinibertError(
                    f"{path} must have the losses of the {start} steps that are done, to go on from there; restore it, "
                    "or choose another folder"
                )
        self._waiting: list[Step] = []
        if writes:
            # whole: a process that is killed here leaves the older file, whose first lines are the same
            with _named(path, start), written_whole(path) as new:
                with new.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerows([Step._fields, *self.steps])
                path_to_disk(new)

    def add(self, step: Step) -> None:
        """Note a step."""
        self.steps.append(step)
        self._waiting.append(step)
        if len(self._waiting) >= 20:
            self.flush()

    def flush(self) -> None:
        """Write what was noted."""
        if self.writes and self._waiting:
            with (
                _named(self.path, len(self.steps)),
                self.path.open("a", newline="", encoding="utf-8") as file,
            ):
                csv.writer(file, lineterminator="\n").writerows(self._waiting)
                to_disk(file)  # before a state that counts these steps as done
        self._waiting = []


def _write_metrics(path: Path, evaluations: Sequence[Metrics], done: int) -> None:
    with _named(path, done), written_whole(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(evaluations[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(evaluations)


class Interruption:
    """Notes the first Ctrl-C instead of raising it; a second one is raised."""

    def __init__(self) -> None:
        self.yes = 0

    def __enter__(self) -> Self:
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.yes:
            raise KeyboardInterrupt
        self.yes = 1


class Bar:
    """A progress bar of steps with the loss and the rate.

    Args:
        steps: in all.
        start: done before.
        shown: None shows it if standard error is a terminal.
    """

    def __init__(self, steps: int, start: int, shown: bool | None) -> None:
        from tqdm.auto import tqdm

        disabled = None if shown is None else not shown  # tqdm's None looks for a terminal
        self.bar: Any = tqdm(total=steps, initial=start, desc="train", unit=" steps", disable=disabled)
        self.mean: float | None = None

    def add(self, step: Step) -> None:
        """Show a step; the loss is a running mean."""
        self.mean = step.loss if self.mean is None else 0.95 * self.mean + 0.05 * step.loss
        self.bar.set_postfix_str(f"loss {self.mean:.3f}, rate {step.learning_rate:.1e}", refresh=False)
        self.bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
