"""AdaRound: for every weight the choice between the two nearest codes, learned from what the operator should yield.

    Q = s (clip(floor(W / s) + h, n, p)),  h = clip(1.2 sigmoid(V) - 0.1, 0, 1)
    min over V of  E |f(t) - f(Q x)|^2 + lambda * sum(1 - |2 h - 1|^beta)

(Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020).
h starts at the fraction of W / s, so that the first Q is W; beta falls while training goes on, which drives h to 0 or
1; what is above 1/2 at the end is rounded up. f is an activation that follows directly. The first term is counted in
squared steps of the grid per weight, so that lambda means the same for every layer. Adam in plain numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.quant import QSpec
from .gptq import Rounded

Array = np.ndarray[Any, Any]
_ZETA, _GAMMA = 1.1, -0.1  # how far the sigmoid is stretched
_FAR = 10.0  # the sigmoid of -10 is stretched below 0
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # of Adam
_BETA = (20.0, 2.0)  # of the regularizer, from the end of the warm-up to the end


@dataclass(frozen=True)
class Training:
    """How the choice is learned; the regularizer joins after the share `warmup` of the iterations."""

    iterations: int = 800
    rate: float = 0.1
    batch: int = 128
    regularizer: float = 1.0
    warmup: float = 0.2


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows x [groups, n, depth] with the results that they should have, t [groups, n, outputs], before the bias.

    `bias` [groups, outputs] is added before the activation clips to [low, high]; without limits it plays no part.
    """

    x: Array
    t: Array
    bias: Array
    low: float = -np.inf
    high: float = np.inf

    @property
    def linear(self) -> bool:
        return self.low == -np.inf and self.high == np.inf

    def residual(self, made: Array, wanted: Array) -> Array:
        """f(made) - f(wanted)."""
        return self._shown(made) - self._shown(wanted)

    def slope(self, made: Array, wanted: Array) -> Array:
        """The derivative of |f(made) - f(wanted)|^2 / 2: nothing where f is flat."""
        difference = self.residual(made, wanted)
        if self.linear:
            return difference
        shifted = made + self.bias[:, None]
        return np.where((shifted > self.low) & (shifted < self.high), difference, np.float32(0))

    def _shown(self, product: Array) -> Array:
        return product if self.linear else np.clip(product + self.bias[:, None], self.low, self.high)

    def mean_left(self, matrix: Array) -> Array:
        """The mean of t - Q x [groups, outputs]."""
        return np.asarray((self.t - self.x @ np.swapaxes(matrix, 1, 2)).mean(axis=1))

    def error(self, matrix: Array, offset: Array | None = None) -> float:
        """E |f(t) - f(Q x + offset)|^2 of a matrix [groups, outputs, depth], relative to the variance of f(t)."""
        made = self.x @ np.swapaxes(matrix, 1, 2)
        if offset is not None:
            made += offset[:, None]
        total = float(np.square(self.residual(made, self.t), dtype=np.float64).sum())
        wanted = np.clip(self.t + self.bias[:, None], self.low, self.high)
        spread = float(np.square(wanted - wanted.mean(axis=1, keepdims=True), dtype=np.float64).sum())
        return total / spread if spread else 0.0


def adaround(
    matrix: Array,
    rows: Rows,
    spec: QSpec,
    grids: tuple[Array, Array],
    training: Training,
    rng: np.random.Generator,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Rounded:
    """Round `matrix` [groups, outputs, depth] up or down on `grids` (broadcastable to it).

    Never worse on `rows` than to nearest: then nearest it is. `told` hears of every iteration.
    """
    scale, zero = (np.asarray(g, np.float32) for g in grids)
    real = matrix.astype(np.float32) / scale
    low, high = spec.qmin - zero, spec.qmax - zero
    floor = np.floor(real)
    up = _learn(real, floor, low, high, rows, scale, training, rng, told)
    learned, nearest = (np.clip(steps, low, high) for steps in (floor + up, np.rint(real)))
    better = rows.error(learned * scale) < rows.error(nearest * scale)
    return Rounded((learned if better else nearest) + zero, scale, zero)


def _learn(
    real: Array,
    floor: Array,
    low: Array,
    high: Array,
    rows: Rows,
    scale: Array,
    training: Training,
    rng: np.random.Generator,
    told: Callable[[int, int], None],
) -> Array:
    """Which weights are rounded up."""
    fraction = np.clip((real - floor - _GAMMA) / (_ZETA - _GAMMA), 1e-4, 1 - 1e-4)
    inside = (floor + 1 > low) & (floor < high)  # elsewhere both codes are the same
    v = np.where(inside, np.log(fraction / (1 - fraction)), np.float32(-_FAR))
    first, second = np.zeros_like(v), np.zeros_like(v)
    unit = _unit(rows, scale)
    for i in range(training.iterations):
        picked = rng.integers(0, rows.x.shape[1], min(training.batch, rows.x.shape[1]))
        sigmoid = (1 + np.tanh(v / 2)) / 2
        h = np.clip(sigmoid * (_ZETA - _GAMMA) + _GAMMA, 0, 1)
        x = rows.x[:, picked]
        made = x @ np.swapaxes(np.clip(floor + h, low, high) * scale, 1, 2)
        gradient = np.swapaxes(rows.slope(made, rows.t[:, picked]), 1, 2) @ x
        gradient *= 2 * scale * unit / len(picked)
        done = (i / training.iterations - training.warmup) / (1 - training.warmup)
        if done > 0:
            gradient += training.regularizer * _push(h, _BETA[1] + (_BETA[0] - _BETA[1]) * (1 - done))
        gradient *= inside & (h > 0) & (h < 1)
        gradient *= (_ZETA - _GAMMA) * sigmoid * (1 - sigmoid)
        _adam(v, gradient, first, second, i + 1, training.rate)
        told(i + 1, training.iterations)
    return np.asarray(v > 0)


def _unit(rows: Rows, scale: Array) -> Array:
    """What makes errors of outputs [groups, outputs, 1] squared steps of one weight."""
    power = np.square(rows.x, dtype=np.float64).mean(axis=(1, 2))[:, None, None]
    step = np.square(scale, dtype=np.float64).mean(axis=2, keepdims=True)
    return np.asarray(1 / np.maximum(power * step, np.finfo(np.float32).tiny), np.float32)


def _push(h: Array, beta: float) -> Array:
    """The derivative of 1 - |2 h - 1|^beta: away from the middle."""
    far = 2 * h - 1
    return np.asarray(-2 * beta * np.sign(far) * np.abs(far) ** (beta - 1))


def _adam(v: Array, gradient: Array, first: Array, second: Array, step: int, rate: float) -> None:
    first *= _BETAS[0]
    first += (1 - _BETAS[0]) * gradient
    second *= _BETAS[1]
    second += (1 - _BETAS[1]) * gradient**2
    v -= rate * (first / (1 - _BETAS[0] ** step)) / (np.sqrt(second / (1 - _BETAS[1] ** step)) + _EPSILON)
