"""Positive numbers along axes: what every element of a tensor is multiplied by when classes are scaled.

A *cell* is what may have a number of its own: a unit of a class, or where the class depends on others
(axis_dependence.py) a unit of it for each combination of their units. A channel of a grouped convolution is one; so
is a position within one attention head. Along a structured axis several positions may share a cell: those that a
flattened image has of one channel, or the query heads that read the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from . import axis_types as ax
from .axes import Axes
from .axis_admissible import Direction
from .axis_expand import Array, Index, length, units
from .axis_types import Atom, AxisType
from .core import Value


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of one direction: `outer` are the atoms that its class depends on."""

    direction: Direction
    outer: tuple[Atom, ...]

    @classmethod
    def of(cls, axes: Axes, direction: Direction) -> Cells:
        c = axes.class_of(direction.atom)
        return cls(direction, tuple(u.atom for u in axes.depends(c)) if c is not None else ())

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(length(a) for a in (*self.outer, self.direction.atom))

    @property
    def count(self) -> int:
        return int(np.prod(self.shape))

    def along(self, t: AxisType) -> Index:
        """The cell of every position of an axis that holds the outer units, too; -1 where there is none."""
        assert all(u in ax.atoms(t) for u in self.outer), "another axis decides as well"
        return self._numbered([units(t, a) for a in (*self.outer, self.direction.atom)])

    def within(self, types: Sequence[AxisType], axis: int) -> Index:
        """The same for a whole tensor, in a shape that broadcasts to it: outer units may lie along other axes."""
        found = []
        for atom in (*self.outer, self.direction.atom):
            own = atom in ax.atoms(types[axis])
            home = axis if own else next(i for i, t in enumerate(types) if atom in ax.atoms(t))
            found.append(units(types[home], atom).reshape([-1 if i == home else 1 for i in range(len(types))]))
        return self._numbered(found)

    def _numbered(self, by_atom: Sequence[Index]) -> Index:
        number: Index = np.zeros((1,) * by_atom[0].ndim, np.int64)
        there = np.ones((1,) * by_atom[0].ndim, bool)
        for size, unit in zip(self.shape, by_atom):
            number, there = number * size + unit, there & (unit >= 0)
        return np.where(there, number, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """One positive number for each cell of a direction: `numbers` is [cells]."""

    cells: Cells
    numbers: Array

    def factor(self, types: Sequence[AxisType], axis: int, exponent: float) -> Array:
        """What a tensor of these axis types is multiplied by for one of its axes; broadcasts to it."""
        cells = self.cells.within(types, axis)
        return np.where(cells < 0, 1.0, np.power(self.numbers, exponent)[cells])

    def factors(self, axes: Axes, value: Value) -> list[Array]:
        """The same for all axes of a value that the direction moves."""
        sides = self.cells.direction.sides
        return [
            self.factor(types, axis, sides[value, axis])
            for types in (axes.of(value) or (),)
            for axis in range(len(types))
            if (value, axis) in sides
        ]


def constants_of(scales: Iterable[Scale]) -> list[Value]:
    """The constants that scales move, each once."""
    found = (value for s in scales for value, _ in s.cells.direction.sides if value.constant is not None)
    return list(dict.fromkeys(found))
