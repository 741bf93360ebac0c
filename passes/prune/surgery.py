"""Removing units: constants sliced, explicit sizes rewritten, types recomputed in program order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ir import infer
from ...ir.axes import Axes, Index
from ...ir.constants import ArrayPayload, Constant, Payload
from ...ir.core import Graph, Op, Value
from ...ir.dims import Dim
from ...ir.ops.access import elements
from ...ir.ops.axes_rules_resize import RESIZE, Resizer
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType
from .counts import keep_count, keep_number

#: Sliced copies above this size are made when they are read, so that a plan costs no memory.
EAGER_BYTES = 16 << 20


class SlicedPayload:
    """Part of another payload, taken when it is read: one index array for each axis that is cut."""

    __slots__ = ("_base", "_indices")

    def __init__(self, base: Payload, indices: Mapping[int, Index]) -> None:
        self._base, self._indices = base, dict(indices)

    def array(self) -> np.ndarray[Any, Any]:
        array = self._base.array()
        for axis, index in sorted(self._indices.items()):  # one axis at a time copies runs, np.ix_ single elements
            array = np.take(array, index, axis)
        return np.ascontiguousarray(array)


def sliced(constant: Constant, indices: Mapping[int, Index]) -> Constant:
    """The constant with only these positions along these axes."""
    shape = tuple(len(indices[a]) if a in indices else n for a, n in enumerate(constant.shape))
    payload: Payload = SlicedPayload(constant.payload, indices)
    result = Constant(TensorType(constant.dtype, shape), payload, constant.origin)
    if result.nbytes <= EAGER_BYTES:
        result.payload = ArrayPayload(payload.array())
    return result


def remove_units(rw: Rewriter, axes: Axes, kept: Mapping[int, Index]) -> list[Value]:
    """Keep only the units `kept[c]` of every class `c` named; the constants that were sliced.

    `axes` is the analysis of the module as it is. Raises CannotResize, and then the module is not to be used further.
    """
    changed = []
    for value in list(rw.module.constants.values()):
        indices = cut_of(axes, value, kept)
        if indices:
            assert value.constant is not None
            rw.set_constant(value, sliced(value.constant, indices))
            changed.append(value)
    numbers = {op: elements(op.operand(0)) for op in rw.module.walk() if op.kind == "Cast"}
    _resize_graph(rw.module.graph, Resizer(rw, axes, kept), numbers)
    return changed


def cut_of(axes: Axes, value: Value, kept: Mapping[int, Index]) -> dict[int, Index]:
    """The positions that stay along each axis of a constant that loses any."""
    found = {axis: axes.expand(t, kept) for axis, t in enumerate(axes.of(value) or ())}
    return {axis: index for axis, index in found.items() if index is not None}


def _resize_graph(graph: Graph, r: Resizer, numbers: Mapping[Op, tuple[Dim, ...] | None]) -> None:
    """Types and sizes in program order. `numbers`: the elements that Casts had."""
    for op in graph.ops:
        for region in op.regions.values():
            for formal in region.inputs:
                _retype(formal, r)
            _resize_graph(region, r, numbers)
        if op.kind in RESIZE and _touched(op, r):
            RESIZE[op.kind](op, r)
        keep_number(op, r, numbers.get(op))
        found = infer.infer_op(op, r.rw.module, require=False)
        for value, inferred in zip(op.results, found):
            _retype(value, r, inferred.type, inferred.dims, op)
        keep_count(op, r)


def _touched(op: Op, r: Resizer) -> bool:
    return any(r.touches(t) for v in (*op.operands, *op.results) for t in r.types(v))


def _retype(
    value: Value, r: Resizer, inferred: object = None, dims: tuple[Dim, ...] | None = None, op: Op | None = None
) -> None:
    """The type the analysis predicts; inference must agree with it wherever both know a number."""
    types = r.types(value)
    if not isinstance(value.type, TensorType) or len(types) != value.type.rank:
        return
    shape = tuple(r.size(t) if r.touches(t) else d for t, d in zip(types, value.type.shape))
    if isinstance(inferred, TensorType) and op is not None:
        for wanted, got in zip(shape, inferred.shape):
            if isinstance(wanted, int) and isinstance(got, int) and wanted != got:
                raise r.refuse(op, f"the result would have size {got} where {wanted} is needed")
    if op is None:
        dims = value.dims
    r.rw.retype(value, TensorType(value.type.dtype, shape), dims=dims)
