"""What a `compile` statement lacks to be run: data that steps or bounds need, and that the file does not bind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..ir.errors import Code, Diagnostic, MlcError, Span
from ..passes.base import Need
from .data import Declared
from .functions import functions
from .judge import unmeasurable
from .program import Program


def lacking(
    program: Program, data: tuple[Declared | None, Declared | None], statement: Span | None, *, check: str
) -> Iterator[Diagnostic]:
    """What nothing in the file gives, told at the `compile` statement or at the bound that needs it."""
    calibrates, judges = data
    for step in program.steps:
        wants = step.action.wants()
        if Need.DATA in wants and calibrates is None:
            message = f"'{step.action.name}' needs calibration data, and the file has none"
            yield Diagnostic(Code.NO_DATA, message, statement, help='add a line: data cal = npz("samples.npz")')
        elif Need.LABELS in wants and (calibrates is None or calibrates.selection.labels is None):
            message = f"'{step.action.name}' needs labels, and the data of the file has none"
            help = 'name their key: data cal = npz("samples.npz", labels="y")'
            yield Diagnostic(Code.NO_DATA, message, statement, help=help)
    limits = program.limits + program.loops
    for limit in limits:
        if limit.metric in program.metrics:
            yield from _unusable(program.metrics[limit.metric], limit.span)
    judging = judges or calibrates
    yield from unmeasurable(
        limits,
        check=check,
        samples=judging is not None,
        labels=judging is not None and judging.selection.labels is not None,
        classes=True,  # what only the model can tell
        give='add a line: data val = npz("samples.npz", labels="y")',
    )


def _unusable(metric: str, span: Span | None) -> Iterator[Diagnostic]:
    """Why a function of the user's cannot be called, told at the bound that names it."""
    try:
        functions({metric: metric})
    except MlcError as e:
        yield from (dataclasses.replace(d, span=span, where="") for d in e.diagnostics)
