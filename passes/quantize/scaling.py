"""Dividing what linear operators read by positive numbers and multiplying their weights by them: the same function.

    axes = axes_of(module)
    for site in scaling_sites(axes):
        divide(rw, axes, site, numbers)

Where the axis analysis admits it (ir/axis_admissible.py) the division moves into the constants that make the values:
weights and biases of the layers before, the scale and shift of a norm. Elsewhere a Mul goes in front of the readers.
SmoothQuant (Xiao et al., 2023), AWQ (Lin et al., 2024) and cross-layer equalization (Nagel et al., 2019) differ in
how they choose the numbers; that they keep the function is shown here once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.axes import Axes, analyse
from ...ir.axis_expand import Index
from ...ir.axis_scales import Cells, Scale, constants_of
from ...ir.constants import Constant
from ...ir.core import Graph, Module, Op, Value
from ...ir.dtypes import DType
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType
from ..base import Plan, site_name
from ..linear import Convolution, Linear, linear_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ScalingPlan(Plan):
    """A plan of sites that have `numbers`, one for every channel."""

    sites: tuple[Any, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan with the range of the numbers in place of them all."""
        found = super().to_json()
        for site in found["sites"]:
            numbers = site.pop("numbers")
            site |= {"count": len(numbers), "least": min(numbers), "most": max(numbers)}
        return found


class ScaledPayload:
    """The elements of another constant times factors that broadcast to it, multiplied whenever they are read.

    Nothing big is held: a model whose weights lie in a file is scaled without being read.
    """

    __slots__ = ("_factors", "source")

    def __init__(self, source: Constant, factors: Sequence[Array]) -> None:
        assert source.dtype.is_float
        self.source = source
        rank = len(source.shape)
        self._factors = tuple(f.reshape((1,) * (rank - f.ndim) + f.shape) for f in factors)

    def array(self) -> Array:
        return self._scaled(self.source.array(), 0)

    def raw(self, start: int, stop: int) -> Array:
        shape, width = self.source.shape or (1,), self.source.dtype.bits // 8
        row = int(np.prod(shape[1:]))
        first, last = start // width // row, -(-stop // (width * row))
        rows = self.source.flat(first * row, last * row).reshape(-1, *shape[1:])
        found = np.ascontiguousarray(self._scaled(rows, first)).reshape(-1).view(np.uint8)
        return found[start - first * row * width : stop - first * row * width]

    def _scaled(self, rows: Array, first: int) -> Array:
        """Some rows of axis 0, from `first` on."""
        wide = rows.astype(np.float64 if self.source.dtype is DType.F64 else np.float32)
        for factor in self._factors:
            part = factor[first : first + len(rows)] if factor.shape[:1] != (1,) else factor
            wide = wide * part.astype(wide.dtype)
        return np.asarray(wide.astype(self.source.dtype.numpy))


def apply_scales(rw: Rewriter, axes: Axes, scales: Sequence[Scale]) -> list[Value]:
    """Multiply every constant that the scales move, and return them. The outputs stay equal within rounding."""
    changed = constants_of(scales)
    for value in changed:
        scale_constant(rw, value, [f for s in scales for f in s.factors(axes, value)])
    return changed


def scale_constant(rw: Rewriter, value: Value, factors: Sequence[Array]) -> None:
    constant = value.constant
    assert constant is not None
    rw.set_constant(value, Constant(constant.type, ScaledPayload(constant, factors), constant.origin))


@dataclass(frozen=True, eq=False)
class ScalingSite:
    """Linear operators whose inputs have to be divided by the same numbers.

    `positions` has, for every value that they read, the number (cell) of each position along the axis that is
    contracted; -1 stays as it is. With `cells` the constants that make the values take the division up; without, there
    is one value, and a Mul in front of its readers divides.
    """

    readers: tuple[Linear, ...]
    positions: Mapping[Value, Index]
    cells: Cells | None = None

    @property
    def count(self) -> int:
        """How many numbers there are to choose."""
        return self.cells.count if self.cells is not None else len(next(iter(self.positions.values())))

    @property
    def folded(self) -> bool:
        return self.cells is not None

    @property
    def name(self) -> str:
        """The readers by name."""
        names = [site_name(r.op) for r in self.readers]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    def by_cell(self, by_position: Mapping[Value, Array]) -> Array:
        """The largest of what positions [n] say of their cell: ranges of values by position to ranges by cell."""
        found = np.zeros(self.count)
        for value, numbers in by_position.items():
            where = self.positions[value]
            np.maximum.at(found, where[where >= 0], numbers[where >= 0])
        return found

    def by_position(self, value: Value, numbers: Array) -> Array:
        """Numbers of cells for each position of one of the inputs; 1 where nothing is scaled."""
        where = self.positions[value]
        return np.where(where < 0, 1.0, numbers[where])


def data_axis(linear: Linear) -> int:
    """The axis of the input that is contracted."""
    assert isinstance(linear.data.type, TensorType)
    return 1 if isinstance(linear, Convolution) else linear.data.type.rank - 1


