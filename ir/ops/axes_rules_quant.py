"""Axis rules of quantization: grids per tensor, per position of an axis or per block, and products of codes.

The inside of a block of packed codes keeps its order, because several codes share a byte; whole blocks may move
unless their zero points share bytes.
"""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op
from ..dtypes import DType
from ..types import TensorType
from .access import attr_int, axis_in
from .axes_rules_linear import broadcast, product

BLOCK, PACKED = "block-size", "packed"


def quantize(op: Op, s: Solver) -> None:
    """QuantizeLinear, DequantizeLinear: one scale for all, one per position of an axis, or one per block."""
    x = list(s.need(op, 0))
    block, axis = attr_int(op, "block_size"), attr_int(op, "axis", 1)
    for slot in (1, 2):
        parameter = s.operand(op, slot)
        if parameter is None:
            continue
        if block and len(parameter) == len(x):
            _blocks(op, s, x, parameter, axis_in(op, axis, len(x)), block)
        elif len(parameter) == 1 and x and ax.size(parameter[0]) != 1:
            s.unify(op, x[axis_in(op, axis, len(x))], parameter[0])
    s.out(op, [ax.resolve(t) for t in x])


def _blocks(op: Op, s: Solver, x: list[AxisType], parameter: Axis, axis: int, block: int) -> None:
    for i, (t, p) in enumerate(zip(x, parameter)):
        if i != axis:
            s.unify(op, t, p)
            continue
        n = ax.static(t)
        if n is None or n % block:
            s.pin(op, t, BLOCK)
            s.pin(op, p, BLOCK)
            continue
        inside = ax.atom(block)
        s.mark(op, inside, BLOCK)
        s.unify(op, t, ax.prod((p, inside)))


def columns(op: Op, s: Solver, inner: Axis, *slots: int) -> None:
    """Parameters of one value for all, [n] for the last axis of `inner`, or [.., 1, n] for each matrix of a stack."""
    for slot in slots:
        parameter = s.operand(op, slot)
        if parameter:
            broadcast(op, s, [inner, parameter])


def matmul_integer(op: Op, s: Solver) -> None:
    """A [.., m, k], B [.., k, n], zero points per row of A ([m] or [.., m, 1]), per column of B ([n] or [.., 1, n])."""
    a, b = s.need(op, 0), s.need(op, 1)
    zero = s.operand(op, 2)
    if zero:
        broadcast(op, s, [a, zero if len(zero) > 1 else (*zero, ONE)])
    columns(op, s, b, 3)
    s.out(op, product(op, s, a, b))


def qlinear_matmul(op: Op, s: Solver) -> None:
    """A, its scale and zero, B, its scale and zero, those of the result."""
    b = s.need(op, 3)
    columns(op, s, b, 4, 5)
    s.out(op, product(op, s, s.need(op, 0), b, (0, 3)))


def matmul_integer_to_float(op: Op, s: Solver) -> None:
    """A, B, their scales, their zero points, a bias: those of B and the bias per column."""
    b = s.need(op, 1)
    columns(op, s, b, 3, 5, 6)
    s.out(op, product(op, s, s.need(op, 0), b))


def dynamic_quantize_matmul(op: Op, s: Solver) -> None:
    """A, B, then scale, zero point and bias per column of B."""
    b = s.need(op, 1)
    columns(op, s, b, 2, 3, 4)
    s.out(op, product(op, s, s.need(op, 0), b))


def qgemm(op: Op, s: Solver) -> None:
    """A, scale, zero, B, scale, zero, C, scale and zero of the result; either factor may be transposed."""
    a, b, c = s.need(op, 0), s.need(op, 3), s.operand(op, 6)
    a = a[::-1] if attr_int(op, "transA") else a
    b = b[::-1] if attr_int(op, "transB") else b
    columns(op, s, b, 4, 5)
    s.out(op, broadcast(op, s, [tuple(product(op, s, a, b, (0, 3))), *([c] if c is not None else [])]))


def qlinear_binary(op: Op, s: Solver) -> None:
    """QLinearAdd, QLinearMul: A, scale, zero, B, scale, zero, those of the result."""
    s.out(op, broadcast(op, s, [s.need(op, 0), s.need(op, 3)]))


def qlinear_where(op: Op, s: Solver) -> None:
    """Condition, X, scale, zero, Y, scale, zero, those of the result."""
    s.out(op, broadcast(op, s, [s.need(op, slot) for slot in (0, 1, 4)]))


def qlinear_softmax(op: Op, s: Solver) -> None:
    """Over one axis; before opset 13 (its attribute `opset`) over all from `axis` on."""
    x = s.need(op, 0)
    axis = axis_in(op, attr_int(op, "axis", -1), len(x))
    for t in x[axis:] if attr_int(op, "opset") < 13 else x[axis : axis + 1]:
        s.mark(op, t, "count-sensitive")
    s.out(op, x)


