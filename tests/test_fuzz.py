"""The fuzzer: it finds faults that are put there for it, and the same case is the same again."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from itertools import islice, product
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"
# Targets that read a file well while it is as it was.
FAULTS = """
import os, signal, sys
from pathlib import Path

sys.path.insert(0, {folder!r})
import worker
from targets import Target, command
from minibert import MinibertError


class Panic(BaseException):
    pass


def panic():
    raise Panic("a library of Rust")


def refuse(message, kind=MinibertError):
    raise kind(message)


def spin():
    while True:
        pass


def build(folder):
    (folder / "a.json").write_text('{{"a": 1}}')


def target(fault, vouched=()):
    def read(folder, changed):
        path = folder / "a.json"
        return 0 if path.is_file() and path.read_bytes() == b'{{"a": 1}}' else fault()

    return Target(build, read, ("a.json",), vouched, share=2)


worker.SECONDS = 1
worker.serve({{
    "fine": target(lambda: 1),
    "refused": target(lambda: refuse("a (1) must be 2; correct it")),
    "absent": target(lambda: refuse("no such file", FileNotFoundError)),
    "bug": target(lambda: {{}}["a"]),
    "system": target(lambda: os.listdir("x" * 1000)),
    "two-lines": target(lambda: refuse("one\\ntwo", FileNotFoundError)),
    "long": target(lambda: refuse("x" * 6000, FileNotFoundError)),
    "silent": target(lambda: refuse("")),
    "changed": target(lambda: 1, ("a.json",)),
    "memory": target(lambda: bytearray(2 * 10**9)),
    "writes": target(lambda: Path("outside/new").write_text("")),
    "reads": target(lambda: Path("outside/a.json").read_text()),
    "removes": target(lambda: os.remove("outside/a.json")),
    "program": target(lambda: os.system("true")),
    "crash": target(lambda: signal.raise_signal(signal.SIGSEGV)),
    "endless": target(spin),
    "panic": target(panic),
}})
"""
FOUND = {
    "fine": "accepted",
    "refused": "refused",
    "absent": "refused",
    "bug": "KeyError",
    "system": "OSError",
    "two-lines": "FileNotFoundError with control characters",
    "long": "FileNotFoundError of more than 5,000 characters",
    "silent": "MinibertError without a message",
    "changed": "another result than before the change",
    "memory": "MemoryError",
    "writes": "a file outside the folder written",
    "reads": "a file outside the folder read",
    "removes": "a file outside the folder changed",
    "program": "os.system called",
    "crash": "a crash (SIGSEGV)",
    "endless": "more than 10 s of CPU time (SIGXCPU)",
    "panic": "Panic",
}


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_loader(path.stem, SourceFileLoader(path.stem, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield loaded(TOOLS / "fuzz")
    sys.modules.pop("_setup", None)


@pytest.fixture(scope="module")
def changes() -> ModuleType:
    return loaded(TOOLS / "fuzzing" / "changes.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's time and memory")
def test_every_kind_of_fault_is_found_and_the_next_case_runs(fuzz: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "faults.py").write_text(FAULTS.format(folder=str(TOOLS / "fuzzing")))
    worker = fuzz.Worker([sys.executable, str(tmp_path / "faults.py")], tmp_path / "worker")
    try:
        assert worker.shares == dict.fromkeys(FOUND, 2)
        found = dict.fromkeys(FOUND, "accepted")
        for target, number in product(FOUND, range(9)):  # some changes are none, and some put the digests right
            if found[target] == "accepted":
                found[target] = worker.case(target, number, 0)["outcome"]
        assert found == FOUND
    finally:
        worker.stop()


@pytest.mark.slow
def test_the_same_case_is_the_same_again_in_another_process(fuzz: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "fuzzing" / "worker.py")]
    numbers = range(5)
    runs = []
    for folder in ("one", "two"):
        worker = fuzz.Worker(command, tmp_path / folder)
        try:
            runs.append([worker.case(target, n, 7) for target in ("config", "weights") for n in numbers])
        finally:
            worker.stop()
    assert [answer["change"].replace("/one/", "/two/") for answer in runs[0]] == [
        answer["change"] for answer in runs[1]
    ]
    assert [answer["outcome"] for answer in runs[0]] == [answer["outcome"] for answer in runs[1]]
    assert len({answer["change"] for answer in runs[0]}) > len(numbers)


def test_finds_are_counted_by_outcome_and_place(fuzz: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tally = fuzz.Tally()
    tally.add("index", 1, {"outcome": "refused"})
    for number in (3, 5):
        tally.add("index", number, {"outcome": "KeyError", "where": "minibert/a.py:1", "change": "a"})
    assert capsys.readouterr().out.count("FIND index:3: KeyError") == 1
    *_, target, find, summary = tally.lines()
    assert target.split() == ["index", "0", "accepted,", "1", "refused,", "2", "finds"]
    assert find == "FIND KeyError, at minibert/a.py:1: 2 times, first index:3"
    assert summary == "tools/fuzz: 3 cases in 0 s, 1 kind of finds"


def test_targets_and_cases_that_there_are_not_are_told(fuzz: ModuleType) -> None:
    fuzz.check_targets(["index"], {"index": 1, "rows": 1})
    with pytest.raises(fuzz._setup.SetupError, match=r"the target \(indexes\) must be one of index, rows"):
        fuzz.check_targets(["indexes"], {"index": 1, "rows": 1})
    with pytest.raises(fuzz._setup.SetupError, match=r"the case \(index\) must be a target and a number"):
        fuzz.again([], "index", 0)


def test_rounds_give_every_target_its_share(fuzz: ModuleType) -> None:
    shares = {"a": 2, "b": 1}
    expected = [("a", 0), ("a", 1), ("b", 0), ("a", 2), ("a", 3), ("b", 1)]
    assert list(fuzz.cases(shares, 2, float("inf"))) == expected
    assert list(islice(fuzz.cases(shares, 0, float("inf")), 6)) == expected
    assert list(fuzz.cases(shares, 0, 0.0)) == []


@pytest.mark.parametrize("kind", ["json", "lines", "bytes", "tensors", "archive"])
def test_changes_depend_on_the_random_numbers_alone_and_take_any_content(changes: ModuleType, kind: str) -> None:
    change = getattr(changes, f"changed_{kind}")
    contents = [b"", b"{", b'{"a": [1, "b", {"c": null}]}', b"a,b\n1,2\n", bytes(range(256)), b"[" * 100_000]
    for seed in range(100):
        for content in contents:
            new, what = change(Random(seed), content)
            assert (new, what) == change(Random(seed), content)
            assert isinstance(new, bytes)


def test_a_change_of_json_leaves_the_rest_as_it_was(changes: ModuleType) -> None:
    values = {f"key {i}": i for i in range(50)}
    one_changed = 0
    for seed in range(200):
        try:
            found = json.loads(changes.changed_json(Random(seed), json.dumps(values).encode())[0])
        except (ValueError, RecursionError):  # not JSON any more
            continue
        if isinstance(found, dict) and found.keys() & values.keys():
            differing = [key for key, value in values.items() if found.get(key) != value]
            assert len(differing) <= 2  # two, where a key gets the name of another one
            one_changed += 1
    assert one_changed > 100


def test_digests_are_put_right_wherever_they_stand(changes: ModuleType, tmp_path: Path) -> None:
    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    (tmp_path / "data").write_bytes(b"old")
    facts = {"digests": {"data": digest(b"old")}}
    (tmp_path / "state.json").write_text(json.dumps({"state": facts, "digest": digest(json.dumps(facts).encode())}))
    before = changes.digests_of(tmp_path)
    (tmp_path / "data").write_bytes(b"new")
    changes.put_digests_right(tmp_path, before)
    written = json.loads((tmp_path / "state.json").read_text())
    assert written["state"] == {"digests": {"data": digest(b"new")}}
    assert written["digest"] == digest(json.dumps(written["state"]).encode())


@pytest.mark.parametrize("content", ["", "1e9", "[]", "{}", '{"state": [1e400]}', '"\\ud800"', "[" * 100_000])
@pytest.mark.parametrize("name", ["state.json", "journal"])
def test_what_has_no_place_for_digests_stays_as_it_is(
    changes: ModuleType, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    changes.put_digests_right(tmp_path, {})
    assert (tmp_path / name).exists()
