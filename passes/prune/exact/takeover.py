"""What the units that stay take over from those that go: columns of weights, and biases."""

from __future__ import annotations

import numpy as np

from ....ir.constants import Constant
from ....ir.rewrite import Rewriter
from ...bias import add_bias
from . import flow as fl
from .depend import columns
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
    add_bias(rw, c.op, delta, constant.dtype)
