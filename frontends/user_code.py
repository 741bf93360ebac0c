"""Code of the user's: modules that are executed because a recipe or an option names them, and what they raise."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from ..ir.errors import Code, MlcError, error


def import_module(name: str) -> ModuleType:
    """A module: a file, or one that Python finds, also from the working directory; executed once for what it holds.

    Raises whatever the code raises; ImportError where it ends the program.
    """
    file = Path(name)
    is_file = file.suffix == ".py"
    try:
        with _searched(file.parent if is_file else Path()):
            return _load(file.resolve(), _sha256(file)) if is_file else importlib.import_module(name)
    except SystemExit as ended:
        raise ImportError("it ends the program; put that behind if __name__ == '__main__'") from ended


def told(cause: Exception) -> str:
    """An exception and the line of the user's code that it comes from."""
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if not _is_machinery(f.filename)]
    last = frames[-1] if frames else None
    at = f" ({Path(last.filename).name}, line {last.lineno})" if last is not None else ""
    return f"{type(cause).__name__}: {cause}{at}"


def fault(cause: BaseException) -> MlcError | None:
    """The error for an exception that comes from within a file of the user's; None if none is on its way."""
    frames = [(f, line) for f, line in traceback.walk_tb(cause.__traceback__) if _is_users(f.f_globals)]
    if not frames:
        return None
    frame, line = frames[-1]
    file = frame.f_code.co_filename
    message = f"{Path(file).name!r} raises {type(cause).__name__}: {cause}"
    help = "correct the file; from Python, mlc.compile shows the whole traceback"
    return error(Code.BROKEN_PASS, message, where=f"{file}:{line}", help=help)


def _is_users(names: Mapping[str, object]) -> bool:
    """Whether these are the globals of a file of the user's."""
    return str(names.get("__name__", "")).startswith(_PREFIX)


_PREFIX = "mlc_user_"  # of the names of files as modules


def _is_machinery(file: str) -> bool:
    """Whether a line is of what calls the user's code: ours, or that of imports."""
    return file[0] == "<" or file == importlib.__file__ or Path(file).is_relative_to(_OURS)


_OURS = Path(__file__).parent


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@functools.cache
def _load(file: Path, digest: str) -> ModuleType:
    """The module of a file with this content: its classes and functions stay the same."""
    name = f"{_PREFIX}{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def _searched(folder: Path) -> Iterator[None]:
    """Imports find what lies in a folder, as they do for a script in it."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # the code that was imported may have cleaned up
            sys.path.remove(entry)
