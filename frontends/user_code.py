"""Code of the user's: modules that are executed because a recipe or an option names them, and what they raise.

This is the only place that imports them. Where a block refuses user code (`--no-user-code`), nothing gets past it;
`refusal` says so beforehand, for every place that names some. Passes of installed packages are not found here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType, ModuleType

from ..ir.errors import Code, Diagnostic, MlcError, Span, error

_ALLOWED: ContextVar[bool] = ContextVar("user_code", default=True)


@contextmanager
def user_code(*, allowed: bool) -> Iterator[None]:
    """Whether user code may run in the block; what the block around it refuses stays refused."""
    token = _ALLOWED.set(allowed and _ALLOWED.get())
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def refusal(name: str, instead: str, *, span: Span | None = None, where: str = "") -> Diagnostic | None:
    """What to say of a place that names user code; None where that may run. `instead` is what could stand there."""
    if _ALLOWED.get():
        return None
    help = f"{instead}; or read that code, and leave --no-user-code (user_code=False) out"
    return Diagnostic(Code.USER_CODE, f"{name!r} is Python code, and user code is refused", span, where, help=help)


def import_module(name: str) -> ModuleType:
    """A module: a file, or one that Python finds, also from the working directory; executed once for what it holds.

    Raises whatever the code raises; ImportError where it ends the program; MlcError where user code is refused.
    """
    refused = refusal(name, "do without it")
    if refused is not None:
        raise MlcError(refused)
    file = Path(name)
    is_file = file.suffix == ".py"
    try:
        with _searched(file.parent if is_file else Path()):
            return _load(file.resolve(), _sha256(file)) if is_file else importlib.import_module(name)
    except SystemExit as ended:
        raise ImportError("it ends the program; put that behind if __name__ == '__main__'") from ended


def digest(name: str) -> str | None:
    """The SHA-256 of a module that was imported; None if it is no file."""
    file = Path(name if name.endswith(".py") else getattr(sys.modules.get(name), "__file__", None) or "")
    return _sha256(file) if file.is_file() else None


@contextmanager
def blamed(wrong: Callable[[str], MlcError]) -> Iterator[None]:
    """User code runs in the block. Whatever it raises is the error that `wrong` makes of it, also what would end the
    program (sys.exit); but Ctrl-C, a lack of memory, and errors of mlc come as they are."""
    try:
        yield
    except (MlcError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as cause:
        raise wrong(told(cause)) from cause


def told(cause: BaseException) -> str:
    """An exception and the line of the user's code that it comes from."""
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if not _is_machinery(f.filename)]
    last = frames[-1] if frames else None
    at = f" ({Path(last.filename).name}, line {last.lineno})" if last is not None else ""
    return f"{_short(cause)}{at}"


def fault(cause: BaseException, packages: Mapping[str, str]) -> MlcError | None:
    """The error for an exception that comes from within a file of the user's, or a package with passes (its name in
    Python, to that which it was installed by); None if none is on its way."""
    walked = ((f, line, _owner(f, packages)) for f, line in traceback.walk_tb(cause.__traceback__))
    frames = [(f, line, owner) for f, line, owner in walked if owner is not None]
    if not frames:
        return None
    frame, line, (what, name) = frames[-1]
    message = f"{name} raises {_short(cause)}"
    help = f"correct the {what}; from Python, mlc.compile shows the whole traceback"
    return error(Code.BROKEN_PASS, message, where=f"{frame.f_code.co_filename}:{line}", help=help)


def _owner(frame: FrameType, packages: Mapping[str, str]) -> tuple[str, str] | None:
    """What a frame is in, a file of the user's or a package, and what to call that; None for all else."""
    module = str(frame.f_globals.get("__name__", ""))
    if module.startswith(_PREFIX):
        return "file", repr(Path(frame.f_code.co_filename).name)
    package = packages.get(module.partition(".")[0])
    return ("package", f"the installed package {package!r}") if package is not None else None


def _short(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__


_PREFIX = "mlc_user_"  # of the names of files as modules


def _is_machinery(file: str) -> bool:
    """Whether a line is of what calls the user's code: ours, or that of imports."""
    return not file or file.startswith("<") or file == importlib.__file__ or any(map(Path(file).is_relative_to, _OURS))


_OURS = tuple(Path(__file__).parents[1] / part for part in ("frontends", "dsl"))


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
