"""Lowering: standard ONNX to the kernels a target really has. The only place that emits com.microsoft operators.

Passes leave weights in blocks as `DequantizeLinear` over 4-bit codes. ONNX Runtime would widen them on every run;
here the pairs become MatMulNBits and GatherBlockQuantized, which compute from the codes. What has no kernel stays
as it is if the runtime can run it, and the report says so; else lowering refuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..ir.cleanup import drop_dead
from ..ir.constants import Constant
from ..ir.core import Graph, Module, Op, Value
from ..ir.dtypes import DType
from ..ir.errors import Code, error
from ..ir.rewrite import Rewriter
from ..ir.rows import sliced_rows
from ..ir.types import TensorType
from .legalize_blocks import BlockedWeight, BlockRows, blocked_weight, row_scales, row_zeros
from .legalize_channels import align
from .legalize_int8 import RULES as INT8_RULES
from .legalize_stored import store
from .targets import OrtTarget, parse_target

_MS = "com.microsoft::"
_KERNEL_BLOCKS = (16, 32, 64, 128, 256)
_WIDENED = frozenset({DType.U4, DType.I4, DType.U8, DType.I8, DType.U16, DType.I16, DType.I32})
#: Metadata of a DequantizeLinear: the accuracy level its reader may compute with.
ACCURACY = "mlc.accuracy_level"


@dataclass(frozen=True, slots=True)
class Lowering:
    """What became of one op."""

    site: str
    kind: str
    kernel: str
    native: bool
    why: str = ""


@dataclass(frozen=True)
class Lowered:
    """A module for one target, and what became of what."""

    module: Module
    sites: tuple[Lowering, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each kind of change, for the report."""
        counts = Counter((s.kind, s.kernel, s.native, s.why) for s in self.sites)
        return tuple(
            f"{count} {kind} -> {kernel}" if native else f"{count} {kind} stay {kernel}: {why}"
            for (kind, kernel, native, why), count in counts.items()
        )


def legalize(module: Module, target: OrtTarget | None = None) -> Lowered:
    """A copy of `module` with the kernels of `target`; constants are shared.

    Errors: RUNTIME for blocked codes that the runtime can neither compute with nor widen.
    """
    chosen = target if target is not None else parse_target("ort(cpu)")
    work = _Work(Rewriter(module.clone(), by="legalize"), chosen)
    for rules in STAGES:
        for op in list(work.module.walk()):
            rule = rules.get(op.kind)
            if rule is not None and op.parent is not None:
                rule(work, op)
        drop_dead(work.rw)
    _check_rest(work)
    if any(op.domain == "com.microsoft" for op in work.module.walk()):
        work.module.opsets.setdefault("com.microsoft", 1)
    return Lowered(work.module, tuple(work.sites))


class _Work:
    """One lowering: the rewriter, what was done, and the constants that several readers share."""

    def __init__(self, rw: Rewriter, target: OrtTarget) -> None:
        self.rw, self.target = rw, target
        self.sites: list[Lowering] = []
        self._told: set[tuple[Op, str]] = set()  # an op with several weights is one
        self.rows: dict[Constant, Value] = {}  # codes of a weight to their MatMulNBits layout
        self._scales: dict[tuple[Constant, DType, Graph], Value] = {}
        self._zeros: dict[Constant, Value | None] = {}

    @property
    def module(self) -> Module:
        return self.rw.module

    def row_codes(self, weight: BlockedWeight) -> Value:
        if weight.codes not in self.rows:
            payload = BlockRows(weight)
            constant = Constant(payload.type, payload, weight.codes.origin)
            self.rows[weight.codes] = self.rw.constant(constant, f"{self._base(weight)}_blocks")
        return self.rows[weight.codes]

    def row_zeros(self, weight: BlockedWeight) -> Value | None:
        if weight.codes not in self._zeros:
            packed = row_zeros(weight)
            name = f"{self._base(weight)}_block_zero_points"
            self._zeros[weight.codes] = None if packed is None else self.rw.constant(packed, name)
        return self._zeros[weight.codes]

    def scales(self, weight: BlockedWeight, before: Op) -> Value:
        """Scales [width, blocks] in the element type of the result, for a reader in the graph of `before`.

        Scales stored narrower keep their width in the file: a Cast widens them, which the runtime folds at load.
        """
        graph = before.parent
        assert graph is not None
        key = (weight.scale, weight.dtype, graph)
        if key not in self._scales:
            name = f"{self._base(weight)}_block_scales"
            value = self._stored_scales(weight, name)
            if weight.scale.dtype is not weight.dtype:
                first = next(iter(graph.ops))  # in front of every reader, whichever is lowered first
                to = {"to": weight.dtype.onnx}
                value = self.rw.insert("Cast", [value], to, before=first, origin=weight.op).result
            self._scales[key] = value
        return self._scales[key]

    def _stored_scales(self, weight: BlockedWeight, name: str) -> Value:
        if weight.axis == 1:  # they lie as the kernel wants them
            return next(v for v in self.module.constants.values() if v.constant is weight.scale)
        made = next((v for (scale, _, _), v in self._scales.items() if scale is weight.scale), None)
        while made is not None and made.op is not None:
            made = made.op.operand(0)  # the Cast of another graph
        return made if made is not None else self.rw.constant(row_scales(weight), name, dtype=weight.scale.dtype)

    def _base(self, weight: BlockedWeight) -> str:
        codes = weight.op.operand(0)
        assert codes is not None
        return codes.name.removesuffix("_quantized")

    def done(self, op: Op, kernel: str) -> None:
        if (op, kernel) not in self._told:
            self._told.add((op, kernel))
            self.sites.append(Lowering(op.name or op.kind, op.kind, kernel, native=True))


