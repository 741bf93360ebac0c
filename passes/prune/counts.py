"""Numbers that say how many units there are: what becomes of them when units leave.

A mean over fewer units would divide by fewer; a root-mean-square norm (Zhang and Sennrich, 2019) would divide by a
larger root; a size that was read from a shape and became a number (the 1/sqrt(d) of attention) would change. All go on
saying what they said of the n units there were:

    mean of n  =  mean of n' * n'/n
    x / sqrt(sum x^2 / n + e) * g  =  x / sqrt(sum x^2 / n' + e n/n') * g sqrt(n/n')

which is exact when the units that left were zero. A norm that subtracts the mean as well has no such identity (a unit
at zero is not at the mean): it runs over what is left, as do softmaxes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from ...ir.axis_types import AxisType, static
from ...ir.constants import Constant
from ...ir.core import Op, Value
from ...ir.dims import Dim
from ...ir.ops.access import attr_float, attr_int, axes_in, axis_in, elements, ints
from ...ir.ops.axes_rules_resize import Resizer
from ...ir.types import TensorType


def keep_count(op: Op, r: Resizer) -> None:
    """Let an op over fewer units say what it said of all of them. Its results have their new types already."""
    rule = _RULES.get(op.kind)
    if rule is not None:
        rule(op, r)


def keep_number(op: Op, r: Resizer, before: tuple[Dim, ...] | None) -> None:
    """A size that a Cast makes a float is an operand of the mathematics, not the size of anything: it stays.

    `before`: the elements that the operand had.
    """
    value, made = op.operand(0), op.results[0].type
    now = elements(value)
    if before is None or now is None or op.kind != "Cast" or not (isinstance(made, TensorType) and made.dtype.is_float):
        return
    changed = [b if isinstance(b, int) and b != n else None for b, n in zip(before, now)]
    assert value is not None
    if isinstance(value.type, TensorType) and value.type.rank == 0 and changed[0] is not None:
        r.rw.set_operand(op, 0, r.rw.constant(np.array(changed[0]), value.name, dtype=value.type.dtype))
    else:
        r.set_numbers(op, 0, changed)


def _left(types: list[AxisType], r: Resizer) -> float:
    """n'/n: which part of the positions along some axes stays."""
    part = 1.0
    for t in types:
        if r.touches(t):
            n, left = static(t), r.size(t)
            assert n is not None, "a class of units has a number of them"
            assert isinstance(left, int)
            part *= left / n
    return part


def _mean(op: Op, r: Resizer) -> None:
    x = r.types(op.operand(0))
    wanted = ints(op.operand(1)) if op.operand(1) is not None else None
    part = _left([x[a] for a in (axes_in(op, wanted, len(x)) if wanted else range(len(x)))], r)
    if part < 1 and not _centres(op) and not _spreads(op) and not _into_norm(op, part, r):
        _scale(op.result, part, r)


def _centres(op: Op) -> bool:
    """Whether the mean is subtracted from what it is the mean of."""
    x = op.operand(0)
    return any(u.kind == "Sub" and u.operand(0) is x and u.operand(1) is op.result for u in op.result.users)


def _spreads(op: Op) -> bool:
    """Whether the mean is a variance: of squares of what a mean was subtracted from."""
    square = op.operand(0)
    source = _squared(square.op) if square is not None and square.op is not None else None
    made = source.op if source is not None else None
    if made is None or made.kind != "Sub":
        return False
    mean = made.operand(1)
    return mean is not None and mean.op is not None and mean.op.kind == "ReduceMean" and _centres(mean.op)


def _squared(op: Op) -> Value | None:
    """What an op squares."""
    if op.kind == "Mul" and op.operand(0) is op.operand(1):
        return op.operand(0)
    exponent = op.operand(1).constant if op.kind == "Pow" and op.operand(1) is not None else None  # type: ignore[union-attr]
    if exponent is not None and exponent.elements == 1 and float(exponent.array().reshape(())) == 2.0:
        return op.operand(0)
    return None


def _into_norm(op: Op, part: float, r: Resizer) -> bool:
    """A mean of squares in the usual norm: its constants take the factor up, and runtimes go on recognizing it.

    ReduceMean, + e, Sqrt, x / root, * g: e becomes e / part and g becomes g / sqrt(part).
    """
    added = _only(op.result, "Add")
    root = _only(added.result, "Sqrt") if added is not None else None
    divided = _only(root.result, "Div") if root is not None else None
    scaled = _only(divided.result, "Mul") if divided is not None else None
    if added is None or root is None or divided is None or scaled is None or divided.operand(1) is not root.result:
        return False
    e = 1 if added.operand(0) is op.result else 0
    g = 1 if scaled.operand(0) is divided.result else 0
    if not _is_constant(added.operand(e)) or not _is_constant(scaled.operand(g)):
        return False
    _multiply(added, e, 1 / part, r)
    _multiply(scaled, g, part**-0.5, r)
    return True


def _only(value: Value, kind: str) -> Op | None:
    """The only op that reads a value, if it is of that kind and does so once."""
    uses = value.uses
    return uses[0].op if len(uses) == 1 and uses[0].op.kind == kind else None


def _is_constant(value: Value | None) -> bool:
    return value is not None and value.constant is not None


def _multiply(op: Op, slot: int, factor: float, r: Resizer) -> None:
    """A constant operand of one op, times a number. Other readers keep theirs."""
    value = op.operand(slot)
    assert value is not None
    assert value.constant is not None
    array = value.constant.array().astype(np.float64) * factor
    r.rw.set_operand(op, slot, r.rw.constant(Constant.of(array, value.constant.dtype), value.name))


def _scale(value: Value, factor: float, r: Resizer) -> None:
    """Every reader of a value gets it times a number."""
    assert value.op is not None
    assert isinstance(value.type, TensorType)
    users = value.users
    number = r.rw.constant(Constant.of(np.float64(factor), value.type.dtype), f"{value.name}_part")
    scaled = r.rw.insert("Mul", [value, number], before=_following(value.op), origin=value.op).result
    r.rw.replace_uses(value, scaled, only=users)


def _following(op: Op) -> Op:
    assert op.parent is not None
    rest = itertools.dropwhile(lambda o: o is not op, op.parent.ops)
    next(rest)
    return next(rest, op.parent.ret)


def _rms(slot: int, epsilon: float) -> Callable[[Op, Resizer], None]:
    """A root-mean-square norm as one operator, with its scale in `slot` and its epsilon left out."""

    def rule(op: Op, r: Resizer) -> None:
        x = r.types(op.operand(0))
        axis = axis_in(op, attr_int(op, "axis", -1), len(x))
        part = _left(list(x[axis:]), r)
        if part == 1:
            return
        if any(v.uses for v in op.results[1:3]):
            raise r.refuse(op, "its statistics are read, and they are of another number of units")
        r.rw.set_attr(op, "epsilon", attr_float(op, "epsilon", epsilon) / part)
        if _is_constant(op.operand(slot)):
            _multiply(op, slot, part**-0.5, r)
        else:
            _scale(op.results[0], part**-0.5, r)

    return rule


_RULES: Mapping[str, Callable[[Op, Resizer], None]] = {
    "ReduceMean": _mean,
    "RMSNormalization": _rms(1, 1e-5),
    "SimplifiedLayerNormalization": _rms(1, 1e-5),
    "com.microsoft::SkipSimplifiedLayerNormalization": _rms(2, 1e-12),
}
