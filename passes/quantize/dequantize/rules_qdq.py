"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear: a pair is a rounding, which goes."""

from __future__ import annotations

import numpy as np

from ....ir.constants import Constant
from ....ir.core import Op, Value
from ....ir.quant import QSpec, quantize
from ...base import SkipCode
from .grids import Grid, codes_behind, dtype_of
from .work import Real, Rule, Why, Work


def _quantize(work: Work, op: Op) -> Why | None:
    source, grid, codes = op.operand(0), Grid.of(op), op.result
    assert source is not None
    if source.constant is not None:
        return _quantize_constant(work, op, source.constant, grid)
    if work.keep:
        work.stays(op)
        return None
    if grid.numbers() is None:
        return Why(SkipCode.NOT_CONSTANT, "its scale is computed", "drop it in the source model")
    if grid.block:
        return Why(SkipCode.UNSUPPORTED, "activations in blocks are not followed")
    work.note(codes, grid, source, op)
    return None


def _quantize_constant(work: Work, op: Op, source: Constant, grid: Grid) -> Why | None:
    """A weight that is stored in floats but used as codes: what counts is what the codes stand for."""
    numbers, kind = grid.numbers(), dtype_of(op.result)
    if numbers is None or kind is None or not kind.is_integer or not source.elements:
        return Why(SkipCode.UNSUPPORTED, "the codes of this constant are not computed here")
    scale, zero = numbers
    axis = None if grid.is_whole else grid.axis % len(source.shape)
    spec = QSpec(kind.bits, kind.kind == "int", False, axis, grid.block)
    made = quantize(
        source.array(), scale.reshape(()) if axis is None else scale, np.broadcast_to(zero, scale.shape), spec
    )
    codes = work.rw.constant(Constant.of(made, kind, source.origin), f"{op.result.name}_codes")
    floats = work.real(codes, grid, op)
    if floats is None:
        return Why(SkipCode.UNSUPPORTED, "its scales do not fit the constant")
    work.reals[op.result] = Real(grid, floats)
    return None


def _dequantize(work: Work, op: Op) -> Why | None:
    codes, grid = op.operand(0), Grid.of(op)
    assert codes is not None
    if work.is_meant(op):
        return None
    floats = work.real(codes, grid, op)
    if floats is None:
        if work.keep and codes.op is not None and codes_behind(codes) is None:
            work.stays(op)
            return None
        return _unfollowed(work, codes, grid)
    if floats.constant is not None:
        site, before = codes.name, f"{codes.type} on {_described(grid)}"
        work.report(op, f"{floats.type}", site, before)
        result = work.cast(floats, dtype_of(op.result), op)
        work.rw.replace(op, [result])
        return None
    work.replace(op, floats, "floats")
    return None


def _described(grid: Grid) -> str:
    if grid.is_whole:
        return "one scale"
    return f"blocks of {grid.block} along axis {grid.axis}" if grid.block else f"scales along axis {grid.axis}"


def _unfollowed(work: Work, codes: Value, grid: Grid) -> Why:
    constant = codes_behind(codes)
    if constant is not None:
        found = work.constant(codes, constant, grid)
        return Why(SkipCode.UNSUPPORTED, found if isinstance(found, str) else "its codes are not followed")
    if codes in work.reals:
        return Why(SkipCode.NOT_FOLLOWED, "its codes were made with another scale or zero point")
    if codes.graph is not None:
        return Why(SkipCode.NOT_FOLLOWED, f"{codes.name} comes into the graph as codes")
    maker = codes.op.op_type if codes.op is not None else "?"
    return Why(SkipCode.NOT_FOLLOWED, f"its codes come from {maker}, which is not followed")


def _dynamic(work: Work, op: Op) -> Why | None:
    """The scale is the range of the data itself: nothing is cut off."""
    codes, scale, zero = op.results
    source, grid = op.operand(0), Grid(scale, zero)
    assert source is not None
    if work.keep:
        work.stays(op)
        work.reals[codes] = Real(grid, _after(work, op, codes, grid))
    else:
        work.reals[codes] = Real(grid, source)
    return None


def _after(work: Work, op: Op, codes: Value, grid: Grid) -> Value:
    """A DequantizeLinear behind the operator that makes the codes."""
    assert op.parent is not None
    following = op._next if op._next is not None else op.parent.ret
    return work.dequantized(codes, grid, following)


RULES: dict[str, Rule] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "com.microsoft::QuantizeLinear": _quantize,
    "com.microsoft::DequantizeLinear": _dequantize,
}