# -- rules: one function per operator; False leaves the op as it is ----------------------------------------------------


def _fits(weight: BlockedWeight | None, activations: Value | None, axis: int) -> bool:
    if weight is None or activations is None or not isinstance(activations.type, TensorType):
        return False
    same = activations.type.dtype is weight.dtype and weight.dtype in (DType.F32, DType.F16)
    return same and weight.seen_axis == axis and weight.block in _KERNEL_BLOCKS


def _nbits(work: _Work, op: Op, weight: BlockedWeight, activations: Value, result: TensorType | Any) -> Value:
    """The MatMulNBits that multiplies `activations` with the weight."""
    operands: list[Value | None] = [activations, work.row_codes(weight), work.scales(weight, op)]
    zeros = work.row_zeros(weight)
    if zeros is not None:
        operands.append(zeros)
    attrs = {
        "K": weight.depth,
        "N": weight.width,
        "bits": weight.bits,
        "block_size": weight.block,
        "accuracy_level": int(weight.op.meta.get(ACCURACY, "0")),
    }
    return work.rw.insert(f"{_MS}MatMulNBits", operands, attrs, before=op, results=[result]).result


def _matmul(work: _Work, op: Op) -> bool:
    weight = blocked_weight(op.operand(1))
    activations = op.operand(0)
    if not _fits(weight, activations, 0):
        return False
    assert weight is not None
    assert activations is not None
    work.rw.replace(op, [_nbits(work, op, weight, activations, op.result.type)])
    work.done(op, "MatMulNBits")
    return True


def _gemm(work: _Work, op: Op) -> bool:
    """alpha * A' B' + beta * C, with the factors as they are: folding them into scales would round."""
    weight = blocked_weight(op.operand(1))
    a, c = op.operand(0), op.operand(2)
    if not _fits(weight, a, 1 if op.attrs.get("transB", 0) else 0):
        return False
    assert weight is not None
    assert a is not None
    rw, dtype = work.rw, weight.dtype
    if op.attrs.get("transA", 0):
        a = rw.insert("Transpose", [a], before=op).result
    value = _nbits(work, op, weight, a, op.result.type)
    alpha, beta = (cast(float, op.attrs.get(name, 1.0)) for name in ("alpha", "beta"))
    if alpha != 1.0:
        value = rw.insert("Mul", [value, _scalar(rw, alpha, dtype)], before=op).result
    if c is not None and beta != 0.0:
        value = rw.insert("Add", [value, _scaled(rw, c, beta, dtype, op)], before=op).result
    rw.replace(op, [value])
    work.done(op, "MatMulNBits + Add" if c is not None else "MatMulNBits")
    return True


def _scalar(rw: Rewriter, value: float, dtype: DType) -> Value:
    return rw.constant(np.asarray(value, dtype.numpy), "factor")


def _scaled(rw: Rewriter, c: Value, beta: float, dtype: DType, before: Op) -> Value:
    if beta == 1.0:
        return c
    if c.constant is not None:
        return rw.constant((c.constant.array() * dtype.numpy.type(beta)).astype(dtype.numpy), f"{c.name}_scaled")
    return rw.insert("Mul", [c, _scalar(rw, beta, dtype)], before=before).result


def _gather(work: _Work, op: Op) -> bool:
    indices = op.operand(1)
    weight = _table(work, op)
    if weight is None or indices is None or op.attrs.get("axis", 0) not in (0, -2):
        return False
    _look_up(work, op, weight, indices)
    return True