def qlinear_concat(op: Op, s: Solver) -> None:
    """Scale and zero of the result, then (x, scale, zero) for every part."""
    parts = [s.need(op, slot) for slot in range(2, len(op.operands), 3)]
    axis = axis_in(op, attr_int(op, "axis"), len(parts[0]))
    joined = broadcast(op, s, [(*t[:axis], ONE, *t[axis + 1 :]) for t in parts])
    s.out(op, [*joined[:axis], ax.concat(t[axis] for t in parts), *joined[axis + 1 :]])


def matmul_nbits(op: Op, s: Solver) -> None:
    """A [.., K], codes [N, blocks, bytes], scales and zero points [N * blocks] or [N, blocks], order [K], bias [N]."""
    a, codes, scales = s.need(op, 0), s.need(op, 1), s.need(op, 2)
    if op.operand(4) is not None:
        raise Opaque("block-order")
    n, blocks, inside = codes
    s.pin(op, inside, PACKED)
    size = attr_int(op, "block_size")
    if ax.static(a[-1]) == attr_int(op, "K") and attr_int(op, "K") % size == 0:
        s.unify(op, a[-1], ax.prod((blocks, s.pinned(op, size, PACKED))))
    else:  # the last block is not full
        s.pin(op, a[-1], BLOCK)
        s.pin(op, blocks, BLOCK)
    s.unify(op, ax.prod(scales), ax.prod((n, blocks)))
    _packed_zeros(op, s, 3, n, blocks)
    bias = s.operand(op, 5)
    if bias:
        s.unify(op, bias[0], n)
    s.out(op, [*a[:-1], ax.resolve(n)])


def _packed_zeros(op: Op, s: Solver, slot: int, rows: AxisType, blocks: AxisType) -> None:
    """Zero points [rows * blocks] or [rows, blocks], as bytes in which those of several blocks may share one."""
    zeros = s.operand(op, slot)
    if zeros is None:
        return
    count, n = ax.static(ax.prod(zeros)), ax.static(rows)
    if count is None or n is None or count % n:
        raise Opaque("symbolic-size")
    if count // n != ax.size(blocks):
        s.pin(op, blocks, PACKED)
        blocks = s.pinned(op, count // n, PACKED)
    s.unify(op, ax.prod(zeros), ax.prod((rows, blocks)))


def gather_block_quantized(op: Op, s: Solver) -> None:
    """Codes, indices, scales, zero points: Gather along one axis of a tensor quantized in blocks along another.

    Codes narrower than a byte lie packed along the last axis of a tensor of bytes.
    """
    codes, index, scales, zeros = s.need(op, 0), s.need(op, 1), s.need(op, 2), s.operand(op, 3)
    axis, along = (axis_in(op, attr_int(op, *a), len(codes)) for a in (("gather_axis", 0), ("quantize_axis", 1)))
    shared = 8 // attr_int(op, "bits", 4) if _dtype(op) is DType.U8 else 1
    if shared > 1 and along != len(codes) - 1:
        raise Opaque(PACKED)
    s.pin(op, codes[axis], "data-index")
    for parameter in (scales, *([zeros] if zeros is not None else [])):
        for i, (t, p) in enumerate(zip(codes, parameter)):
            if i != along:
                s.unify(op, t, p)
    if zeros is not None:
        _zeros_along(op, s, scales[along], zeros[along], shared)
    elements = list(codes)
    elements[along] = _elements_along(op, s, codes[along], scales[along], shared)
    s.out(op, [ax.resolve(t) for t in (*elements[:axis], *index, *elements[axis + 1 :])])


def _zeros_along(op: Op, s: Solver, blocks: AxisType, zeros: AxisType, shared: int) -> None:
    if shared == 1:
        return s.unify(op, blocks, zeros)
    s.pin(op, blocks, PACKED)
    s.pin(op, zeros, PACKED)


def _elements_along(op: Op, s: Solver, codes: AxisType, blocks: AxisType, shared: int) -> AxisType:
    """The axis of elements under an axis of codes, `shared` of them in each."""
    n, size = ax.static(codes), attr_int(op, "block_size", 128)
    if n is None:
        raise Opaque("symbolic-size")
    if n * shared % size:
        s.pin(op, codes, BLOCK)
        s.pin(op, blocks, BLOCK)
        return s.pinned(op, n * shared, BLOCK)
    if shared == 1:
        inside = ax.atom(size)
        s.mark(op, inside, BLOCK)
        s.unify(op, codes, ax.prod((blocks, inside)))
        return codes
    s.unify(op, codes, ax.prod((blocks, s.pinned(op, size // shared, PACKED))))
    return ax.prod((blocks, s.pinned(op, size, PACKED)))


def _dtype(op: Op) -> DType | None:
    value = op.operand(0)
    return value.type.dtype if value is not None and isinstance(value.type, TensorType) else None
