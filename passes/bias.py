"""Adding numbers to what an operator with weights yields: into its bias, an Add behind it, or a new one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ..ir.constants import Constant
from ..ir.core import Attr, Op, Value
from ..ir.dtypes import DType
from ..ir.rewrite import Rewriter
from ..ir.types import TensorType
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
    if _in_codes(old) is not None or (old is None and _bias_step(op) is not None):
        return _add_in_codes(rw, op, delta)
    if old is not None and old.constant is not None:
        delta = delta + old.constant.array().astype(np.float64)
        name = old.name
    elif old is not None:
        more = rw.constant(Constant.of(delta, dtype), f"{op.name}_bias")
        return rw.set_operand(op, 2, rw.insert("Add", [old, more], before=op).result)
    else:
        name = f"{op.name}_bias"
    _set(rw, op, 2, delta, name, dtype)


def has_bias_place(op: Op) -> bool:
    """Whether `add_bias` changes or makes a constant, and no more: the model runs as many operators as before."""
    if op.kind == "MatMul":
        return _bias_behind(op) is not None
    old = op.operand(3 if op.kind in RECURRENT else 2)
    return old is None or old.constant is not None or _in_codes(old) is not None


def _in_codes(value: Value | None) -> Op | None:
    """The DequantizeLinear of a bias that is held in 32-bit codes."""
    made = value.op if value is not None else None
    if made is None or made.kind != "DequantizeLinear":
        return None
    known = all(v is None or v.constant is not None for v in made.operands)
    codes = made.operand(0)
    return made if known and codes is not None and codes.type.dtype is DType.I32 else None  # type: ignore[union-attr]


def _bias_step(op: Op) -> Array | None:
    """The steps of sums of products of codes on constant grids: scale of the data times scales of the weight."""
    sides = [v.op for v in op.operands[:2] if v is not None and v.op is not None and v.op.kind == "DequantizeLinear"]
    scales = [made.operand(1) for made in sides]
    if len(sides) != 2 or any(v is None or v.constant is None for v in scales):
        return None
    data, weight = (v.constant.array().astype(np.float32) for v in scales)  # type: ignore[union-attr]
    return np.asarray(data * weight) if data.size == 1 and sides[1].attrs.get("block_size", 0) == 0 else None


def _add_in_codes(rw: Rewriter, op: Op, delta: Array) -> None:
    """Into 32-bit codes, to the nearest step. Errors: OverflowError when they do not hold it."""
    made = _in_codes(op.operand(2))
    if made is None:
        step = _bias_step(op)
        assert step is not None
        old, scale = np.zeros(delta.shape), rw.constant(Constant.of(step.reshape(-1)), f"{op.name}_bias_scale")
        name, attrs = f"{op.name}_bias", cast(Mapping[str, Attr], {"axis": 0})
        if step.size == 1:
            scale, attrs = rw.constant(Constant.of(step.reshape(())), f"{op.name}_bias_scale"), {}
    else:
        codes, known = made.operand(0), made.operand(1)
        assert codes is not None
        assert known is not None
        assert known.constant is not None
        assert codes.constant is not None
        scale, step, attrs = known, known.constant.array(), made.attrs
        old, name = codes.constant.array().astype(np.float64), codes.name.removesuffix("_quantized")
    total = old + np.rint(delta / step.astype(np.float64))
    limits = np.iinfo(np.int32)
    if not ((total >= limits.min) & (total <= limits.max)).all():
        raise OverflowError(f"the bias of {op.name} does not fit 32-bit codes")
    made_codes = Constant.of(total.astype(np.int32))
    if made is not None and len(made.result.uses) == 1 and codes is not None and len(codes.uses) == 1:
        return rw.set_constant(codes, made_codes)
    stored = rw.constant(made_codes, f"{name}_quantized")
    added = rw.insert("DequantizeLinear", [stored, scale], attrs, before=op, names=[f"{name}_dq"]).result
    rw.set_operand(op, 2, added)


def _add_to_gates(rw: Rewriter, op: Op, delta: Array, dtype: DType) -> None:
    weight, old = op.operand(1), op.operand(3)
    assert weight is not None
    assert isinstance(weight.type, TensorType)
    sizes = weight.type.static_shape
    assert sizes is not None
    mine = delta.reshape(sizes[:2])
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
    found = _bias_behind(op)
    if found is not None:
        follower, slot = found
        other = follower.operand(slot)
        assert other is not None
        assert other.constant is not None
        return _set(rw, follower, slot, delta + other.constant.array().astype(np.float64), other.name, dtype)
    users = result.users
    bias = rw.constant(Constant.of(delta, dtype), f"{op.name}_bias")
    added = rw.insert("Add", [result, bias], before=_after(op), origin=op).result
    rw.replace_uses(result, added, only=users)


def _bias_behind(op: Op) -> tuple[Op, int] | None:
    """The Add of a constant vector that alone reads the result, and the slot of the constant."""
    result = op.result
    follower = result.users[0] if len(result.uses) == 1 else None
    if follower is None or follower.kind != "Add":
        return None
    slot = 1 if follower.operand(0) is result else 0
    other = follower.operand(slot)
    width = result.type.shape[-1] if isinstance(result.type, TensorType) and result.type.rank else None
    fits = other is not None and other.constant is not None and other.constant.shape == (width,)
    return (follower, slot) if fits else None


def _after(op: Op) -> Op:
    """The op that follows: the anchor of an insertion behind `op`."""
    assert op.parent is not None
    following = itertools.dropwhile(lambda o: o is not op, op.parent.ops)
    next(following)
    return next(following, op.parent.ret)
