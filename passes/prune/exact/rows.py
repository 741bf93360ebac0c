"""Units as rows over features, in blocks side by side: dense numbers, or every unit a multiple of one feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Dense:
    """Any rows."""

    matrix: Array  # [units, features], float64

    @property
    def width(self) -> int:
        return int(self.matrix.shape[1])

    def scaled(self, by: Array) -> Dense:
        return Dense(self.matrix * by[:, None])

    def taken(self, units: Array) -> Dense:
        return Dense(self.matrix[units])

    def empty(self) -> Array:
        return np.asarray(~self.matrix.any(axis=1))

    def squares(self) -> Array:
        squares: Array = np.einsum("ij,ij->i", self.matrix, self.matrix)
        return squares

    def probed(self, probes: Array) -> Array:
        return np.asarray(self.matrix @ probes)

    def distance(self, i: int, a: float, j: int, b: float) -> float:
        """Between row i times a and row j times b, squared."""
        difference = self.matrix[i] * a - self.matrix[j] * b
        return float(difference @ difference)

    def dense(self) -> Array:
        return self.matrix


@dataclass(frozen=True, eq=False)
class Multiples:
    """Unit i is scale[i] times feature ids[i]; scale 0 is the empty row."""

    ids: Array
    scale: Array
    width: int

    def scaled(self, by: Array) -> Multiples:
        return Multiples(self.ids, self.scale * by, self.width)

    def taken(self, units: Array) -> Multiples:
        return Multiples(self.ids[units], self.scale[units], self.width)

    def empty(self) -> Array:
        return np.asarray(self.scale == 0)

    def squares(self) -> Array:
        return self.scale * self.scale

    def probed(self, probes: Array) -> Array:
        return np.asarray(probes[self.ids] * self.scale[:, None])

    def distance(self, i: int, a: float, j: int, b: float) -> float:
        first, second = float(self.scale[i] * a), float(self.scale[j] * b)
        same = self.ids[i] == self.ids[j]
        return (first - second) ** 2 if same else first**2 + second**2

    def dense(self) -> Array:
        used, column = np.unique(self.ids, return_inverse=True)
        matrix = np.zeros((len(self.ids), len(used)))
        matrix[np.arange(len(self.ids)), column] = self.scale
        return matrix


@dataclass(frozen=True, eq=False)
class Rows:
    """`size` units over the features of all blocks; no block: every row is empty."""

    size: int
    blocks: tuple[Dense | Multiples, ...] = ()

    @property
    def width(self) -> int:
        return sum(b.width for b in self.blocks)

    def scaled(self, by: Array) -> Rows:
        return Rows(self.size, tuple(b.scaled(by) for b in self.blocks))

    def taken(self, units: Array) -> Rows:
        return Rows(len(units), tuple(b.taken(units) for b in self.blocks))

    def beside(self, others: Iterable[Rows]) -> Rows:
        return Rows(self.size, (*self.blocks, *(b for other in others for b in other.blocks)))

    def with_column(self, column: Array) -> Rows:
        return Rows(self.size, (*self.blocks, Dense(np.asarray(column, np.float64)[:, None])))

    def empty(self) -> Array:
        found = np.ones(self.size, bool)
        for block in self.blocks:
            found &= block.empty()
        return found

    def norms(self) -> Array:
        total = np.zeros(self.size)
        for block in self.blocks:
            total += block.squares()
        return np.sqrt(total)

    def dense(self) -> Array:
        return np.hstack([b.dense() for b in self.blocks]) if self.blocks else np.zeros((self.size, 0))


def dense_rows(matrix: Array) -> Rows:
    return Rows(matrix.shape[0], (Dense(np.asarray(matrix, np.float64)),))
