"""How the units of a class come about: every unit as a combination of features that do not depend on the unit.

For a value that carries the class, the slice of unit i is  sum_k rows[i, k] * feature_k + const[i].  Linear operators
keep that form; after a nonlinear one, equal units (or proportional ones, where the operator is homogeneous) stay
equal and become features themselves. What ends up in the rows of a value decides which units are constant,
duplicates of each other or linearly dependent, whatever the input is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .cluster import cluster
from .rows import Array, Multiples, Rows, dense_rows

MOST_ELEMENTS = 4 << 20  # larger matrices are compared row by row at once and not kept


@dataclass(frozen=True, eq=False)
class Flow:
    """The units of one class in one value."""

    rows: Rows
    const: Array  # [units]

    @property
    def size(self) -> int:
        return len(self.const)

    @property
    def is_constant(self) -> bool:
        """Whether every unit is a number: a per-unit parameter."""
        return self.rows.width == 0

    def scaled(self, by: Array | float) -> Flow:
        factor = np.broadcast_to(np.asarray(by, np.float64), (self.size,))
        return self if (factor == 1).all() else Flow(self.rows.scaled(factor), self.const * factor)

    def shifted(self, by: Array | float) -> Flow:
        return Flow(self.rows, self.const + by)

    def absorbed(self) -> Flow:
        """The constants as one more feature, where they no longer are plain numbers (borders, sums)."""
        return Flow(full(self), np.zeros(self.size)) if self.const.any() else self


def constants(values: Array) -> Flow:
    return Flow(Rows(len(values)), np.asarray(values, np.float64))


def features(matrix: Array) -> Flow:
    """Units given by dense rows over unknown features; large ones are compared at once."""
    rows = dense_rows(matrix)
    if matrix.size > MOST_ELEMENTS:
        return grouped(rows, homogeneous=True, signed=True)
    return Flow(rows, np.zeros(rows.size))


def one_feature(size: int) -> Flow:
    """The same for all units."""
    return features(np.ones((size, 1)))


def joined(flows: Sequence[Flow], *, add_constants: bool) -> Flow:
    """Side by side: a sum of values with unrelated features, or several values at once."""
    if not add_constants:
        flows = [f.absorbed() for f in flows]
    total = sum((f.const for f in flows), np.zeros(flows[0].size))
    return Flow(flows[0].rows.beside(f.rows for f in flows[1:]), total)


def full(flow: Flow) -> Rows:
    """Rows and constants side by side."""
    return flow.rows.with_column(flow.const)


def grouped(rows: Rows, *, homogeneous: bool, signed: bool = False) -> Flow:
    """One feature for each set of equal rows (proportional ones if `homogeneous`); zero rows have none."""
    ids, scale = cluster(rows, homogeneous=homogeneous, signed=signed)
    return multiples(ids, scale)


def multiples(ids: Array, scale: Array) -> Flow:
    """Units that each are a factor of one feature; id -1 for none."""
    known = ids >= 0
    block = Multiples(np.where(known, ids, 0), np.where(known, scale, 0.0), int(ids.max(initial=-1)) + 1)
    return Flow(Rows(len(ids), (block,) if block.width else ()), np.zeros(len(ids)))


def unit_rows(array: Array, axis: int, units: Array) -> Array:
    """A constant seen unit by unit: [units, positions of one unit x everything else]."""
    moved = np.moveaxis(array, axis, 0)
    if not np.array_equal(units, np.arange(len(units))):
        moved = moved[unit_positions(units).ravel()]
    size = int(units.max()) + 1
    return np.ascontiguousarray(moved.reshape(size, -1), np.float64)


def unit_positions(units: Array) -> Array:
    """[units, m]: the positions along an axis that belong to each unit, in order."""
    order = np.argsort(units, kind="stable")
    order = order[np.searchsorted(units[order], 0) :]
    return order.reshape(int(units.max()) + 1, -1)
