"""Constant folding: what depends on constants only is computed now, as long as the file does not grow.

A fold may span several ops: a table that is larger than the ops that make it stays, but a small result that is
computed from the table is folded together with it. Nothing random and nothing quantized is folded: the quantized
form of a weight is what the model is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Attr, Module, Op, Value
from ...ir.dtypes import DType
from ...ir.errors import MlcError
from ...ir.evaluate import evaluate_op
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.types import TensorType
from ..base import SkipCode
from .facts import static
from .pattern import node
from .rule import Refusal, Rule, Site, constant_bytes, grows

Array = np.ndarray[Any, Any]

_SPAN = 64  # ops in one fold at the most
_DEPTH = 8  # how far up a fold looks for constants
_LAZY = 4 << 20  # bytes from which a moved constant is computed when it is read
_LIMIT = 256 << 20  # bytes of one intermediate result at the most
_LAZY_KINDS = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"})
_NEVER = (Trait.RANDOM, Trait.QUANTIZED, Trait.CONTROL_FLOW)


class LazyPayload:
    """The result of an op on constants, computed whenever it is read: nothing large is held in memory."""

    __slots__ = ("_attrs", "_constants", "_kind", "_opset")

    def __init__(self, op: Op, module: Module) -> None:
        self._kind, self._attrs, self._opset = op.kind, dict(op.attrs), module.opset
        self._constants = tuple(None if v is None else v.constant for v in op.operands)

    def array(self) -> Array:
        return _run(self._kind, self._attrs, self._constants, self._opset)


def _run(kind: str, attrs: Mapping[str, Attr], constants: Sequence[Constant | None], opset: int) -> Array:
    from ...ir.core import Graph

    module = Module(Graph(), opset=opset)
    operands = [None if c is None else module._add_constant(f"c{i}", c) for i, c in enumerate(constants)]
    op = Op(kind, operands, attrs, [Value(TensorType(DType.F32, ()), "y")])
    return evaluate_op(op, [None if c is None else c.array() for c in constants], module=module)[0]


def _may_fold(op: Op) -> bool:
    if op.domain or op.regions or not op.results or any(lookup(op.kind).has(t) for t in _NEVER):
        return False
    return all(static(v) is not None and v.type.dtype is not DType.STR for v in op.results)  # type: ignore[union-attr]


def span(op: Op) -> tuple[Op, ...] | None:
    """The ops that must be computed for `op`, operands first; None if something in them is not constant."""
    order: dict[Op, None] = {}
    return tuple(order) if op.operands and _collect(op, order, _DEPTH) else None


def _collect(op: Op, order: dict[Op, None], depth: int) -> bool:
    if op in order:
        return True
    if depth == 0 or any(v is not None and v.constant is None and v.op is None for v in op.operands):
        return False
    if not _may_fold(op):
        return False
    for value in op.operands:
        if value is not None and value.op is not None and not _collect(value.op, order, depth - 1):
            return False
    order[op] = None
    return len(order) <= _SPAN


def _check(site: Site) -> Refusal | None:
    op = site.op
    ops = _span_of(site)
    assert ops is not None
    new = sum(constant_bytes(_nbytes(v), len(static(v) or ()), v.name) for v in op.results if v.uses)
    refusal = grows(new, _dying(ops))
    if refusal is not None:
        return refusal
    largest = max(_nbytes(v) for o in ops for v in o.results)
    if largest > _LIMIT and not _is_lazy(op, ops):
        return Refusal(SkipCode.GROWS, f"an intermediate result takes {largest:,} bytes of memory")
    if not _is_lazy(op, ops):
        try:
            site.scratch["folded"] = _evaluate(ops, site.module)
        except (MlcError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as problem:
            return Refusal(SkipCode.UNSUPPORTED, f"the reference implementation refuses: {problem}")
    return None


def _span_of(site: Site) -> tuple[Op, ...] | None:
    if "span" not in site.scratch:
        site.scratch["span"] = span(site.op)
    found: tuple[Op, ...] | None = site.scratch["span"]
    return found


def _dying(ops: Sequence[Op]) -> set[Op]:
    """Which ops of a span nobody needs any more once the last one is a constant."""
    dying = {ops[-1]}
    for op in reversed(ops[:-1]):
        if all(use.op in dying for v in op.results for use in v.uses):
            dying.add(op)
    return dying


def _is_lazy(op: Op, ops: Sequence[Op]) -> bool:
    return len(ops) == 1 and op.kind in _LAZY_KINDS and _nbytes(op.results[0]) >= _LAZY


def _nbytes(value: Value) -> int:
    assert isinstance(value.type, TensorType)
    return value.type.dtype.nbytes(math.prod(static(value) or ()))


def _evaluate(ops: Sequence[Op], module: Module) -> list[Array]:
    scope: dict[Value, Array] = {}
    found: list[Array] = []
    with np.errstate(all="ignore"):
        for op in ops:
            arrays = [None if v is None else v.constant.array() if v.constant else scope[v] for v in op.operands]
            found = evaluate_op(op, arrays, module=module)
            for value, array in zip(op.results, found):
                assert isinstance(value.type, TensorType)
                if array.dtype != value.type.dtype.numpy or array.shape != value.type.static_shape:
                    raise ValueError(f"{op.kind} yields {array.dtype}{list(array.shape)} instead of {value.type}")
            scope.update(zip(op.results, found))
    return found


def _build(site: Site) -> list[Value | None]:
    op = site.op
    folded = site.scratch.get("folded")
    if folded is None:
        assert isinstance(op.result.type, TensorType)
        lazy = Constant(op.result.type, LazyPayload(op, site.module), op.result.name)
        return [site.const(lazy, op.result.name)]
    kept = zip(op.results, folded)
    return [site.const(_frozen(v, a), v.name) if v.uses else None for v, a in kept]


def _frozen(value: Value, array: Array) -> Constant:
    """A constant of exactly the value's type, detached from what it was computed of."""
    assert isinstance(value.type, TensorType)
    return Constant.of(np.array(array, copy=True), value.type.dtype)


FOLD = Rule(
    "constants",
    "What depends on constants only is computed now, unless the file would grow. Random, quantized and control-flow "
    "operators are never folded.",
    node((), where=lambda op: span(op) is not None),
    _build,
    _check,
    exact=False,  # another library's sine differs in the last bit
)
