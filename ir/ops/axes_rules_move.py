"""Axis rules of what only moves elements: reshape, transpose, concat, split, pad, expand."""

from __future__ import annotations

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op
from ..dims import Dim, add, exact_div, product
from .access import attr_int, attr_ints, attr_text, axes_in, axis_in, ints
from .axes_rules_operands import numbers


def reshape(op: Op, s: Solver) -> None:
    """Match runs of axes with equal products from the left, then from the right; refine inside each run."""
    x = s.need(op, 0)
    numbers(op, s, 1)
    s.out(op, _reshape(op, s, list(x), list(s.shape(op.results[0]))))


def _reshape(op: Op, s: Solver, x: list[AxisType], dims: list[Dim]) -> list[AxisType]:
    result: list[AxisType] = []
    while (run := _run(x, dims)) is not None:
        i, j = run
        result += s.regroup(op, x[:i], dims[:j])
        x, dims = x[i:], dims[j:]
    tail: list[AxisType] = []
    while (run := _run(x[::-1], dims[::-1])) is not None:
        i, j = run
        tail = [*s.regroup(op, x[len(x) - i :], dims[len(dims) - j :]), *tail]
        x, dims = x[: len(x) - i], dims[: len(dims) - j]
    if x or dims:
        result += _open_run(op, s, x, dims)
    return result + tail


def _run(x: list[AxisType], dims: list[Dim]) -> tuple[int, int] | None:
    """The shortest prefixes of both lists with equal, non-zero products (ones ride along at the end)."""
    sizes = [ax.size(t) for t in x]
    if (not x and not dims) or 0 in sizes or 0 in dims:
        return None
    if not x or not dims:
        rest = sizes or dims
        return (len(x), len(dims)) if all(n == 1 for n in rest) else None
    i = j = 1
    a, b = sizes[0], dims[0]
    while a != b:
        grown = _grow(a, b, sizes, dims, i, j)
        if grown is None:
            return None
        a, b, i, j = grown
    return i, j


def _grow(a: Dim, b: Dim, sizes: list[Dim], dims: list[Dim], i: int, j: int) -> tuple[Dim, Dim, int, int] | None:
    """Lengthen the prefix whose product is the smaller one."""
    shorter_a = a < b if isinstance(a, int) and isinstance(b, int) else exact_div(b, a) is not None
    if shorter_a:
        return (product((a, sizes[i])), b, i + 1, j) if i < len(sizes) else None
    if (isinstance(a, int) and isinstance(b, int)) or exact_div(a, b) is not None:
        return (a, product((b, dims[j])), i, j + 1) if j < len(dims) else None
    # Neither divides the other: [B, 4, T] against [4, B*T] and the like. Take both and see.
    if i < len(sizes) and j < len(dims):
        return product((a, sizes[i])), product((b, dims[j])), i + 1, j + 1
    return None


def _open_run(op: Op, s: Solver, x: list[AxisType], dims: list[Dim]) -> list[AxisType]:
    found = ax.regroup(x, dims) if product(ax.size(t) for t in x) == product(dims) else None
    if found is not None:
        return found
    for t in x:
        s.pin(op, t, "size-unknown")
    return [s.pinned(op, d, "size-unknown") for d in dims]


