"""Matrices instead of permutations: one for each class, applied at all of its sites (along an axis: axis_matrix.py).

A site where units are made takes `out` along its axis, a site where they are read `into` (both [new, old], applied from
the left). Optimal-transport fusion (Singh & Jaggi, 2020) has into = out, that is W T^T on the right. Where the function
has to stay, into is the (pseudo-)inverse of out, transposed: permutations and rotations are their own; after averaging
two equal units their readers are summed. Scales, signs, rotations and invertible matrices turn only those sites that
axis_admissible.py names, each with its exponent.

A class that depends on others (axis_dependence.py) may have a matrix for each combination of old outer units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .axes import Axes, Index
from .axis_admissible import Group
from .axis_matrix import Matrices, mapped
from .axis_types import AxisType
from .constants import ArrayPayload, Constant
from .core import Module

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class UnitMap:
    """The matrices of one class, [new units, old units], or [outer units, ..., new, old] where it depends on others."""

    out: Array
    into: Array
    group: Group = Group.PERM

    @classmethod
    def balanced(cls, out: Array, group: Group = Group.PERM) -> UnitMap:
        """With readers that undo as much as can be undone."""
        return cls(out, _transposed(np.linalg.pinv(out)), group)

    @classmethod
    def reordered(cls, order: Index) -> UnitMap:
        matrix = np.eye(len(order))[np.asarray(order)]
        return cls(matrix, matrix)

    def inverse(self) -> UnitMap:
        """Errors: ValueError where units are lost."""
        if not np.allclose(_transposed(self.into) @ self.out, np.eye(self.out.shape[-1]), atol=1e-9):
            raise ValueError("a map that loses units has no inverse")
        return UnitMap(_transposed(self.into), _transposed(self.out), self.group)

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
            stack = m.out.shape[:-2]
            fits = m.out.shape == m.into.shape and m.out.ndim >= 2 and m.out.shape[-1] == c.size
            if not fits or stack not in ((), tuple(u.size for u in self.axes.depends(c))):
                raise ValueError(f"{c.name} takes two matrices [new, {c.size}], not {m.out.shape} and {m.into.shape}")
            if m.group not in self.axes.admissible(c):
                raise ValueError(f"{c.name} does not admit {m.group.name}")
            if not all(_is_member(T, S, m.group) for T, S in zip(_flat(m.out), _flat(m.into))):
                raise ValueError(f"the matrices of {c.name} are not of {m.group.name}, or not each other's inverse")

    @classmethod
    def permutation(cls, axes: Axes, permutations: Mapping[int, Index]) -> MapSpec:
        return cls(axes, {id: UnitMap.reordered(order) for id, order in permutations.items()})

    @classmethod
    def transport(cls, axes: Axes, matrices: Mapping[int, Array]) -> MapSpec:
        """W' = T W where units are made, W T^T where they are read."""
        return cls(axes, {id: UnitMap(T, T) for id, T in matrices.items()})

    def inverse(self) -> MapSpec:
        """Errors: ValueError where units are lost, or outer units move whose old numbers a stack goes by."""
        return MapSpec(self.axes, {id: self._steady(id).inverse() for id in self.maps})

    def after(self, first: MapSpec) -> MapSpec:
        """`first`, then this one; both on the module of `first` (the classes keep their ids)."""
        maps = {id: first._steady(id) if id in self.maps else m for id, m in first.maps.items()}
        for id in self.maps:
            maps[id] = self._steady(id).after(maps[id]) if id in maps else self._steady(id)
        return MapSpec(first.axes, maps)

    def _steady(self, id: int) -> UnitMap:
        """A map that may be composed and undone by itself."""
        m, c = self.maps[id], self.axes.classes[id]
        if m.out.ndim > 2 and any(u.id in self.maps for u in self.axes.depends(c)):
            raise ValueError(f"{c.name} goes by old units of classes that are mapped as well")
        return m

    def arrays(self) -> dict[str, Array]:
        """The constants that change, by name."""
        found = {}
        for name, value in self.axes.module.constants.items():
            types = self.axes.of(value)  # None: used by nothing
            sides = [self._side(name, axis, t) for axis, t in enumerate(types or ())]
            if types is not None and any(side.of for side in sides):
                assert value.constant is not None
                found[name] = np.ascontiguousarray(mapped(value.constant.array(), types, sides))
        return found

    def _side(self, constant: str, axis: int, t: AxisType) -> Matrices:
        """What is applied along an axis of a constant."""
        found, outer = {}, {}
        for c in self.axes.within(t):
            m = self.maps.get(c.id)
            exponent = 0 if m is None else self.axes.transformations.exponents(c.atom, m.group).get((constant, axis), 0)
            if m is None or (exponent == 0 and m.group is not Group.PERM):
                continue
            found[c.atom] = m.into if exponent < 0 else m.out
            if m.out.ndim > 2:
                outer[c.atom] = tuple(u.atom for u in self.axes.depends(c))
        return Matrices(found, outer)

    def applied(self) -> Module:
        """A copy of the module with the maps applied. Errors: ValueError where a map changes the number of units.

        Then sizes that ops state have to follow (`prune`), and `arrays` has what goes into the constants.
        """
        for id, m in self.maps.items():
            new, old = m.out.shape[-2:]
            if new != old:
                raise ValueError(f"{self.axes.classes[id].name} would have {new} units instead of {old}")
        twin = self.axes.module.clone()
        for name, array in self.arrays().items():
            old = twin.constants[name].constant
            assert old is not None
            twin.constants[name].constant = Constant(old.type, ArrayPayload(array), old.origin)
        return twin


def _transposed(matrices: Array) -> Array:
    return np.swapaxes(matrices, -1, -2)


def _flat(matrices: Array) -> Array:
    return matrices.reshape(-1, *matrices.shape[-2:])


def _is_member(T: Array, into: Array, group: Group) -> bool:
    """Whether a matrix is of the group that it is said to be of, and the other its inverse transposed."""
    if group is Group.PERM:
        return True
    if T.shape[0] != T.shape[1] or not np.allclose(into.T @ T, np.eye(len(T)), atol=1e-6):
        return False
    if group is Group.GL:
        return True
    if group is Group.ORTHOGONAL:
        return np.allclose(T @ T.T, np.eye(len(T)), atol=1e-9)
    entries = np.diag(T)
    allowed = entries > 0 if group is Group.POSITIVE_DIAGONAL else abs(entries) == 1
    return bool(allowed.all()) and np.array_equal(T, np.diag(entries))


__all__ = ["MapSpec", "UnitMap"]
