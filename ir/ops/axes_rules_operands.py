"""Operands that are lists of numbers, and operators of which nothing may move."""

from __future__ import annotations

from ..axis_solver import Opaque, Solver
from ..core import Op
from .opdef import AxesRule


def numbers(op: Op, s: Solver, *slots: int) -> None:
    """Operands that state sizes, bounds or axes: lists that are read in order."""
    for slot in slots:
        for t in s.operand(op, slot) or ():
            s.pin(op, t, "shape-operand")


def nothing_moves(code: str) -> AxesRule:
    """A rule for operators that fix the order of every axis they touch; `code` says why."""

    def rule(op: Op, s: Solver) -> None:
        raise Opaque(code)

    return rule
