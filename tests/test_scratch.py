"""Temporary folders: nobody removes a live one, and somebody removes every dead one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from mlc.ir.errors import MlcError
from mlc.ir.scratch import scratch, sweep
from mlc.ir.signals import shielded

_HEAD = "import os, signal, sys\nfrom pathlib import Path\nfrom mlc.ir.scratch import scratch\nhome = Path()\n"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_live_folder_stays_and_a_dead_one_goes(tmp_path: Path) -> None:
    body = "with scratch('x', home) as f:\n    (f / 'part').touch()\n    print(flush=True)\n    sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", _HEAD + body], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sweep(tmp_path)
        assert len(names(tmp_path)) == 1
        with scratch("y", tmp_path):
            assert len(names(tmp_path)) == 2
        process.kill()
        process.wait()
        assert len(names(tmp_path)) == 1
    with scratch("y", tmp_path):
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []


def test_what_nobody_of_ours_made_stays(tmp_path: Path) -> None:
    (tmp_path / "a.mlc-tmp-file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "a.mlc-tmp-link").symlink_to(tmp_path / "other")
    sweep(tmp_path)
    assert names(tmp_path) == ["a.mlc-tmp-file", "a.mlc-tmp-link", "other"]


def test_a_folder_that_others_took_for_dead_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run clears up in the instant before it is locked."""
    make = tempfile.mkdtemp
    swept: list[str] = []

    def slowly(**options: str) -> str:
        folder = make(**options)
        if len(swept) < 2:
            swept.append(folder)
            sweep(tmp_path)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", slowly)
    with scratch("x", tmp_path) as folder:
        assert folder.is_dir()
        assert str(folder) not in swept
    assert names(tmp_path) == []


def test_long_names(tmp_path: Path) -> None:
    with scratch("n" * 255, tmp_path) as folder:
        assert folder.is_dir()


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MlcError, match="No such file or directory"), scratch("x", tmp_path / "none"):
        pass


def test_signals_wait() -> None:
    done = []

    def work() -> None:
        with shielded():
            with shielded():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_threads_have_no_signals_to_hold() -> None:
    done: list[bool] = []

    def work() -> None:
        with shielded():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
