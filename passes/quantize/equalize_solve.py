"""Scales that bring the weights around every class to the same ranges: cross-layer equalization.

For two layers with ranges r1_i and r2_i of channel i (largest absolute weight), dividing the first by and multiplying
the second with s_i = sqrt(r1_i r2_i) / r2_i gives both the range sqrt(r1_i r2_i), which is best for one scale per
tensor (Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019). Where more
weights meet in a class (residual streams, depthwise convolutions between two layers) s_i minimises

    mean over makers of log(r_i)^2 + mean over readers of log(r_i)^2

over everything that may be scaled, direction by direction (ir/axis_admissible.py), until no number moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.axes import Axes
from ...ir.axis_scales import Cells, Scale
from ...ir.core import Op, Value
from ..linear import Linear, linear_of

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-3  # |s - 1| of the last sweep
SWEEPS = 60
_DEAD = 1e-6  # of the largest weight: channels with less than this in them are left alone


@dataclass(frozen=True, eq=False)
class Meeting:
    """A direction with the weights that it scales, at least one on each side. Sides: (weight, axis, exponent).

    The direction is turned so that exponents of makers, whose outputs it scales, are positive.
    """

    cells: Cells
    sides: tuple[tuple[Value, int, float], ...]
    makers: tuple[Op, ...]
    readers: tuple[Op, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Every constant and axis that moves, and into how many numbers these fall: one meeting has it."""
        moved = [f"{value.name}:{axis}" for value, axis in self.cells.direction.sides if value.constant is not None]
        return (*moved, "x".join(map(str, self.cells.shape)))

    @property
    def shares(self) -> list[tuple[Value, int, float, float]]:
        """The sides, and how much each counts: makers together as much as readers."""
        counts = {sign: sum((x > 0) == sign for _, _, x in self.sides) for sign in (True, False)}
        return [(value, axis, x, 1 / counts[x > 0]) for value, axis, x in self.sides]

    @property
    def name(self) -> str:
        return f"{_named(self.makers)} > {_named(self.readers)}"


def _named(ops: Sequence[Op]) -> str:
    first = ops[0].name or ops[0].results[0].name
    return first if len(ops) == 1 else f"{first} (and {len(ops) - 1} more)"


def meetings(axes: Axes) -> list[Meeting]:
    """The directions that have weights of linear operators on both sides, in program order."""
    weights: dict[Value, list[Linear]] = defaultdict(list)
    for op in axes.module.walk():
        linear = linear_of(op)
        if linear is not None:
            weights[linear.weight].append(linear)
    found = []
    for direction in axes.transformations.directions():
        sides = [(v, axis, x) for (v, axis), x in direction.sides.items() if v in weights]
        if not any(x > 0 for _, _, x in sides) or not any(x < 0 for _, _, x in sides):
            continue
        ends: dict[bool, list[Op]] = {True: [], False: []}
        for value, _, x in sides:
            ends[x > 0] += [linear.op for linear in weights[value]]
        made, read = ends[_makes(sides, weights)], ends[not _makes(sides, weights)]
        found.append(Meeting(Cells.of(axes, direction), tuple(sides), tuple(made), tuple(read)))
    return [m for m in found if not any(_within(m, n) for n in found)]


def _within(m: Meeting, n: Meeting) -> bool:
    """Whether every scale of one meeting is one of another, which tells its units apart further: heads, groups."""
    return m.cells.direction.atom in n.cells.outer and {v for v, _, _ in m.sides} <= {v for v, _, _ in n.sides}


def _makes(sides: Iterable[tuple[Value, int, float]], weights: Mapping[Value, Sequence[Linear]]) -> bool:
    """Whether positive exponents are on the side of the makers: by the axis that outputs lie along."""
    votes = 0.0
    for value, axis, x in sides:
        for linear in weights[value]:
            votes += x if axis == linear.output_axis and axis != linear.input_axis else -x
    return votes > 0


