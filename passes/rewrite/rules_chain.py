"""Two ops in a row that are one: transposes, casts, reshapes, squeezes, concats, slices, reductions."""

from __future__ import annotations

import numpy as np

from ...ir.core import Ints, Op, Value
from ...ir.dtypes import DType
from ...ir.ops.access import attr_int, ints
from ...ir.types import Shape, TensorType
from ..base import SkipCode
from .facts import compose, dtype, permutation, positive, rank, same_type, shape, static
from .pattern import anything, node
from .rule import Refusal, Rule, Site, constant_bytes, grows

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})

# -- transposes ------------------------------------------------------------------------------------------------------


def _transpose_twice(site: Site) -> None:
    outer, inner = permutation(site.op), permutation(site.node("inner"))
    assert outer is not None
    assert inner is not None
    site.rw.set_operand(site.op, 0, site["x"])
    site.rw.set_attr(site.op, "perm", Ints(compose(outer, inner)))


def _knows_perm(op: Op) -> bool:
    return permutation(op) is not None


# -- casts -----------------------------------------------------------------------------------------------------------

_MANTISSA = {DType.F16: 11, DType.BF16: 8, DType.F32: 24, DType.F64: 53}


def widens(source: DType, target: DType) -> bool:
    """Whether every value of `source` is a value of `target`."""
    if source is target:
        return True
    if source is DType.BOOL:
        return target.is_integer or target in _MANTISSA
    if source in _MANTISSA:
        return target in _MANTISSA and {source, target} != {DType.F16, DType.BF16} and target.bits > source.bits
    if source.is_integer and target.is_integer:
        if source.kind == target.kind:
            return target.bits >= source.bits
        return target.kind == "int" and target.bits > source.bits
    digits = source.bits - (1 if source.kind == "int" else 0)
    return source.is_integer and target in _MANTISSA and digits <= _MANTISSA[target] and target is not DType.F16


def _cast_twice(site: Site) -> Refusal | None:
    source, between, target = dtype(site["x"]), dtype(site.node("inner").result), dtype(site.op.result)
    if source is None or between is None or target is None or not widens(source, between):
        return Refusal(SkipCode.DTYPE, f"the first Cast, {source!r} to {between!r}, loses bits")
    if target is DType.STR or target.short.startswith("f8"):
        return Refusal(SkipCode.DTYPE, f"Cast to {target!r} depends on more than the value")
    return None


# -- reshapes --------------------------------------------------------------------------------------------------------


def shape_operand(result: Shape, source: Shape | None) -> tuple[int, ...] | None:
    """A constant shape operand of a Reshape to `result`: 0 copies a size of the source, -1 is what is left.

    None if more than one size is unknown, or a size may be zero where that would be read as "copy".
    """
    found: list[int] = []
    for axis, dim in enumerate(result):
        copies = source is not None and axis < len(source) and source[axis] == dim
        if positive(dim):
            assert isinstance(dim, int)
            found.append(dim)
        elif copies:
            found.append(0)
        elif isinstance(dim, int) or -1 in found:
            return None
        else:
            found.append(-1)
    if -1 in found and any(found[a] == 0 and not _nonzero(result[a]) for a in range(len(found))):
        return None  # what is left over of an empty tensor is not defined
    return tuple(found)


def _nonzero(dim: object) -> bool:
    return isinstance(dim, int) and dim != 0


def _view_twice(site: Site) -> Refusal | None:
    result = shape(site.op.result)
    wanted = None if result is None else _operand_for(site, result)
    if wanted is None:
        return Refusal(SkipCode.NOT_CONSTANT, "more than one size of the result is known only at run time")
    inner = [v.op for v in (site.op.operand(0),) if v is not None and v.op is not None]
    return grows(
        constant_bytes(8 * len(wanted), 1, f"{site.op.results[0].name}_constant"),
        inner,
        [site.op],
        allowance=site.change,
    )


def _operand_for(site: Site, result: Shape) -> tuple[int, ...] | None:
    return shape_operand(result, shape(site["x"]))


