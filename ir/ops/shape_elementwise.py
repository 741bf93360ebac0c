"""Types of elementwise operators: as one operand, or the broadcast of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import dims as _dims
from ..core import Op
from ..dims import Dim
from ..dtypes import BY_ONNX, DType
from ..types import Shape, TensorType
from .access import attr_int, broken, dtype, operand, shape
from .opdef import Infer, Inferred


def like(slot: int = 0, *, element: DType | None = None) -> Infer:
    """The first result has the type of operand `slot`, perhaps with another element type."""

    def infer(op: Op) -> list[Inferred]:
        return [Inferred(TensorType(element or dtype(op, slot), shape(op, slot)))]

    return infer


def identity(op: Op) -> list[Inferred]:
    """Whatever comes in: tensors, sequences and optionals."""
    return [Inferred(operand(op, 0).type, operand(op, 0).dims)]


def broadcast(op: Op) -> list[Inferred]:
    """All operands broadcast; the element type of the first."""
    return [Inferred(TensorType(dtype(op), broadcast_shapes(op, _shapes(op))))]


def compare(op: Op) -> list[Inferred]:
    """All operands broadcast to a truth value."""
    return [Inferred(TensorType(DType.BOOL, broadcast_shapes(op, _shapes(op))))]


def where(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op, 1), broadcast_shapes(op, _shapes(op))))]


def cast(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(_element_type(op, "to"), shape(op)))]


def bit_cast(op: Op) -> list[Inferred]:
    target, source = _element_type(op, "to"), dtype(op)
    if target.bits != source.bits:
        raise broken(op, f"{source.short} and {target.short} differ in width")
    return [Inferred(TensorType(target, shape(op)))]


def cast_like(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op, 1), shape(op)))]


def dropout(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op), shape(op))), Inferred(TensorType(DType.BOOL, shape(op)))]


def _element_type(op: Op, name: str) -> DType:
    code = attr_int(op, name)
    if code not in BY_ONNX:
        raise broken(op, f"attribute {name!r} names no element type: {code}")
    return BY_ONNX[code]


def _shapes(op: Op) -> list[Shape]:
    operand(op, 0)
    return [shape(op, slot) for slot, value in enumerate(op.operands) if value is not None]


def broadcast_shapes(op: Op, shapes: Sequence[Shape]) -> Shape:
    """The shape all of these broadcast to, right-aligned."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(broadcast_dims(op, column) for column in zip(*padded))


def broadcast_dims(op: Op, sizes: Iterable[Dim]) -> Dim:
    """The size all of these broadcast to.

    A number above 1 decides, for what broadcasts with it is it or 1. An unknown against a named size is taken for
    that size (or 1): the names are the model's interface, unknowns are derived. Two expressions in the same names
    (a U-net joins 2*floor(H/2) with H) are equal wherever the model runs at all. Different names stay unknown.
    """
    wide: Dim = 1
    for size in sizes:
        if wide in (1, size):
            wide = size
        elif size == 1:
            continue
        elif isinstance(size, int) and isinstance(wide, int):
            raise broken(op, f"sizes {wide} and {size} do not broadcast")
        elif isinstance(size, int) or (_dims.is_fresh(wide) and not _dims.is_fresh(size) and not isinstance(wide, int)):
            wide = size
        elif not isinstance(wide, int) and not _dims.is_fresh(size) and _dims.symbols(wide) != _dims.symbols(size):
            wide = _dims.fresh()
    return wide
