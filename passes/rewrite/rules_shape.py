"""Shapes computed at run time although they are known: shape chains become constants."""

from __future__ import annotations

import numpy as np

from ...ir.core import Op, Value
from ...ir.ops.access import attr_int, ints
from ...ir.ops.opdef import Trait
from ...ir.ops.table import lookup
from ...ir.types import Shape, TensorType
from ..base import SkipCode
from .facts import shape
from .pattern import Leaf, anything, node
from .rule import Refusal, Rule, Site, constant_bytes, grows
from .rules_chain import shape_operand

# -- results whose elements are known ----------------------------------------------------------------------------------


def _is_known(op: Op) -> bool:
    if op.domain or op.regions or len(op.results) != 1 or lookup(op.kind).has(Trait.RANDOM):
        return False
    result = op.results[0]
    return result.dims is not None and isinstance(result.type, TensorType) and ints(result) is not None


def _known_check(site: Site) -> Refusal | None:
    result = site.op.result
    assert isinstance(result.type, TensorType)
    nbytes = result.type.dtype.nbytes(len(result.dims or ()))
    return grows(constant_bytes(nbytes, result.type.rank, result.name), [site.op], allowance=site.change)


def _known_build(site: Site) -> list[Value | None]:
    result = site.op.result
    assert isinstance(result.type, TensorType)
    elements = np.array(ints(result), result.type.dtype.numpy)
    constant = elements.reshape(()) if result.type.rank == 0 else elements
    return [site.const(constant, result.name, dtype=result.type.dtype)]


# -- shape operands ----------------------------------------------------------------------------------------


def _computed(value: Value) -> bool:
    return value.constant is None


def _shapes(site: Site) -> tuple[Shape, Shape | None]:
    result = shape(site.op.result)
    assert result is not None
    return result, shape(site["x"])


def _has_rank(op: Op) -> bool:
    return isinstance(op.results[0].type, TensorType)


_UNKNOWN = Refusal(SkipCode.NOT_CONSTANT, "more than one size is known only at run time")


def _reshape_check(site: Site) -> Refusal | None:
    result, source = _shapes(site)
    return _UNKNOWN if attr_int(site.op, "allowzero") or shape_operand(result, source) is None else None


def _reshape_build(site: Site) -> None:
    wanted = shape_operand(*_shapes(site))
    assert wanted is not None
    site.rw.set_operand(site.op, 1, site.ints(wanted))


def _expanded(result: Shape, source: Shape | None) -> tuple[int, ...] | None:
    """A constant shape operand of an Expand to `result`: 1 keeps the size of the source."""
    if source is None:
        return None
    offset = len(result) - len(source)
    found: list[int] = []
    for axis, dim in enumerate(result):
        if isinstance(dim, int):
            found.append(dim)
        elif axis >= offset and source[axis - offset] == dim:
            found.append(1)
        else:
            return None
    return tuple(found)


def _expand_check(site: Site) -> Refusal | None:
    return _UNKNOWN if _expanded(*_shapes(site)) is None else None


def _expand_build(site: Site) -> None:
    wanted = _expanded(*_shapes(site))
    assert wanted is not None
    site.rw.set_operand(site.op, 1, site.ints(wanted))


_X_COMPUTED: tuple[Leaf, Leaf] = (anything("x"), anything(where=_computed))

RULES: tuple[Rule, ...] = (
    Rule(
        "known-value", "Integer tensors of at most 64 elements that shape analysis knows are constants: "
        "Shape, Gather, Slice, Concat, arithmetic, Range, ... on known sizes.",
        node((), where=_is_known), _known_build, _known_check,
    ),
    Rule(
        "reshape-constant", "Reshape to a computed shape with at most one unknown size reads a constant (0 copies, "
        "-1 is what is left).",
        node("Reshape", *_X_COMPUTED, where=_has_rank), _reshape_build, _reshape_check,
    ),
    Rule(
        "expand-constant", "Expand to a computed shape reads a constant, if every size is known or kept.",
        node("Expand", *_X_COMPUTED, where=_has_rank), _expand_build, _expand_check,
    ),
)  # fmt: skip
