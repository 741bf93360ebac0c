"""What the units that stay take over from those that go: columns of weights, and biases."""

from __future__ import annotations

import itertools

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Op, Value
from ...ir.rewrite import Rewriter
from . import flow as fl
from .depend import columns
from .rows import Array
from .search import Found
from .trace import Consumer


def take_over(rw: Rewriter, f: Found) -> None:
    """After this the consumers multiply every unit that goes by zero, and the outputs are the same."""
    for consumer in dict.fromkeys(f.trace.consumers):
        if consumer.fold:
            _fold(rw, f, consumer)
    for weight in dict.fromkeys(c.weight for c in f.trace.consumers):
        _add_columns(rw, f, next(c for c in f.trace.consumers if c.weight is weight))


def _add_columns(rw: Rewriter, f: Found, c: Consumer) -> None:
    """Add the columns of units that go to those of their carriers, and clear them."""
    constant = c.weight.constant
    assert constant is not None
    positions = fl.unit_positions(f.trace.units(c.weight, c.axis))
    removed, kept = positions[f.what.removed], positions[f.what.kept]
    weight = np.moveaxis(np.array(constant.array()), c.axis, 0)
    rest = weight.shape[1:]
    gone = weight[removed].astype(np.float64)  # [removed, m, ...]
    receives = np.nonzero(f.what.factors.any(axis=0))[0]
    if len(receives):
        added = np.einsum("rk,r...->k...", f.what.factors[:, receives], gone)
        weight[kept[receives]] = (weight[kept[receives]] + added).astype(weight.dtype)
    weight[removed.ravel()] = np.zeros(rest, weight.dtype)
    rw.set_constant(c.weight, Constant.of(np.ascontiguousarray(np.moveaxis(weight, 0, c.axis)), constant.dtype))


def _fold(rw: Rewriter, f: Found, c: Consumer) -> None:
    """Move into the consumer's bias what removed units add whatever the input is."""
    removed, kept = f.what.removed, f.what.kept
    numbers = c.data.const[removed] - f.what.factors @ c.data.const[kept]
    reads = columns(f.trace, c)[removed].any(axis=1)
    if not (numbers * reads).any():
        return
    constant = c.weight.constant
    assert constant is not None
    outputs = 1 - c.axis if constant.type.rank == 2 else 0
    positions = fl.unit_positions(f.trace.units(c.weight, c.axis))[removed]
    taken = np.take(constant.array(), positions, axis=c.axis).astype(np.float64)
    summed = np.moveaxis(taken, (c.axis, c.axis + 1), (0, 1)).sum(axis=1)  # [removed, ...]
    column = outputs if outputs < c.axis else outputs - 1
    others = tuple(a + 1 for a in range(summed.ndim - 1) if a != column)
    delta = numbers @ summed.sum(axis=others)
    _add_bias(rw, c.op, delta, constant)


def _add_bias(rw: Rewriter, op: Op, delta: Array, like: Constant) -> None:
    if op.kind == "MatMul":
        bias = rw.constant(Constant.of(delta, like.dtype), f"{op.name}_bias")
        result: Value = op.result
        users = result.users
        added = rw.insert("Add", [result, bias], before=_after(op), origin=op).result
        rw.replace_uses(result, added, only=users)
        return
    old = op.operand(2)
    if old is not None and old.constant is not None:
        delta = delta + old.constant.array().astype(np.float64)
        name = old.name
    elif old is not None:
        more = rw.constant(Constant.of(delta, like.dtype), f"{op.name}_bias")
        return rw.set_operand(op, 2, rw.insert("Add", [old, more], before=op).result)
    else:
        name = f"{op.name}_bias"
    rw.set_operand(op, 2, rw.constant(Constant.of(delta, like.dtype), name))


def _after(op: Op) -> Op:
    """The op that follows: the anchor of an insertion behind `op`."""
    assert op.parent is not None
    following = itertools.dropwhile(lambda o: o is not op, op.parent.ops)
    next(following)
    return next(following, op.parent.ret)
