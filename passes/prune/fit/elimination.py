"""Backward elimination of units on a least-squares problem: what each one costs when the others make up for it.

A consumer computes W x with second moments H = E x x^T (central, damped). Leaving out the columns of unit i and letting
the best other weights take over adds (optimal brain surgeon, Hassibi and Stork, 1993, for blocks of columns)

    dE_i = tr( W_i  ([H^-1]_ii)^-1  W_i^T )

to its squared error. The unit with the least cost goes, W and H^-1 are updated, and so on. With several consumers the
costs add up, each relative to the energy of its own output.

Several that leave together are those that are cheapest alone: units that make up for each other would go at once, which
is why they are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TOGETHER = 128  # of so many units one leaves at a time, of twice as many two


@dataclass(frozen=True, eq=False)
class Problem:
    """One consumer: weight [outputs, depth], moments [depth, depth], and [units, m] the columns of every unit."""

    weight: Array
    moments: Array
    columns: Array

    def damped(self, penalty: float) -> Array:
        size = len(self.moments)
        mean = float(np.trace(self.moments)) / size
        return self.moments + (penalty * mean or 1.0) * np.eye(size)


class _State:
    """The weight and the inverse moments of a consumer while units leave.

    Columns are in order: those of no unit, then the m of every unit that is left.
    """

    def __init__(self, problem: Problem, penalty: float) -> None:
        from scipy import linalg  # slow to import; most runs need none of it

        order = problem.columns.ravel()
        others = np.setdiff1d(np.arange(len(problem.moments)), order)
        order = np.concatenate([others, order])
        self.m, self.others = int(problem.columns.shape[1]), len(others)
        self.inverse = linalg.inv(problem.damped(penalty)[np.ix_(order, order)], check_finite=False)
        self.weight = problem.weight.astype(np.float64)[:, order]
        energy = float(np.einsum("od,de,oe->", problem.weight, problem.moments, problem.weight, optimize=True))
        self.scale = 1.0 / energy if energy > 0 else 0.0

    @property
    def units(self) -> int:
        return int(self.weight.shape[1] - self.others) // self.m

    def costs(self) -> Array:
        """What each unit that is left would add to the relative error."""
        units = self.units
        own = self.inverse[self.others :, self.others :].reshape(units, self.m, units, self.m)
        blocks = own[np.arange(units), :, np.arange(units), :]  # [units, m, m]
        weights = self.weight[:, self.others :].T.reshape(units, self.m, -1)  # [units, m, outputs]
        return np.asarray(np.einsum("nmo,nmo->n", weights, np.linalg.solve(blocks, weights)) * self.scale)

    def remove(self, units: Array) -> None:
        """Take units (by position among those left) out; the others make up for them. The last ones fill the gaps."""
        self._to_the_end(units)
        left = len(self.inverse) - len(units) * self.m
        share = np.linalg.solve(self.inverse[left:, left:], self.inverse[left:, :left])
        self.weight = self.weight[:, :left] - self.weight[:, left:] @ share
        lost = self.inverse[:left, left:] @ share
        self.inverse = self.inverse[:left, :left]
        self.inverse -= lost

    def _to_the_end(self, units: Array) -> None:
        """Exchange units with the last ones."""
        for here, there in fill_gaps(units, self.units):
            a, b = (slice(self.others + u * self.m, self.others + (u + 1) * self.m) for u in (here, there))
            for rows in (self.inverse, self.inverse.T, self.weight.T):
                rows[a], rows[b] = rows[b].copy(), rows[a].copy()


def fill_gaps(gone: Array, count: int) -> list[tuple[int, int]]:
    """(gap, unit that moves there): what closes the gaps in front of the first `count - len(gone)` positions."""
    end = count - len(gone)
    stay = np.setdiff1d(np.arange(end, count), gone)
    return list(zip(np.sort(gone[gone < end]).tolist(), stay.tolist()))


def elimination_scores(problems: Sequence[Problem], units: int, penalty: float) -> Array:
    """The relative error at which every unit leaves, in order of elimination: later and dearer units score higher.

    One unit goes at a time, of many units 1 in 128. Memory: one inverse of moments per consumer.
    """
    states = [_State(p, penalty) for p in problems]
    scores, alive, error = np.zeros(units), np.arange(units), 0.0
    while len(alive):
        costs = np.maximum(sum((s.costs() for s in states), np.zeros(len(alive))), 0.0)
        first = np.argsort(costs, kind="stable")[: max(1, len(alive) // TOGETHER)]
        scores[alive[first]] = error + np.cumsum(costs[first])
        error = float(scores[alive[first[-1]]])
        for state in states:
            state.remove(first)
        for here, there in fill_gaps(first, len(alive)):
            alive[here] = alive[there]
        alive = alive[: len(alive) - len(first)]
    return scores