def _slice(work: _Work, op: Op) -> bool:
    """Rows in order are rows looked up: the kernel then reads only those."""
    weight, rows = _table(work, op), sliced_rows(op)
    if weight is None or rows is None:
        return False
    start, end = rows
    rw = work.rw
    zero = rw.constant(np.array([0], np.int64), "axes")
    count = rw.constant(np.asarray(weight.width, np.int64), "rows")
    if isinstance(end.type, TensorType) and end.type.dtype is not DType.I64:
        end = rw.insert("Cast", [end], {"to": DType.I64.onnx}, before=op).result
    end = rw.insert("Min", [rw.insert("Squeeze", [end, zero], before=op).result, count], before=op).result
    first, step = (rw.constant(np.asarray(i, np.int64), "step") for i in (start, 1))
    _look_up(work, op, weight, rw.insert("Range", [first, end, step], before=op).result)
    return True


def _table(work: _Work, op: Op) -> BlockedWeight | None:
    """The table of codes that a lookup reads, if the kernel can."""
    weight = blocked_weight(op.operand(0))
    if weight is None or weight.transposed or weight.axis != 1 or weight.block not in _KERNEL_BLOCKS:
        return None
    whole_bytes = weight.depth % weight.block == 0
    fits = weight.dtype in (DType.F32, DType.F16) and (weight.bits == 4 or whole_bytes)
    return weight if fits else None


def _look_up(work: _Work, op: Op, weight: BlockedWeight, indices: Value) -> None:
    shared = weight.depth % weight.block == 0 and (weight.codes in work.rows or weight.bits != 4)
    operands = _shared_table(work, op, weight, indices) if shared else _own_table(work, op, weight, indices)
    attrs = {"bits": weight.bits, "block_size": weight.block, "gather_axis": 0, "quantize_axis": 1}
    made = work.rw.insert(f"{_MS}GatherBlockQuantized", operands, attrs, before=op, results=[op.result.type])
    work.rw.replace(op, [made.result])
    work.done(op, "GatherBlockQuantized (codes shared with MatMulNBits)" if shared else "GatherBlockQuantized")


def _shared_table(work: _Work, op: Op, weight: BlockedWeight, indices: Value) -> Sequence[Value | None]:
    """The codes of a tied matrix, as bytes in rows: a view of what MatMulNBits reads, folded at load."""
    row_bytes = weight.depth * weight.bits // 8
    shape = work.rw.constant(np.array([weight.width, row_bytes], np.int64), "table_shape")
    type_ = TensorType(DType.U8, (weight.width, row_bytes))
    data = work.rw.insert("Reshape", [work.row_codes(weight), shape], before=op, results=[type_]).result
    operands: list[Value | None] = [data, indices, work.scales(weight, op)]
    zeros = work.row_zeros(weight)
    return operands if zeros is None else [*operands, zeros]


def _own_table(work: _Work, op: Op, weight: BlockedWeight, indices: Value) -> Sequence[Value | None]:
    """Codes, scales and zero points as they are: the operator takes ONNX's 4-bit types."""
    codes, _, zero = (weight.op.operand(i) for i in range(3))
    operands = [codes, indices, weight.scale_value]
    return operands if zero is None else [*operands, zero]


Rule = Callable[[_Work, Op], bool]
#: Products first: an embedding whose table is also a matrix then shares the matrix's layout.
#: What no kernel reads is widened when the model is loaded.
STAGES: tuple[Mapping[str, Rule], ...] = (
    {"MatMul": _matmul, "Gemm": _gemm},
    {"Gather": _gather, "Slice": _slice},
    INT8_RULES,
    {"Conv": align},
    {"DequantizeLinear": store},
)


# -- what is left ------------------------------------------------------------------------------------------------------


def _check_rest(work: _Work) -> None:
    for op in work.module.walk():
        if op.kind != "DequantizeLinear" or not op.attrs.get("block_size", 0):
            continue
        codes = op.operand(0)
        dtype = codes.type.dtype if codes is not None and isinstance(codes.type, TensorType) else None
        if dtype not in _WIDENED:
            raise error(
                Code.RUNTIME,
                f"{work.target} has no kernel for {dtype!r} codes in blocks",
                where=str(op.loc),
                help="quantize this weight to 4 or 8 bits, or leave it out with 'except'",
            )
        readers = ", ".join(sorted({u.kind for u in op.result.users}))
        why = f"no kernel for {readers}; widened on every run"
        work.sites.append(Lowering(op.name or op.kind, "DequantizeLinear", "DequantizeLinear", native=False, why=why))
