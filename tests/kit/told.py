"""What a command line or a piece of Python is told, in a folder of its own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kit.two_layers import two_layers

from mlc.cli import run
from mlc.ir.errors import MlcError
from mlc.passes import registry


def told(
    what: str, folder: Path, *, files: Mapping[str, str], prepare: Callable[[Path], object], missing: str = "torch"
) -> tuple[int, str]:
    """(exit status, message) of a command line (`mlc ...`) or of Python, in a new folder with `net.onnx`.

    Paths are told as they are in that folder; `missing` is a package that is not there; sizes without a name are ?0.
    """
    folder.mkdir()
    two_layers(folder)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    prepare(folder)
    with _inside(folder), _without(missing):
        status, text = _command(what) if what.startswith("mlc ") else _python(what)
    text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    return status, "".join(f"{re.sub(r'[?][a-z]*[0-9]+', '?0', line.rstrip())}\n" for line in text.splitlines())


#: Which step runs: no part of a message, and of how long it took.
_STEP = re.compile(r"^(\[\d+/\d+\]|trial \d+:) .*\n", re.MULTILINE)


def _command(line: str) -> tuple[int, str]:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        status = run(shlex.split(line)[1:])
    return status, _STEP.sub("", told.getvalue())


def _python(code: str) -> tuple[int, str]:
    try:
        exec(compile(code, "<example>", "exec", dont_inherit=True), {"__name__": "example"})
    except MlcError as mistake:
        return mistake.exit_status, str(mistake)
    return 0, ""


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """In a folder, which is searched for installed packages as well."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    registry._entries.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)
        registry._entries.cache_clear()


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """As if a package were not installed, for those who look for it."""
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if before is not None:
            sys.modules[package] = before
