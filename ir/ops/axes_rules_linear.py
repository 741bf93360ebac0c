"""Axis rules of contractions: matrix products, convolutions, einsum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op
from .access import attr_int, attr_text

INNER = "attention-inner"  # contracted between two computed tensors: the width of queries and keys


def broadcast(op: Op, s: Solver, operands: Sequence[Axis]) -> list[AxisType]:
    """Align shapes at the right; axes of equal size are one axis, a size of 1 imposes nothing."""
    columns = zip_longest(*(reversed(types) for types in operands), fillvalue=ONE)
    return [_meet(op, s, [t for t in column if ax.size(t) != 1]) for column in columns][::-1]


def _meet(op: Op, s: Solver, types: Sequence[AxisType]) -> AxisType:
    if not types:
        return ONE
    first = types[0]
    for other in types[1:]:
        s.unify(op, first, other)
    return ax.resolve(first)


def contract(op: Op, s: Solver, a: AxisType, b: AxisType, slots: tuple[int, int] = (0, 1)) -> None:
    s.unify(op, a, b)
    if not any(s.is_static(op.operand(slot)) for slot in slots):
        s.mark(op, a, INNER)


def product(op: Op, s: Solver, a: Axis, b: Axis, slots: tuple[int, int] = (0, 1)) -> list[AxisType]:
    """numpy.matmul: the axis types of the result."""
    if not a or not b:
        raise Opaque("malformed")
    contract(op, s, a[-1], b[-2] if len(b) > 1 else b[-1], slots)
    batch = broadcast(op, s, [a[:-2], b[:-2]])
    rows = [a[-2]] if len(a) > 1 else []
    columns = [b[-1]] if len(b) > 1 else []
    return [ax.resolve(t) for t in (*batch, *rows, *columns)]


def matmul(op: Op, s: Solver) -> None:
    s.out(op, product(op, s, s.need(op, 0), s.need(op, 1)))


def gemm(op: Op, s: Solver) -> None:
    a, b, c = s.need(op, 0), s.need(op, 1), s.operand(op, 2)
    rows, inner = a[::-1] if attr_int(op, "transA") else a
    depth, columns = b[::-1] if attr_int(op, "transB") else b
    contract(op, s, inner, depth)
    s.out(op, broadcast(op, s, [(rows, columns), *([c] if c is not None else [])]))


def matmul_integer(op: Op, s: Solver) -> None:
    a, b = s.need(op, 0), s.need(op, 1)
    zero_a, zero_b = s.operand(op, 2), s.operand(op, 3)
    if zero_a and len(a) > 1:
        broadcast(op, s, [a[-2:-1], zero_a[-2:-1] if len(zero_a) > 1 else zero_a])
    if zero_b:
        broadcast(op, s, [b[-1:], zero_b[-1:]])
    s.out(op, product(op, s, a, b))


def qlinear_matmul(op: Op, s: Solver) -> None:
    """a, scale, zero, b, scale, zero, y scale, y zero: only scalars and rows per output column are ruled."""
    a, b = s.need(op, 0), s.need(op, 3)
    for slot in (4, 5):
        parameter = s.operand(op, slot)
        if parameter:
            broadcast(op, s, [b[-1:], parameter[-1:]])
    s.out(op, product(op, s, a, b, (0, 3)))


def conv(op: Op, s: Solver) -> None:
    convolve(op, s, (0, 1), per_output=(2,))


def qlinear_conv(op: Op, s: Solver) -> None:
    convolve(op, s, (0, 3), per_output=(4, 5, 8))


def conv_integer(op: Op, s: Solver) -> None:
    convolve(op, s, (0, 1), per_output=(3,))


def convolve(op: Op, s: Solver, slots: tuple[int, int], *, per_output: Sequence[int]) -> None:
    x, w = s.need(op, slots[0]), s.need(op, slots[1])
    group = attr_int(op, "group", 1)
    _pin_window(op, s, x, w)
    if group == 1:
        contract(op, s, x[1], w[1], slots)
        outputs = w[0]
    else:
        g = ax.atom(group)
        per_group = ax.static(w[0])
        if per_group is None:
            raise Opaque("symbolic-size")
        outputs = ax.prod((g, ax.atom(per_group // group)))
        s.unify(op, w[0], outputs)
        s.unify(op, x[1], ax.prod((g, w[1])))
    _finish_conv(op, s, x, outputs, per_output)


def conv_transpose(op: Op, s: Solver) -> None:
    """The weight is [inputs, outputs / group, kernel...]."""
    x, w = s.need(op, 0), s.need(op, 1)
    group = attr_int(op, "group", 1)
    _pin_window(op, s, x, w)
    s.unify(op, x[1], w[0])
    outputs = w[1]
    if group > 1:
        inputs = ax.static(w[0])
        if inputs is None:
            raise Opaque("symbolic-size")
        g = ax.atom(group)
        s.unify(op, w[0], ax.prod((g, ax.atom(inputs // group))))
        outputs = ax.prod((g, w[1]))
    _finish_conv(op, s, x, outputs, (2,))


def _pin_window(op: Op, s: Solver, x: Axis, w: Axis) -> None:
    if len(x) < 2 or len(w) < 2:
        raise Opaque("malformed")
    for t in (*x[2:], *w[2:]):
        s.pin(op, t, "spatial")


def _finish_conv(op: Op, s: Solver, x: Axis, outputs: AxisType, per_output: Sequence[int]) -> None:
    for slot in per_output:
        parameter = s.operand(op, slot)
        if parameter:
            broadcast(op, s, [(outputs,), parameter])
    spatial = [s.pinned(op, d, "spatial") for d in s.shape(op.results[0])[2:]]
    s.out(op, [x[0], ax.resolve(outputs), *spatial])


def einsum(op: Op, s: Solver) -> None:
    """Every letter is one axis type."""
    equation = attr_text(op, "equation").replace(" ", "")
    if "." in equation:
        raise Opaque("unknown-operator")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if not arrow:
        letters = sorted(set(inputs) - {","})
        output = "".join(x for x in letters if inputs.count(x) == 1)
    found: dict[str, AxisType] = {}
    for slot, term in enumerate(terms):
        for letter, t in zip(term, s.need(op, slot)):
            if letter in found and ax.size(t) != 1 and ax.size(found[letter]) != 1:
                s.unify(op, found[letter], t)
            elif letter not in found or ax.size(found[letter]) == 1:
                found[letter] = t
    if not any(s.is_static(v) for v in op.operands):
        for letter in set(found) - set(output):
            s.mark(op, found[letter], INNER)
    s.out(op, [ax.resolve(found[letter]) for letter in output])
