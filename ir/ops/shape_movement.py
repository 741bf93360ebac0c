"""Types of operators that move elements without choosing among them: Reshape, Transpose, Concat, Split, ..."""

from __future__ import annotations

from .. import dims as _dims
from ..core import Op
from ..dims import Dim, Sym
from ..types import Shape, TensorType
from .access import (
    Unranked,
    attr_int,
    attr_ints,
    axes_in,
    axis_in,
    broken,
    dtype,
    elements,
    ints,
    operand,
    same,
    shape,
    unknown_sizes,
)
from .opdef import Inferred


def reshape(op: Op) -> list[Inferred]:
    """0 copies (unless allowzero), -1 is what is left; symbolic sizes cancel."""
    wanted = elements(operand(op, 1))
    if wanted is None:
        (length,) = shape(op, 1) if len(shape(op, 1)) == 1 else (None,)
        if not isinstance(length, int):
            raise Unranked
        return [Inferred(TensorType(dtype(op), unknown_sizes(op, length)))]
    try:
        source: Shape | None = shape(op)
    except Unranked:
        source = None
    return [Inferred(TensorType(dtype(op), _reshaped(op, source, wanted)))]


def _reshaped(op: Op, source: Shape | None, wanted: tuple[Dim, ...]) -> Shape:
    keeps_zero = bool(attr_int(op, "allowzero"))
    sizes = [_copied(op, source, i) if d == 0 and not keeps_zero else d for i, d in enumerate(wanted)]
    open_places = [i for i, d in enumerate(sizes) if d == -1]
    if len(open_places) > 1:
        raise broken(op, "more than one size is -1")
    if any(isinstance(d, int) and d < -1 for d in sizes):
        raise broken(op, f"the shape {list(sizes)} has a negative size")
    if source is None:
        return tuple(_dims.fresh() if d == -1 else d for d in sizes)
    total = _dims.product(source)
    if open_places:
        (place,) = open_places
        sizes[place] = _quotient(op, total, _dims.product(d for d in sizes if d != -1))
        return tuple(sizes)
    _check_total(op, total, _dims.product(sizes))
    return _solve_unknown(total, sizes)


def _copied(op: Op, source: Shape | None, index: int) -> Dim:
    if source is None:
        return _dims.fresh()
    if index >= len(source):
        raise broken(op, f"size {index} is 0 (copied), but the input has rank {len(source)}")
    return source[index]


def _check_total(op: Op, total: Dim, made: Dim) -> None:
    if isinstance(total, int) and isinstance(made, int) and total != made:
        raise broken(op, f"{total} elements do not fit into {made}")


def _solve_unknown(total: Dim, sizes: list[Dim]) -> Shape:
    """If exactly one size is an unknown of its own, it is what is left of the total."""
    unknown = [i for i, d in enumerate(sizes) if isinstance(d, Sym) and _dims.is_fresh(d)]
    if len(unknown) == 1 and not _dims.is_fresh(total):
        (place,) = unknown
        rest = _dims.exact_div(total, _dims.product(d for i, d in enumerate(sizes) if i != place))
        if rest is not None:
            sizes[place] = rest
    return tuple(sizes)


def _quotient(op: Op, total: Dim, known: Dim) -> Dim:
    exact = _dims.exact_div(total, known)
    if exact is not None:
        return exact
    if isinstance(total, int) and isinstance(known, int):
        if known == 0:
            return 0
        raise broken(op, f"{total} elements are no multiple of {known}")
    if _dims.is_fresh(total) or _dims.is_fresh(known):
        return _dims.fresh()
    return _dims.floordiv(total, known)


def flatten(op: Op) -> list[Inferred]:
    source = shape(op)
    axis = attr_int(op, "axis", 1)
    if not -len(source) <= axis <= len(source):
        raise broken(op, f"axis {axis} does not exist in a tensor of rank {len(source)}")
    cut = axis + len(source) if axis < 0 else axis
    return [Inferred(TensorType(dtype(op), (_dims.product(source[:cut]), _dims.product(source[cut:]))))]


def transpose(op: Op) -> list[Inferred]:
    source = shape(op)
    order = attr_ints(op, "perm") or tuple(reversed(range(len(source))))
    if sorted(order) != list(range(len(source))):
        raise broken(op, f"perm {list(order)} is no permutation of {len(source)} axes")
    return [Inferred(TensorType(dtype(op), tuple(source[i] for i in order)))]


def concat(op: Op) -> list[Inferred]:
    parts = [shape(op, slot) for slot, value in enumerate(op.operands) if value is not None]
    if not parts:
        raise broken(op, "nothing to concatenate")
    rank = len(parts[0])
    if any(len(p) != rank for p in parts):
        raise broken(op, f"the inputs have ranks {', '.join(str(len(p)) for p in parts)}")
    axis = axis_in(op, attr_int(op, "axis"), rank)
    merged: list[Dim] = list(parts[0])
    for part in parts[1:]:
        for i, size in enumerate(part):
            merged[i] = _dims.add(merged[i], size) if i == axis else same(op, merged[i], size, f"sizes of axis {i}")
    return [Inferred(TensorType(dtype(op), tuple(merged)))]


