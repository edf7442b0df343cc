"""A run in a folder: killed, damaged, interrupted and full, it loses no step that was saved, and no bit."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import training_run
from safetensors.torch import save_model
from training_run import CASE, SETTINGS, go

import minibert
from minibert.training import state
from minibert.training.loop import DivergenceError
from minibert.training.state import Checkpoints


class Killed(BaseException):
    """What stands for the death of the process: nothing catches it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, torch.Tensor]]:
    """The losses, as bytes, and the weights of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    _, model = go(folder)
    return (folder / "losses.csv").read_bytes(), model.state_dict()


def same(folder: Path, model: Any, whole: tuple[bytes, dict[str, torch.Tensor]]) -> bool:
    """Whether a run ended as the one that nothing interrupts."""
    losses, weights = whole
    found = model.state_dict()
    return (folder / "losses.csv").read_bytes() == losses and all(torch.equal(found[k], weights[k]) for k in weights)


def stopping_at(step: int) -> Callable[[int], Any]:
    """Batches that kill the process at a step."""

    def batches(number: int) -> Any:
        if number == step:
            raise Killed
        return CASE.examples(number)

    return batches


def test_the_csv_has_each_step_with_all_its_digits(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    history, _ = go(tmp_path)
    rows = list(csv.DictReader((tmp_path / "losses.csv").read_text().splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(12))
    assert [float(row["loss"]) for row in rows] == [step.loss for step in history.steps]
    assert (tmp_path / "losses.csv").read_bytes() == whole[0]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 6, 8, 11])
def test_a_run_killed_between_two_saves_ends_as_if_it_had_not_been(
    step: int, whole: tuple[bytes, Any], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(step))
    history, model = go(tmp_path)
    assert same(tmp_path, model, whole)
    assert len(history.steps) == 12


@pytest.mark.slow
def test_a_run_killed_anywhere_within_a_save_ends_as_if_it_had_not_been(
    whole: tuple[bytes, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call on the file system within the second and third save is a place to die, before it and after it."""
    calls = 0

    def counted(original: Callable[..., Any], die_at: int, after: bool) -> Callable[..., Any]:
        def run(*arguments: Any, **settings: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == die_at and not after:
                raise Killed
            result = original(*arguments, **settings)
            if calls == die_at:
                raise Killed
            return result

        return run

    originals = {
        (state, "save_tensors"): state.save_tensors,
        (state, "path_to_disk"): state.path_to_disk,
        (Path, "rename"): Path.rename,
        (Path, "write_text"): Path.write_text,
        (shutil, "rmtree"): shutil.rmtree,
    }
    deaths = 0
    for die_at in range(12, 40):
        for after in (False, True):
            folder = tmp_path / f"{die_at}-{after}"
            calls = 0
            with monkeypatch.context() as patched:
                for (owner, name), original in originals.items():
                    patched.setattr(owner, name, counted(original, die_at, after))
                try:
                    go(folder)
                except Killed:
                    deaths += 1
            _, model = go(folder)
            assert same(folder, model, whole), (die_at, after)
            assert not (folder / "states" / ".saving").exists()
    assert deaths > 40


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_byte(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(training_run.__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _, model = go(tmp_path / "alone")
    finally:
        torch.set_num_threads(threads)
    expected = (tmp_path / "alone" / "losses.csv").read_bytes()
    save_model(model, str(tmp_path / "alone" / "final.safetensors"))
    weights = (tmp_path / "alone" / "final.safetensors").read_bytes()
    folder, drawn = tmp_path / "killed", random.Random(0)
    command = [sys.executable, training_run.__file__, str(folder), "children"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for _ in range(20):
            parent.stdin.write("\n")
            child = int(parent.stdout.readline())
            time.sleep(drawn.random() * 0.6)
            os.kill(child, signal.SIGKILL)  # a process that has ended is reaped only after the next line
            assert parent.stdout.readline() == "ended\n"
            if (folder / "final.safetensors").exists():
                assert (folder / "losses.csv").read_bytes() == expected
                shutil.rmtree(folder)
    subprocess.run([sys.executable, training_run.__file__, str(folder)], env=environment, check=True)
    assert (folder / "losses.csv").read_bytes() == expected
    assert (folder / "final.safetensors").read_bytes() == weights


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_state_is_passed_over_for_the_one_before(
    name: str, damage: str, whole: tuple[bytes, Any], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(8))
    path = tmp_path / "states" / "step-00000006" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "changed" else content[:-10])
    with pytest.warns(UserWarning, match=r"step-00000006 is damaged .* resumes from the state after step 3$"):
        _, model = go(tmp_path)
    assert same(tmp_path, model, whole)


def test_two_states_are_kept_and_nothing_else(tmp_path: Path) -> None:
    go(tmp_path)
    assert sorted(p.name for p in (tmp_path / "states").iterdir()) == ["step-00000009", "step-00000012"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["losses.csv", "states"]


def test_a_finished_run_trains_no_further_and_gives_its_weights(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    go(tmp_path)
    (tmp_path / "states" / ".saving").mkdir()  # of a process that was killed
    shutil.copytree(tmp_path / "states" / "step-00000009", tmp_path / "states" / "step-00000006")
    history, model = go(tmp_path, batches=stopping_at(0))
    assert same(tmp_path, model, whole)
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == ["step-00000009", "step-00000012"]
    assert len(history.steps) == 12


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    go(tmp_path)
    with pytest.raises(minibert.MinibertError, match=r"settings\.learning_rate: 0\.001, now 0\.002"):
        go(tmp_path, settings=replace(SETTINGS, learning_rate=2e-3))
    with pytest.raises(minibert.MinibertError, match=r"data: 'random', now 'other'"):
        go(tmp_path, identity={"data": "other", "model": "tiny"})


def test_another_machine_is_told_before_it_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(5))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        told = rf"other threads \({threads + 1}, not {threads}\): the last bits may differ"
        with pytest.warns(UserWarning, match=told):
            go(tmp_path)
    finally:
        torch.set_num_threads(threads)


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    def batches(number: int) -> Any:
        if number == 4:
            signal.raise_signal(signal.SIGINT)
        return CASE.examples(number)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 5 of 12; run it again to resume"):
        go(tmp_path, batches=batches)
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "states" / "step-00000005").is_dir()
    _, model = go(tmp_path)
    assert same(tmp_path, model, whole)


def test_sigterm_is_passed_on_once_the_step_is_saved(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    def batches(number: int) -> Any:
        if number == 4:
            signal.raise_signal(signal.SIGTERM)
        return CASE.examples(number)

    passed_on: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: passed_on.append(number))
    try:
        with (
            pytest.warns(UserWarning, match="stopped after step 5 of 12; run it again to resume"),
            pytest.raises(KeyboardInterrupt),
        ):
            go(tmp_path, batches=batches)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert passed_on == [signal.SIGTERM]
    _, model = go(tmp_path)
    assert same(tmp_path, model, whole)


def test_ctrl_c_after_the_last_step_is_not_lost(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    def evaluate(done: int) -> dict[str, float]:
        if done == 12:
            signal.raise_signal(signal.SIGINT)
        return {}

    with pytest.raises(KeyboardInterrupt, match="stopped after the last step; run it again for the result"):
        go(tmp_path, evaluate=evaluate)
    _, model = go(tmp_path, evaluate=lambda _: {})
    assert same(tmp_path, model, whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def batches(number: int) -> Any:
        if number == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return CASE.examples(number)

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, batches=batches)
    assert not (tmp_path / "states" / "step-00000005").exists()


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(go(tmp_path)))
    thread.start()
    thread.join()
    assert len(found[0][0].steps) == 12


def test_a_full_disk_keeps_the_state_before_and_says_so(
    whole: tuple[bytes, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, saves = state.save_tensors, 0

    def full(*arguments: Any) -> None:
        nonlocal saves
        saves += 1
        if saves > 3:  # the weights of the second save fit, its optimizer does not
            Path(arguments[1]).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(*arguments)

    monkeypatch.setattr(state, "save_tensors", full)
    with pytest.raises(OSError, match=r"the state after step 6 could not be written .*No space left on device") as told:
        go(tmp_path)
    assert str(tmp_path / "states") in str(told.value)
    assert [p.name for p in (tmp_path / "states").iterdir()] == ["step-00000003"]
    monkeypatch.undo()
    _, model = go(tmp_path)
    assert same(tmp_path, model, whole)


def test_a_diverging_run_names_the_step_and_its_texts_and_keeps_the_last_state(tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=1e30, warmup=0.5)
    with pytest.raises(DivergenceError, match=r"step \d+ must be finite.*\('text of'.*; .*state") as raised:
        go(tmp_path, settings=settings, describe=lambda example: "text of", save_every=1)
    number = raised.value.number
    assert (tmp_path / "states" / f"step-{number:08d}").is_dir()  # the number of steps before it
    rows = list(csv.DictReader((tmp_path / "losses.csv").read_text().splitlines()))
    assert len(rows) == number


def test_one_folder_is_for_one_process(tmp_path: Path) -> None:
    def batches(number: int) -> Any:
        with pytest.raises(BlockingIOError, match="another process trains in"):
            go(tmp_path)
        raise Killed

    with pytest.raises(Killed):
        go(tmp_path, batches=batches)


@pytest.mark.slow
def test_a_run_killed_anywhere_while_it_resumes_ends_as_if_it_had_not_been(
    whole: tuple[bytes, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opening, renaming and removal of a file before the first step is a place to die, before it and after it."""
    begun = tmp_path / "begun"
    with pytest.raises(Killed):
        go(begun, batches=stopping_at(8))
    resuming, deaths = True, 0

    def dying(original: Callable[..., Any], left: list[int], after: bool) -> Callable[..., Any]:
        def run(*arguments: Any, **settings: Any) -> Any:
            left[0] -= resuming
            if left[0] == 0 and not after:
                raise Killed
            result = original(*arguments, **settings)
            if left[0] == 0:
                if hasattr(result, "close"):
                    result.close()
                raise Killed
            return result

        return run

    def first_step(number: int) -> Any:
        nonlocal resuming
        resuming = False
        raise Killed

    for after in (False, True):
        resuming, die_at = True, 0
        while resuming:
            die_at += 1
            folder = shutil.copytree(begun, tmp_path / f"{die_at}-{after}")
            with monkeypatch.context() as patched:
                left = [die_at]
                for name in ("open", "replace", "unlink", "chmod"):
                    patched.setattr(Path, name, dying(getattr(Path, name), left, after))
                with pytest.raises(Killed):
                    go(folder, batches=first_step)
            deaths += resuming
            _, model = go(folder)
            assert same(folder, model, whole), (die_at, after)
    assert deaths >= 12


def test_damaged_states_of_later_steps_do_not_displace_good_ones(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(8))
    (tmp_path / "states" / "step-00000006" / "weights.safetensors").write_bytes(b"")

    def batches(number: int) -> Any:
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return CASE.examples(number)

    with pytest.warns(UserWarning, match="after step 3"), pytest.raises(KeyboardInterrupt):
        go(tmp_path, batches=batches)
    assert sorted(p.name for p in (tmp_path / "states").iterdir()) == ["step-00000003", "step-00000004"]
    _, model = go(tmp_path)
    assert same(tmp_path, model, whole)


def test_a_run_whose_states_are_all_damaged_says_that_it_starts_over(whole: tuple[bytes, Any], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(8))
    for path in (tmp_path / "states").glob("*/weights.safetensors"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match=r"step-00000006 .*step-00000003 is damaged .*; training starts over"):
        _, model = go(tmp_path)
    assert same(tmp_path, model, whole)


@pytest.mark.parametrize("at", [30, 60, 90])
def test_losses_that_were_changed_are_not_resumed(at: int, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(5))
    whole = (tmp_path / "losses.csv").read_bytes()
    for flipped in (whole[at] ^ 1, 0xFF):
        (tmp_path / "losses.csv").write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])
        with pytest.raises(minibert.MinibertError, match=r"losses\.csv must have the losses .* as they were written"):
            go(tmp_path)


@pytest.mark.parametrize("content", [None, "number,loss\n", "number,loss\n0,1\n1,2"])
def test_a_run_whose_losses_are_gone_does_not_go_on_without_them(content: str | None, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(5))
    if content is None:
        lines = (tmp_path / "losses.csv").read_text().splitlines(keepends=True)
        content = "".join(lines[:1] + lines[2:])
    (tmp_path / "losses.csv").write_text(content)
    with pytest.raises(minibert.MinibertError, match=r"losses\.csv must have the losses of the 3 steps"):
        go(tmp_path)
    assert (tmp_path / "losses.csv").read_text() == content


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
@pytest.mark.parametrize(
    ("most", "message"),
    [
        (50_000, "the state after step 6 could not be written to"),
        (350, r"losses\.csv could not be written after step 6"),
    ],
)
def test_a_system_that_refuses_to_write_keeps_the_state_before(
    most: int, message: str, whole: tuple[bytes, Any], tmp_path: Path
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def batches(number: int) -> Any:
        if number == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        return CASE.examples(number)

    try:
        with pytest.raises(OSError, match=f"{message}.*make room, and start again"):
            go(tmp_path, batches=batches)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in (tmp_path / "states").iterdir()] == ["step-00000003"]
    _, model = go(tmp_path)
    assert same(tmp_path, model, whole)


def test_an_undefined_metric_is_the_lowest(tmp_path: Path) -> None:
    scores = {4: float("nan"), 8: -0.5, 12: float("nan")}
    history, _ = go(tmp_path, evaluate=lambda done: {"score": scores[done]}, evaluate_every=4, best="score")
    assert history.best == {"step": 8, "score": -0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"best": "score"}, r"best \('score'\) must be given with evaluate"),
        ({"patience": 2, "evaluate": lambda _: {"score": 1.0}}, r"patience \(2\) must be given with best"),
        ({"best": "f1", "evaluate": lambda _: {"score": 1.0}}, r"best \('f1'\) must be one of the metrics step, score"),
    ],
)
def test_a_metric_that_nothing_returns_is_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(minibert.MinibertError, match=message):
        go(tmp_path, **arguments)


def test_damaged_best_weights_are_refused_by_name(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"evaluate": scored, "evaluate_every": 2, "best": "score"}
    go(tmp_path, **arguments)
    (tmp_path / "states" / "best-00000010" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(minibert.MinibertError, match=r"the best weights \(.*best-00000010\) must be as they were"):
        go(tmp_path, **arguments)


SCORES = {2: 0.1, 4: 0.5, 6: 0.4, 8: 0.3, 10: 0.6, 12: 0.2}


def scored(done: int) -> dict[str, float]:
    """An evaluation with fixed results."""
    return {"score": SCORES[done], "loss": 1.0}


def test_the_best_weights_come_back_at_the_end(tmp_path: Path) -> None:
    seen: dict[int, Any] = {}
    model = training_run.new_model()

    def evaluate(done: int) -> dict[str, float]:
        assert not model.training
        seen[done] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return scored(done)

    history = training_run.run_in_folder(
        model, CASE.examples, training_run.TextLabels(), SETTINGS, tmp_path, identity={}, save_every=5,
        evaluate=evaluate, evaluate_every=2, best="score", show_progress_bar=False,
    )  # fmt: skip
    assert history.best == {"step": 10, "score": 0.6, "loss": 1.0}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in seen[10].items())
    assert not torch.equal(seen[10]["classifier.weight"], seen[12]["classifier.weight"])
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in rows] == list(SCORES.values())


@pytest.mark.parametrize("step", [None, 5, 9])
def test_patience_stops_at_the_same_step_whether_the_run_was_killed_or_not(step: int | None, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"evaluate": scored, "evaluate_every": 2, "best": "score", "patience": 2}
    if step is not None:
        with pytest.raises(Killed) if step < 8 else pytest.MonkeyPatch.context():
            go(tmp_path, batches=stopping_at(step), **arguments)
    history, _ = go(tmp_path, **arguments)
    assert history.stopped_early
    assert [e["step"] for e in history.evaluations] == [2, 4, 6, 8]
    assert len(history.steps) == 8
    assert history.best is not None
    assert history.best["step"] == 4
    again, _ = go(tmp_path, **arguments, batches=stopping_at(8))
    assert len(again.steps) == 8


def test_the_best_weights_of_an_older_state_survive_a_kill_after_better_ones(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"evaluate_every": 2, "best": "score"}
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(5), evaluate=lambda done: {"score": {2: 1.0, 4: 2.0}[done]}, **arguments)
    assert {path.name for path in (tmp_path / "states").glob("best-*")} == {"best-00000002", "best-00000004"}
    # on another CPU, say, the evaluation after step 4 is worse this time
    history, model = go(tmp_path, evaluate=lambda done: {"score": 1.0 / done}, **arguments)
    assert history.best == {"step": 2, "score": 1.0}
    _, expected = go(tmp_path / "other", evaluate=lambda done: {"score": 1.0 / done}, **arguments)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    assert [path.name for path in (tmp_path / "states").glob("best-*")] == ["best-00000002"]


def test_states_are_plain_tensors_and_json(tmp_path: Path) -> None:
    go(tmp_path)
    folder = tmp_path / "states" / "step-00000012"
    assert sorted(path.name for path in folder.iterdir()) == [
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    facts = json.loads((folder / "state.json").read_text())["state"]
    assert facts["step"] == 12
    assert facts["identity"]["settings"]["learning_rate"] == 1e-3
    assert Checkpoints(tmp_path / "states").newest() == facts


def test_a_resumed_run_does_not_depend_on_the_files_of_its_state(tmp_path: Path) -> None:
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    states = Checkpoints(tmp_path)
    states.save(1, model, optimizer, {})
    other = torch.nn.Linear(64, 64)
    resumed = torch.optim.AdamW(other.parameters())
    assert states.load(other, resumed) is not None
    for path in tmp_path.rglob("*.safetensors"):
        with path.open("r+b") as file:  # where it is mapped, the numbers in memory change, too
            file.write(bytes(path.stat().st_size))
    for ours, expected in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(resumed.state[ours]["exp_avg"], optimizer.state[expected]["exp_avg"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("history", "the history in a state of .* must be as it was written"),
        ("identity", "has a run with other settings"),
        ("machine", "is resumed with other cpu"),
    ],
)
def test_a_state_that_lacks_a_part_is_told(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=stopping_at(7))
    for path in (tmp_path / "states").glob("*/state.json"):
        written = json.loads(path.read_text())
        del written["state"][name]
        path.write_text(json.dumps({"state": written["state"], "digest": state._digest_of(written["state"])}))
    with pytest.raises((minibert.MinibertError, UserWarning), match=message):
        go(tmp_path)