def _reshape(site: Site) -> list[Value | None] | None:
    result = shape(site.op.result)
    assert result is not None
    wanted = _operand_for(site, result)
    assert wanted is not None
    if site.op.kind == "Reshape":
        site.rw.set_attr(site.op, "allowzero", None)
        site.rw.set_operand(site.op, 1, site.ints(wanted))
        site.rw.set_operand(site.op, 0, site["x"])
        return None
    return [site.new("Reshape", [site["x"], site.ints(wanted)], results=[site.op.result.type])]


def _back_again(op: Op) -> bool:
    inner = op.operands[0]
    source = inner.op.operand(0) if inner is not None and inner.op is not None else None
    return source is not None and same_type(source, op.result)


def _axes(op: Op) -> tuple[int, ...] | None:
    """The constant axes of a Squeeze or Unsqueeze, not negative."""
    found, axes = ints(op.operand(1)), rank(op.results[0] if op.kind == "Unsqueeze" else op.operand(0))
    return None if found is None or axes is None else tuple(a % axes for a in found)


def _squeeze_twice(site: Site) -> None:
    """Axes of the narrower op are renamed past those of the wider one."""
    inner, outer = _axes(site.node("inner")), _axes(site.op)
    assert inner is not None
    assert outer is not None
    unsqueeze = site.op.kind == "Unsqueeze"
    near, far = (inner, outer) if unsqueeze else (outer, inner)
    total = rank(site.op.result if unsqueeze else site["x"])
    assert total is not None
    left = [a for a in range(total) if a not in far]
    site.rw.set_operand(site.op, 1, site.ints(sorted({*far, *(left[a] for a in near)})))
    site.rw.set_operand(site.op, 0, site["x"])


# -- concat, slice, reduce -------------------------------------------------------------------------------------------


def _nested(op: Op) -> list[int]:
    """Which operands of a Concat are made by a Concat along the same axis that nobody else reads."""
    axes = rank(op.results[0])
    if axes is None:
        return []
    axis = attr_int(op, "axis") % axes
    return [
        slot
        for slot, v in enumerate(op.operands)
        if v is not None and v.op is not None and v.op.kind == "Concat" and len(v.uses) == 1
        and v.op.parent is op.parent and attr_int(v.op, "axis") % axes == axis
    ]  # fmt: skip


def _flat_concat(site: Site) -> list[Value | None]:
    nested = _nested(site.op)
    operands: list[Value | None] = []
    for slot, value in enumerate(site.op.operands):
        operands += value.op.operands if slot in nested and value is not None and value.op is not None else (value,)
    return [site.new("Concat", operands, site.op.attrs)]


def _slice(op: Op) -> tuple[tuple[int, int, int, int], ...] | None:
    """(axis, start, end, step) of every sliced axis, if all are constant and the rank is known."""
    axes = rank(op.operand(0))
    starts, ends = ints(op.operand(1)), ints(op.operand(2))
    if axes is None or starts is None or ends is None:
        return None
    named = tuple(range(len(starts))) if op.operand(3) is None else ints(op.operand(3))
    steps = (1,) * len(starts) if op.operand(4) is None else ints(op.operand(4))
    if named is None or steps is None:
        return None
    return tuple(zip((a % axes for a in named), starts, ends, steps))


def _slice_twice(site: Site) -> Refusal | None:
    inner, outer = _slice(site.node("inner")), _slice(site.op)
    assert inner is not None
    assert outer is not None
    if {axis for axis, *_ in inner} & {axis for axis, *_ in outer}:
        return Refusal(SkipCode.NOT_CONSTANT, "both slices cut the same axis")
    name = site.op.results[0].name
    new = sum(constant_bytes(8 * len(column), 1, f"{name}_constant") for column in _columns(site))
    return grows(new, [site.node("inner")], [site.op], allowance=site.change)


def _one_slice(site: Site) -> None:
    operands = [site["x"], *(site.ints(column) for column in _columns(site))]
    for slot, value in enumerate(operands):
        site.rw.set_operand(site.op, slot, value)


