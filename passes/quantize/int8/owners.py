"""Whose codes a value holds: the weighted ops that read it or make it, and for values between other ops those behind.

A value stays in codes until all of its owners have left them, so what its rounding does is shared by them evenly
(for such a game that is Shapley's value).
"""

from __future__ import annotations

from collections.abc import Collection

from ....ir.core import Op, Value
from .glue import head_of
from .placement import ROUNDING, Placement


def owners(placement: Placement, weighted: Collection[Op]) -> dict[Value, tuple[Op, ...]]:
    """The owners of every value in codes, among the ops `weighted` that the placement is for."""
    coded = [v for members in placement.classes for v in members.values]
    readers = {v: dict.fromkeys(op for op in v.users if op in weighted and op.operands[0] is v) for v in coded}
    between = {v for v in coded if not readers[v]}
    for op in reversed(placement.glue):  # back to front: who reads the results is known
        made = (head_of(op).value, *op.results[1:])  # of an addition before a Relu, what the Relu makes
        behind = [reader for v in made if v in readers for reader in readers[v]]
        for value in between.intersection(v for v in op.operands if v is not None):
            readers[value] |= dict.fromkeys(behind)
    for op in weighted:
        if op.kind in ROUNDING and (result := head_of(op).value) in readers:
            readers[result][op] = None
    return {value: tuple(found) for value, found in readers.items()}
