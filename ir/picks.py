"""Rows that a model picks from tables by numbers that are fed to it: embeddings of tokens, of segments, of positions.

A number beyond the table fails in the runtime, in words that name no input. Here the numbers are computed: what leads
from the inputs to a Gather's indices is evaluated by the reference, as long as it is integers (ids as they are, or
positions counted from a mask or from a length).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .core import Module, Op, Value
from .errors import Code, MlcError
from .evaluate import Array, evaluate_op
from .ops.opdef import Trait
from .ops.table import lookup
from .types import TensorType

_MS = "com.microsoft::"
_SIZES = ("Shape", "Size")  # of any operand: known as soon as sizes are
_INTEGERS = ("int", "uint", "bool")
_FOLLOWED = frozenset({"ConstantOfShape", "CumSum", "Range", "ReduceMax", "ReduceMin", "ReduceSum"})
_SMALL = 1 << 16  # elements of a constant that takes part in computing positions

#: Operator: the operand that picks, the operand that it picks from, and the attribute that names the axis.
_PICKING: Mapping[str, tuple[tuple[int, int, str], ...]] = {
    "Gather": ((1, 0, "axis"),),
    f"{_MS}GatherBlockQuantized": ((1, 0, "gather_axis"),),
    f"{_MS}EmbedLayerNormalization": ((0, 2, ""), (1, 4, "")),
}

Sizes = Mapping[str, tuple[int, ...]]  # of values by name: those that are known


@dataclass(frozen=True)
class _Origin:
    """What numbers are computed from; `fed`: they are elements of the only input, as they were fed."""

    inputs: tuple[Value, ...]
    fed: bool


@dataclass(frozen=True)
class _Pick:
    op: Op
    numbers: Value
    table: Value
    axis: int
    origin: _Origin


@dataclass(frozen=True)
class Beyond:
    """A number that no row of a table has. `fed`: an element of the only input; otherwise computed from the inputs
    (none: from sizes alone)."""

    inputs: tuple[str, ...]
    fed: bool
    number: int
    rows: int
    table: str
    op: Op


class Picks:
    """The tables that a module picks from by what is fed."""

    def __init__(self, module: Module) -> None:
        self._module = module
        origins = _origins(module)
        self._picks = tuple(_picks(module, origins))
        self._needed = _needed(module, [p.numbers for p in self._picks], origins)

    @property
    def sized(self) -> frozenset[str]:
        """The values whose sizes decide."""
        measured = {v for op in self._needed if op.kind in _SIZES for v in op.operands if v is not None}
        return frozenset(v.name for v in measured | {pick.table for pick in self._picks})

    def beyond(self, feeds: Mapping[str, Array], sizes: Sizes) -> Beyond | None:
        """The first number that is no row of its table, when this is fed; None as far as can be told."""
        if not self._picks:
            return None
        scope: dict[Value, Array] = {v: feeds[v.name] for v in self._module.graph.inputs if v.name in feeds}
        for op in self._needed:
            scope.update(self._evaluated(op, scope, sizes))
        found = (self._wrong(pick, scope, sizes) for pick in self._picks)
        return next(filter(None, found), None)

    def _evaluated(self, op: Op, scope: Mapping[Value, Array], sizes: Sizes) -> dict[Value, Array]:
        """The results of an op; none where an operand is not known, or the operator has no reference."""
        if op.kind in _SIZES:
            (measured,) = op.operands
            assert measured is not None
            if measured.name not in sizes:
                return {}
            arrays: list[Array | None] = [np.broadcast_to(np.zeros((), np.bool_), sizes[measured.name])]
        else:
            arrays = [None if v is None else _array(v, scope) for v in op.operands]
            if any(a is None and v is not None for a, v in zip(arrays, op.operands)):
                return {}
        try:
            return dict(zip(op.results, evaluate_op(op, arrays, module=self._module)))
        except MlcError as refusal:
            if refusal.diagnostics[0].code is not Code.UNSUPPORTED_MODEL:
                raise
            return {}
        except IndexError:  # it picks beyond a table itself, and is among the picks
            return {}

    def _wrong(self, pick: _Pick, scope: Mapping[Value, Array], sizes: Sizes) -> Beyond | None:
        numbers, table = _array(pick.numbers, scope), sizes.get(pick.table.name)
        if numbers is None or table is None or not numbers.size or pick.axis >= len(table):
            return None
        rows = table[pick.axis]
        low, high = int(numbers.min()), int(numbers.max())
        if -rows <= low and high < rows:
            return None
        number = high if high >= rows else low
        inputs = tuple(v.name for v in pick.origin.inputs)
        return Beyond(inputs, pick.origin.fed, number, rows, pick.table.name, pick.op)


def _array(value: Value, scope: Mapping[Value, Array]) -> Array | None:
    return value.constant.array() if value.constant is not None else scope.get(value)


def _origins(module: Module) -> dict[Value, _Origin]:
    """Values of integers that can be computed from inputs and sizes, and what they come from."""
    found = {v: _Origin((v,), fed=True) for v in module.graph.inputs if _counts(v)}
    for op in module.graph.ops:
        if _followed(op, found):
            found.update(dict.fromkeys(op.results, _origin(op, found)))
    return found


def _origin(op: Op, known: Mapping[Value, _Origin]) -> _Origin:
    if op.kind in _SIZES:
        return _Origin((), fed=False)
    of = [known[v] for v in op.operands if v is not None and v in known]
    inputs = tuple(dict.fromkeys(v for origin in of for v in origin.inputs))
    first = op.operand(0)
    moved = op.kind == "Cast" or (lookup(op.kind).has(Trait.VIEW) and op.kind != "Pad")
    fed = moved and first is not None and first in known and known[first].fed and len(inputs) == 1
    return _Origin(inputs, fed)


def _followed(op: Op, known: Mapping[Value, Any]) -> bool:
    row = lookup(op.kind)
    if op.regions or row.has(Trait.RANDOM) or not all(map(_counts, op.results)):
        return False
    if op.kind in _SIZES:
        return True
    moves = row.has(Trait.ELEMENTWISE) or row.has(Trait.VIEW) or op.kind in _FOLLOWED
    return moves and all(v is None or v in known or _is_small(v) for v in op.operands)


def _counts(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype.kind in _INTEGERS


def _is_small(value: Value) -> bool:
    return value.constant is not None and value.constant.elements <= _SMALL


def _picks(module: Module, origins: Mapping[Value, _Origin]) -> Iterator[_Pick]:
    for op in module.graph.ops:
        for numbers_at, table_at, attr in _PICKING.get(op.kind, ()):
            numbers, table = op.operand(numbers_at), op.operand(table_at)
            if numbers is None or table is None or numbers not in origins or not isinstance(table.type, TensorType):
                continue
            axis = op.attrs.get(attr, 0)
            assert isinstance(axis, int)
            yield _Pick(op, numbers, table, axis % max(1, table.type.rank), origins[numbers])


def _needed(module: Module, wanted: list[Value], origins: Mapping[Value, Any]) -> tuple[Op, ...]:
    """The ops that compute these values, in program order."""
    needed: set[Op] = set()
    pending = list(wanted)
    while pending:
        op = pending.pop().op
        if op is None or op in needed:
            continue
        needed.add(op)
        if op.kind not in _SIZES:
            pending.extend(v for v in op.operands if v is not None and v in origins)
    return tuple(op for op in module.graph.ops if op in needed)