def flatten(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    axis = attr_int(op, "axis", 1)
    axis = axis if axis >= 0 else axis + len(x)
    s.out(op, [ax.prod(x[:axis]), ax.prod(x[axis:])])


def squeeze(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    wanted = _axes(op, s, 1)
    if wanted is None:
        gone = {i for i, t in enumerate(x) if ax.size(t) == 1}
    else:
        gone = set(axes_in(op, wanted, len(x)))
    s.out(op, [t for i, t in enumerate(x) if i not in gone])


def unsqueeze(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    wanted = _axes(op, s, 1)
    if wanted is None:
        raise Opaque("dynamic-axes")
    rank = len(x) + len(wanted)
    new = set(axes_in(op, wanted, rank))
    queue = iter(x)
    s.out(op, [ONE if i in new else next(queue) for i in range(rank)])


def _axes(op: Op, s: Solver, slot: int) -> tuple[int, ...] | None:
    """Axes given as an operand or, before opset 13, as an attribute; None if left out."""
    numbers(op, s, slot)
    if op.operand(slot) is None:
        return attr_ints(op, "axes")
    found = ints(op.operand(slot))
    if found is None:
        raise Opaque("dynamic-axes")
    return found


def transpose(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    perm = attr_ints(op, "perm") or tuple(reversed(range(len(x))))
    s.out(op, [x[i] for i in perm])


def concat(op: Op, s: Solver) -> None:
    operands = [s.need(op, slot) for slot in range(len(op.operands))]
    axis = axis_in(op, attr_int(op, "axis"), len(operands[0]))
    others = [_tie(op, s, [types[i] for types in operands]) for i in range(len(operands[0])) if i != axis]
    others.insert(axis, ax.concat(types[axis] for types in operands))
    s.out(op, others)


def _tie(op: Op, s: Solver, types: list[AxisType]) -> AxisType:
    for other in types[1:]:
        s.unify(op, types[0], other)
    return ax.resolve(types[0])


def split(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    numbers(op, s, 1)
    axis = axis_in(op, attr_int(op, "axis"), len(x))
    sizes = [s.shape(value)[axis] for value in op.results]
    pieces = s.split(op, x[axis], sizes) if _sums_to(sizes, ax.size(x[axis])) else None
    if pieces is None:
        s.pin(op, x[axis], "size-unknown")
        pieces = [s.pinned(op, n, "size-unknown") for n in sizes]
    for index, piece in enumerate(pieces):
        s.out(op, [*x[:axis], piece, *x[axis + 1 :]], index)


def _sums_to(sizes: list[Dim], whole: Dim) -> bool:
    total: Dim = 0
    for n in sizes:
        total = add(total, n)
    return total == whole


def pad(op: Op, s: Solver) -> None:
    """A constant border is a symmetric segment of its own; any other border leaks the order."""
    x = list(s.need(op, 0))
    numbers(op, s, 1, 3)
    pads = ints(op.operand(1))
    axes = ints(op.operand(3)) if op.operand(3) is not None else tuple(range(len(x)))
    if pads is None or axes is None:
        raise Opaque("dynamic-bounds")
    constant = attr_text(op, "mode", "constant") == "constant"
    dims = s.shape(op.results[0])
    for position, axis in enumerate(axes_in(op, axes, len(x))):
        before, after = pads[position], pads[position + len(axes)]
        if before == after == 0:
            continue
        if constant and isinstance(dims[axis], int) and ax.static(x[axis]) is not None:
            x[axis] = _border(op, s, x[axis], before, after)
        else:
            s.pin(op, x[axis], "border")
            x[axis] = s.pinned(op, dims[axis], "border")
    s.out(op, x)


def _border(op: Op, s: Solver, t: AxisType, before: int, after: int) -> AxisType:
    n = ax.static(t)
    assert n is not None
    cut = [max(0, -before), n - max(0, -before) - max(0, -after), max(0, -after)]
    kept = s.split(op, t, cut)[1] if cut[1] != n else t
    ring = [ax.atom(b) if b > 0 else None for b in (before, after)]
    return ax.concat(p for p in (ring[0], kept, ring[1]) if p is not None)


def expand(op: Op, s: Solver) -> None:
    """Copies are interchangeable: an axis that grows from 1 is a fresh free class."""
    x = s.need(op, 0)
    numbers(op, s, 1)
    s.out(op, _grown(op, s, x, s.shape(op.results[0])))


def _grown(op: Op, s: Solver, x: Axis, dims: tuple[Dim, ...]) -> list[AxisType]:
    padded = [ONE] * (len(dims) - len(x)) + list(x)
    return [t if ax.size(t) == d or ax.size(t) != 1 else ax.atom(d) for t, d in zip(padded, dims)]


def tile(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    repeats = ints(op.operand(1))
    numbers(op, s, 1)
    dims = s.shape(op.results[0])
    if repeats is None:
        # The axes that are not repeated cannot be told from the others.
        raise Opaque("dynamic-bounds")
    s.out(op, [t if r == 1 else _tiled(t, r, d) for t, r, d in zip(x, repeats, dims)])


def _tiled(t: AxisType, repeats: int, dim: Dim) -> AxisType:
    return ax.prod((ax.atom(repeats), t)) if repeats > 1 else ax.atom(dim)


def constant_of_shape(op: Op, s: Solver) -> None:
    numbers(op, s, 0)
    s.out(op, [ax.atom(d) for d in s.shape(op.results[0])])


def depth_to_space(op: Op, s: Solver) -> None:
    """The inverse of space_to_depth."""
    x = s.need(op, 0)
    block, channels = attr_int(op, "blocksize", 1), ax.static(x[1])
    if channels is None:
        raise Opaque("symbolic-size")
    inner = channels // (block * block)
    if attr_text(op, "mode", "DCR") == "DCR":
        slots, rest = s.regroup(op, [x[1]], [block * block, inner])
    else:
        rest, slots = s.regroup(op, [x[1]], [inner, block * block])
    for t in (slots, *x[2:]):
        s.pin(op, t, "spatial")
    dims = s.shape(op.results[0])
    s.out(op, [x[0], ax.resolve(rest), *(s.pinned(op, d, "spatial") for d in dims[2:])])


def space_to_depth(op: Op, s: Solver) -> None:
    """[N, C, H, W] to [N, block**2 * C, h, w], under mode CRD to [N, C * block**2, h, w]."""
    x = s.need(op, 0)
    block = attr_int(op, "blocksize", 1)
    for t in x[2:]:
        s.pin(op, t, "spatial")
    dims = s.shape(op.results[0])
    slots = s.pinned(op, block * block, "spatial")
    channels = ax.prod((slots, x[1]) if attr_text(op, "mode", "DCR") == "DCR" else (x[1], slots))
    s.out(op, [x[0], channels, *(s.pinned(op, d, "spatial") for d in dims[2:])])


def resize(op: Op, s: Solver) -> None:
    """Axes whose size stays pass; along the others the order is interpolated."""
    x = list(s.need(op, 0))
    if attr_text(op, "coordinate_transformation_mode") == "tf_crop_and_resize":
        raise Opaque("interpolated")
    dims = s.shape(op.results[0])
    scaled = _scaled_axes(op, x, dims)
    for axis in scaled:
        s.pin(op, x[axis], "interpolated")
        x[axis] = s.pinned(op, dims[axis], "interpolated")
    s.out(op, x)


def _scaled_axes(op: Op, x: list[AxisType], dims: tuple[Dim, ...]) -> list[int]:
    """The axes that are not certainly left alone."""
    named = attr_ints(op, "axes")
    axes = axes_in(op, named, len(x)) if named is not None else tuple(range(len(x)))
    if attr_text(op, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return list(axes)  # one scale for all of them, which may leave a size as it was
    scales = op.operand(2)
    if scales is None or scales.type.dtype.kind != "float" or scales.constant is None or not scales.constant.elements:  # type: ignore[union-attr]
        return [a for a in axes if ax.static(x[a]) is None or ax.size(x[a]) != dims[a]]
    factors = scales.constant.array().ravel()
    return [a for a, factor in zip(axes, factors) if factor != 1.0]


def upper_triangle(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    for t in x[-2:]:
        s.pin(op, t, "order-matters")
    s.out(op, [ax.resolve(t) for t in x])


def cumulate(op: Op, s: Solver) -> None:
    """CumSum and its like along a constant axis."""
    x = s.need(op, 0)
    axis = ints(op.operand(1))
    if axis is None:
        raise Opaque("dynamic-axes")
    s.pin(op, x[axis_in(op, axis[0], len(x))], "order-matters")
    s.out(op, [ax.resolve(t) for t in x])


def reverse_sequence(op: Op, s: Solver) -> None:
    x = s.need(op, 0)
    for axis in (attr_int(op, "batch_axis", 1), attr_int(op, "time_axis")):
        s.pin(op, x[axis_in(op, axis, len(x))], "order-matters")
    s.out(op, [ax.resolve(t) for t in x])
