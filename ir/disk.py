"""What the system says when something cannot be written, as errors that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import Code, Diagnostic, MlcError, ResourceError

#: In the names of temporary folders (scratch.py), which mean nothing to the user. Where temporary files go they start
#: with `.mlc-`; those beside an output start with its name.
MARK = ".mlc-tmp-"
PathLike = str | os.PathLike[str]

#: No more fits: exit 4.
_FULL = {
    errno.ENOSPC: "the disk of {} is full",
    errno.EDQUOT: "your quota on the disk of {} is used up",
    errno.EFBIG: "a file in {} would be larger than allowed",
}
#: Writing is not wanted there: exit 2. Other failures may have nothing to do with what is written.
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
_ELSEWHERE, TMPDIR = "choose another place", "set TMPDIR to another place"
_ROOM = {errno.EFBIG: "see ulimit -f, and the limits of the file system"}


def write_error(place: PathLike, cause: OSError, elsewhere: str = "") -> MlcError:
    """The error for something that cannot be written in `place`."""
    inner = next((p for p in reversed((Path(place), *Path(place).parents)) if MARK in p.name), None)
    home = place if inner is None else inner.parent
    other = elsewhere or (TMPDIR if inner is not None and inner.name.startswith(".mlc-") else _ELSEWHERE)
    known = _FULL.get(cause.errno or 0)
    if known is not None:
        help = f"{_ROOM.get(cause.errno or 0, 'make room')}, or {other}"
        return ResourceError(Diagnostic(Code.OUTPUT, known.format(repr(str(home))), help=help))
    return MlcError(Diagnostic(Code.OUTPUT, f"cannot write in {str(home)!r}: {cause.strerror}", help=other))


@contextmanager
def writing(place: PathLike, elsewhere: str = "") -> Iterator[None]:
    """Failures of writing in `place` as errors. `elsewhere` says how to choose another place.

    Errors: OUTPUT; with exit 4 where no more fits.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno in _FULL or (cause.errno in _REFUSED and _is_in(cause.filename, place)):
            raise write_error(place, cause, elsewhere) from cause
        raise


def _is_in(name: object, place: PathLike) -> bool:
    """Whether a file that cannot be used lies in `place`; the system does not always name it."""
    home = os.path.abspath(place)
    return not isinstance(name, str) or os.path.commonpath([home, os.path.abspath(name)]) == home
