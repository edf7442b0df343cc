"""A training run in a folder: it logs, evaluates and saves, and the same call again resumes it."""

from __future__ import annotations

import json
import math
import platform
import re
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from typing_extensions import Self

from minibert.base import PretrainedModel
from minibert.errors import MinibertError, warn
from minibert.pretrained.files import is_temporary, locked, sha256_of, write_text
from minibert.records import parsed_json
from minibert.text import counted, short, whole_number
from minibert.training.log import Bar, Log, read_log, write_metrics
from minibert.training.loop import DivergenceError, Step, adamw, train
from minibert.training.objectives import Objective
from minibert.training.packed import Example
from minibert.training.processes import LostProcessError, is_first, rank_and_size, total, wait
from minibert.training.settings import Settings
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


MARKER = "output.json"  # in the subfolder `training`: says that the folder is a run's own, and whether it has ended
WEIGHTS = "model.safetensors"
# What a killed process may leave unfinished in the subfolder, besides states.
TEMPORARY = (
    *(MARKER, "losses.csv", "metrics.csv", "curve.png", "result.json"),
    *("tokens.bin", "tokens.json", "held_out.bin", "held_out.json"),
)


def folder_of(output: str | Path) -> Path:
    """The folder for a run: one that does not exist yet, is empty, or was made by an earlier call.

    Of several processes, the first one checks it; when a slower one comes, the first may have begun to write.

    Raises:
        MinibertError: it is a file, or holds something else.
    """
    folder = Path(output)
    if not is_first():
        return folder
    if folder.exists() and not folder.is_dir():
        raise MinibertError(f"the output ({folder}) must be a folder, not a file; choose another name")
    inner = folder / "training"
    if folder.exists() and not (inner / MARKER).is_file():
        others = [path for path in folder.iterdir() if path != inner or not path.is_dir()]
        if inner.is_dir():  # a killed call may have come no further
            others += [path for path in inner.iterdir() if path.name != ".lock" and not is_temporary(path, [MARKER])]
        if others:
            raise MinibertError(
                f"the output ({folder}) must be empty or hold a run of its own, but it holds "
                f"{others[0].relative_to(folder)}; choose another folder"
            )
    return folder


def claim(folder: Path) -> None:
    """Mark a folder of `folder_of` as a run's own, before anything else is written to it."""
    if is_first() and not (folder / "training" / MARKER).exists():
        write_text(folder / "training" / MARKER, json.dumps({"finished": None}) + "\n")


def finish(folder: Path) -> None:
    """Note that the run has ended, and which weights it has written."""
    write_text(folder / "training" / MARKER, json.dumps({"finished": sha256_of(folder / WEIGHTS)}) + "\n")


def is_finished(folder: Path) -> bool:
    """Whether the run has ended before, so that nothing in its folder may be written again.

    Warns if its weights were changed since. If they were deleted, they are to be written again.

    Raises:
        MinibertError: the marker is damaged.
    """
    path = folder / "training" / MARKER
    found = parsed_json(path.read_bytes(), str(path), "choose another folder") if path.is_file() else {}
    digest = found.get("finished") if isinstance(found, dict) else None
    if not isinstance(digest, str) or not (folder / WEIGHTS).is_file():
        return False
    if sha256_of(folder / WEIGHTS) != digest:
        warn(
            f"{folder / WEIGHTS} was changed after the run had ended; it stays as it is, and so does the rest of the "
            "folder: to train again, choose another folder"
        )
    return True


