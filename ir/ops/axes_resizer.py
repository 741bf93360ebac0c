"""A choice of kept units per axis class, and what becomes of an op's explicit sizes and positions under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from .. import axis_types as ax
from ..axes import Axes, Index
from ..axis_solver import Axis
from ..axis_types import AxisType
from ..core import Op, Value
from ..dims import Dim, quotient
from ..dtypes import DType
from ..rewrite import Rewriter
from .access import elements, ints


class CannotResize(Exception):
    """The sizes of an op cannot follow; the classes that touch it have to stay as they are."""

    def __init__(self, op: Op, classes: frozenset[int], why: str) -> None:
        super().__init__(why)
        self.op, self.classes, self.why = op, classes, why


class Resizer:
    """A choice of kept units per class, and what becomes of sizes and positions under it."""

    def __init__(self, rw: Rewriter, axes: Axes, kept: Mapping[int, Index]) -> None:
        self.rw, self.axes, self.kept = rw, axes, kept
        self.counts = {c: len(units) for c, units in kept.items()}
        #: Elements of computed sizes and bounds as they were: those of what shrinks are inferred anew on the way.
        self._before = {v: v.dims for op in rw.module.graph.walk() for v in op.results if v.dims is not None}

    def types(self, value: Value | None) -> Axis:
        found = None if value is None else self.axes.of(value)
        return found or ()

    def ints(self, value: Value | None) -> tuple[int, ...] | None:
        """The elements that a small operand had, if all of them were known integers."""
        found = None if value is None else self._before.get(value)
        if found is None:
            return ints(value)
        known = tuple(d for d in found if isinstance(d, int))
        return known if len(known) == len(found) else None

    def touches(self, t: AxisType) -> bool:
        return any(c.id in self.kept for c in self.axes.within(t))

    def size(self, t: AxisType) -> Dim:
        return self.axes.resized(t, self.counts)

    def kept_positions(self, t: AxisType) -> Index:
        """The old positions along an axis that stay."""
        found = self.axes.expand(t, self.kept)
        assert found is not None
        return found

    def boundary(self, t: AxisType, position: int) -> int:
        """Where a cut in front of an old position lies now."""
        return int(np.searchsorted(self.kept_positions(t), position))

    def refuse(self, op: Op, why: str) -> CannotResize:
        values = (*op.operands, *op.results)
        touched = frozenset(c for v in values if v is not None for c in self.axes.touched(v))
        return CannotResize(op, touched & frozenset(self.kept), why)

    def set_numbers(self, op: Op, slot: int, wanted: Sequence[Dim | None]) -> None:
        """Let the elements of an integer operand be `wanted` (None: as they are), changing as little as possible."""
        value = op.operand(slot)
        assert value is not None
        now = elements(value) or (None,) * len(wanted)
        wrong = {i: n for i, (n, m) in enumerate(zip(wanted, now)) if n is not None and n != m}
        if not wrong:
            return
        stated = {i: n for i, n in wrong.items() if isinstance(n, int)}
        factors = {i: self._factor(op, n, now[i]) for i, n in wrong.items() if i not in stated}
        if stated:
            mask = np.array([i in stated for i in range(len(wanted))])
            numbers = np.array([stated.get(i, 0) for i in range(len(wanted))], np.int64)
            value = self._patched(op, value, mask, numbers)
        if factors:
            value = self._scaled(op, value, [factors.get(i, Fraction(1)) for i in range(len(wanted))])
        self.rw.set_operand(op, slot, value)

    def _factor(self, op: Op, wanted: Dim, now: Dim | None) -> Fraction:
        """What a computed size has to be multiplied by: 4 * N becomes 3 * N when one of 4 heads leaves."""
        factor = None if now is None else quotient(wanted, now)
        if factor is None:
            raise self.refuse(op, f"the size {now} is computed, and {wanted} is no multiple or fraction of it")
        return factor

    def _scaled(self, op: Op, value: Value, factors: Sequence[Fraction]) -> Value:
        """The elements times their factors; multiplied first, so that the division is exact."""
        dtype = value.type.dtype  # type: ignore[union-attr]  # an integer tensor
        for kind, numbers in (("Mul", [f.numerator for f in factors]), ("Div", [f.denominator for f in factors])):
            if set(numbers) != {1}:
                operand = self.rw.constant(np.array(numbers, np.int64), f"{op.name}_{kind.lower()}", dtype=dtype)
                value = self.rw.insert(kind, [value, operand], before=op).result
        return value

    def _patched(self, op: Op, value: Value, mask: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]) -> Value:
        dtype = value.type.dtype  # type: ignore[union-attr]  # an integer tensor
        if value.constant is not None or mask.all():
            old = value.constant.array().reshape(-1) if value.constant is not None else numbers
            return self.rw.constant(np.where(mask, numbers, old), value.name, dtype=dtype)
        if (
            value.op is not None
            and value.op.kind == "Concat"
            and all(len(self.types(v)) == 1 for v in value.op.operands)
        ):
            rebuilt = self._patched_concat(op, value.op, mask, numbers, dtype)
            if rebuilt is not None:
                return rebuilt
        keep = self.rw.constant(~mask, f"{op.name}_kept")
        new = self.rw.constant(numbers, f"{op.name}_sizes", dtype=dtype)
        return self.rw.insert("Where", [keep, value, new], before=op).result

    def _patched_concat(
        self, op: Op, source: Op, mask: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any], dtype: DType
    ) -> Value | None:
        """The usual shape chain: a Concat of single sizes, some of them constant."""
        if len(source.operands) != len(mask):
            return None
        parts = [
            self.rw.constant(numbers[i : i + 1], f"{op.name}_size", dtype=dtype) if mask[i] else v
            for i, v in enumerate(source.operands)
        ]
        return self.rw.insert("Concat", parts, {"axis": 0}, before=op, origin=source).result

    def number(self, op: Op, t: AxisType) -> int:
        """The size of an axis that an attribute has to state."""
        n = self.size(t)
        if not isinstance(n, int):
            raise self.refuse(op, "a size that depends on the input would have to be scaled")
        return n

    def count(self, op: Op, t: AxisType, groups: int) -> int:
        """How many groups are left of an axis that holds `groups` of them."""
        n = ax.static(t)
        cut = ax.regroup([t], [groups, n // groups]) if n is not None and groups and n % groups == 0 else None
        left = self.size(cut[0]) if cut is not None else None
        if not isinstance(left, int):
            raise self.refuse(op, f"the {groups} groups of an axis cannot be told apart")
        return left


Resize = Callable[[Op, Resizer], None]
