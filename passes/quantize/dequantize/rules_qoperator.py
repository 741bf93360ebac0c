"""Operators on codes that state the grids of their operands and of their result: QLinearConv and its relatives.

Each is a float operator between a DequantizeLinear per operand and a QuantizeLinear; the table says which operand is
what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ....ir.core import Attr, Op, Value
from ....ir.dtypes import DType
from ....ir.ops.access import attr_float, attr_int
from ....ir.types import TensorType
from ...base import SkipCode
from .grids import Grid, codes_behind, dtype_of, parameter
from .work import Rule, Why, Work

_MS = "com.microsoft::"
Operands = list[Value | None]


@dataclass(frozen=True)
class Slots:
    """Where the codes, scale and zero point of an operand are; the axis of its scales if there are several."""

    codes: int
    scale: int
    zero: int
    axis: Callable[[Op], int] = lambda op: 0


@dataclass(frozen=True)
class QOperator:
    """A float operator on codes.

    `factors` are the quantized operands in order; `bias` holds int32 codes (on the product of both scales) or floats;
    `result` are the slots of the result's scale and zero point. `build` makes the float operator; the default is `kind`
    with the same attributes.
    """

    kind: str
    factors: tuple[Slots, ...]
    bias: int | None = None
    result: tuple[int, int] | None = None
    build: Callable[[Work, Op, str, Operands], Value] | None = None

    def rule(self, work: Work, op: Op) -> Why | None:
        grid = self._result_grid(op)
        operands: Operands = []
        for slots in self.factors:
            found = _operand(work, op, slots)
            if isinstance(found, Why):
                return found
            operands.append(found)
        bias = _bias(work, op, self)
        if isinstance(bias, Why):
            return bias
        if self.bias is not None and bias is not None:
            operands.append(bias)
        build = self.build or _same
        made = build(work, op, self.kind, operands)
        if grid is None:
            work.replace(op, made, self.kind)
        else:
            work.note(op.results[0], grid, made, op)
            work.report(op, self.kind)
        return None

    def _result_grid(self, op: Op) -> Grid | None:
        if self.result is None:
            return None
        scale, zero = (op.operand(slot) for slot in self.result)
        return None if scale is None else Grid(scale, zero)


def _operand(work: Work, op: Op, slots: Slots) -> Value | Why:
    codes, scale, zero = (op.operand(s) for s in (slots.codes, slots.scale, slots.zero))
    assert codes is not None
    if dtype_of(codes) in (DType.F32, DType.F16):
        return codes
    assert scale is not None
    grid = Grid(scale, zero, slots.axis(op))
    if not grid.is_whole and codes_behind(codes) is None:
        return Why(SkipCode.UNSUPPORTED, f"{codes.name} is computed and has several scales")
    found = work.real(codes, grid, op)
    if found is None and codes_behind(codes) is not None:
        return Why(SkipCode.UNSUPPORTED, f"the scales of {codes.name} do not fit it")
    return found if found is not None else work.dequantized(codes, grid, op)


def _bias(work: Work, op: Op, spec: QOperator) -> Value | Why | None:
    """The bias in floats: codes of 32 bits are multiples of the product of both scales."""
    bias = op.operand(spec.bias) if spec.bias is not None else None
    if bias is None or dtype_of(bias) is not DType.I32:
        return bias
    first, second = (op.operand(s.scale) for s in spec.factors[:2])
    codes, scales = codes_behind(bias), [parameter(first), parameter(second)]
    if codes is None or any(s is None for s in scales):
        return Why(SkipCode.NOT_CONSTANT, "its bias, or the scale of it, is computed")
    product = np.asarray(scales[0], np.float32).reshape(-1) * np.asarray(scales[1], np.float32).reshape(-1)
    product = product * np.float32(attr_float(op, "alpha", 1.0))
    assert first is not None
    kind = dtype_of(first)
    assert kind is not None
    return work.number(codes.array().astype(np.float32) * product, kind, f"{bias.name}_floats")


def _same(work: Work, op: Op, kind: str, operands: Operands) -> Value:
    return work.new(kind, operands, op, _without(op, "channels_last", "opset"))


def _without(op: Op, *names: str) -> Mapping[str, Attr]:
    return {k: v for k, v in op.attrs.items() if k not in names}


def _plus_bias(work: Work, op: Op, kind: str, operands: Operands) -> Value:
    """A product, and the bias in an Add of its own."""
    made = work.new(kind, operands[:2], op)
    return made if len(operands) < 3 else work.new("Add", [made, operands[2]], op)


def _softmax(work: Work, op: Op, kind: str, operands: Operands) -> Value:
    """Before opset 13 all axes from `axis` on are one."""
    (x,) = operands
    assert x is not None
    rank = x.type.rank if isinstance(x.type, TensorType) else None
    axis = attr_int(op, "axis", -1)
    if attr_int(op, "opset", 13) >= 13 or (rank is not None and axis % rank == rank - 1):
        return work.new(kind, [x], op, {"axis": axis})
    sizes = work.new("Shape", [x], op)
    flat = work.new("Flatten", [x], op, {"axis": axis})
    return work.new("Reshape", [work.new(kind, [flat], op, {"axis": 1}), sizes], op)


def _global_mean(work: Work, op: Op, kind: str, operands: Operands) -> Value:
    (x,) = operands
    assert x is not None
    if not attr_int(op, "channels_last"):
        return work.new(kind, [x], op)
    rank = x.type.rank if isinstance(x.type, TensorType) else 4
    axes = work.rw.constant(np.arange(1, rank - 1, dtype=np.int64), "axes")
    return work.new("ReduceMean", [x, axes], op, {"keepdims": 1})


def _concat(work: Work, op: Op) -> Why | None:
    """The grid of the result, then every part with its own."""
    scale, zero = op.operand(0), op.operand(1)
    parts: Operands = []
    for first in range(2, len(op.operands), 3):
        found = _operand(work, op, Slots(first, first + 1, first + 2))
        if isinstance(found, Why):
            return found
        parts.append(found)
    assert scale is not None
    work.note(op.result, Grid(scale, zero), _same(work, op, "Concat", parts), op)
    work.report(op, "Concat")
    return None


def _where(work: Work, op: Op, kind: str, operands: Operands) -> Value:
    return work.new(kind, [op.operand(0), *operands], op)


def _attention(work: Work, op: Op, kind: str, operands: Operands) -> Value:
    """Input, weight and bias; then the mask and the cache, which have other places here."""
    rest = [op.operand(5), op.operand(8)]
    made = work.rw.insert(kind, [*operands, *rest], op.attrs, before=op, count=len(op.results))
    for old, new in list(zip(op.results, made.results))[1:]:
        work.rw.replace_uses(old, new)
    return made.results[0]


def _first(op: Op) -> int:
    return 0


def _last(op: Op) -> int:
    return -1


def _columns(op: Op) -> int:
    """The axis of the outputs of Gemm's second factor."""
    return 0 if attr_int(op, "transB") else 1


