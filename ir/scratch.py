"""Temporary folders that never outlive their process for long: removed when the work ends, by the next run if it was
killed.

Whoever works in such a folder holds a lock on it, which the kernel drops with the process however it ends. A folder
that can be locked is dead. (Process ids would not tell: containers that share a disk have others.)
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .disk import MARK, TMPDIR, write_error, writing
from .replacing import Replacement
from .signals import shielded

_JOURNAL = ".put"  # what is being replaced, and by what, lies in a folder `.NAME.put.mlc-tmp-...`
_LONGEST = 100  # characters of NAME: what can be written must not fail because of where it is built


@contextmanager
def scratch(stem: str, parent: Path | None = None) -> Iterator[Path]:
    """An empty folder of one's own in `parent` (None: where temporary files go), gone when the block ends.

    Errors: OUTPUT, also for whatever in the block fails because nothing can be written there.
    """
    home = parent if parent is not None else Path(tempfile.gettempdir())
    sweep(home)
    folder, lock = None, None
    elsewhere = TMPDIR if parent is None else ""
    with writing(home, elsewhere):
        try:
            with shielded():
                try:
                    folder, lock = _locked(home, stem)
                except OSError as cause:
                    raise write_error(home, cause, elsewhere) from cause
            yield folder
        finally:
            with shielded():
                if folder is not None and lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)


def put_in_place(built: Mapping[Path, Path]) -> None:
    """Replace neighbours, all or none: `built` says what goes where, the last of them decides. A failure leaves the old
    ones; after a kill the next run finishes it, or takes it back.

    Errors: OUTPUT when nothing can be written there.
    """
    *_, last = built
    with scratch(f"{last.name[:_LONGEST]}{_JOURNAL}", last.parent) as folder:
        Replacement(folder).carry_out(built)


def sweep(home: Path) -> None:
    """Remove what killed runs of this user left in a folder, and finish what they were putting in place."""
    try:
        found = [Path(entry.path) for entry in os.scandir(home) if MARK in entry.name]
    except OSError:
        return  # who wants to write there is told why that fails
    for folder in found:
        _sweep(folder)


def _sweep(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # gone by now, or no folder, or of somebody else
    try:
        if os.fstat(lock).st_uid == os.getuid() and _lock(lock):
            if folder.name.partition(MARK)[0].endswith(_JOURNAL):
                Replacement(folder).settle()
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # it cannot be settled, and stays: who wants to write there is told why that fails
    finally:
        os.close(lock)


def _locked(home: Path, stem: str) -> tuple[Path, int]:
    """A new folder and the descriptor that locks it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{stem[: _LONGEST + len(_JOURNAL)]}{MARK}", dir=home))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if _lock(lock, unsupported=True) and _is_there(folder):
            return folder, lock
        os.close(lock)  # another run took it for dead before it was locked


def _lock(descriptor: int, *, unsupported: bool = False) -> bool:
    """Whether the folder could be locked; `unsupported` where the file system has no such locks, as some of networks:
    folders there are nobody's to remove."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        return unsupported and cause.errno not in (errno.EWOULDBLOCK, errno.EINTR)
    return True


def _is_there(folder: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(folder).st_mode)
    except FileNotFoundError:
        return False
