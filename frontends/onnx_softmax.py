"""Takes back what the version converter makes of Softmax: before opset 13 it worked on a flattened tensor.

Raised to opset 13 it becomes Shape, Flatten, Softmax and Reshape, which hides attention from every later pattern, the
runtime's included. Where the flattened axes hold one axis of more than one element the plain operator is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir import types
from ..ir.core import Module, Op, Value
from ..ir.types import TensorType

_KINDS = frozenset(("Softmax", "LogSoftmax", "Hardmax"))


@dataclass(frozen=True)
class _Match:
    source: Value
    axis: int
    reshape: Op
    inner: tuple[Op, ...]  # Softmax first
    kind: str


def restore_softmax(module: Module) -> int:
    """Fold every such group of four back into one operator, while the module is being built; how many were."""
    found = [match for op in module.walk() if op.kind == "Reshape" and (match := _match(op)) is not None]
    for match in found:
        _fold(match)
    return len(found)


def _match(reshape: Op) -> _Match | None:
    softmax, shape = (_only_use(reshape.operand(slot)) for slot in (0, 1))
    if softmax is None or shape is None or softmax.kind not in _KINDS or shape.kind != "Shape":
        return None
    flatten = _only_use(softmax.operand(0))
    if flatten is None or flatten.kind != "Flatten" or shape.attrs or softmax.attrs.get("axis", -1) != -1:
        return None
    source = flatten.operand(0)
    if source is None or source is not shape.operand(0) or not isinstance(source.type, TensorType):
        return None
    first = flatten.attrs.get("axis", 1)
    assert isinstance(first, int)
    axis = _softmax_axis(source.type, first)
    if axis is None:
        return None
    return _Match(source, axis, reshape, (softmax, flatten, shape), softmax.kind)


def _only_use(value: Value | None) -> Op | None:
    """The op that makes a value nobody else reads."""
    return value.op if value is not None and len(value.uses) == 1 else None


def _softmax_axis(type: TensorType, first: int) -> int | None:
    """The one axis from `first` on that is not of size 1; None if there are several."""
    first = first + type.rank if first < 0 else first
    wide = [axis for axis in range(first, type.rank) if type.shape[axis] != 1]
    if type.rank == 0 or len(wide) > 1:
        return None
    axis = wide[0] if wide else type.rank - 1
    return -1 if axis == type.rank - 1 else axis


def _fold(match: _Match) -> None:
    """The plain operator takes the place, the name and the result of the Reshape."""
    old = match.reshape
    graph, result = old.parent, old.result
    assert graph is not None
    named = old if old.name else match.inner[0]
    plain = Op(match.kind, [match.source], {"axis": match.axis}, [result], name=named.name, loc=named.loc)
    plain.doc, plain.meta = old.doc, old.meta
    graph._insert(plain, old)
    for op in (old, *match.inner):
        op._drop_operands()
        graph._unlink(op)
    result.type = types.unify(result.type, match.source.type) or result.type
