"""One holder of a lock at a time, and what becomes of the lock of a holder that is killed."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minibert.pretrained.files import locked

HOLD = """
import sys
from pathlib import Path
from minibert.pretrained.files import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_another_process_holds_the_lock_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=r"^somebody else writes$"), locked(path, "somebody else writes"):
            pass
        holder.kill()
        holder.wait()
        with locked(path, "busy"):
            pass
    assert not path.exists()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    fcntl = pytest.importorskip("fcntl", reason="Windows locks in another way")
    monkeypatch.setattr(fcntl, "flock", flock)
    message = r"this file system has no locks \(Function not implemented\), which would keep other processes from"
    with pytest.warns(UserWarning, match=message), locked(tmp_path / "lock", "busy"):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_lock_that_is_waited_for_has_one_holder_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "lock", [0], [0]

    def count() -> None:
        for _ in range(200):  # the file is removed by each holder while others are opening it
            with locked(path, "busy", wait=True):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
