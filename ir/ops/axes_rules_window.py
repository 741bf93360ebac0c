"""Axis rules of windows, grids and transforms over space and time: batch and channels pass, the rest is ordered."""

from __future__ import annotations

from math import prod

from .. import axis_types as ax
from ..axis_solver import Axis, Opaque, Solver
from ..axis_types import ONE, AxisType
from ..core import Op
from .access import attr_int, axis_in, ints
from .axes_rules_operands import numbers

SPATIAL = "spatial"


def fixed(op: Op, s: Solver, types: Axis, code: str = SPATIAL) -> None:
    for t in types:
        s.pin(op, t, code)


def made(op: Op, s: Solver, index: int, axes: slice, code: str = SPATIAL) -> list[AxisType]:
    """Axes of a result whose order the operator makes."""
    return [s.pinned(op, d, code) for d in s.shape(op.results[index])[axes]]


def pool(op: Op, s: Solver) -> None:
    """Windows over space; batch and channels pass. The indices of MaxPool count through the channels."""
    x = s.need(op, 0)
    if len(op.results) > 1 and op.results[1].uses:
        raise Opaque("index-leaks")
    if attr_int(op, "channels_last"):
        fixed(op, s, x[1:-1])
        return s.out(op, [x[0], *made(op, s, 0, slice(1, -1)), x[-1]])
    fixed(op, s, x[2:])
    s.out(op, [*x[:2], *made(op, s, 0, slice(2, None))])


def global_pool(op: Op, s: Solver) -> None:
    """One value a channel: symmetric in the positions it runs over."""
    x = s.need(op, 0)
    if attr_int(op, "channels_last"):
        return s.out(op, [x[0], *(ONE for _ in x[1:-1]), x[-1]])
    s.out(op, [*x[:2], *(ONE for _ in x[2:])])


def regions(op: Op, s: Solver) -> None:
    """RoiAlign, MaxRoiPool: x [N, C, H, W], boxes [R, 4 or 5], batch indices [R]; result [R, C, h, w]."""
    x, boxes, batch = s.need(op, 0), s.need(op, 1), s.operand(op, 2)
    fixed(op, s, (x[0],), "data-index")
    fixed(op, s, (*x[2:], *boxes[1:]))
    if batch:
        s.unify(op, boxes[0], batch[0])
    s.out(op, [ax.resolve(boxes[0]), x[1], *made(op, s, 0, slice(2, None))])


def grid_sample(op: Op, s: Solver) -> None:
    """x [N, C, space..], grid [N, places.., coordinates]; result [N, C, places..]."""
    x, grid = s.need(op, 0), s.need(op, 1)
    s.unify(op, x[0], grid[0])
    fixed(op, s, (*x[2:], grid[-1]))
    s.out(op, [ax.resolve(t) for t in (*x[:2], *grid[1:-1])])


def affine_grid(op: Op, s: Solver) -> None:
    """theta [N, r, r + 1] and a size; result [N, places.., r]."""
    theta = s.need(op, 0)
    numbers(op, s, 1)
    fixed(op, s, theta[1:])
    s.out(op, [theta[0], *made(op, s, 0, slice(1, None))])


def columns_to_image(op: Op, s: Solver) -> None:
    """x [N, C * block, places] to [N, C, space..]; the shapes of image and block are operands."""
    x = s.need(op, 0)
    numbers(op, s, 1, 2)
    block, width = ints(op.operand(2)), ax.static(x[1])
    if block is None or width is None:
        raise Opaque("symbolic-size")
    channels, inside = s.regroup(op, [x[1]], [width // prod(block), prod(block)])
    fixed(op, s, (inside, *x[2:]))
    s.out(op, [x[0], ax.resolve(channels), *made(op, s, 0, slice(2, None))])


def fourier(op: Op, s: Solver) -> None:
    """DFT: x [.., n, .., 1 or 2], length, axis (-2 if left out)."""
    x = s.need(op, 0)
    numbers(op, s, 1, 2)
    given = ints(op.operand(2)) if op.operand(2) is not None else (-2,)
    if given is None:
        raise Opaque("dynamic-axes")
    axis = axis_in(op, given[0], len(x))
    fixed(op, s, (x[axis], x[-1]), "order-matters")
    dims = s.shape(op.results[0])
    last = len(x) - 1
    s.out(op, [s.pinned(op, dims[i], "order-matters") if i in (axis, last) else t for i, t in enumerate(x)])


def short_fourier(op: Op, s: Solver) -> None:
    """STFT: signal [B, time, 1 or 2], step, window, length; result [B, frames, frequencies, 2]."""
    x = s.need(op, 0)
    numbers(op, s, 1, 3)
    fixed(op, s, (*x[1:], *(s.operand(op, 2) or ())), "time")
    s.out(op, [x[0], *made(op, s, 0, slice(1, None), "time")])


def crop_or_pad(op: Op, s: Solver) -> None:
    """CenterCropPad: axes whose size stays pass."""
    x = list(s.need(op, 0))
    numbers(op, s, 1)
    for i, d in enumerate(s.shape(op.results[0])):
        if ax.size(x[i]) != d:
            s.pin(op, x[i], "border")
            x[i] = s.pinned(op, d, "border")
    s.out(op, [ax.resolve(t) for t in x])


def determinant(op: Op, s: Solver) -> None:
    """Det [.., n, n]: its sign knows the order."""
    x = s.need(op, 0)
    fixed(op, s, x[-2:], "order-matters")
    s.out(op, list(x[:-2]))


def inverse(op: Op, s: Solver) -> None:
    """A matrix [.., n, n] and its inverse: rows of one are columns of the other, pinned as one."""
    x = s.need(op, 0)
    fixed(op, s, x[-2:], "order-matters")
    s.out(op, [ax.resolve(t) for t in x])
