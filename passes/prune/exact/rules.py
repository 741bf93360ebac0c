"""How the units of a class pass operators that look at every unit by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ....ir.core import Op
from ....ir.errors import Code, MlcError
from ....ir.evaluate import evaluate_op
from ....ir.ops.access import attr_float, attr_int, attr_ints, attr_text, axes_in, axis_in, ints
from ....ir.ops.opdef import Trait
from ....ir.ops.table import lookup
from ....ir.types import TensorType
from . import flow as fl
from .flow import Flow
from .rows import Array, Rows
from .trace import NotTraced, Trace

# -- operators that keep the form --------------------------------------------------------------------------------------


def move(op: Op, t: Trace) -> None:
    value = op.operands[0]
    if value is not None and value.constant is not None:
        raise NotTraced(op, "its weights are computed")
    t.give(op, t.flow(op))


def cast(op: Op, t: Trace) -> None:
    result = op.results[0].type
    exact = isinstance(result, TensorType) and result.dtype.is_float
    move(op, t) if exact else nonlinear(op, t)


def concat(op: Op, t: Trace) -> None:
    found = [f for slot in range(len(op.operands)) if isinstance(f := t.operand(op, slot), Flow)]
    t.give(op, found[0] if len(found) == 1 else fl.joined(found, add_constants=False))


def gather(op: Op, t: Trace) -> None:
    data, axis = op.operands[0], t.axis_of(op, op.operands[0])
    if axis is None or data is None or t.axis_of(op, op.operands[1]) is not None:
        raise NotTraced(op, "it indexes")
    if data.constant is None:
        return move(op, t)
    if axis == axis_in(op, attr_int(op, "axis"), data.constant.type.rank):
        raise NotTraced(op, "it indexes")
    t.used.add(data)
    t.give(op, fl.features(t.weight_rows(data, axis)))


def pad(op: Op, t: Trace) -> None:
    t.give(op, t.flow(op).absorbed())


def add(op: Op, t: Trace, signs: tuple[float, float] = (1.0, 1.0)) -> None:
    parts = [(t.operand(op, slot), sign) for slot, sign in enumerate(signs)]
    flows = [f.scaled(sign) for f, sign in parts if isinstance(f, Flow)]
    total = fl.joined(flows, add_constants=True)
    for part, sign in parts:
        if part is None:  # the same for all units
            total = fl.joined([total, fl.one_feature(total.size)], add_constants=True)
        elif not isinstance(part, Flow):
            total = total.shifted(sign * float(part))
    t.give(op, total)


def sub(op: Op, t: Trace) -> None:
    add(op, t, (1.0, -1.0))


def mul(op: Op, t: Trace) -> None:
    a, b = t.operand(op, 0), t.operand(op, 1)
    if not isinstance(a, Flow) or (a.is_constant and isinstance(b, Flow)):
        a, b = b, a
    assert isinstance(a, Flow)
    _times(op, t, a, b)


def div(op: Op, t: Trace) -> None:
    a, b = t.operand(op, 0), t.operand(op, 1)
    if not isinstance(a, Flow) or (isinstance(b, Flow) and not (b.is_constant and b.const.all())):
        return nonlinear(op, t)
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
        nonlinear(op, t)


def batch_norm(op: Op, t: Trace) -> None:
    parameters = [t.flow(op, slot) for slot in (1, 2, 3, 4)]
    if not all(p.is_constant for p in parameters):
        raise NotTraced(op, "its parameters differ inside a unit")
    gamma, beta, mean, variance = (p.const for p in parameters)
    factor = gamma / np.sqrt(variance + attr_float(op, "epsilon", 1e-5))
    t.give(op, t.flow(op).shifted(-mean).scaled(factor).shifted(beta))


def average_pool(op: Op, t: Trace) -> None:
    padded = any(attr_ints(op, "pads") or ()) or attr_text(op, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    counted = padded and attr_int(op, "count_include_pad")
    t.give(op, t.flow(op).absorbed() if counted else t.flow(op))


def reduce(op: Op, t: Trace) -> None:
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
        nonlinear(op, t)


def softmax(op: Op, t: Trace) -> None:
    rank = len(t.axes.of(op.results[0]) or ())
    if t.axis_of(op, op.operands[0]) == axis_in(op, attr_int(op, "axis", -1), rank):
        raise NotTraced(op, "it normalizes over the units")
    nonlinear(op, t)


# -- nonlinear operators -----------------------------------------------------------------------------------------------

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "MaxPool", "GlobalMaxPool", "ReduceMax"})


def nonlinear(op: Op, t: Trace) -> None:
    """Equal operands give equal results; a homogeneous operator keeps positive factors; constants stay constant."""
    slots = [slot for slot, v in enumerate(op.operands) if v is not None]
    flows = {slot: f for slot in slots if isinstance(f := t.operand(op, slot), Flow)}
    together = fl.joined(list(flows.values()), add_constants=False)
    homogeneous = op.kind in _HOMOGENEOUS and len(flows) == 1
    known = _constant_results(op, t, flows)
    if known is not None:
        mask, values = known
        result = fl.grouped(together.rows, homogeneous=homogeneous)
        result = Flow(result.scaled((~mask).astype(np.float64)).rows, np.where(mask, values, 0.0))
    elif homogeneous:
        result = fl.grouped(together.rows, homogeneous=True)
    else:
        result = fl.grouped(_with_identity(together), homogeneous=False)
    t.give(op, result)


def _with_identity(flow: Flow) -> Rows:
    """Zero rows are a group too where f(0) is not known to be 0: one more column of ones."""
    return flow.rows.with_column(np.ones(flow.size))


def _constant_results(op: Op, t: Trace, flows: Mapping[int, Flow]) -> tuple[Array, Array] | None:
    """For elementwise operators: which units are numbers afterwards, and which numbers."""
    numbers: list[Array | None] = []
    if op.kind in ("MaxPool", "GlobalMaxPool"):
        (flow,) = flows.values()
        return flow.rows.empty(), flow.const
    if not lookup(op.kind).has(Trait.ELEMENTWISE) or len(op.results) != 1:
        return None
    mask = np.all([f.rows.empty() for f in flows.values()], axis=0)
    if not mask.any():
        return mask, np.zeros(t.target.size)
    for slot, value in enumerate(op.operands):
        if value is None:
            numbers.append(None)
        elif slot in flows:
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
