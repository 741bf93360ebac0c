"""Reading an op's operands and attributes: what rules of the operator table share."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .. import dims as _dims
from ..core import Ints, Op, Value
from ..dims import Dim
from ..dtypes import DType
from ..errors import Code, MlcError, error
from ..types import Shape, TensorType, UnrankedTensor

MAX_RANK = 64  # no runtime knows tensors of more axes


class Unranked(Exception):
    """A rule needs the rank of an operand that has none. Inference catches this and asks ONNX instead."""


def operand(op: Op, slot: int) -> Value:
    """An operand that the operator cannot do without."""
    value = op.operand(slot)
    if value is None:
        raise broken(op, f"input {slot} is missing")
    return value


def dtype(op: Op, slot: int = 0) -> DType:
    return dtype_of(op, operand(op, slot))


def dtype_of(op: Op, value: Value) -> DType:
    if isinstance(value.type, TensorType | UnrankedTensor):
        return value.type.dtype
    raise broken(op, f"input {value.name!r} is {value.type}, not a tensor")


def shape(op: Op, slot: int = 0) -> Shape:
    """The shape of an operand. Raises Unranked."""
    return shape_of(op, operand(op, slot))


def shape_of(op: Op, value: Value) -> Shape:
    if isinstance(value.type, TensorType):
        return value.type.shape
    dtype_of(op, value)
    raise Unranked


def shape_or_unknown(op: Op, slot: int, rank: int) -> Shape:
    """The shape of an operand whose rank the operator prescribes: unknown sizes if the operand has no rank."""
    value = operand(op, slot)
    if isinstance(value.type, UnrankedTensor):
        return tuple(_dims.fresh() for _ in range(rank))
    return shape_of(op, value)


def vector(op: Op, slot: int = 0) -> Shape:
    """The shape of an operand that has to be of rank 1. Raises Unranked."""
    found = shape(op, slot)
    if len(found) != 1:
        raise broken(op, f"input {slot} has {len(found)} axes instead of one")
    return found


def unknown_sizes(op: Op, rank: int) -> Shape:
    """Sizes of a result whose rank the length of an operand says. A hostile length must not fill the memory."""
    if rank > MAX_RANK:
        raise broken(op, f"a result would have {rank} axes")
    return tuple(_dims.fresh() for _ in range(rank))


def elements(value: Value | None) -> tuple[Dim, ...] | None:
    """The elements of a small integer operand, as dimensions; float constants with whole values count too."""
    if value is None:
        return None
    if value.dims is not None:
        return value.dims
    constant = value.constant
    if (
        constant is None
        or constant.type.rank > 1
        or constant.elements > 64
        or constant.dtype.kind in ("str", "complex")
    ):
        return None
    flat = constant.array().reshape(-1).astype(np.float64)
    if not np.all(np.isfinite(flat) & (flat == np.floor(flat))):
        return None
    return tuple(int(x) for x in flat)


def ints(value: Value | None) -> tuple[int, ...] | None:
    """The elements of a small operand if all of them are known integers."""
    found = elements(value)
    if found is None:
        return None
    known = tuple(d for d in found if isinstance(d, int))
    return known if len(known) == len(found) else None


def fractions(value: Value | None) -> tuple[Fraction, ...] | None:
    """The elements of a small float constant, exactly (Resize scales)."""
    if value is None or value.constant is None or value.constant.elements > 64:
        return None
    flat = value.constant.array().reshape(-1).astype(np.float64)
    return tuple(Fraction(float(x)) for x in flat) if np.all(np.isfinite(flat)) else None


def attr_int(op: Op, name: str, default: int = 0) -> int:
    found = op.attrs.get(name, default)
    return found if isinstance(found, int) else default


def attr_float(op: Op, name: str, default: float = 0.0) -> float:
    found = op.attrs.get(name, default)
    return float(found) if isinstance(found, int | float) else default


def attr_text(op: Op, name: str, default: str = "") -> str:
    found = op.attrs.get(name, default)
    return found.decode(errors="replace") if isinstance(found, bytes) else found if isinstance(found, str) else default


def attr_ints(op: Op, name: str) -> tuple[int, ...] | None:
    found = op.attrs.get(name)
    return tuple(found) if isinstance(found, Ints) else None


def axis_in(op: Op, axis: int, rank: int) -> int:
    """A possibly negative axis as an index below `rank`."""
    if not -rank <= axis < max(rank, 1):
        raise broken(op, f"axis {axis} does not exist in a tensor of rank {rank}")
    return axis % rank if rank else 0


def axes_in(op: Op, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    return tuple(axis_in(op, a, rank) for a in axes)


def same(op: Op, a: Dim, b: Dim, what: str) -> Dim:
    """Two descriptions of one size, unified."""
    joined = _dims.unify(a, b)
    if joined is None:
        raise broken(op, f"{what} differ: {a!r} and {b!r}")
    return joined


def broken(op: Op, message: str) -> MlcError:
    """The operands of an op contradict the operator."""
    given = ", ".join("none" if v is None else f"{v.name}: {v.type}" for v in op.operands)
    where = f"{op.loc} ({op.kind})"
    return error(Code.BROKEN_MODEL, message, where=where, help="correct the node in the source model", note=given)