def draw_curve(folder: Path, held_out: str | None = None) -> None:
    """Write the picture of the losses so far, if this is the first process.

    Args:
        folder: of the run.
        held_out: the column of `metrics.csv` that is a loss on other data; None for no such.
    """
    from minibert.pictures.plots import plot_losses, save

    losses = read_log(folder / "losses.csv", "loss")
    if losses and is_first():
        others = read_log(folder / "metrics.csv", held_out) if held_out else None
        save(plot_losses(list(losses.values()), others), folder / "curve.png")


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
    said: str = "",
    steps_of_epoch: int | None = None,
    show_progress_bar: bool | None = None,
) -> History:
    """Train a model, and keep everything that is needed to resume in a folder.

    `losses.csv` has a line for each step, `metrics.csv` one for each evaluation. Ctrl-C and SIGTERM finish the step and
    save.

    Args:
        model, batches, objective, settings: as for `train`.
        folder: of this run alone.
        identity: what decides on the result besides the settings: data, model, task. It must be equal to resume.
        save_every: in steps. The last step is always saved.
        evaluate: returns metrics after so many steps; the model is in evaluation mode.
        evaluate_every: in steps; the last step is always evaluated. None: only that one.
        best: the metric, higher being better, by which the weights are kept that the model has at the end; None keeps
            the last.
        patience: stop after this many evaluations without a better one.
        describe: the text of an example, for messages.
        said: what is learned, in a line above the progress bar.
        steps_of_epoch: to name the epochs that are evaluated.
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
    first = is_first()
    busy = f"another process trains in {folder}; wait for it, or choose another folder"
    with locked(folder / ".lock", busy) if first else nullcontext():
        kept = Checkpoints(folder / "states")
        what = json.loads(json.dumps({**identity, "settings": vars(settings)}, default=str))
        _check_identity(kept, what, model, folder)
        if first and folder.is_dir():
            for path in folder.iterdir():
                if is_temporary(path, TEMPORARY):
                    path.unlink()
        optimizer = adamw(model, settings)
        state = kept.load(model, optimizer)
        start = state["step"] if state else 0
        if total(start) != start * rank_and_size()[1]:
            raise MinibertError(f"the folder ({folder}) must be the same for all processes; use a disk that they share")
        history = _history(state.get("history"), folder) if state else History()
        digest = state.get("losses") if state else None
        start, done_before = settings.steps if history.stopped_early else start, start
        ended = start == settings.steps
        log = Log(folder / "losses.csv", done_before, digest, writes=first and not ended)
        history.steps = log.steps
        if ended and first:
            kept.tidy(int(history.best["step"]) if history.best else None)

        def all_agree_to(stop: bool) -> bool:
            return total(stop) > 0

        def save(done: int) -> None:
            if first:
                log.flush()
                rest = {key: value for key, value in vars(history).items() if key != "steps"}
                facts = {"identity": what, "machine": _machine(model), "history": rest, "losses": log.digest}
                kept.save(done, model, optimizer, facts)
                if history.best:
                    kept.forget_best(int(history.best["step"]))

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
            history.stopped_early = all_agree_to(
                patience is not None and len(history.evaluations) - 1 - gains >= patience
            )
            if first:
                write_metrics(folder / "metrics.csv", history.evaluations, done)
            bar.say(_measured(found, settings.steps, steps_of_epoch, history.best))

        with Interruption() as asked, Bar(settings.steps, start, show_progress_bar if first else False) as bar:
            if said:
                more = f", {done_before:,} of them done before" if done_before else ""
                bar.say(f"{said}; {counted(settings.steps, 'step')}{more}")
            try:
                for step in train(model, batches, objective, settings, optimizer=optimizer, start=start):
                    done = step.number + 1
                    log.add(step)
                    bar.add(step)
                    stop = all_agree_to(asked.yes)
                    last = done == settings.steps
                    if evaluate and (last or (evaluate_every and done % evaluate_every == 0)):
                        measure(done)
                    if last or stop or history.stopped_early or done % save_every == 0:
                        save(done)
                    if stop:
                        wait()  # until the first has written: when one process ends, torchrun ends the others
                        raise KeyboardInterrupt(
                            f"stopped after step {done} of {settings.steps}; run it again to resume"
                        )
                    if history.stopped_early:
                        break
            except DivergenceError as error:
                log.flush()
                raise _told(error, kept, describe) from None
            except LostProcessError as error:
                log.flush()
                raise LostProcessError(f"{error} to resume; {_last(kept)}") from error
        wait()  # until the first has written
        if history.best:
            kept.load_best(int(history.best["step"]), model)
    return history


def _measured(found: Metrics, steps: int, steps_of_epoch: int | None, best: Metrics | None) -> str:
    """An evaluation in a line."""
    done = int(found["step"])
    if steps_of_epoch and done % steps_of_epoch == 0:
        when = f"epoch {done // steps_of_epoch} of {steps // steps_of_epoch}"
    else:
        when = f"step {done:,} of {steps:,}"
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in found.items() if name != "step")
    return f"{when}: {numbers or 'done'}{' (the best so far)' if found is best else ''}"


def _history(found: Any, folder: Path) -> History:
    """What a state says of the evaluations so far."""
    try:
        history = History(**found)
        rows = [*history.evaluations, *([history.best] if history.best is not None else [])]
        right = all(isinstance(row.get("step"), int) for row in rows) and isinstance(history.stopped_early, bool)
    except (TypeError, AttributeError):
        right = False
    if not right:
        raise MinibertError(f"the history in a state of {folder} must be as it was written; choose another folder")
    return history


def _better(new: float, old: float) -> bool:
    """Whether a metric has improved; one that is undefined, like a correlation with a constant, is the lowest."""
    return new > old or (math.isnan(old) and not math.isnan(new))


def _check_identity(kept: Checkpoints, what: Mapping[str, Any], model: PretrainedModel, folder: Path) -> None:
    """Compare a run with the one that the folder has."""
    facts = kept.newest()
    if facts is None:
        return
    old = _flat(facts.get("identity", {}))
    differing = [name for name in sorted(old.keys() | _flat(what).keys()) if old.get(name) != _flat(what).get(name)]
    if differing:
        listed = ", ".join(_difference(name, old.get(name), _flat(what).get(name)) for name in differing)
        raise MinibertError(
            f"{folder} has a run with other settings ({listed}); use the same settings to resume, or another folder"
        )
    before, now = facts.get("machine", {}), _machine(model)
    changed = [f"{name} ({now[name]}, not {before.get(name)})" for name in now if before.get(name) != now[name]]
    if changed:
        effect = "dropout" if before.get("processes") != now["processes"] else "the last bits"
        warn(f"the run in {folder} is resumed with other {'; '.join(changed)}: {effect} may differ from here on")


def _difference(name: str, old: Any, new: Any) -> str:
    """A setting that differs, in words; digests say nothing to people."""
    if any(isinstance(value, str) and re.fullmatch("[0-9a-f]{32,}", value) for value in (old, new)):
        return f"{name}: another one"
    return f"{name}: {short(old)}, now {short(new)}"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values under joined names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _machine(model: PretrainedModel) -> dict[str, Any]:
    """What can change the last bits of a result; the number of processes changes dropout."""
    names = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": names or platform.processor(),
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        "processes": rank_and_size()[1],
        "torch": torch.__version__,
    }


def _told(error: DivergenceError, kept: Checkpoints, describe: Callable[[Example], str] | None) -> DivergenceError:
    """The error with what a person needs to know."""
    texts = "; ".join(f"{describe(example)!r:.60}" for example in error.examples[:3]) if describe else ""
    error.args = (f"{error.args[0]}{f' ({texts}, ...)' if texts else ''}; {_last(kept)}",)
    return error


def _last(kept: Checkpoints) -> str:
    """Which state is the newest."""
    state = kept.newest()
    return f"the state after step {state['step']} is in {kept.folder}" if state else "no state was saved before it"


class Interruption:
    """Notes the first Ctrl-C or SIGTERM, so that the step can be finished and saved; a second one is raised.

    A SIGTERM is passed on at the end, to the program's own handler or to the system, which ends the process.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def yes(self) -> bool:
        """Whether there was one."""
        return self.signal is not None

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {kind: signal.signal(kind, self._note) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        late = self.yes and error is None  # it came when all was done
        said = str(error or "") or ("stopped after the last step; run it again for the result" if late else "stopped")
        ended = isinstance(error, LostProcessError)  # torchrun may end this process, too, at any time
        passed_on = self.signal == signal.SIGTERM and (late or ended or isinstance(error, KeyboardInterrupt))
        if ended or passed_on:
            with suppress(Warning):  # where warnings are errors
                warn(said)
        for number, handler in self._before.items():
            if handler is not None:  # None: it was not installed by Python
                signal.signal(number, handler)
        if passed_on:
            signal.raise_signal(signal.SIGTERM)
        if late:
            raise KeyboardInterrupt(said)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
