"""Dependent classes: v depends on u when each unit of u may order the units of v in its own way.

The widths inside attention heads, the channels inside the groups of a convolution or a normalization, the elements of a
quantization block: what moves there is the wreath product S_v wr S_u, not one permutation for all u. Holds where

    every tensor with v also has u: as an outer factor of the same product, or exactly once in another axis;
    every op reads the two at the same labels in all of its tensors (ir/axis_labels.py);
    no op mixes positions of u beside v (softmax over heads), and none that is not known touches v.

Then an op on all indices (u, v) is, for every unit of u, an op on v alone that the analysis has found symmetric. What
is not known counts against: v is then simply independent of u, one permutation for all of its units.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import axis_types as ax
from .axis_labels import Labels, Row, labels_of
from .axis_types import Atom, AxisType, Prod, Sum
from .core import Op, Value
from .ops.access import attr_int

if TYPE_CHECKING:
    from .axes import Axes


@dataclass(frozen=True, slots=True)
class Place:
    """An occurrence of a class in a tensor: its axis, and where each possible outer class sits."""

    atom: Atom
    axis: int
    outer: Mapping[Atom, int]  # axis of the outer class: the same for a product, in order from outermost
    clear: frozenset[Atom]  # outer classes that occur nowhere else beside this occurrence


def places(types: tuple[AxisType, ...]) -> list[Place]:
    """Every occurrence of every free class in a tensor."""
    whole = [set(_through_products(t)) for t in types]
    everywhere = [list(ax.atoms(t)) for t in types]
    found = []
    for axis, t in enumerate(types):
        beside = [a for other, atoms in enumerate(everywhere) if other != axis for a in atoms]
        for v, chain, company in _occurrences(t, (), ()):
            if v.pin is not None:
                continue
            outer = {u: axis for u in chain if u is not v and company.count(u) == 1 and u.pin is None}
            clear = {u for u in outer if u not in beside}
            for other, atoms in enumerate(whole):
                for u in atoms if other != axis else ():
                    if u is not v and u.pin is None and u not in everywhere[axis] and beside.count(u) == 1:
                        outer[u] = other
                        clear.add(u)
            found.append(Place(v, axis, outer, frozenset(clear)))
    return found


def _through_products(t: AxisType) -> Iterator[Atom]:
    """The classes of which every position along the axis has a unit."""
    if isinstance(t, Atom):
        yield t
    elif isinstance(t, Prod):
        for factor in t.factors:
            yield from _through_products(factor)


def _occurrences(
    t: AxisType, chain: tuple[Atom, ...], company: tuple[Atom, ...]
) -> Iterator[tuple[Atom, tuple[Atom, ...], tuple[Atom, ...]]]:
    """Each class, the factors outside of it, and everything that shares a product with it."""
    if isinstance(t, Atom):
        yield t, chain, company
    elif isinstance(t, Sum):
        for part in t.parts:
            yield from _occurrences(part, chain, company)
    elif isinstance(t, Prod):
        inside = [tuple(ax.atoms(f)) for f in t.factors]
        for i, factor in enumerate(t.factors):
            rest = tuple(a for j, atoms in enumerate(inside) if j != i for a in atoms)
            yield from _occurrences(factor, chain, (*company, *rest))
            chain = (*chain, factor) if isinstance(factor, Atom) else chain


def dependence(axes: Axes) -> dict[Atom, tuple[Atom, ...]]:
    """For every dependent class the classes it depends on, outermost first."""
    return _without_cycles(axes, _Search(axes).run())


class _Search:
    """Starts with all classes that occur beside v somewhere, and strikes out what any tensor or op speaks against."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.left: dict[Atom, list[Atom]] = {}
        self._places: dict[Value, list[Place]] = {}

    def run(self) -> dict[Atom, list[Atom]]:
        for value in self.axes.module.values():
            for place in self.places(value):
                self._keep(place.atom, place.outer)
        for op in self.axes.module.walk():
            self._visit(op)
        return {v: found for v, found in self.left.items() if found}

    def places(self, value: Value | None) -> list[Place]:
        if value is None:
            return []
        if value not in self._places:
            self._places[value] = places(self.axes.of(value) or ())
        return self._places[value]

    def _keep(self, v: Atom, allowed: Iterable[Atom]) -> None:
        allowed = list(allowed)
        self.left[v] = [u for u in self.left.get(v, allowed) if u in allowed]

    def _visit(self, op: Op) -> None:
        values = (*op.operands, *op.results)
        if not any(self.left.get(p.atom) for value in values for p in self.places(value)):
            return
        labels = labels_of(op)
        if labels is None:
            for value in values:
                for place in self.places(value):
                    self.left[place.atom] = []
        elif labels.regroups:
            self._each(values, lambda p, u: u in p.clear)
        elif labels.whole:
            self._each(values, lambda p, u: p.outer[u] == p.axis)
        elif labels.operands or labels.results:
            self._labelled(op, labels)

    def _each(self, values: Iterable[Value | None], holds: Callable[[Place, Atom], bool]) -> None:
        for value in values:
            for p in self.places(value):
                self.left[p.atom] = [u for u in self.left[p.atom] if holds(p, u)]

    def _labelled(self, op: Op, labels: Labels) -> None:
        """The outer class has to stand at one label wherever the inner one stands at one label."""
        seen: dict[tuple[Atom, Hashable, Atom], Hashable] = {}
        rows: list[tuple[Value | None, Row | None]] = [
            *zip(op.operands, labels.operands),
            *zip(op.results, labels.results),
        ]
        for value, row in rows:
            for p in self.places(value):
                self.left[p.atom] = [
                    u for u in self.left[p.atom] if row is not None and _agrees(p, u, row, labels.mixed, seen)
                ]
        if labels.groups is not None:
            self._grouped(op, labels.groups)

    def _grouped(self, op: Op, shared: tuple[tuple[int, int], tuple[int, int]]) -> None:
        """Axis 1 of a grouped weight is the inside of another tensor's groups: u has to be the same part of these."""
        count = attr_int(op, "group", 1)
        (slot, axis), (other, channel) = shared
        w, x = op.operand(slot), op.results[0] if other < 0 else op.operand(other)
        assert w is not None
        assert x is not None
        types, outside = self.axes.of(w), self.axes.of(x)
        if types is None or outside is None:
            return
        for p in self.places(w):
            if p.axis != 1:
                continue
            self.left[p.atom] = [
                u
                for u in self.left[p.atom]
                if p.outer[u] == 1
                or (p.outer[u] == axis and _one_per_group(self.axes, types[axis], outside[channel], u, count))
            ]