def _gemm(work: Work, op: Op, kind: str, operands: Operands) -> Value:
    return work.new(kind, operands, op, op.attrs)


_UNARY, _BINARY = (Slots(0, 1, 2),), (Slots(0, 1, 2), Slots(3, 4, 5))
TABLE: dict[str, QOperator] = {
    "QLinearConv": QOperator("Conv", (Slots(0, 1, 2), Slots(3, 4, 5, _first)), bias=8, result=(6, 7)),
    "QLinearMatMul": QOperator("MatMul", (Slots(0, 1, 2), Slots(3, 4, 5, _last)), result=(6, 7)),
    f"{_MS}QGemm": QOperator("Gemm", (Slots(0, 1, 2), Slots(3, 4, 5, _columns)), 6, (7, 8), _gemm),
    f"{_MS}QLinearAdd": QOperator("Add", _BINARY, result=(6, 7)),
    f"{_MS}QLinearMul": QOperator("Mul", _BINARY, result=(6, 7)),
    f"{_MS}QLinearSigmoid": QOperator("Sigmoid", _UNARY, result=(3, 4)),
    f"{_MS}QLinearLeakyRelu": QOperator("LeakyRelu", _UNARY, result=(3, 4)),
    f"{_MS}QLinearSoftmax": QOperator("Softmax", _UNARY, result=(3, 4), build=_softmax),
    f"{_MS}QLinearAveragePool": QOperator("AveragePool", _UNARY, result=(3, 4)),
    f"{_MS}QLinearGlobalAveragePool": QOperator("GlobalAveragePool", _UNARY, result=(3, 4), build=_global_mean),
    f"{_MS}QLinearWhere": QOperator("Where", (Slots(1, 2, 3), Slots(4, 5, 6)), result=(7, 8), build=_where),
    f"{_MS}MatMulIntegerToFloat": QOperator("MatMul", (Slots(0, 2, 4), Slots(1, 3, 5, _last)), 6, build=_plus_bias),
    f"{_MS}DynamicQuantizeMatMul": QOperator("MatMul", (Slots(0, 0, 0), Slots(1, 2, 3, _last)), 4, build=_plus_bias),
    f"{_MS}QAttention": QOperator(f"{_MS}Attention", (Slots(0, 3, 6), Slots(1, 4, 7, _last)), 2, build=_attention),
}  # fmt: skip
RULES: dict[str, Rule] = {f"{_MS}QLinearConcat": _concat, **{kind: row.rule for kind, row in TABLE.items()}}
