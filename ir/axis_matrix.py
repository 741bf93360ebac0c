"""Matrices along axes: from one matrix for each class to the matrix of a structured axis, and to whole tensors.

    atom -> T     sum -> block diagonal     product -> Kronecker product

A class that depends on outer classes may have one matrix for each combination of their old units, [n_u1, ..., new,
old]; inside a product with the outer class u it gives the block matrix of T_u[i, j] T_v(j).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import axis_types as ax
from .axis_expand import Index, innermost_first, length, units
from .axis_types import Atom, AxisType, Prod, Sum

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Matrices:
    """One matrix, or a stack of them, for each class variable; `outer` says by which classes stacks are indexed."""

    of: Mapping[Atom, Array]
    outer: Mapping[Atom, tuple[Atom, ...]]

    def only(self, classes: frozenset[Atom]) -> Matrices:
        return Matrices({v: m for v, m in self.of.items() if v in classes}, self.outer)


def kronecker(t: AxisType, chosen: Matrices, given: Mapping[Atom, int]) -> Array:
    """The matrix of a whole axis; `given` holds the old units of outer classes of other axes."""
    if isinstance(t, Atom):
        found = chosen.of.get(t)
        return np.eye(length(t)) if found is None else found[tuple(given[u] for u in chosen.outer.get(t, ()))]
    if isinstance(t, Prod):
        return _product(t.factors, chosen, given)
    if isinstance(t, Sum):
        return _block_diagonal([kronecker(part, chosen, given) for part in t.parts])
    return np.ones((1, 1))


def _product(factors: Sequence[AxisType], chosen: Matrices, given: Mapping[Atom, int]) -> Array:
    head, rest = kronecker(factors[0], chosen, given), factors[1:]
    if not rest:
        return head
    u = factors[0]
    if isinstance(u, Atom) and any(u in chosen.outer.get(v, ()) for f in rest for v in ax.atoms(f) if v in chosen.of):
        columns = (np.kron(head[:, j : j + 1], _product(rest, chosen, {**given, u: j})) for j in range(head.shape[1]))
        return np.concatenate(list(columns), axis=1)
    return np.kron(head, _product(rest, chosen, given))


def _block_diagonal(blocks: Sequence[Array]) -> Array:
    rows, columns = (np.cumsum([0, *(b.shape[i] for b in blocks)]) for i in (0, 1))
    whole: Array = np.zeros((rows[-1], columns[-1]))
    for block, row, column in zip(blocks, rows, columns):
        whole[row : row + block.shape[0], column : column + block.shape[1]] = block
    return whole


def along(array: Array, matrix: Array, axis: int) -> Array:
    """A matrix applied along an axis; one that only selects units moves them bit by bit.

    Errors: ValueError for whole numbers, which can be selected but not combined.
    """
    order = _selection(matrix)
    if order is not None:
        return np.take(array, order, axis=axis)
    if array.dtype.kind != "f":
        raise ValueError(f"constants of type {array.dtype} can be reordered, not combined")
    moved = np.moveaxis(np.tensordot(matrix, array.astype(np.float64), (1, axis)), 0, axis)
    return moved.astype(array.dtype)


def _selection(matrix: Array) -> Index | None:
    """Which unit each row takes, if every row takes one as it is."""
    if matrix.size == 0 or not (((matrix == 1).sum(1) == 1) & ((matrix != 0).sum(1) == 1)).all():
        return None
    return np.asarray(matrix.argmax(1), np.int64)


def mapped(array: Array, types: Sequence[AxisType], sides: Sequence[Matrices]) -> Array:
    """A tensor with a choice of matrices for each axis. Inner classes go first: they go by old outer units."""
    outer = {v: us for side in sides for v, us in side.outer.items() if v in side.of}
    inner = innermost_first(outer)
    for v in inner:
        for axis, side in enumerate(sides):
            if v in side.of:
                array = _by_outer_units(array, types, axis, side.only(frozenset((v,))), outer[v])
    for axis, side in enumerate(sides):
        rest = side.only(frozenset(side.of) - frozenset(inner))
        if rest.of:
            array = along(array, kronecker(types[axis], rest, {}), axis)
    return array


def _by_outer_units(
    array: Array, types: Sequence[AxisType], axis: int, chosen: Matrices, outer: Sequence[Atom]
) -> Array:
    """Along one axis, with a matrix for each combination of the outer units that other axes hold."""
    own = set(ax.atoms(types[axis]))
    deciding = [u for u in outer if u not in own]
    if not deciding:
        return along(array, kronecker(types[axis], chosen, {}), axis)
    parts = []
    for given, where in _combinations(types, deciding):
        parts.append((where, along(_take(array, where), kronecker(types[axis], chosen, given), axis)))
    shape = list(array.shape)
    shape[axis] = parts[0][1].shape[axis]
    result = np.empty(shape, array.dtype)
    for where, part in parts:
        result[np.ix_(*(where.get(i, np.arange(n)) for i, n in enumerate(shape)))] = part
    return result


def _take(array: Array, where: Mapping[int, Index]) -> Array:
    return array[np.ix_(*(where.get(i, np.arange(n)) for i, n in enumerate(array.shape)))]


def _combinations(
    types: Sequence[AxisType], deciding: Sequence[Atom]
) -> Iterator[tuple[dict[Atom, int], dict[int, Index]]]:
    """Each combination of units of outer classes, and the positions along their axes that have it."""
    homes = [next(i for i, t in enumerate(types) if u in ax.atoms(t)) for u in deciding]
    held = [units(types[i], u) for i, u in zip(homes, deciding)]
    for combination in np.ndindex(*(length(u) for u in deciding)):
        where: dict[int, Index] = {}
        for i, unit, found in zip(homes, combination, held):
            positions = np.flatnonzero(found == unit)
            where[i] = np.intersect1d(where[i], positions) if i in where else positions
        yield dict(zip(deciding, combination)), where