def _columns(site: Site) -> list[tuple[int, ...]]:
    """Starts, ends, axes and, if one is not 1, steps of both slices."""
    cuts = sorted((*(_slice(site.node("inner")) or ()), *(_slice(site.op) or ())))
    axes, starts, ends, steps = zip(*cuts)
    needed = set(steps) != {1} or site.op.operand(4) is not None
    return [starts, ends, axes, steps] if needed else [starts, ends, axes]


REDUCTIONS = frozenset(
    f"Reduce{x}" for x in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
)


def reduced(op: Op) -> tuple[int, ...] | None:
    """The axes that a reduction reduces, if they are constant and the rank is known."""
    axes = rank(op.operand(0))
    if axes is None:
        return None
    if op.operand(1) is None:
        return () if attr_int(op, "noop_with_empty_axes") else tuple(range(axes))
    found = ints(op.operand(1))
    if found is None:
        return None
    return tuple(sorted(a % axes for a in found)) or (
        () if attr_int(op, "noop_with_empty_axes") else tuple(range(axes))
    )


def _squeezes_reduced(op: Op) -> bool:
    """Whether a Squeeze or Unsqueeze names exactly the axes that the reduction before it reduces."""
    value, axes = op.operand(0), _axes(op)
    reduction = value.op if value is not None else None
    if reduction is None or reduction.kind not in REDUCTIONS or not axes:
        return False
    return tuple(sorted(axes)) == reduced(reduction)


def _keepdims(value: int) -> Rule:
    outer = "Unsqueeze" if value else "Squeeze"

    def build(site: Site) -> list[Value | None]:
        inner = site.node("inner")
        return [site.new(inner.kind, inner.operands, {**inner.attrs, "keepdims": value}, origin=inner)]

    return Rule(
        "reduce-keepdims",
        "A reduction whose axes are squeezed away or put back afterwards does so itself.",
        node(
            outer,
            node(REDUCTIONS, name="inner", where=lambda op: attr_int(op, "keepdims", 1) != value),
            anything(),
            where=_squeezes_reduced,
        ),
        build,
    )


def _sizes(concat: Op, axis: int) -> tuple[int, ...] | None:
    """The sizes along `axis` of what a Concat joins, if all are known."""
    sizes = [found[axis] if (found := shape(v)) is not None else None for v in concat.operands]
    known = tuple(s for s in sizes if isinstance(s, int))
    return known if len(known) == len(sizes) else None


def _gathered(site: Site) -> tuple[int, int] | None:
    """Which operand of the Concat a Gather of one constant index reads, and where in it."""
    joined = site.node("inner").result
    axes, found = rank(joined), ints(site["index"])
    if axes is None or found is None or len(found) != 1:
        return None
    axis = attr_int(site.op, "axis") % axes
    if attr_int(site.node("inner"), "axis") % axes != axis:
        return None
    sizes = _sizes(site.node("inner"), axis)
    if sizes is None or not -sum(sizes) <= found[0] < sum(sizes):
        return None
    index = found[0] % sum(sizes)
    for slot, size in enumerate(sizes):
        if index < size:
            return slot, index
        index -= size
    return None


def _can_gather(site: Site) -> Refusal | None:
    if _gathered(site) is None:
        return Refusal(SkipCode.NOT_CONSTANT, "the index, or where the operands of the Concat begin, is not known")
    return None


def _gather_piece(site: Site) -> list[Value | None]:
    place = _gathered(site)
    assert place is not None
    piece = site.node("inner").operands[place[0]]
    assert piece is not None
    if same_type(piece, site.op.result):
        return [piece]
    index = site.const(np.full(static(site["index"]) or (), place[1]), dtype=dtype(site["index"]))
    return [site.new("Gather", [piece, index], site.op.attrs)]


def _one_axis_softmax(site: Site) -> int | None:
    """The axis that a softmax over all of the flattened trailing axes normalises; the others have size one."""
    sizes = shape(site["x"])
    if sizes is None or len(sizes) < 1:
        return None
    flattened = attr_int(site.node("flat"), "axis", 1)
    axis = flattened % len(sizes) if flattened != len(sizes) else len(sizes)
    wide = [a for a in range(axis, len(sizes)) if sizes[a] != 1]
    if axis == len(sizes) or len(wide) > 1:
        return None
    return wide[0] if wide else len(sizes) - 1


