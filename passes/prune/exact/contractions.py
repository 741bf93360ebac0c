"""How the units of a class pass matrix products and convolutions: made by one, mixed up by the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....ir.core import Op, Value
from ....ir.ops.access import attr_float, attr_int, attr_ints, attr_text
from ....ir.types import TensorType
from . import flow as fl
from .cluster import cluster
from .flow import Flow
from .rows import Array, dense_rows
from .rules import nonlinear
from .trace import Consumer, NotTraced, Trace


def matmul(op: Op, t: Trace) -> None:
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
        return nonlinear(op, t)
    if at[0] is None and at[1] is None:
        raise NotTraced(op, "it comes in through the bias alone")
    slot = 0 if at[0] is not None else 1
    value, axis = values[slot], at[slot]
    assert value is not None
    assert axis is not None
    if value.constant is None:
        return t.give(op, t.flow(op, slot).absorbed()) if op.operand(2) is None else _refuse_bias(op)
    t.used.add(value)
    rows = t.weight_rows(value, axis) * attr_float(op, "alpha", 1.0)
    t.give(op, _biased(op, t, fl.features(rows), attr_float(op, "beta", 1.0)))


def _refuse_bias(op: Op) -> None:
    raise NotTraced(op, "a computed operand meets a bias")


def _biased(op: Op, t: Trace, flow: Flow, factor: float = 1.0) -> Flow:
    if op.operand(2) is None:
        return flow
    bias = t.operand(op, 2)
    if isinstance(bias, Flow):
        return fl.joined([flow, bias.scaled(factor)], add_constants=True)
    return fl.joined([flow, fl.one_feature(flow.size)], add_constants=True)


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


def conv(op: Op, t: Trace) -> None:
    x, w = op.operands[:2]
    at_x, at_w = t.axis_of(op, x), t.axis_of(op, w)
    inputs = 0 if op.kind == "ConvTranspose" else 1
    if w is None or w.constant is None or at_w is None or (at_x is not None and at_x != 1):
        raise NotTraced(op, "its weights are computed")
    made = t.axis_of(op, op.results[0]) is not None
    group = attr_int(op, "group", 1)
    if at_x is None and made:
        t.used.add(w)
        t.give(op, _biased(op, t, fl.features(t.weight_rows(w, at_w))))
    elif at_x is not None and not made and at_w == inputs:
        _register(op, t, w, at_w, t.flow(op), fold=group == 1 and op.kind == "Conv" and not _padded(op))
    elif at_x is not None and made and group > 1 and op.kind == "Conv" and at_w == 0:
        t.used.add(w)
        t.give(op, _biased(op, t, _per_unit(op, t.flow(op), t.weight_rows(w, at_w))))
    else:
        raise NotTraced(op, "its channels are mixed inside the units")


def _per_unit(op: Op, data: Flow, kernels: Array) -> Flow:
    """A depthwise convolution: equal (or proportional) units under equal (or proportional) kernels stay so."""
    number = data.rows.empty()
    ids, scale = cluster(fl.full(data), homogeneous=True, signed=True)
    taps, factor = cluster(dense_rows(kernels), homogeneous=True, signed=True)
    alive = (ids >= 0) & (taps >= 0)
    pair = np.full(data.size, -1)
    pair[alive] = np.unique(ids[alive] * (len(taps) + 1) + taps[alive], return_inverse=True)[1]
    flow = fl.multiples(pair, scale * factor)
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
