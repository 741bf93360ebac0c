"""Refusing the user's code where recipes, data and metrics name it: every place at once, before any of it runs.

Nothing here keeps code from running: frontends/user_code.py does, and is asked beforehand, so that a refusal shows the
statement or the option, and none hides another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from ..frontends.user_code import refusal, user_code
from ..ir.errors import Diagnostic, MlcError
from .data import Data, declare
from .uses import PythonFile

FILES = 'write the samples to a file: npz("samples.npz")'
_STEPS = "take the steps and metrics of mlc, or passes of an installed package"
_METRICS = "bound a metric of mlc, such as cosine, agreement or acc_drop"


def refused_files(files: Iterable[PythonFile]) -> list[Diagnostic]:
    """What to say of Python files that a recipe file uses; nothing where they may run."""
    return [d for file in files if (d := refusal(file.written, _STEPS, span=file.span)) is not None]


def refused_options(data: Mapping[str, Data | None], metrics: Mapping[str, str]) -> list[Diagnostic]:
    """What to say of data and metrics that options name; nothing where they may run. `data` are by their options."""
    code = [(declare(given, name=option).source.code, option) for option, given in data.items() if given is not None]
    found = [refusal(name, FILES, where=option) for name, option in code if name]
    found += [refusal(text, _METRICS, where=f"--metric {name}") for name, text in metrics.items()]
    return [diagnostic for diagnostic in found if diagnostic is not None]


@contextmanager
def together(found: list[Diagnostic]) -> Iterator[None]:
    """What was found is told together with what is wrong in the block."""
    try:
        yield
    except MlcError as e:
        if not found:
            raise
        raise MlcError([*found, *e.diagnostics]) from None
    if found:
        raise MlcError(found)


@contextmanager
def code_of_options(*, allowed: bool, data: Mapping[str, Data | None]) -> Iterator[None]:
    """Whether user code may run in the block. Errors: USER_CODE for each option that names some."""
    with user_code(allowed=allowed):
        found = refused_options(data, {})
        if found:
            raise MlcError(found)
        yield
