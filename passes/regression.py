"""Least squares from streamed rows: second moments of inputs and targets, and the ridge solution.

    min over W, b of  E |t - W x - b|^2 + penalty * d * |W - W0|^2

with d the mean variance of the inputs, so that `penalty` has no unit. The bias is not penalised: the moments are
central. W0 is the weight as it is; a direction in which the data says nothing stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Fit:
    """A solution [groups, outputs, depth], its bias [groups, outputs], and the relative errors before and after.

    An error is E |t - W x - b|^2 / Var(t), summed over outputs; `before` is that of W0 without a bias.
    """

    matrix: Array
    bias: Array
    before: float
    after: float


class CrossMoments:
    """Running second moments of rows x [groups, n, depth] with targets t [groups, n, outputs], in float64.

    Rows are shifted by the mean of the first ones, so that large means cost no digits. Memory: groups x depth^2.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift_x: Array | None = None
        self._shift_t: Array | None = None

    def update(self, x: Array, t: Array) -> None:
        if x.shape[1] == 0:
            return
        x, t = x.astype(np.float32, copy=False), t.astype(np.float32, copy=False)
        if self._shift_x is None or self._shift_t is None:
            self._start(x, t)
        x = x - self._shift_x
        t = t - self._shift_t
        self.count += x.shape[1]
        turned = np.swapaxes(x, 1, 2)
        self._xx += turned @ x
        self._xt += turned @ t
        self._tt += np.square(t, dtype=np.float64).sum(axis=1)
        self._x += x.sum(axis=1, dtype=np.float64)
        self._t += t.sum(axis=1, dtype=np.float64)

    def _start(self, x: Array, t: Array) -> None:
        groups, _, depth = x.shape
        outputs = t.shape[2]
        self._shift_x, self._shift_t = x.mean(axis=1, keepdims=True), t.mean(axis=1, keepdims=True)
        self._xx, self._xt = np.zeros((groups, depth, depth)), np.zeros((groups, depth, outputs))
        self._x, self._t, self._tt = np.zeros((groups, depth)), np.zeros((groups, outputs)), np.zeros((groups, outputs))

    @property
    def usable(self) -> bool:
        """Whether there are rows, and all moments are finite."""
        return self.count > 0 and all(bool(np.isfinite(m).all()) for m in (self._xx, self._xt, self._tt))

    @property
    def mean_x(self) -> Array:
        assert self._shift_x is not None, "no rows were seen"
        return np.asarray(self._shift_x[:, 0] + self._x / self.count, np.float64)

    @property
    def mean_t(self) -> Array:
        assert self._shift_t is not None, "no rows were seen"
        return np.asarray(self._shift_t[:, 0] + self._t / self.count, np.float64)

    @property
    def covariance(self) -> Array:
        """Of the inputs: [groups, depth, depth]."""
        return self._xx / self.count - self._x[:, :, None] * self._x[:, None, :] / self.count**2

    @property
    def cross(self) -> Array:
        """Of inputs and targets: [groups, depth, outputs]."""
        return self._xt / self.count - self._x[:, :, None] * self._t[:, None, :] / self.count**2

    @property
    def second(self) -> Array:
        """Second moments of the inputs about zero: [groups, depth, depth]."""
        return np.asarray(self.covariance + self.mean_x[:, :, None] * self.mean_x[:, None, :])

    @property
    def second_cross(self) -> Array:
        """Second moments of inputs and targets about zero: [groups, depth, outputs]."""
        return np.asarray(self.cross + self.mean_x[:, :, None] * self.mean_t[:, None, :])

    @property
    def variance_t(self) -> Array:
        """[groups, outputs]."""
        return self._tt / self.count - (self._t / self.count) ** 2

    def solve(self, start: Array, penalty: float, *, bias: bool = True) -> Fit:
        """The ridge solution near `start` [groups, outputs, depth]; without a bias, moments are those about zero."""
        covariance, cross = (self.covariance, self.cross) if bias else (self.second, self.second_cross)
        start = start.astype(np.float64)
        residual = cross - covariance @ np.swapaxes(start, 1, 2)  # of the targets against W0 x
        solved = start + np.swapaxes(np.stack([_ridge(a, r, penalty) for a, r in zip(covariance, residual)]), 1, 2)
        new_bias = self.bias(solved) if bias else np.zeros(start.shape[:2])
        return Fit(solved, new_bias, self.error(start), self.error(solved, new_bias))

    def bias(self, matrix: Array) -> Array:
        """The bias [groups, outputs] with which a map has the mean of the targets."""
        return np.asarray(self.mean_t - np.einsum("god,gd->go", matrix, self.mean_x))

    def error(self, matrix: Array, bias: Array | float = 0.0) -> float:
        """E |t - W x - b|^2 / Var(t) of a map, summed over outputs."""
        return self._error(matrix, self.covariance, self.cross, bias)

    def _error(self, matrix: Array, covariance: Array, cross: Array, bias: Array | float) -> float:
        """Relative to the variance of the targets; an offset of the mean counts."""
        spread = (
            self.variance_t
            - 2 * np.einsum("god,gdo->go", matrix, cross)
            + np.einsum("god,gde,goe->go", matrix, covariance, matrix, optimize=True)
        )
        offset = self.bias(matrix) - bias
        total = float(self.variance_t.sum())
        return float(np.maximum(spread, 0).sum() + (offset**2).sum()) / total if total > 0 else 0.0


def _ridge(covariance: Array, residual: Array, penalty: float) -> Array:
    """(C + penalty * mean(diag C) * I)^-1 residual; where the data is constant there is nothing to correct."""
    from scipy import linalg  # slow to import; most runs fit nothing

    damping = penalty * float(np.trace(covariance)) / len(covariance)
    if damping <= 0:
        return np.zeros_like(residual)
    damped = covariance + damping * np.eye(len(covariance))
    return np.asarray(linalg.solve(damped, residual, assume_a="pos", check_finite=False))
