"""Backward elimination of units on a least-squares problem: what each one costs when the others make up for it.

A consumer computes W x with second moments H = E x x^T (central, damped). Leaving out the columns of unit i and letting
the best other weights take over adds (optimal brain surgeon, Hassibi and Stork, 1993, for blocks of columns)

    dE_i = tr( W_i  ([H^-1]_ii)^-1  W_i^T )

to its squared error. The unit with the least cost goes, W and H^-1 are updated, and so on. With several consumers the
costs add up, each relative to the energy of its own output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

Array = np.ndarray[Any, Any]


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
    """The weight and the inverse moments of a consumer while units leave. Gone columns are zero."""

    def __init__(self, problem: Problem, penalty: float) -> None:
        damped = problem.damped(penalty)
        self.columns = problem.columns
        self.inverse = linalg.inv(damped, check_finite=False)
        self.weight = problem.weight.astype(np.float64)
        energy = float(np.einsum("od,de,oe->", self.weight, problem.moments, self.weight, optimize=True))
        self.scale = 1.0 / energy if energy > 0 else 0.0

    def costs(self, alive: Array) -> Array:
        """What each of the units `alive` would add to the relative error."""
        at = self.columns[alive]  # [n, m]
        blocks = self.inverse[at[:, :, None], at[:, None, :]]  # [n, m, m]
        weights = np.moveaxis(self.weight[:, at], 0, 2)  # [n, m, outputs]
        cost = np.einsum("nmo,nmo->n", weights, np.linalg.solve(blocks, weights))
        return np.asarray(cost * self.scale)

    def remove(self, unit: int) -> None:
        at = self.columns[unit]
        share = np.linalg.solve(self.inverse[np.ix_(at, at)], self.inverse[at])  # [m, depth]
        self.weight -= self.weight[:, at] @ share
        self.inverse -= self.inverse[:, at] @ share
        # What is left in the rows of the unit is rounding; it must not come back.
        self.inverse[at] = 0.0
        self.inverse[:, at] = 0.0
        self.inverse[at, at] = 1.0
        self.weight[:, at] = 0.0


def elimination_scores(problems: Sequence[Problem], units: int, penalty: float) -> Array:
    """The relative error at which every unit leaves, in order of elimination: later and dearer units score higher.

    Cost: units x (sum of depth^2) operations and memory for one inverse per consumer.
    """
    states = [_State(p, penalty) for p in problems]
    scores, alive, error = np.zeros(units), np.arange(units), 0.0
    while len(alive):
        costs = sum((s.costs(alive) for s in states), np.zeros(len(alive)))
        first = int(np.argmin(costs))
        error += max(float(costs[first]), 0.0)
        scores[alive[first]] = error
        for state in states:
            state.remove(int(alive[first]))
        alive = np.delete(alive, first)
    return scores