def split(op: Op) -> list[Inferred]:
    source = shape(op)
    if not source:
        raise broken(op, "a scalar cannot be split")
    axis = axis_in(op, attr_int(op, "axis"), len(source))
    sizes = _split_sizes(op, source[axis])
    return [Inferred(TensorType(dtype(op), (*source[:axis], size, *source[axis + 1 :]))) for size in sizes]


def _split_sizes(op: Op, size: Dim) -> tuple[Dim, ...]:
    parts = len(op.results)
    if op.operand(1) is not None:
        given = elements(op.operand(1))
        if given is None:
            return tuple(_dims.fresh() for _ in range(parts))
        total: Dim = 0
        for part in given:
            total = _dims.add(total, part)
        same(op, size, total, "the sum of the parts and the size of the axis")
        return given
    parts = attr_int(op, "num_outputs", parts)
    even = _dims.ceildiv(size, parts)
    return (*(even,) * (parts - 1), _dims.add(size, _dims.mul(even, 1 - parts)))


def squeeze(op: Op) -> list[Inferred]:
    source = shape(op)
    axes = _axes(op, len(source))
    if axes is None:
        if any(not isinstance(d, int) for d in source):
            raise Unranked
        axes = tuple(i for i, d in enumerate(source) if d == 1)
    wrong = [i for i in axes if isinstance(source[i], int) and source[i] != 1]
    if wrong:
        raise broken(op, f"axis {wrong[0]} has size {source[wrong[0]]}, not 1")
    return [Inferred(TensorType(dtype(op), tuple(d for i, d in enumerate(source) if i not in axes)))]


def unsqueeze(op: Op) -> list[Inferred]:
    source = shape(op)
    given = ints(op.operand(1)) if op.operand(1) is not None else attr_ints(op, "axes")
    if given is None:
        raise Unranked
    rank = len(source) + len(given)
    axes = axes_in(op, given, rank)
    if len(set(axes)) != len(axes):
        raise broken(op, f"axes {list(given)} repeat")
    rest = iter(source)
    return [Inferred(TensorType(dtype(op), tuple(1 if i in axes else next(rest) for i in range(rank))))]


def _axes(op: Op, rank: int) -> tuple[int, ...] | None:
    """The axes of Squeeze; None if all axes of size 1 are meant. Raises Unranked when they are computed."""
    if op.operand(1) is None:
        listed = attr_ints(op, "axes")
        return None if listed is None else axes_in(op, listed, rank)
    given = ints(op.operand(1))
    if given is None:
        raise Unranked
    return axes_in(op, given, rank)


def expand(op: Op) -> list[Inferred]:
    """Broadcast to a shape; a size of 1 in that shape keeps the input's."""
    from .shape_elementwise import broadcast_shapes

    wanted = elements(operand(op, 1))
    if wanted is None:
        (length,) = shape(op, 1) if len(shape(op, 1)) == 1 else (None,)
        if not isinstance(length, int):
            raise Unranked
        return [Inferred(TensorType(dtype(op), unknown_sizes(op, max(length, len(shape(op))))))]
    return [Inferred(TensorType(dtype(op), broadcast_shapes(op, (shape(op), wanted))))]


def tile(op: Op) -> list[Inferred]:
    source, repeats = shape(op), elements(operand(op, 1))
    sizes: Shape = tuple(_dims.fresh() for _ in source)
    if repeats is not None:
        if len(repeats) != len(source):
            raise broken(op, f"{len(repeats)} repeats for a tensor of rank {len(source)}")
        sizes = tuple(_dims.mul(d, r) for d, r in zip(source, repeats))
    return [Inferred(TensorType(dtype(op), sizes))]


def pad(op: Op) -> list[Inferred]:
    source = shape(op)
    axes_operand = op.operand(3)
    axes = tuple(range(len(source))) if axes_operand is None else ints(axes_operand)
    pads = elements(operand(op, 1))
    if axes is None or pads is None:
        return [Inferred(TensorType(dtype(op), tuple(_dims.fresh() for _ in source)))]
    if len(pads) != 2 * len(axes):
        raise broken(op, f"{len(pads)} pads for {len(axes)} axes")
    sizes = list(source)
    for place, axis in enumerate(axes_in(op, axes, len(source))):
        added = _dims.add(pads[place], pads[place + len(axes)])
        sizes[axis] = _dims.add(sizes[axis], added)
    return [Inferred(TensorType(dtype(op), tuple(sizes)))]


def depth_to_space(op: Op) -> list[Inferred]:
    n, c, *space = _blocked(op)
    block = attr_int(op, "blocksize", 1)
    sizes = (n, _dims.floordiv(c, block * block), *(_dims.mul(s, block) for s in space))
    return [Inferred(TensorType(dtype(op), sizes))]


def space_to_depth(op: Op) -> list[Inferred]:
    n, c, *space = _blocked(op)
    block = attr_int(op, "blocksize", 1)
    sizes = (n, _dims.mul(c, block * block), *(_dims.floordiv(s, block) for s in space))
    return [Inferred(TensorType(dtype(op), sizes))]


def _blocked(op: Op) -> Shape:
    source = shape(op)
    if len(source) != 4:
        raise broken(op, f"the input has rank {len(source)}, not 4")
    return source