def input_factor(linear: Linear, numbers: Array) -> Array:
    """What the weight is multiplied by, when its inputs are divided by numbers [inputs]; broadcasts to the weight."""
    assert linear.weight.constant is not None
    shape = linear.weight.constant.shape
    if linear.groups > 1:
        by_group = np.repeat(numbers.reshape(linear.groups, -1), shape[0] // linear.groups, axis=0)
        return by_group.reshape(*by_group.shape, *(1,) * (len(shape) - 2))
    return numbers.reshape([-1 if i == linear.input_axis else 1 for i in range(len(shape))])


def axes_of(module: Module) -> Axes:
    """The analysis that sites are found by: what comes out may not be reordered, but need not be looked at for that."""
    return analyse(module, pin_outputs=False)


def scaling_sites(axes: Axes, ops: Iterable[Op] | None = None) -> list[ScalingSite]:
    """Where the inputs of linear operators may be divided, in program order: as few of them by a Mul as possible.

    Only inputs of known size; `ops` are those to be looked at (default: all of the module).
    """
    finder = _Finder(axes)
    for op in axes.module.walk() if ops is None else ops:
        linear = linear_of(op)
        if linear is not None:
            finder.add(linear)
    return finder.sites()


@dataclass
class _Finder:
    axes: Axes
    folded: dict[Cells, list[Linear]] = field(default_factory=lambda: defaultdict(list))
    alone: dict[tuple[Value, Graph | None], list[Linear]] = field(default_factory=lambda: defaultdict(list))
    order: dict[Cells | tuple[Value, Graph | None], None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._through: dict[tuple[Value, int], list[Cells]] = defaultdict(list)
        for direction in self.axes.transformations.directions():
            cells = Cells.of(self.axes, direction)
            for side in direction.sides:
                if side[0].constant is None:
                    self._through[side].append(cells)

    def add(self, linear: Linear) -> None:
        types = self.axes.of(linear.data)
        if types is None:
            return
        axis = data_axis(linear)
        fitting = [c for c in self._through[linear.data, axis] if self._fits(c, linear)]
        if fitting:
            best = max(fitting, key=lambda c: c.count)  # the finest: heads alone, or positions within heads
            self.folded[best].append(linear)
            self.order[best] = None
        elif isinstance(_size(linear), int):
            key = (linear.data, linear.op.parent)
            self.alone[key].append(linear)
            self.order[key] = None

    def _fits(self, cells: Cells, linear: Linear) -> bool:
        """Whether the numbers go the same way as for the readers that are known."""
        sides = cells.direction.sides
        return len({sides[r.data, data_axis(r)] for r in (*self.folded.get(cells, ()), linear)}) == 1

    def sites(self) -> list[ScalingSite]:
        return [self._folded(k) if isinstance(k, Cells) else self._alone(k) for k in self.order]

    def _folded(self, cells: Cells) -> ScalingSite:
        readers = self.folded[cells]
        positions = {}
        for linear in readers:
            types = self.axes.of(linear.data)
            assert types is not None
            positions[linear.data] = cells.along(types[data_axis(linear)])
        return ScalingSite(tuple(readers), positions, cells)

    def _alone(self, key: tuple[Value, Graph | None]) -> ScalingSite:
        readers = self.alone[key]
        size = _size(readers[0])
        assert isinstance(size, int)
        return ScalingSite(tuple(readers), {key[0]: np.arange(size, dtype=np.int64)})


def _size(linear: Linear) -> object:
    assert isinstance(linear.data.type, TensorType)
    return linear.data.type.shape[data_axis(linear)]


def divide(rw: Rewriter, axes: Axes, site: ScalingSite, numbers: Array) -> None:
    """Divide the inputs of a site by positive numbers [count] and multiply the weights by them.

    `axes` are of the module as it was before any Mul was inserted: constants are scaled in place, so they stay valid.
    """
    assert numbers.shape == (site.count,)
    assert bool(np.all(np.isfinite(numbers) & (numbers > 0))), "scales are positive"
    if site.cells is None:
        return _divide_by_mul(rw, site, numbers)
    linear = site.readers[0]
    exponent = site.cells.direction.sides[linear.data, data_axis(linear)]
    apply_scales(rw, axes, [Scale(site.cells, numbers ** (-1 / exponent))])


def _divide_by_mul(rw: Rewriter, site: ScalingSite, numbers: Array) -> None:
    (value,) = site.positions
    for weight, linear in {r.weight: r for r in site.readers}.items():
        scale_constant(rw, weight, [input_factor(linear, numbers)])
    assert isinstance(value.type, TensorType)
    shape = [-1 if i == data_axis(site.readers[0]) else 1 for i in range(value.type.rank)]
    while shape[0] == 1 and len(shape) > 1:  # broadcasting aligns from the right
        shape = shape[1:]
    inverse = Constant.of((1 / numbers).reshape(shape), value.type.dtype)
    ops = {r.op for r in site.readers}
    home = site.readers[0].op.parent
    assert home is not None
    first = next(op for op in home.ops if op in ops)
    factor = rw.constant(inverse, f"{value.name}_inverse_scale")
    scaled = rw.insert("Mul", [value, factor], before=first, results=[value.type]).result
    for op in ops:
        rw.set_operand(op, 0, scaled)


def blocked(site: ScalingSite) -> str:
    """Why a site cannot be divided; empty if it can. Weights that others read as well would change for them."""
    if site.cells is not None:
        return ""
    ops = {r.op for r in site.readers}
    shared = [r.weight.name for r in site.readers if not ops.issuperset(r.weight.users)]
    return f"its weight {shared[0]} is also read elsewhere" if shared else ""