@dataclass(eq=False)
class Balance:
    """Scales of all meetings, solved together. `numbers` [cells] multiply sides of exponent one."""

    axes: Axes
    meetings: Sequence[Meeting]
    numbers: dict[Meeting, Array] = field(default_factory=dict)
    sweeps: int = 0
    converged: bool = True

    def __post_init__(self) -> None:
        self.numbers = {m: np.ones(m.cells.count) for m in self.meetings}
        self._around: dict[Value, list[Meeting]] = defaultdict(list)
        for m in self.meetings:
            for value in dict.fromkeys(v for v, _, _ in m.sides):
                self._around[value].append(m)

    def solve(self) -> Balance:
        """Sweep over the meetings that may still move; a meeting is looked at again when a weight of its own moved.

        Factors that a whole class shares would travel slowly from layer to layer that way: as long as there are any,
        they are solved for in one go after a sweep (a coarse-grid correction).
        """
        waiting, drifting = dict.fromkeys(self.meetings), True
        while waiting and self.sweeps < SWEEPS:
            self.sweeps += 1
            moved = [m for m in self.meetings if m in waiting and self._move(m, np.exp(self._pull(m)[0]))]
            if moved and drifting:
                aligned = self._align()
                moved, drifting = [*moved, *aligned], bool(aligned)
            waiting = dict.fromkeys(n for m in moved for v, _, _ in m.sides for n in self._around[v])
        self.converged = not waiting
        return self

    def _move(self, m: Meeting, by: Array) -> bool:
        """Multiply the numbers of a meeting, if that is more than nothing."""
        if np.abs(by - 1).max(initial=0.0) < TOLERANCE:
            return False
        self.numbers[m] = self.numbers[m] * by
        return True

    def _align(self) -> list[Meeting]:
        """Bring every meeting as a whole to where it is best, all together; those that moved.

        Undone where the meetings are further from there than before: the coupling is exact only for weights whose
        whole axis moves.
        """
        old, (wanted, live) = dict(self.numbers), self._drift()
        factors = np.exp(np.linalg.lstsq(self._coupling(), wanted, rcond=1e-6)[0])
        moved = [m for m, x, there in zip(self.meetings, factors, live) if self._move(m, np.where(there, x, 1.0))]
        if moved and np.abs(self._drift()[0]).max() > np.abs(wanted).max():
            self.numbers = old
            return []
        return moved

    def _drift(self) -> tuple[Array, list[Array]]:
        """The mean of every meeting's pull over its channels that live, and which these are."""
        pulls = [self._pull(m) for m in self.meetings]
        return np.array([x[live].mean() if live.any() else 0.0 for x, live in pulls]), [live for _, live in pulls]

    def _coupling(self) -> Array:
        """How far the factor of one meeting moves the pull of another: [meetings, meetings]."""
        index = {m: i for i, m in enumerate(self.meetings)}
        matrix = np.eye(len(index))
        for m, i in index.items():
            total = sum(share * x * x for _, _, x, share in m.shares)
            for value, _, x, share in m.shares:
                for n in self._around[value]:
                    if n is not m:
                        matrix[i, index[n]] += sum(share * x * y / total for v, _, y in n.sides if v is value)
        return matrix

    def _pull(self, m: Meeting) -> tuple[Array, Array]:
        """The logarithm of what takes a meeting to where it is best by itself, and which channels live: both [cells].

        A channel without weights on one side has nothing to be equal to: 0.
        """
        pull, weight = np.zeros(m.cells.count), np.zeros(m.cells.count)
        live = {True: np.zeros(m.cells.count, bool), False: np.zeros(m.cells.count, bool)}
        for value, axis, x, share in m.shares:
            found = self.ranges(m, value, axis)
            there = found > _DEAD * found.max(initial=0.0)
            live[x > 0] |= there
            pull += np.where(there, share * x * np.log(np.where(there, found, 1.0)), 0.0)
            weight += np.where(there, share * x * x, 0.0)
        both = live[True] & live[False]
        return np.where(both, -pull / np.where(both, weight, 1.0), 0.0), both

    def ranges(self, m: Meeting, value: Value, axis: int) -> Array:
        """The largest absolute weight of each cell, under the scales as they are now: [cells]."""
        types = self.axes.of(value)
        assert types is not None
        cells = m.cells.within(types, axis)
        kept = tuple(i for i, n in enumerate(cells.shape) if n == 1)
        largest = np.abs(self.scaled(value)).max(axis=kept, keepdims=True).astype(np.float64)
        found = np.zeros(m.cells.count)
        np.maximum.at(found, cells[cells >= 0], np.broadcast_to(largest, cells.shape)[cells >= 0])
        return found

    def scaled(self, value: Value) -> Array:
        """A weight under the scales as they are now."""
        assert value.constant is not None
        array = value.constant.array().astype(np.float32)
        for m in self._around[value]:
            for factor in Scale(m.cells, self.numbers[m]).factors(self.axes, value):
                array = array * factor.astype(np.float32)
        return array
