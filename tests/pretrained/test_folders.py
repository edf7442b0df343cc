"""Folders that are no checkpoints, or may not be read, are named as what they are."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from oracle import theirs_of

import minibert
from minibert.pretrained.files import is_file, is_folder, place

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440449768\n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    theirs_of("BertForMaskedLM", tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_folder_that_hides_a_name_of_the_hub_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("them/base").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match="it is empty; if you mean a repository of the Hub of this name, rename"
    ):
        minibert.load("them/base")
    Path("them/base/notes.txt").touch()
    with pytest.raises(
        FileNotFoundError, match="can be loaded: if you mean a repository of the Hub of this name, rename"
    ):
        minibert.load("them/base")
    with pytest.raises(FileNotFoundError, match=r"can be loaded$"):
        minibert.load(tmp_path / "them" / "base")


def test_the_model_of_an_adapter_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "them/base"}))
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(
        FileNotFoundError, match=r"it holds a PEFT adapter alone; load its base model with peft \(them/base"
    ):
        minibert.load(tmp_path)


def test_a_pointer_of_git_lfs_is_told_for_json_too(tiny: Path) -> None:
    (tiny / "config.json").write_text(POINTER)
    with pytest.raises(
        minibert.MinibertError, match=r"config\.json must hold JSON, but it is a pointer of Git LFS to the"
    ):
        minibert.load(tiny)


def test_a_pointer_in_the_place_of_a_shard_is_told(tiny: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    (tiny / "model.safetensors").unlink()
    (tiny / shard).write_text(POINTER)
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(minibert.MinibertError, match=f"{shard} must hold weights, but it is a pointer of Git LFS"):
        minibert.BertModel.from_pretrained(tiny)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user whom rights bind; root reads everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("Windows has other rights")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["", "config.json", "model.safetensors", "above"])
def test_what_may_not_be_read_is_a_matter_of_rights(tiny: Path, closed: str) -> None:
    base = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others already
    try:
        folder = Path(shutil.copytree(tiny, base / "above" / "model"))
        for path in (base, *base.rglob("*")):
            path.chmod(0o755)
        with as_nobody():
            minibert.BertConfig.from_pretrained(folder)  # what imports must be read has been
        at = base / "above" if closed == "above" else folder / closed
        at.chmod(0o000)
        try:
            with as_nobody(), pytest.raises(PermissionError):
                minibert.BertForMaskedLM.from_pretrained(folder)
        finally:
            at.chmod(0o755)
    finally:
        shutil.rmtree(base)


def test_rights_are_not_taken_for_absence_whatever_pathlib_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    original = Path.stat

    def stat(self: Path, **keywords: bool) -> os.stat_result:
        if tmp_path in self.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return original(self, **keywords)

    monkeypatch.setattr(Path, "stat", stat)
    for ask in (is_file, is_folder):
        with pytest.raises(PermissionError, match=r"a must be readable by this user; it or its folder is not"):
            ask(tmp_path / "a")
    with pytest.raises(PermissionError, match="must be readable by this user"):
        place(tmp_path, "config.json")
    with pytest.raises(PermissionError, match="must be readable by this user"):
        minibert.load(tmp_path / "model")


def test_paths_that_cannot_be_are_absent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("none", "file/below", "loop", "a" * 300, "a\0b", "\udc80"):
        assert not is_file(tmp_path / name)
        assert not is_folder(tmp_path / name)
    for name in ("a\0b", "\udc80", "字" * 200):
        with pytest.raises(minibert.MinibertError, match="must be a folder"):
            minibert.load(name)
