"""What a training run says of its steps: its files of losses and metrics, and its progress bar."""

from __future__ import annotations

import csv
import hashlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import Self

from minibert.errors import MinibertError
from minibert.pretrained.files import path_to_disk, to_disk, written_whole
from minibert.training.loop import Step

logger = logging.getLogger("minibert.training")


class Log:
    """The file of losses, a line for each step.

    Args:
        path: the file. Lines after the step to resume from are cut off.
        start: the number of steps that are done.
        digest: of the lines of these steps, as `digest` was after the last one.
        writes: whether this process writes it.

    Raises:
        MinibertError: the lines are not those that were written.
    """

    def __init__(self, path: Path, start: int, digest: str | None, writes: bool) -> None:
        self.steps: list[Step] = []
        self.path, self.writes = path, writes
        self._digest = hashlib.sha256()
        content = _line(Step._fields)
        if start:
            lines = path.read_bytes().splitlines(keepends=True)[: start + 1] if path.is_file() else []
            content = b"".join(lines)
            if len(lines) != start + 1 or hashlib.sha256(content).hexdigest() != digest:
                raise MinibertError(
                    f"{path} must have the losses of the {start} steps that are done, as they were written, to resume "
                    "there; restore it, or choose another folder"
                )
            try:
                rows = [line.split(",") for line in content.decode().splitlines()[1:]]
                self.steps = [Step(int(r[0]), float(r[1]), float(r[2]), float(r[3]), int(r[4])) for r in rows]
            except (ValueError, IndexError) as error:
                raise MinibertError(f"{path} must be as it was written ({error}); choose another folder") from None
        self._digest.update(content)
        self._waiting: list[Step] = []
        if writes:
            # whole: a process that is killed here leaves the older file, whose first lines are the same
            with _named(path, start), written_whole(path) as new:
                new.write_bytes(content)
                path_to_disk(new)

    @property
    def digest(self) -> str:
        """A digest of the file up to the last step."""
        return self._digest.hexdigest()

    def add(self, step: Step) -> None:
        """Note a step."""
        self.steps.append(step)
        self._waiting.append(step)
        self._digest.update(_line(step))
        if len(self._waiting) >= 20:
            self.flush()

    def flush(self) -> None:
        """Write what was noted."""
        if self.writes and self._waiting:
            with (
                _named(self.path, len(self.steps)),
                self.path.open("ab") as file,
            ):
                file.writelines(map(_line, self._waiting))
                to_disk(file)  # before a state that counts these steps as done
        self._waiting = []


def _line(values: Sequence[Any]) -> bytes:
    """A line of the file; floats have all their digits."""
    return (",".join(map(str, values)) + "\n").encode()


def read_log(path: Path, column: str) -> dict[int, float]:
    """A column of a file of losses or metrics, by the numbers in its first column; empty if there is no file.

    Raises:
        MinibertError: the file is not as it was written.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {int(next(iter(row.values()))): float(row[column]) for row in csv.DictReader(file)}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise MinibertError(f"{path} must be as it was written ({error!r}); restore or delete it") from None


def write_metrics(path: Path, evaluations: Sequence[Mapping[str, float]], done: int) -> None:
    """Write the file of metrics, a line for each evaluation, after so many steps."""
    with _named(path, done), written_whole(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(evaluations[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(evaluations)


class RunningMean:
    """A mean in which each number counts 0.95 times as much as the next one; that of the first numbers, too."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, number: float) -> float:
        """Take in a number; the mean with it."""
        self._sum = 0.95 * self._sum + number
        self._weight = 0.95 * self._weight + 1.0
        return self._sum / self._weight


class Bar:
    """A progress bar of steps with the loss and the rate, and lines above it. What it does not show goes to logging.

    Args:
        steps: in all.
        start: done before.
        shown: None shows it if standard error is a terminal.
    """

    def __init__(self, steps: int, start: int, shown: bool | None) -> None:
        from tqdm.auto import tqdm

        self.bar: Any = tqdm(
            total=steps,
            initial=start,
            desc="train",
            disable=None if shown is None else not shown,  # tqdm's None looks for a terminal
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}",
        )
        self.took = RunningMean()
        self.loss = RunningMean()
        self._before = time.perf_counter()

    def add(self, step: Step) -> None:
        """Show a step; the loss and the seconds are running means."""
        now = time.perf_counter()
        took, self._before = self.took.add(now - self._before), now
        loss = self.loss.add(step.loss)
        self.bar.set_postfix_str(
            f"{took:.2g} seconds a step, loss {loss:.3f}, learning rate {step.learning_rate:.1e}", refresh=False
        )
        self.bar.update()

    def say(self, text: str) -> None:
        """Show a line."""
        if self.bar.disable:
            logger.info(text)
        else:
            self.bar.write(text, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()


@contextmanager
def _named(path: Path, done: int) -> Iterator[None]:
    """The system's errors name the file and the step."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written after step {done} ({error}); make room, and start again: training resumes "
            "from its last state"
        ) from error
