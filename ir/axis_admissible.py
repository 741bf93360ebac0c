"""What a class admits beyond permutations: scales, signs, rotations, any invertible matrix; and which sites turn how.

The meet over all operators that touch the class, in the sense that a transformation T is admissible if some of the
class's tensors can be transformed by T and its inverse transposed so that every operator commutes (axis_actions.py). In
a gated pair only one branch is scaled; in attention, queries by T and keys by its inverse transposed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .axis_actions import Group
from .axis_equations import equations
from .axis_types import Atom
from .core import Value

if TYPE_CHECKING:
    from .axes import Axes

__all__ = ["Admissible", "Direction", "Group", "Place"]

Place = tuple[str, int]  # a constant and its axis


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """One way to scale a class by positive numbers that keeps the function: the exponent of each axis that it moves.

    `sides` holds computed values as well as constants: `value, axis` is multiplied by s ** exponent. Directions of a
    module are independent: each may be applied without the others.
    """

    atom: Atom
    sides: Mapping[tuple[Value, int], float]


@dataclass(slots=True)
class Admissible:
    """The exponents of every class under every group, solved once for a group when first asked."""

    axes: Axes
    _solved: dict[Group, Mapping[Atom, Mapping[Place, int]]] = field(default_factory=dict)
    _directions: tuple[Direction, ...] | None = None

    def exponents(self, atom: Atom, group: Group) -> Mapping[Place, int]:
        """At each site of a class: 1 where the axis is transformed by T, -1 by its inverse transposed, 0 not at all.

        Under `Group.PERM`, where all sites move, 1 says that units are made there and -1 that they are read.
        """
        if group not in self._solved:
            self._solved[group] = self._solve(group)
        return self._solved[group].get(atom, {})

    def group(self, atom: Atom) -> Group:
        """Every group that the class admits."""
        found = Group.PERM if atom.pin is None else Group(0)
        for group in Group if found else ():
            if any(self.exponents(atom, group).values()):
                found |= group
        return found

    def directions(self) -> tuple[Direction, ...]:
        """All that may be scaled by positive numbers, in the order of the module; empty where nothing may."""
        if self._directions is None:
            found = []
            for solution in equations(self.axes, Group.POSITIVE_DIAGONAL).basis():
                (atom,) = {atom for _, _, atom in solution}
                found.append(Direction(atom, {(value, axis): x for (value, axis, _), x in solution.items()}))
            self._directions = tuple(found)
        return self._directions

    def _solve(self, group: Group) -> Mapping[Atom, Mapping[Place, int]]:
        found: dict[Atom, dict[Place, int]] = defaultdict(dict)
        for node, exponent in equations(self.axes, group).solve().items():
            value, axis, atom = node
            if value.constant is not None:
                found[atom][value.name, axis] = exponent
        return found
