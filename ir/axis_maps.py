"""Matrices instead of permutations: one for each class, applied at all of its sites.

    atom -> T     sum -> block diagonal     product -> Kronecker product

A site where units are made takes `out` along its axis, a site where they are read `into` (both [new, old], applied from
the left). Optimal-transport fusion (Singh & Jaggi, 2020) has into = out, that is W T^T on the right. Where the function
has to stay, into is the (pseudo-)inverse of out, transposed: permutations and rotations are their own; after averaging
two equal units their readers are summed. Scales, signs, rotations and invertible matrices turn only those sites that
axis_admissible.py names, each with its exponent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .axes import Axes, Index
from .axis_admissible import Group
from .axis_expand import length
from .axis_types import Atom, AxisType, Prod, Sum
from .constants import ArrayPayload, Constant
from .core import Module

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class UnitMap:
    """The matrices of one class, [new units, old units]."""

    out: Array
    into: Array
    group: Group = Group.PERM

    @classmethod
    def balanced(cls, out: Array, group: Group = Group.PERM) -> UnitMap:
        """With readers that undo as much as can be undone."""
        return cls(out, np.linalg.pinv(out).T, group)

    @classmethod
    def reordered(cls, order: Index) -> UnitMap:
        matrix = np.eye(len(order))[np.asarray(order)]
        return cls(matrix, matrix)

    def inverse(self) -> UnitMap:
        """Errors: ValueError where units are lost."""
        if not np.allclose(self.into.T @ self.out, np.eye(self.out.shape[1]), atol=1e-9):
            raise ValueError("a map that loses units has no inverse")
        return UnitMap(self.into.T, self.out.T, self.group)

    def after(self, first: UnitMap) -> UnitMap:
        if self.group is not first.group:
            raise ValueError(f"maps of different groups do not compose: {self.group.name} after {first.group.name}")
        return UnitMap(self.out @ first.out, self.into @ first.into, self.group)


@dataclass(frozen=True, slots=True, eq=False)
class MapSpec:
    """Maps by class id. Errors: ValueError for a size that is not the class's, or a group that it does not admit."""

    axes: Axes
    maps: Mapping[int, UnitMap]

    def __post_init__(self) -> None:
        for id, m in self.maps.items():
            c = self.axes.classes[id]
            if m.out.shape != m.into.shape or m.out.ndim != 2 or m.out.shape[1] != c.size:
                raise ValueError(f"{c.name} takes two matrices [new, {c.size}], not {m.out.shape} and {m.into.shape}")
            if m.group not in self.axes.admissible(c):
                raise ValueError(f"{c.name} does not admit {m.group.name}")
            _check_member(c.name, m)

    @classmethod
    def permutation(cls, axes: Axes, permutations: Mapping[int, Index]) -> MapSpec:
        return cls(axes, {id: UnitMap.reordered(order) for id, order in permutations.items()})

    @classmethod
    def transport(cls, axes: Axes, matrices: Mapping[int, Array]) -> MapSpec:
        """W' = T W where units are made, W T^T where they are read."""
        return cls(axes, {id: UnitMap(T, T) for id, T in matrices.items()})

    def inverse(self) -> MapSpec:
        return MapSpec(self.axes, {id: m.inverse() for id, m in self.maps.items()})

    def after(self, first: MapSpec) -> MapSpec:
        """`first`, then this one; both on the module of `first` (the classes keep their ids)."""
        maps = dict(first.maps)
        for id, m in self.maps.items():
            maps[id] = m.after(maps[id]) if id in maps else m
        return MapSpec(first.axes, maps)

    def matrix(self, constant: str, axis: int) -> Array | None:
        """What is applied along an axis of a constant; None for the identity."""
        types = self.axes.of(self.axes.module.constants[constant])
        if types is None:  # used by nothing
            return None
        chosen = {}
        for c in self.axes.within(types[axis]):
            if c.id in self.maps:
                chosen[c.atom] = self._side(c.id, c.atom, (constant, axis))
        return kronecker(types[axis], chosen) if any(m is not None for m in chosen.values()) else None

    def _side(self, id: int, atom: Atom, place: tuple[str, int]) -> Array | None:
        m = self.maps[id]
        exponent = self.axes.transformations.exponents(atom, m.group).get(place, 0)
        if exponent == 0 and m.group is not Group.PERM:
            return None
        return m.into if exponent < 0 else m.out

    def arrays(self) -> dict[str, Array]:
        """The constants that change, by name."""
        found = {}
        for name, value in self.axes.module.constants.items():
            assert value.constant is not None
            array = value.constant.array()
            matrices = {axis: m for axis in range(array.ndim) if (m := self.matrix(name, axis)) is not None}
            for axis, m in matrices.items():
                array = along(array, m, axis)
            if matrices:
                found[name] = np.ascontiguousarray(array)
        return found

    def applied(self) -> Module:
        """A copy of the module with the maps applied. Errors: ValueError where a map changes the number of units.

        Then sizes that ops state have to follow (`prune`), and `arrays` has what goes into the constants.
        """
        for id, m in self.maps.items():
            if m.out.shape[0] != m.out.shape[1]:
                raise ValueError(
                    f"{self.axes.classes[id].name} would have {len(m.out)} units instead of {m.out.shape[1]}"
                )
        twin = self.axes.module.clone()
        for name, array in self.arrays().items():
            old = twin.constants[name].constant
            assert old is not None
            twin.constants[name].constant = Constant(old.type, ArrayPayload(array), old.origin)
        return twin


def _check_member(name: str, m: UnitMap) -> None:
    """Whether a matrix is of the group that it is said to be of."""
    if m.group is Group.PERM:
        return
    T, n = m.out, m.out.shape[1]
    square = T.shape == (n, n) and np.allclose(m.into.T @ T, np.eye(n), atol=1e-6)
    if not (square and _is_member(T, m.group)):
        raise ValueError(f"the matrices of {name} are not of the group {m.group.name}, or not each other's inverse")


def _is_member(T: Array, group: Group) -> bool:
    if group is Group.GL:
        return True
    if group is Group.ORTHOGONAL:
        return np.allclose(T @ T.T, np.eye(len(T)), atol=1e-9)
    entries = np.diag(T)
    allowed = entries > 0 if group is Group.POSITIVE_DIAGONAL else abs(entries) == 1
    return bool(allowed.all()) and np.array_equal(T, np.diag(entries))


def kronecker(t: AxisType, chosen: Mapping[Atom, Array | None]) -> Array:
    """The matrix of a whole axis."""
    if isinstance(t, Atom):
        found = chosen.get(t)
        return np.eye(length(t)) if found is None else found
    if isinstance(t, Prod):
        matrix: Array = np.ones((1, 1))
        for factor in t.factors:
            matrix = np.kron(matrix, kronecker(factor, chosen))
        return matrix
    if isinstance(t, Sum):
        blocks = [kronecker(part, chosen) for part in t.parts]
        rows, columns = (np.cumsum([0, *(b.shape[i] for b in blocks)]) for i in (0, 1))
        whole: Array = np.zeros((rows[-1], columns[-1]))
        for block, row, column in zip(blocks, rows, columns):
            whole[row : row + block.shape[0], column : column + block.shape[1]] = block
        return whole
    return np.ones((1, 1))


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


__all__ = ["MapSpec", "UnitMap", "along", "kronecker"]
