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
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .disk import MARK, TMPDIR, write_error, writing
from .errors import Code, error
from .replacing import Replacement
from .signals import shielded

_JOURNAL = ".put"  # what is being replaced, and by what, lies in a folder `.NAME.put.mlc-tmp-...`
_TURN = ".turn"  # whoever puts something in place locks the folder `.NAME.turn.mlc-tmp-`
_PATIENCE, _PAUSE = 60.0, 0.02  # seconds: how long others may take to move files, and how often one looks
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


def put_in_place(built: Mapping[Path, Path], refuse: Callable[[], None] = lambda: None) -> None:
    """Replace neighbours, all or none: `built` says what goes where, the last of them decides. A failure leaves the old
    ones; after a kill the next run finishes it, or takes it back.

    Runs with the same places take turns, and `refuse` may raise when it is one's own. Where the file system has no
    locks they do not: what two of them put there at once may be mixed.

    Errors: OUTPUT when nothing can be written there.
    """
    *_, last = built
    name = last.name[:_LONGEST]
    with _turn(last.parent, name):
        sweep(last.parent, turn=name)
        refuse()
        with shielded(), scratch(f"{name}{_JOURNAL}", last.parent) as folder:
            Replacement(folder).carry_out(built)


@contextmanager
def _turn(home: Path, name: str) -> Iterator[None]:
    """Nobody else puts `name` in place during the block. Errors: OUTPUT when others do not end."""
    folder, lock, end = _turn_of(home, name), None, time.monotonic() + _PATIENCE
    try:
        while lock is None:
            with shielded():
                try:
                    lock = _taken(folder)
                except OSError as cause:
                    raise write_error(home, cause) from cause
            if lock is None and time.monotonic() > end:
                problem = f"another run has been putting {name!r} in place for {_PATIENCE:.0f} seconds"
                raise error(Code.OUTPUT, problem, help="end it, or choose another -o")
            if lock is None:
                time.sleep(_PAUSE)
        yield
    finally:
        if lock is not None:
            _release(folder, lock)


def _turn_of(home: Path, name: str) -> Path:
    return home / f".{name}{_TURN}{MARK}"


def _taken(folder: Path) -> int | None:
    """The descriptor that locks a folder, which is made if it is not there; None while somebody else has it."""
    with suppress(FileExistsError):
        os.mkdir(folder)
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None  # the run before removed it
    if _lock(lock, unsupported=True) and _is_there(folder, lock):
        return lock
    os.close(lock)
    return None


def _release(folder: Path, lock: int) -> None:
    with shielded():
        with suppress(OSError):  # of another user in a shared folder: whoever comes next takes it as it is
            os.rmdir(folder)
        os.close(lock)


def sweep(home: Path, *, turn: str = "") -> None:
    """Remove what killed runs of this user left in a folder, and finish what they were putting in place. `turn` names
    what nobody else puts there now; what others are busy with is left to them."""
    try:
        found = [Path(entry.path) for entry in os.scandir(home) if MARK in entry.name]
    except OSError:
        return  # who wants to write there is told why that fails
    for folder in found:
        journal = folder.name.partition(MARK)[0].removeprefix(".")
        name = journal.removesuffix(_JOURNAL)
        if name in (journal, turn):
            _sweep(folder)
        else:
            _sweep_in_turn(folder, name)


def _sweep_in_turn(folder: Path, name: str) -> None:
    """Finish a journal unless somebody is putting something in the same place."""
    own = _turn_of(folder.parent, name)
    try:
        lock = _taken(own)
    except OSError:
        return  # who wants to write there is told why that fails
    if lock is not None:
        try:
            _sweep(folder)
        finally:
            _release(own, lock)


def _sweep(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # gone by now, or no folder, or of somebody else
    try:
        if os.fstat(lock).st_uid == os.getuid() and _lock(lock) and _is_there(folder, lock):
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
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another run took it for dead before it was locked
        if _lock(lock, unsupported=True) and _is_there(folder, lock):
            return folder, lock
        os.close(lock)  # the same


def _lock(descriptor: int, *, unsupported: bool = False) -> bool:
    """Whether the folder could be locked; `unsupported` where the file system has no such locks, as some of networks:
    folders there are nobody's to remove."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        return unsupported and cause.errno not in (errno.EWOULDBLOCK, errno.EINTR)
    return True


def _is_there(folder: Path, descriptor: int) -> bool:
    """Whether a folder that was opened still lies where it did: others may have removed it before it was locked."""
    try:
        return os.path.samestat(os.lstat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return False