def _softmax_back(site: Site) -> Refusal | None:
    if not same_type(site["x"], site.op.result):
        return Refusal(SkipCode.NOT_CONSTANT, "the result is not shaped like what was flattened")
    if _one_axis_softmax(site) is None:
        return Refusal(SkipCode.NOT_CONSTANT, "the softmax runs over several axes")
    return None


def _softmax(site: Site) -> list[Value | None]:
    axis = _one_axis_softmax(site)
    assert axis is not None
    return [site.new(site.node("soft").kind, [site["x"]], {"axis": axis}, origin=site.node("soft"))]


def _over_last(op: Op) -> bool:
    return attr_int(op, "axis", -1) in (-1, 1)


def _shape_source(op: Op) -> Value | None:
    """An operand of the op before a Shape that certainly has the same sizes."""
    value = op.operand(0)
    maker = value.op if value is not None else None
    if value is None or maker is None or maker.kind in ("Shape", "Constant") or maker.parent is not op.parent:
        return None
    wanted = shape(value)
    if wanted is None:
        return None
    return next((v for v in maker.operands if v is not None and v.constant is None and shape(v) == wanted), None)


def _shape_of_source(site: Site) -> None:
    site.rw.set_operand(site.op, 0, _shape_source(site.op))


def _typed(op: Op) -> bool:
    return isinstance(op.results[0].type, TensorType)


def _squeezes(kind: str) -> Rule:
    pattern = node(
        kind,
        node(kind, anything("x"), name="inner", where=lambda op: _axes(op) is not None),
        where=lambda op: _axes(op) is not None,
    )
    return Rule(
        "squeeze-squeeze", "Squeeze after Squeeze, Unsqueeze after Unsqueeze, are one.", pattern, _squeeze_twice
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "transpose-transpose", "Transposes one after the other are one, or none.",
        node("Transpose", node("Transpose", anything("x"), name="inner", where=_knows_perm, shared=True),
             where=_knows_perm),
        _transpose_twice,
    ),
    Rule(
        "cast-cast", "Casts one after the other are one, if the first keeps every value.",
        node("Cast", node("Cast", anything("x"), name="inner", shared=True)),
        lambda s: s.rw.set_operand(s.op, 0, s["x"]), _cast_twice,
    ),
    Rule(
        "view-back", "Reshape, Flatten, Squeeze, Unsqueeze that lead back to the shape at the start cancel.",
        node(VIEWS, node(VIEWS, anything("x"), shared=True), where=_back_again), lambda s: [s["x"]],
    ),
    _squeezes("Squeeze"),
    _squeezes("Unsqueeze"),
    Rule(
        "reshape-reshape", "Reshape, Flatten, Squeeze, Unsqueeze in a row are one Reshape to a constant shape.",
        node(VIEWS, node(VIEWS, anything("x")), where=_typed), _reshape, _view_twice,
    ),
    Rule(
        "concat-concat", "Concat of a Concat along the same axis is one.",
        node("Concat", where=lambda op: bool(_nested(op))), _flat_concat,
    ),
    Rule(
        "slice-slice", "Slices of different axes are one.",
        node("Slice", node("Slice", anything("x"), name="inner", where=lambda op: _slice(op) is not None),
             where=lambda op: _slice(op) is not None),
        _one_slice, _slice_twice,
    ),
    _keepdims(0),
    _keepdims(1),
    Rule(
        "gather-concat", "Gather of one element of a Concat reads the operand that it comes from.",
        node("Gather", node("Concat", name="inner", shared=True), anything("index")),
        _gather_piece, _can_gather,
    ),
    Rule(
        "flat-softmax", "Flatten, Softmax, Reshape back: one Softmax, if it runs over a single axis.",
        node("Reshape", node({"Softmax", "LogSoftmax"}, node("Flatten", anything("x"), name="flat"), name="soft",
                             where=_over_last)),
        _softmax, _softmax_back,
    ),
    Rule(
        "shape-source", "Shape of an op's result is Shape of an operand that has the same sizes.",
        node("Shape", where=lambda op: _shape_source(op) is not None), _shape_of_source,
    ),
)  # fmt: skip
