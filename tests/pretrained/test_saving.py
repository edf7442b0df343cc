"""A model is saved whole or not at all: killed at every moment, read meanwhile, beside files of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from saved_models import made, numbers, numbers_of_files

import minibert
from minibert.pretrained.checkpoint import Checkpoint
from minibert.pretrained.files import folder_written_whole

KILLS = """
import os, signal, sys
from pathlib import Path
import minibert
from saved_models import made, numbers, numbers_of_files

folder = Path(sys.argv[1])
left = None  # file operations before the process is killed
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "os.listdir", "shutil.rmtree")

def dies(event, arguments):
    global left
    if left is not None and event in OPERATIONS:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

sys.addaudithook(dies)
old, new = made(1), made(2)
old.save_pretrained(folder)
(folder / "README.md").write_text("mine")
kills, found = 0, set()
while True:
    process = os.fork()
    if process == 0:
        left = kills
        new.save_pretrained(folder)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if not os.WIFSIGNALED(status):
        break
    kills += 1
    loaded = numbers(minibert.load(folder))
    assert loaded in ({1}, {2}), (kills, loaded)
    found |= loaded
    if (folder / "config.json").exists():  # without it, no other program takes the folder for a model
        assert numbers_of_files(folder) in ({1}, {2}), (kills, numbers_of_files(folder))
    old.save_pretrained(folder)  # however the last one ended
    assert numbers_of_files(folder) == {1}
    assert (folder / "README.md").read_text() == "mine"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
assert found == {1, 2}
print(kills)
"""


@pytest.mark.slow
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


@pytest.mark.parametrize("part", ["model", "tokenizer", "recipe"])
def test_a_save_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    made(1).save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    new = made(2)

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    for kind, name in (("model", "save_pretrained"), ("tokenizer", "save_pretrained"), ("recipe", "save")):
        if kind == part:
            monkeypatch.setattr(type(getattr(new, kind)), name, fail)
    with pytest.raises(OSError, match="No space left"):
        new.save_pretrained(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("times", [1, 3])
def test_a_model_that_is_saved_while_it_is_loaded_is_loaded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    made(0).save_pretrained(tmp_path)
    opened, saved = Checkpoint.open, [0]

    def saves_meanwhile(repository: Any) -> Checkpoint:  # recipe, configuration and tokenizer have been read
        if saved[0] < times:
            saved[0] += 1
            made(saved[0] % 3).save_pretrained(tmp_path)
        return opened(repository)

    monkeypatch.setattr(Checkpoint, "open", saves_meanwhile)
    assert numbers(minibert.load(tmp_path)) == {times % 3}
    saved[0] = 0
    model = minibert.BertModel.from_pretrained(tmp_path)
    assert {model.config.pad_token_id} == set(model.embeddings.token.weight.unique().tolist())


def test_a_folder_that_never_rests_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(0).save_pretrained(tmp_path)
    opened = Checkpoint.open
    monkeypatch.setattr(
        Checkpoint, "open", lambda repository: (made(1).save_pretrained(tmp_path), opened(repository))[1]
    )
    with pytest.raises(OSError, match=r"must not change while it is loaded; load it when it has been written"):
        minibert.load(tmp_path)


def test_a_save_that_was_cut_off_last_is_loaded_from_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(1).save_pretrained(tmp_path)
    replace = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if target.parent == tmp_path:
            raise PermissionError("mapped by another")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(PermissionError, match="mapped by another"):
            made(2).save_pretrained(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert numbers(minibert.load(tmp_path)) == {2}
    assert sorted(tmp_path.rglob("*")) == before
    made(0).tokenizer.save_pretrained(tmp_path)  # any save finishes it first
    assert numbers_of_files(tmp_path) == {0, 2}


def test_loaded_weights_outlive_the_file_that_they_are_mapped_from(tmp_path: Path) -> None:
    made(1).save_pretrained(tmp_path)
    loaded = minibert.load(tmp_path)
    made(2).save_pretrained(tmp_path)
    assert numbers(loaded) == {1}
    loaded.save_pretrained(tmp_path)
    assert numbers(minibert.load(tmp_path)) == numbers(loaded) == {1}


def test_the_folder_stays_the_folder_that_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("mine")
    link.symlink_to(folder)
    monkeypatch.chdir(folder)  # where a user's shell stands
    inode = folder.stat().st_ino
    for target in (".", link):
        made(1).save_pretrained(target)
        assert link.is_symlink()
        assert folder.stat().st_ino == inode
        assert numbers_of_files(Path()) == {1}
        assert (folder / ".git" / "config").read_text() == "mine"


def test_new_files_are_on_the_disk_before_they_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync, rename = set(), os.fsync, Path.rename

    def note(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def check(path: Path, target: Path) -> Path:
        assert {new.stat().st_ino for new in (path, *path.rglob("*"))} <= synced
        synced.clear()
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", check)
    with folder_written_whole(tmp_path) as new:
        (new / "inside").mkdir()
        (new / "inside" / "a").write_text("a")
        (new / "b").write_text("b")
    assert tmp_path.stat().st_ino in synced
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "inside"]
