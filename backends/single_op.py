"""Checks operators one at a time: for models that are too large to run as a whole.

Of each kind of quantized operator the one with the smallest weights is taken out, run alone in the runtime on random
activations, and compared with the reference implementation of the operator table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ..ir import dims as _dims
from ..ir import errors
from ..ir.clone import clone_op
from ..ir.constants import Constant
from ..ir.core import Graph, Module, Op, Value
from ..ir.dims import Dim, Sym
from ..ir.errors import Code
from ..ir.evaluate import evaluate_op
from ..ir.infer import infer_module
from ..ir.ops.opdef import Trait
from ..ir.ops.table import lookup
from ..ir.rewrite import Rewriter
from ..ir.types import TensorType
from .agreement import AgreementMeter
from .ort import Session

_UNKNOWN_SIZE = 4
_ROWS = 256
_FOLDED_DEPTH = 4  # what lowering puts in front of a kernel is a Cast or two
_ROW_KINDS = frozenset({"com.microsoft::MatMulNBits", "com.microsoft::GatherBlockQuantized"})
_WIDTHS = {"com.microsoft::MatMulNBits": "N"}  # the attribute that counts the rows
_LIMIT = 0.999  # 8-bit activations inside a kernel (accuracy level 4) stay above this cosine


def check_changed_ops(module: Module, *, seed: int) -> dict[str, str]:
    """For each kind of quantized operator: `name of the one that ran: cosine`. Errors: RUNTIME if one disagrees."""
    found: dict[str, str] = {}
    for kind, op in sorted(_smallest(module).items()):
        alone, feeds = _alone(op, module, np.random.default_rng(seed))
        (twin,) = alone.graph.ops
        reference = evaluate_op(twin, [_array(v, feeds) for v in twin.operands], module=alone)
        meter = AgreementMeter()
        names = [v.name for v in op.results]
        meter.update(dict(zip(names, reference)), Session(alone).run(feeds))
        agreement = meter.result()
        if not agreement.integers_equal or (agreement.cosine is not None and agreement.cosine < _LIMIT):
            raise errors.error(
                Code.RUNTIME,
                f"the runtime computes {kind} differently from its definition (cosine {agreement.cosine})",
                where=op.name,
                help="leave this operator out with 'except', or use another version of ONNX Runtime",
            )
        found[kind] = f"{op.name}: cosine {agreement.cosine if agreement.cosine is not None else 1:.6f}"
    return found


def _smallest(module: Module) -> dict[str, Op]:
    """Per kind of quantized operator the one with the fewest bytes of constants."""
    found: dict[str, tuple[int, Op]] = {}
    for op in module.walk():
        constants = [v.constant for v in op.operands if v is not None and v.constant is not None]
        if not constants or op.regions or not lookup(op.kind).has(Trait.QUANTIZED):
            continue
        size = sum(c.nbytes for c in constants)
        if op.kind not in found or size < found[op.kind][0]:
            found[op.kind] = (size, op)
    return {kind: op for kind, (_, op) in found.items()}


def _alone(op: Op, module: Module, rng: np.random.Generator) -> tuple[Module, dict[str, Any]]:
    """A module of this one op, its run-time operands as inputs, and feeds for them."""
    graph = Graph("single")
    alone = Module(graph, opset=module.opset, opsets=module.opsets)
    mapping: dict[Value, Value] = {}
    feeds: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for value in dict.fromkeys(v for v in op.operands if v is not None):
        constant = _folded(value, module)
        if constant is not None:
            mapping[value] = alone._add_constant(value.name, _first_rows(op, constant))
        else:
            feeds[value.name] = _random(value, op, sizes, rng)
            mapping[value] = Value(_static(value, sizes), value.name)
            graph._add_input(mapping[value])
    twin = clone_op(op, mapping)
    graph._insert(twin)
    width = _WIDTHS.get(op.kind)
    if width is not None and isinstance(op.attrs[width], int):
        Rewriter(alone).set_attr(twin, width, min(_ROWS, cast(int, op.attrs[width])))
    for result in twin.results:
        graph._add_output(result, result.name)
        result.declared = None
    infer_module(alone, keep=False)
    return alone, feeds


def _folded(value: Value, module: Module, depth: int = _FOLDED_DEPTH) -> Constant | None:
    """The constant a value is, or that the runtime folds it to (scales behind a Cast): kernels rely on that."""
    op = value.op
    if value.constant is not None or op is None or op.regions or not op.operands or depth == 0:
        return value.constant
    arrays: list[Any] = []
    for operand in op.operands:
        constant = _folded(operand, module, depth - 1) if operand is not None else None
        if operand is not None and constant is None:
            return None  # at the first one: looking at all ancestors would take time exponential in the depth
        arrays.append(None if constant is None else constant.array())
    return Constant.of(evaluate_op(op, arrays, module=module)[value.index])


def _first_rows(op: Op, constant: Constant) -> Constant:
    """The first rows of a constant, where every constant of an operator has one row per output column or table row:
    what holds for them holds for all, and a whole table would be widened in memory."""
    if op.kind not in _ROW_KINDS or constant.type.rank < 1 or constant.shape[0] <= _ROWS:
        return constant
    columns = cast(int, op.attrs[_WIDTHS[op.kind]]) if op.kind in _WIDTHS else constant.shape[0]
    if columns <= _ROWS:
        return constant
    shape = (constant.shape[0] // columns * _ROWS, *constant.shape[1:])  # flat scales have some elements a row
    return Constant.of(constant.flat(0, int(np.prod(shape))).reshape(shape), constant.dtype)


def _static(value: Value, sizes: dict[str, int]) -> TensorType:
    if not isinstance(value.type, TensorType):
        message = f"{value.name!r} has no known rank: its operator cannot be run alone"
        raise errors.error(Code.RUNTIME, message, help="use --check full with more --max-memory, or --check none")
    return TensorType(value.type.dtype, tuple(_size(d, sizes) for d in value.type.shape))


def _size(dim: Dim, sizes: dict[str, int]) -> int:
    """A small size for every symbol, the same one wherever it occurs."""

    def chosen(symbol: Sym) -> Dim:
        return sizes.setdefault(symbol.name, _UNKNOWN_SIZE)

    found = _dims.substitute(dim, chosen)
    assert isinstance(found, int)
    return max(1, found)


def _random(value: Value, op: Op, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    kind = _static(value, sizes)
    shape = kind.static_shape
    if kind.dtype.is_float:
        return rng.standard_normal(shape).astype(kind.dtype.numpy)
    table = op.operand(0)  # integers here are indices into the first operand's rows, or quantized activations
    rows = table.type.shape[0] if table is not None and isinstance(table.type, TensorType) and table.type.rank else 2
    high = min(rows, _ROWS) if isinstance(rows, int) and table is not value else 127
    return rng.integers(0, high, shape).astype(kind.dtype.numpy)


def _array(value: Value | None, feeds: Mapping[str, Any]) -> Any:
    if value is None:
        return None
    return value.constant.array() if value.constant is not None else feeds[value.name]
