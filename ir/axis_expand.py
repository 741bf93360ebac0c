"""From chosen units of classes to positions along axes, and to whole tensors.

A choice maps class variables to old units, in new order. For a class v that depends on outer classes u1, ..., uk
(ir/axis_dependence.py) it may be an array [n_u1, ..., n_uk, n_v]: one order of v for each combination of *old* outer
units. With permutations this reorders, with increasing subsets of equal count it removes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import axis_types as ax
from .axis_types import Atom, AxisType, Prod, Sum

Index = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """Units of classes, and the outer classes (outermost first) of those that are chosen for each outer unit."""

    units: Mapping[Atom, Index]
    outer: Mapping[Atom, tuple[Atom, ...]] = field(default_factory=dict)

    def without(self, given: frozenset[Atom]) -> Choice:
        return Choice({v: order for v, order in self.units.items() if v not in given}, self.outer)

    def only(self, v: Atom) -> Choice:
        return Choice({v: self.units[v]}, self.outer)


def length(t: AxisType) -> int:
    n = ax.static(t)
    assert n is not None, "the sizes of constants are integers"
    return n


def expand(t: AxisType, choice: Choice, given: Mapping[Atom, int] = {}) -> Index:
    """Old positions along an axis, in new order; `given` holds the old units of outer classes of other axes."""
    if isinstance(t, Atom):
        order = choice.units.get(t)
        if order is None:
            return np.arange(length(t), dtype=np.int64)
        return np.asarray(order[tuple(given[u] for u in choice.outer.get(t, ()))], np.int64)
    if isinstance(t, Prod):
        return _expand_product(t.factors, choice, given)
    if isinstance(t, Sum):
        offsets = np.cumsum([0, *(length(p) for p in t.parts)])
        return np.concatenate([expand(p, choice, given) + offset for p, offset in zip(t.parts, offsets)])
    return np.zeros(1, np.int64)


def _expand_product(factors: Sequence[AxisType], choice: Choice, given: Mapping[Atom, int]) -> Index:
    if len(factors) == 1:
        return expand(factors[0], choice, given)
    head, rest = factors[0], factors[1:]
    inner = int(np.prod([length(f) for f in rest]))
    outer = expand(head, choice, given)
    if isinstance(head, Atom) and _decides(head, rest, choice):
        parts = [_expand_product(rest, choice, {**given, head: int(j)}) + j * inner for j in outer]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return (outer[:, None] * inner + _expand_product(rest, choice, given)[None, :]).reshape(-1)


def _decides(u: Atom, factors: Sequence[AxisType], choice: Choice) -> bool:
    """Whether something below is chosen for each unit of u."""
    return any(u in choice.outer.get(v, ()) for f in factors for v in ax.atoms(f) if v in choice.units)


def units(t: AxisType, target: Atom) -> Index:
    """For every position along an axis the unit of the class that it belongs to, or -1."""
    if isinstance(t, Atom):
        n = length(t)
        return np.arange(n, dtype=np.int64) if t is target else np.full(n, -1, np.int64)
    if isinstance(t, Prod):
        unit = np.full(1, -1, np.int64)
        for factor in t.factors:
            inner = units(factor, target)
            unit = np.where(inner[None, :] >= 0, inner[None, :], unit[:, None]).ravel()
        return unit
    if isinstance(t, Sum):
        return np.concatenate([units(part, target) for part in t.parts])
    return np.full(1, -1, np.int64)


def gather(array: Array, types: Sequence[AxisType], choice: Choice) -> Array:
    """A tensor with the chosen units, along every axis. Inner classes go first: their orders go by old outer units."""
    inner = innermost_first({v: us for v, us in choice.outer.items() if v in choice.units})
    for v in inner:
        for axis in range(len(types)):
            array = _along(array, types, axis, v, choice.only(v))
    rest = choice.without(frozenset(inner))
    for axis, t in enumerate(types):
        if any(a in rest.units for a in ax.atoms(t)):
            array = np.take(array, expand(t, rest), axis=axis)
    return array


def innermost_first(outer: Mapping[Atom, tuple[Atom, ...]]) -> list[Atom]:
    """Classes that are chosen for each outer unit, each in front of the classes it depends on."""
    depth: dict[Atom, int] = {}

    def level(v: Atom) -> int:
        if v not in depth:
            depth[v] = 1 + max((level(u) for u in outer.get(v, ())), default=0)
        return depth[v]

    return sorted((v for v in outer if outer[v]), key=level, reverse=True)


def _along(array: Array, types: Sequence[AxisType], axis: int, v: Atom, choice: Choice) -> Array:
    """One axis in the order that the units of v's outer classes in the other axes say."""
    t = types[axis]
    own = set(ax.atoms(t))
    if v not in own:
        return array
    deciding = [(u, _axis_of(u, types)) for u in choice.outer[v] if u not in own]
    order = np.empty((*(length(u) for u, _ in deciding), len(expand(t, choice, {u: 0 for u, _ in deciding}))), np.int64)
    for combination in np.ndindex(*order.shape[:-1]):
        order[combination] = expand(t, choice, {u: j for (u, _), j in zip(deciding, combination)})
    grids = [
        units(types[other], u).reshape([-1 if i == other else 1 for i in range(len(types))]) for u, other in deciding
    ]
    index = order[tuple(grids)] if grids else order.reshape([1] * len(types) + [-1])
    index = np.moveaxis(np.squeeze(index, axis=axis), -1, axis)
    shape = [index.shape[i] if i == axis else n for i, n in enumerate(array.shape)]
    return np.take_along_axis(array, np.broadcast_to(index, shape), axis=axis)


def _axis_of(u: Atom, types: Sequence[AxisType]) -> int:
    return next(i for i, t in enumerate(types) if u in ax.atoms(t))
