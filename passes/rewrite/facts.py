"""What rules ask of values: known sizes, known elements, uniform constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.core import Op, Value
from ...ir.dims import Dim
from ...ir.dtypes import DType
from ...ir.ops.access import attr_ints
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.types import Shape, TensorType, UnrankedTensor

#: Constants larger than this are not searched for a uniform value.
SEARCHED = 1 << 20
_START = 8  # elements that tell most constants apart


def shape(value: Value | None) -> Shape | None:
    """The shape, if the rank is known."""
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


def static(value: Value | None) -> tuple[int, ...] | None:
    """The shape, if every size is known."""
    return value.type.static_shape if value is not None and isinstance(value.type, TensorType) else None


def rank(value: Value | None) -> int | None:
    found = shape(value)
    return None if found is None else len(found)


def dtype(value: Value) -> DType | None:
    return value.type.dtype if isinstance(value.type, TensorType | UnrankedTensor) else None


def same_type(a: Value, b: Value) -> bool:
    """Whether both are known to have the same element type and sizes."""
    return isinstance(a.type, TensorType) and a.type == b.type


def array(value: Value) -> np.ndarray[Any, Any]:
    assert value.constant is not None
    return value.constant.array()


def scalar(value: Value | None) -> Any | None:
    """The only element of a constant with one element, as a Python number."""
    if value is None or value.constant is None or value.constant.elements != 1 or value.constant.dtype is DType.STR:
        return None
    return array(value).reshape(-1)[0].item()


def uniform(value: Value) -> Any | None:
    """The number that every element of a constant is; None if they differ, are text, or there are none."""
    constant = value.constant
    if constant is None or not 0 < constant.elements <= SEARCHED or constant.dtype.kind in ("str", "complex"):
        return None
    start = constant.flat(0, _START)
    first = start[0]
    if not bool(np.all(start == first)):
        return None
    return first.item() if bool(np.all(constant.array() == first)) else None


def is_number(value: Value, wanted: float) -> bool:
    """Whether every element of a constant equals `wanted`."""
    found = uniform(value)
    return found is not None and bool(found == wanted)


def permutation(op: Op) -> tuple[int, ...] | None:
    """The permutation of a Transpose; reversed axes where the attribute is left out."""
    found = attr_ints(op, "perm")
    if found is not None:
        return found
    axes = rank(op.operand(0))
    return None if axes is None else tuple(reversed(range(axes)))


def compose(outer: tuple[int, ...], inner: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation of transposing by `inner`, then by `outer`."""
    return tuple(inner[axis] for axis in outer)


def inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(perm.index(axis) for axis in range(len(perm)))


def is_identity(perm: tuple[int, ...]) -> bool:
    return perm == tuple(range(len(perm)))


def positive(dim: Dim) -> bool:
    """Whether a size is certainly not zero."""
    return isinstance(dim, int) and dim > 0


def has(op: Op, trait: Trait) -> bool:
    return lookup(op.kind).has(trait)
