"""Adding numbers to what an operator with weights yields: into its bias, an Add behind it, or a new one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..ir.constants import Constant
from ..ir.core import Op, Value
from ..ir.dtypes import DType
from ..ir.rewrite import Rewriter
from .linear import RECURRENT

Array = np.ndarray[Any, Any]


def add_bias(rw: Rewriter, op: Op, delta: Array, dtype: DType) -> None:
    """Let a MatMul, Gemm or convolution yield `delta` more, one number per output, in the weights' `dtype`.

    The gates of a recurrent layer get it on the side of the input: [directions x gates x hidden].
    """
    if op.kind == "MatMul":
        return _add_behind(rw, op, delta, dtype)
    if op.kind in RECURRENT:
        return _add_to_gates(rw, op, delta, dtype)
    old = op.operand(2)
    if old is not None and old.constant is not None:
        delta = delta + old.constant.array().astype(np.float64)
        name = old.name
    elif old is not None:
        more = rw.constant(Constant.of(delta, dtype), f"{op.name}_bias")
        return rw.set_operand(op, 2, rw.insert("Add", [old, more], before=op).result)
    else:
        name = f"{op.name}_bias"
    _set(rw, op, 2, delta, name, dtype)


def _add_to_gates(rw: Rewriter, op: Op, delta: Array, dtype: DType) -> None:
    weight, old = op.operand(1), op.operand(3)
    assert weight is not None
    assert weight.constant is not None
    mine = delta.reshape(weight.constant.shape[:2])
    both = np.hstack([mine, np.zeros_like(mine)])
    if old is not None and old.constant is not None:
        both = both + old.constant.array().astype(np.float64)
    _set(rw, op, 3, both, old.name if old is not None else f"{op.name}_bias", dtype)


def _set(rw: Rewriter, op: Op, slot: int, numbers: Array, name: str, dtype: DType) -> None:
    """Under the old name where nobody else reads it."""
    old = op.operand(slot)
    if old is not None and len(old.uses) == 1 and old.constant is not None and old.constant.shape == numbers.shape:
        return rw.set_constant(old, Constant.of(numbers, dtype))
    rw.set_operand(op, slot, rw.constant(Constant.of(numbers, dtype), name))


def _add_behind(rw: Rewriter, op: Op, delta: Array, dtype: DType) -> None:
    result: Value = op.result
    users = result.users
    follower = users[0] if len(result.uses) == 1 else None
    if follower is not None and follower.kind == "Add":
        slot = 1 if follower.operand(0) is result else 0
        other = follower.operand(slot)
        if other is not None and other.constant is not None and other.constant.shape == delta.shape:
            return _set(rw, follower, slot, delta + other.constant.array().astype(np.float64), other.name, dtype)
    bias = rw.constant(Constant.of(delta, dtype), f"{op.name}_bias")
    added = rw.insert("Add", [result, bias], before=_after(op), origin=op).result
    rw.replace_uses(result, added, only=users)


def _after(op: Op) -> Op:
    """The op that follows: the anchor of an insertion behind `op`."""
    assert op.parent is not None
    following = itertools.dropwhile(lambda o: o is not op, op.parent.ops)
    next(following)
    return next(following, op.parent.ret)
