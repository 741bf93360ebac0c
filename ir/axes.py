"""Which axes belong together: the one analysis behind pruning, merging, equalization and rotation.

    axes = analyse(module)               frozen={"name"}: these constants stay as they are
    axes.classes                         what may be permuted (free) and what may not, and why (pinned)
    axes.permuted({3: order})            the module with class 3 permuted: its outputs are the same
    axes.depends(c)                      the classes each of whose units may order c in its own way
    axes.admissible(c)                   what c admits beyond permutations: scales, signs, rotations

A *class* is a set of positions governed by one permutation; its *sites* are the axes of constants in which it occurs,
alone or inside a structured axis (ir/axis_types.py). Rules come from the operator table (ir/ops/axes_rules.py);
operators without a rule pin every axis they touch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from . import axis_types as ax
from .axis_admissible import Admissible, Group
from .axis_dependence import dependence
from .axis_expand import Array, Choice, Index, expand, gather, length, units
from .axis_solver import Axis, Opaque, Solver
from .axis_types import Atom, AxisType, Pin
from .constants import ArrayPayload, Constant
from .core import Module, Value
from .dims import Dim, add, product
from .no_collection import no_collection

__all__ = ["Axes", "AxisClass", "Index", "Opaque", "Site", "Solver", "analyse"]


@dataclass(frozen=True, slots=True)
class Site:
    """One axis of one constant in which a class occurs, as `atom` in `type`; `path` shows how, as text."""

    constant: str
    axis: int
    type: AxisType = field(compare=False, repr=False)
    atom: Atom = field(compare=False, repr=False)
    _names: Mapping[Atom, str] = field(compare=False, repr=False)

    @property
    def path(self) -> str:
        return ax.describe(self.type, self._names)


@dataclass(frozen=True, slots=True, eq=False)
class AxisClass:
    """Positions that one permutation governs. `pin` is None for a free class."""

    id: int
    size: int
    pin: Pin | None
    sites: tuple[Site, ...]
    marks: Mapping[str, Pin]
    atom: Atom = field(repr=False)

    @property
    def free(self) -> bool:
        return self.pin is None

    @property
    def name(self) -> str:
        return f"c{self.id}"


class Axes:
    """The result of the analysis; reads the module, never changes it."""

    def __init__(self, module: Module, solver: Solver) -> None:
        self.module = module
        self._types = solver.types
        self._solver = solver
        self.classes = _classes(solver)
        self._by_atom = {c.atom: c for c in self.classes}
        self._names = {c.atom: c.name for c in self.classes if c.free}

    @property
    def free(self) -> tuple[AxisClass, ...]:
        return tuple(c for c in self.classes if c.free)

    @property
    def pinned(self) -> tuple[AxisClass, ...]:
        return tuple(c for c in self.classes if not c.free)

    def of(self, value: Value) -> Axis | None:
        """The axis types of a value; None if its rank is unknown or the analysis has not met it."""
        return self._solver.of(value) if value in self._types else None

    def class_of(self, atom: Atom) -> AxisClass | None:
        return self._by_atom.get(atom)

    def within(self, t: AxisType) -> tuple[AxisClass, ...]:
        """The classes with sites that occur in an axis, outermost first."""
        found = (self._by_atom.get(a) for a in ax.atoms(t))
        return tuple(dict.fromkeys(c for c in found if c is not None))

    def touched(self, value: Value) -> frozenset[int]:
        """The ids of the classes that occur in any axis of a value."""
        return frozenset(c.id for t in self.of(value) or () for c in self.within(t))

    def text(self, t: AxisType) -> str:
        """An axis type as text, classes by name."""
        return ax.describe(t, self._names)

    def depends(self, c: AxisClass) -> tuple[AxisClass, ...]:
        """The classes each of whose units may order this one in its own way, outermost first (axis_dependence.py)."""
        return tuple(self._by_atom[u] for u in self._dependence.get(c.atom, ()))

    @cached_property
    def _dependence(self) -> Mapping[Atom, tuple[Atom, ...]]:
        return dependence(self)

    def admissible(self, c: AxisClass) -> Group:
        """The groups of transformations that the class admits at its sites (axis_admissible.py)."""
        return self.transformations.group(c.atom)

    @cached_property
    def transformations(self) -> Admissible:
        return Admissible(self)

    def choice(self, chosen: Mapping[int, Index]) -> Choice:
        """Units by class id, checked: [n], or [n_u1, ..., n] for a class that depends on others.

        Errors: ValueError for an array of another shape.
        """
        units, outer = {}, {}
        for id, order in chosen.items():
            c, order = self.classes[id], np.asarray(order, np.int64)
            if order.ndim != 1:
                above = self.depends(c)
                if order.shape[:-1] != tuple(u.size for u in above):
                    found = f"it depends on {', '.join(u.name for u in above)}" if above else "it depends on none"
                    raise ValueError(
                        f"{c.name} takes units [{c.size}]; an array {list(order.shape)} does not fit: {found}"
                    )
                outer[c.atom] = tuple(u.atom for u in above)
            units[c.atom] = order
        return Choice(units, outer)

    def expand(self, t: AxisType, chosen: Mapping[int, Index]) -> Index | None:
        """Old positions along an axis, in new order, when class `c` takes its units `chosen[c]`.

        With permutations this reorders, with increasing subsets it removes. None if no chosen class occurs. A class
        chosen for each unit of outer classes needs these in the same axis (else: `ValueError`, see `gathered`).
        """
        found = [c.id for c in self.within(t) if c.id in chosen]
        if not found:
            return None
        choice = self.choice({id: chosen[id] for id in found})
        inside = set(ax.atoms(t))
        if apart := [v for v, outer in choice.outer.items() if not inside.issuperset(outer)]:
            raise ValueError(f"{self._names[apart[0]]} is chosen for each unit of a class in another axis")
        return expand(t, choice)

    def gathered(self, array: Array, types: Sequence[AxisType], chosen: Mapping[int, Index]) -> Array:
        """A tensor of these axis types with the chosen units along every axis."""
        present = {c.id: chosen[c.id] for t in types for c in self.within(t) if c.id in chosen}
        return gather(array, types, self.choice(present)) if present else array

    def units(self, t: AxisType, target: AxisClass) -> Index:
        """For every position along an axis the unit of the class that it belongs to, or -1."""
        return units(t, target.atom)

    def resized(self, t: AxisType, counts: Mapping[int, int]) -> Dim:
        """The size of an axis when class `c` has `counts[c]` units."""
        if isinstance(t, Atom):
            found = self._by_atom.get(t)
            return t.size if found is None else counts.get(found.id, t.size)
        if isinstance(t, ax.Prod):
            return product(self.resized(f, counts) for f in t.factors)
        if isinstance(t, ax.Sum):
            total: Dim = 0
            for part in t.parts:
                total = add(total, self.resized(part, counts))
            return total
        return 1

    def permuted(self, permutations: Mapping[int, Index], *, leave_out: Site | None = None) -> Module:
        """A copy of the module in which unit `i` of class `c` is the old unit `permutations[c][i]`, at every site.

        A class that depends on others may have an array [n_u1, ..., n]: a permutation for each old outer unit.
        `leave_out` keeps one site as it is, which breaks the function: the negative test of the analysis.

        Errors: ValueError for a class that is not there or pinned, and for an array that does not name every unit once.
        """
        self._check_orders(permutations)
        twin = self.module.clone()
        for value in self._solver.constants:
            constant, types = value.constant, self.of(value)
            assert constant is not None
            assert types is not None
            if leave_out is not None and leave_out.constant == value.name:
                types = tuple(t if i != leave_out.axis else Atom(ax.size(t), _LEFT) for i, t in enumerate(types))
            if not any(c.id in permutations for t in types for c in self.within(t)):
                continue
            array = self.gathered(constant.array(), types, permutations)
            payload = ArrayPayload(np.ascontiguousarray(array))
            twin.constants[value.name].constant = Constant(constant.type, payload, constant.origin)
        return twin

    def _check_orders(self, permutations: Mapping[int, Index]) -> None:
        if unknown := [id for id in permutations if id not in range(len(self.classes))]:
            raise ValueError(f"no class has the id {unknown[0]!r}")
        self.choice(permutations)
        for id, order in permutations.items():
            c, units = self.classes[id], np.asarray(order)
            if c.pin is not None:
                raise ValueError(f"{c.name} is pinned: {c.pin}")
            if units.shape[-1:] != (c.size,) or not np.all(np.sort(units) == np.arange(c.size)):
                raise ValueError(f"an order of {c.name} names each of its {c.size} units once")


_LEFT = Pin("left-out")


def analyse(module: Module, *, pin_outputs: bool = True, frozen: Collection[str] = ()) -> Axes:
    """Derive the axis classes of a typed module (ir/infer.py). Linear in the module, reads no weights.

    Constants named in `frozen` stay as they are, and with them everything that has to move with one of their axes:
    tables that mean something in their order, weights that another model shares. Without `pin_outputs` an output may
    come out permuted: `of` says how. That is how the rules are tested.

    Errors: ValueError for a frozen name that no constant has.
    """
    if unknown := sorted(set(frozen) - set(module.constants)):
        raise ValueError(f"no constants to freeze are called {', '.join(unknown)}")
    with no_collection():
        solver = Solver(module)
        for value in module.graph.inputs:
            solver.of(value)
        solver.run(module.graph)
        for value, name in zip(module.graph.outputs, module.graph.output_names):
            if pin_outputs:
                solver.pin_value(value, Pin("interface-output", name))
        for name in sorted(frozen):
            solver.pin_value(module.constants[name], Pin("frozen", name))
        return Axes(module, solver)


def _classes(solver: Solver) -> tuple[AxisClass, ...]:
    """Number the classes that occur in constants, in the order of first use."""
    places: dict[Atom, list[tuple[str, int, AxisType]]] = {}
    for value in solver.constants:
        for axis, t in enumerate(solver.of(value) or ()):
            for found in dict.fromkeys(ax.atoms(t)):
                places.setdefault(found, []).append((value.name, axis, t))
    names = {a: f"c{i}" for i, a in enumerate(places) if a.pin is None}
    return tuple(
        AxisClass(i, length(a), a.pin, tuple(Site(*place, a, names) for place in where), dict(a.marks), a)
        for i, (a, where) in enumerate(places.items())
    )