def _agrees(
    p: Place, u: Atom, row: Row, mixed: frozenset[Hashable], seen: dict[tuple[Atom, Hashable, Atom], Hashable]
) -> bool:
    if max(p.axis, p.outer[u]) >= len(row):
        return False
    inner, outer = row[p.axis], row[p.outer[u]]
    if outer in mixed and inner not in mixed:
        return False
    return seen.setdefault((p.atom, inner, u), outer) == outer


def _one_per_group(axes: Axes, a: AxisType, b: AxisType, u: Atom, groups: int) -> bool:
    """Whether both axes, viewed as groups, have one unit of u for each group, and the same one."""
    found = axes.class_of(u)
    if found is None:
        return False
    one, two = (axes.units(t, found).reshape(groups, -1) for t in (a, b))
    return bool((one == one[:, :1]).all() and (two == one[:, :1]).all() and (one >= 0).all())


def _without_cycles(axes: Axes, found: Mapping[Atom, list[Atom]]) -> dict[Atom, tuple[Atom, ...]]:
    """Where two classes each depend on the other (a table of all pairs), the one that is met first is the outer one."""
    kept: dict[Atom, tuple[Atom, ...]] = {}

    def leads_to(start: Atom, goal: Atom) -> bool:
        return start is goal or any(leads_to(u, goal) for u in kept.get(start, ()))

    for c in reversed(axes.free):
        outer = tuple(u for u in found.get(c.atom, ()) if axes.class_of(u) is not None and not leads_to(u, c.atom))
        if outer:
            kept[c.atom] = outer
    return kept


__all__ = ["Place", "dependence", "places"]
