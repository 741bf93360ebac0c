"""Following one class through the graph: its flow in every value, and who consumes it linearly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.axes import Axes, AxisClass
from ...ir.core import Module, Op, Value
from ...ir.errors import Code, MlcError
from ...ir.evaluate import evaluate_op
from ...ir.ops.access import attr_float, attr_int, attr_ints, attr_text, axes_in, axis_in, ints
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.types import TensorType
from . import flow as fl
from .flow import Array, Flow


class NotTraced(Exception):
    """The class passes an op about which nothing exact can be said."""

    def __init__(self, op: Op, why: str) -> None:
        super().__init__(why)
        self.op, self.why = op, why


@dataclass(frozen=True, eq=False)
class Consumer:
    """An op that multiplies the units with a constant and sums them up. `fold`: constants can go into its bias."""

    op: Op
    weight: Value
    axis: int  # of the weight
    data: Flow
    fold: bool


@dataclass
class Trace:
    """The state of one walk."""

    module: Module
    axes: Axes
    target: AxisClass
    flows: dict[Value, Flow] = field(default_factory=dict)
    consumers: list[Consumer] = field(default_factory=list)
    used: set[Value] = field(default_factory=set)  # constants in any other role than a consumer's weight

    def axis_of(self, op: Op, value: Value | None) -> int | None:
        """The axis of a value in which the class occurs; None if in none. Two axes cannot be followed."""
        types = (self.axes.of(value) if value is not None else None) or ()
        found = [a for a, t in enumerate(types) if self.target in self.axes.within(t)]
        if len(found) > 1:
            raise NotTraced(op, "it occurs on two axes of one tensor")
        return found[0] if found else None

    def units(self, value: Value, axis: int) -> Array:
        types = self.axes.of(value)
        assert types is not None
        return self.axes.units(types[axis], self.target)

    def operand(self, op: Op, slot: int) -> Flow | Array | None:
        """A flow where the operand carries the class, else the number it is, else None (any other tensor)."""
        value = op.operand(slot)
        assert value is not None
        axis = self.axis_of(op, value)
        if axis is None:
            one = value.constant is not None and value.constant.elements == 1
            return value.constant.array().reshape(()) if one and value.constant is not None else None
        if value.constant is not None:
            self.used.add(value)
            return self.parameter(value, axis)
        if value not in self.flows:
            raise NotTraced(op, "its weights are computed")
        return self.flows[value]

    def parameter(self, value: Value, axis: int) -> Flow:
        """A constant with one number, or one row of numbers, for each unit."""
        assert value.constant is not None
        if value.constant.dtype.kind == "str":
            return fl.features(np.eye(self.target.size))
        rows = fl.unit_rows(value.constant.array(), axis, self.units(value, axis))
        if rows.shape[1] and (rows == rows[:, :1]).all():
            return fl.constants(rows[:, 0])
        return fl.features(rows)

    def flow(self, op: Op, slot: int = 0) -> Flow:
        found = self.operand(op, slot)
        if not isinstance(found, Flow):
            raise NotTraced(op, "it does not come in through the main operand")
        return found

    def give(self, op: Op, flow: Flow) -> None:
        for value in op.results:
            if self.axis_of(op, value) is not None:
                self.flows[value] = flow


Rule = Callable[[Op, Trace], None]


def trace(module: Module, axes: Axes, target: AxisClass, ops: Sequence[Op]) -> Trace:
    """Walk the ops that touch the class, in program order. Raises NotTraced."""
    t = Trace(module, axes, target)
    for op in ops:
        if op.parent is not module.graph or op.regions:
            raise NotTraced(op, "it lies in a body of control flow")
        if op.kind in ("Shape", "Size"):
            continue
        rule = RULES.get(op.kind)
        if rule is None and lookup(op.kind).has(Trait.ELEMENTWISE):
            rule = _nonlinear
        if rule is None:
            raise NotTraced(op, "the operator is not followed")
        rule(op, t)
    for consumer in t.consumers:
        others = [u for u in consumer.weight.users if all(u is not c.op for c in t.consumers)]
        if others or consumer.weight in t.used:
            raise NotTraced(consumer.op, "its weight is shared with another use")
    return t


# -- operators that keep the form --------------------------------------------------------------------------------------


def _move(op: Op, t: Trace) -> None:
    value = op.operands[0]
    if value is not None and value.constant is not None:
        raise NotTraced(op, "its weights are computed")
    t.give(op, t.flow(op))


def _cast(op: Op, t: Trace) -> None:
    result = op.results[0].type
    exact = isinstance(result, TensorType) and result.dtype.is_float
    _move(op, t) if exact else _nonlinear(op, t)


def _concat(op: Op, t: Trace) -> None:
    found = [f for slot in range(len(op.operands)) if isinstance(f := t.operand(op, slot), Flow)]
    t.give(op, found[0] if len(found) == 1 else fl.joined(found, add_constants=False))


def _gather(op: Op, t: Trace) -> None:
    data, axis = op.operands[0], t.axis_of(op, op.operands[0])
    if axis is None or data is None or t.axis_of(op, op.operands[1]) is not None:
        raise NotTraced(op, "it indexes")
    if data.constant is None:
        return _move(op, t)
    if axis == axis_in(op, attr_int(op, "axis"), data.constant.type.rank):
        raise NotTraced(op, "it indexes")
    t.used.add(data)
    t.give(op, fl.features(fl.unit_rows(data.constant.array(), axis, t.units(data, axis))))


def _pad(op: Op, t: Trace) -> None:
    t.give(op, t.flow(op).absorbed())


def _add(op: Op, t: Trace, signs: tuple[float, float] = (1.0, 1.0)) -> None:
    parts = [(t.operand(op, slot), sign) for slot, sign in enumerate(signs)]
    flows = [f.scaled(sign) for f, sign in parts if isinstance(f, Flow)]
    total = fl.joined(flows, add_constants=True)
    for part, sign in parts:
        if part is None:  # the same for all units
            total = fl.joined([total, fl.features(np.ones((total.size, 1)))], add_constants=True)
        elif not isinstance(part, Flow):
            total = total.shifted(sign * float(part))
    t.give(op, total)


def _sub(op: Op, t: Trace) -> None:
    _add(op, t, (1.0, -1.0))


def _mul(op: Op, t: Trace) -> None:
    a, b = t.operand(op, 0), t.operand(op, 1)
    if not isinstance(a, Flow) or (a.is_constant and isinstance(b, Flow)):
        a, b = b, a
    assert isinstance(a, Flow)
    _times(op, t, a, b)


def _div(op: Op, t: Trace) -> None:
    a, b = t.operand(op, 0), t.operand(op, 1)
    if not isinstance(a, Flow) or (isinstance(b, Flow) and not (b.is_constant and b.const.all())):
        return _nonlinear(op, t)
    inverse = fl.constants(1 / b.const) if isinstance(b, Flow) else None if b is None else np.asarray(1 / float(b))
    _times(op, t, a, inverse)


def _times(op: Op, t: Trace, a: Flow, b: Flow | Array | None) -> None:
    if b is None:
        t.give(op, a.absorbed())
    elif not isinstance(b, Flow):
        t.give(op, a.scaled(float(b)))
    elif b.is_constant:
        t.give(op, a.scaled(b.const))
    else:
        _nonlinear(op, t)


def _batch_norm(op: Op, t: Trace) -> None:
    parameters = [t.flow(op, slot) for slot in (1, 2, 3, 4)]
    if not all(p.is_constant for p in parameters):
        raise NotTraced(op, "its parameters differ inside a unit")
    gamma, beta, mean, variance = (p.const for p in parameters)
    factor = gamma / np.sqrt(variance + attr_float(op, "epsilon", 1e-5))
    t.give(op, t.flow(op).shifted(-mean).scaled(factor).shifted(beta))


def _average_pool(op: Op, t: Trace) -> None:
    padded = any(attr_ints(op, "pads") or ()) or attr_text(op, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    counted = padded and attr_int(op, "count_include_pad")
    t.give(op, t.flow(op).absorbed() if counted else t.flow(op))


def _reduce(op: Op, t: Trace) -> None:
    axis = t.axis_of(op, op.operands[0])
    rank = len(t.axes.of(op.operands[0]) or ()) if op.operands[0] is not None else 0
    wanted = ints(op.operand(1)) if op.operand(1) is not None else attr_ints(op, "axes")
    axes = axes_in(op, wanted, rank) if wanted else tuple(range(rank))
    if axis in axes:
        raise NotTraced(op, "it reduces over the units")
    if op.kind == "ReduceMean":
        t.give(op, t.flow(op))
    elif op.kind == "ReduceSum":
        t.give(op, t.flow(op).absorbed())
    else:
        _nonlinear(op, t)


def _softmax(op: Op, t: Trace) -> None:
    rank = len(t.axes.of(op.results[0]) or ())
    if t.axis_of(op, op.operands[0]) == axis_in(op, attr_int(op, "axis", -1), rank):
        raise NotTraced(op, "it normalizes over the units")
    _nonlinear(op, t)


# -- nonlinear operators -----------------------------------------------------------------------------------------------

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "MaxPool", "GlobalMaxPool", "ReduceMax"})


def _nonlinear(op: Op, t: Trace) -> None:
    """Equal operands give equal results; a homogeneous operator keeps positive factors; constants stay constant."""
    slots = [slot for slot, v in enumerate(op.operands) if v is not None]
    flows = {slot: f for slot in slots if isinstance(f := t.operand(op, slot), Flow)}
    together = fl.joined(list(flows.values()), add_constants=False)
    result = fl.grouped(together.rows, homogeneous=op.kind in _HOMOGENEOUS and len(flows) == 1)
    known = _constant_results(op, t, flows)
    if known is not None:
        mask, values = known
        keep = (~mask).astype(np.float64)
        result = Flow(result.scaled(keep).rows, np.where(mask, values, 0.0))
    elif not flows or op.kind not in _HOMOGENEOUS:
        result = fl.grouped(_with_identity(together), homogeneous=False)
    t.give(op, result)


def _with_identity(flow: Flow) -> Any:
    """Zero rows are a group too where f(0) is not known to be 0: one more column of ones."""
    return fl.full(flow.shifted(1.0 - flow.const))


def _constant_results(op: Op, t: Trace, flows: Mapping[int, Flow]) -> tuple[Array, Array] | None:
    """For elementwise operators: which units are numbers afterwards, and which numbers."""
    numbers: list[Array | None] = []
    if op.kind in ("MaxPool", "GlobalMaxPool"):
        (flow,) = flows.values()
        return _is_number(flow), flow.const
    if not lookup(op.kind).has(Trait.ELEMENTWISE) or len(op.results) != 1:
        return None
    mask = np.ones(t.target.size, bool)
    for slot, value in enumerate(op.operands):
        if value is None:
            numbers.append(None)
        elif slot in flows:
            mask &= _is_number(flows[slot])
            assert isinstance(value.type, TensorType)
            numbers.append(flows[slot].const.astype(value.type.dtype.numpy))
        else:
            known = t.operand(op, slot)
            if known is None or isinstance(known, Flow):
                return None
            numbers.append(known)
    try:
        (values,) = evaluate_op(op, numbers, module=t.module)
    except MlcError as problem:
        if problem.diagnostics[0].code is not Code.UNSUPPORTED_MODEL:
            raise
        return None  # no reference implementation: constants are not recognised
    return mask, np.asarray(values, np.float64)


def _is_number(flow: Flow) -> Array:
    empty: Array = np.diff(flow.rows.indptr) == 0
    return empty


# -- contractions ------------------------------------------------------------------------------------------------------


def _matmul(op: Op, t: Trace) -> None:
    _contraction(op, t, _ends(op))


def _ends(op: Op) -> tuple[int, int]:
    """The contracted axis of either operand, counted from the right."""
    if op.kind == "Gemm":
        return (-2 if attr_int(op, "transA") else -1), (-1 if attr_int(op, "transB") else -2)
    second = op.operands[1]
    rank = second.type.rank if second is not None and isinstance(second.type, TensorType) else 2
    return -1, -2 if rank > 1 else -1


def _contraction(op: Op, t: Trace, ends: tuple[int, int]) -> None:
    values = op.operands[:2]
    at = [t.axis_of(op, v) for v in values]
    ranks = [v.type.rank if v is not None and isinstance(v.type, TensorType) else 0 for v in values]
    summed = [a is not None and a == rank + end for a, rank, end in zip(at, ranks, ends)]
    if all(summed):
        return _consume(op, t, at)
    if any(summed):
        raise NotTraced(op, "it is contracted with something else")
    if at[0] is not None and at[1] is not None:
        return _nonlinear(op, t)
    if at[0] is None and at[1] is None:
        raise NotTraced(op, "it comes in through the bias alone")
    slot = 0 if at[0] is not None else 1
    value, axis = values[slot], at[slot]
    assert value is not None
    assert axis is not None
    if value.constant is None:
        return t.give(op, t.flow(op, slot).absorbed()) if op.operand(2) is None else _refuse_bias(op)
    t.used.add(value)
    rows = fl.unit_rows(value.constant.array(), axis, t.units(value, axis)) * attr_float(op, "alpha", 1.0)
    t.give(op, _biased(op, t, fl.features(rows), attr_float(op, "beta", 1.0)))


def _refuse_bias(op: Op) -> None:
    raise NotTraced(op, "a computed operand meets a bias")


def _biased(op: Op, t: Trace, flow: Flow, factor: float = 1.0) -> Flow:
    if op.operand(2) is None:
        return flow
    bias = t.operand(op, 2)
    if isinstance(bias, Flow):
        return fl.joined([flow, bias.scaled(factor)], add_constants=True)
    return fl.joined([flow, fl.features(np.ones((flow.size, 1)))], add_constants=True)


def _consume(op: Op, t: Trace, at: Sequence[int | None]) -> None:
    constant = [v is not None and v.constant is not None for v in op.operands[:2]]
    if constant == [True, True] or not any(constant):
        raise NotTraced(op, "it is contracted between two computed tensors")
    slot = constant.index(True)
    weight, axis = op.operands[slot], at[slot]
    assert weight is not None
    assert weight.constant is not None
    assert axis is not None
    plain = attr_float(op, "alpha", 1.0) == attr_float(op, "beta", 1.0) == 1.0
    fold = slot == 1 and weight.constant.type.rank == 2 and plain
    _register(op, t, weight, axis, t.flow(op, 1 - slot), fold)


def _register(op: Op, t: Trace, weight: Value, axis: int, data: Flow, fold: bool) -> None:
    assert weight.constant is not None
    if not weight.constant.dtype.is_float:
        raise NotTraced(op, "its weight is quantized")
    t.consumers.append(Consumer(op, weight, axis, data, fold))


def _conv(op: Op, t: Trace) -> None:
    x, w = op.operands[:2]
    at_x, at_w = t.axis_of(op, x), t.axis_of(op, w)
    inputs = 0 if op.kind == "ConvTranspose" else 1
    if w is None or w.constant is None or at_w is None or (at_x is not None and at_x != 1):
        raise NotTraced(op, "its weights are computed")
    made = t.axis_of(op, op.results[0]) is not None
    group = attr_int(op, "group", 1)
    rows = fl.unit_rows(w.constant.array(), at_w, t.units(w, at_w))
    if at_x is None and made:
        t.used.add(w)
        t.give(op, _biased(op, t, fl.features(rows)))
    elif at_x is not None and not made and at_w == inputs:
        _register(op, t, w, at_w, t.flow(op), fold=group == 1 and op.kind == "Conv" and not _padded(op))
    elif at_x is not None and made and group > 1 and op.kind == "Conv" and at_w == 0:
        t.used.add(w)
        t.give(op, _biased(op, t, _per_unit(op, t.flow(op), rows)))
    else:
        raise NotTraced(op, "its channels are mixed inside the units")


def _per_unit(op: Op, data: Flow, kernels: Array) -> Flow:
    """A depthwise convolution: equal (or proportional) units under equal (or proportional) kernels stay so."""
    number = np.diff(data.rows.indptr) == 0
    ids, scale = fl.cluster(fl.full(data), homogeneous=True, signed=True)
    taps, factor = fl.cluster(kernels, homogeneous=True, signed=True)
    alive = (ids >= 0) & (taps >= 0)
    pair = np.where(alive, ids * (len(taps) + 1) + taps, -1)
    _, compact = np.unique(np.append(pair[alive], -2), return_inverse=True)
    rows = np.zeros((data.size, int(compact.max()) + 1))
    rows[np.nonzero(alive)[0], compact[:-1]] = (scale * factor)[alive]
    flow = fl.features(rows)
    if _padded(op) or not number.any():
        return flow
    # Without a border a constant channel stays constant; several outputs of one channel need not agree.
    outputs = op.results[0].type
    per_unit = kernels.shape[1] // max(1, int(np.prod(_kernel(op))))
    if per_unit != 1 or not isinstance(outputs, TensorType):
        return flow
    keep = (~number).astype(np.float64)
    return Flow(flow.scaled(keep).rows, np.where(number, data.const * kernels.sum(axis=1), 0.0))


def _kernel(op: Op) -> tuple[int, ...]:
    w = op.operands[1]
    assert w is not None
    assert w.constant is not None
    return w.constant.shape[1:]


def _padded(op: Op) -> bool:
    return any(attr_ints(op, "pads") or ()) or attr_text(op, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


_MOVES = "Dropout Expand Flatten Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze"
_REDUCES = "ReduceMax ReduceMean ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceLogSumExp ReduceProd ReduceSumSquare"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_MOVES.split(), _move),
    **dict.fromkeys(_REDUCES.split(), _reduce),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool", "InstanceNormalization", "Resize"), _nonlinear),
    **dict.fromkeys(("MatMul", "Gemm"), _matmul),
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _div,
    "Gather": _gather,
    "GlobalAveragePool": _move,
    "Mul": _mul,
    "Pad": _pad,
    "Sub": _sub,
}
