"""Which numbers to divide inputs by before 8-bit rounding, found by trying: the error of the rounded product decides.

    s_j = max|X_j|^a / max|W_j|^(1-a)        SmoothQuant (Xiao et al., 2023), a over a grid
    s_j = max(1, max|X_j| / (t * median))    for massive activations (Sun et al., 2024): only what sticks out

An error is relative, token by token, and averaged: E_t |y'_t - y_t|^2 / |y_t|^2, where y' is the product of inputs
rounded to 8 bits with one scale, and weights rounded with one scale per output. Squared errors summed over tokens would
choose for the few massive tokens, which are large, and spoil all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.core import Value
from ...ir.quant import QSpec, grid
from ..linear import Linear
from .scaling import ScalingSite
from .smooth_samples import Seen, rows_of

Array = np.ndarray[Any, Any]

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
THRESHOLDS = (1.4, 2.0, 3.0)
_INPUT = QSpec(8, signed=False, symmetric=False)
_OUTPUTS = 384  # of an operator that the error is taken from
_FAR = 2.0**12  # how far numbers may lie from one: float16 weights have to bear it
_FLOOR = 0.1  # of the median token: smaller ones count as if they were as large


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate: its name, its numbers [cells] and the error with them."""

    name: str
    numbers: Array
    error: float


@dataclass(frozen=True, eq=False)
class Search:
    """The candidates of one site. `bits` are those of weights."""

    site: ScalingSite
    seen: Seen
    bits: int

    def best(self, alpha: float | None) -> tuple[float, Trial]:
        """The error of the inputs as they are, and the best candidate (with `alpha`: that one)."""
        readers = [_RoundedReader.of(self.site, self.seen, reader, self.bits) for reader in self.site.readers]

        def error(numbers: Array) -> float:
            return float(np.mean([reader.error(numbers) for reader in readers]))

        tried = [Trial(name, s, error(s)) for name, s in self._candidates(alpha)]
        return error(np.ones(self.site.count)), min(tried, key=lambda t: t.error)

    def _candidates(self, alpha: float | None) -> Iterator[tuple[str, Array]]:
        inputs = self.site.by_cell({v: reach(*self.seen.bounds(v)) for v in self.site.positions})
        weights = np.zeros(self.site.count)
        for reader in self.site.readers:
            weights = np.maximum(weights, self.site.by_cell({reader.data: input_reach(reader)}))
        for a in ALPHAS if alpha is None else (alpha,):
            yield f"alpha {a:g}", migrated(inputs, weights, a)
        for t in THRESHOLDS if alpha is None else ():
            yield f"threshold {t:g}", cut_down(inputs, t)


def reach(low: Array, high: Array) -> Array:
    return np.maximum(np.abs(low), np.abs(high))


def input_reach(linear: Linear) -> Array:
    """The largest weight that each input of an operator meets: [inputs]."""
    assert linear.weight.constant is not None
    largest = np.abs(linear.matrix(linear.weight.constant.array())).max(axis=1).astype(np.float64)
    return np.asarray(largest.reshape(-1, linear.taps).max(axis=1))


def migrated(inputs: Array, weights: Array, alpha: float) -> Array:
    """max|X_j|^alpha / max|W_j|^(1-alpha) with geometric mean 1; 1 for inputs that are always zero or never used."""
    live = (inputs > 0) & (weights > 0)
    safe = np.where(live, inputs, 1.0), np.where(live, weights, 1.0)
    return _normal(safe[0] ** alpha / safe[1] ** (1 - alpha), live)


def cut_down(inputs: Array, ratio: float) -> Array:
    """Brings inputs down to `ratio` times their median, and leaves those below as they are."""
    live = inputs > 0
    usual = float(np.median(inputs[live])) if live.any() else 1.0
    return _normal(np.maximum(1.0, inputs / (ratio * usual)), live)


def _normal(numbers: Array, live: Array) -> Array:
    if live.any():
        numbers = numbers / np.exp(np.log(numbers[live]).mean())
    return np.where(live, np.clip(numbers, 1 / _FAR, _FAR), 1.0)


@dataclass(frozen=True, eq=False)
class _RoundedReader:
    """One reader: its rows, its matrix, and what they make in floats."""

    site: ScalingSite
    reader: Linear
    bounds: Mapping[Value, tuple[Array, Array]]
    rows: Array  # [groups, n, depth]
    matrix: Array  # [groups, outputs, depth]
    wanted: Array  # [groups, n, outputs]
    energy: Array  # [n], of the outputs
    bits: int

    @classmethod
    def of(cls, site: ScalingSite, seen: Seen, reader: Linear, bits: int) -> _RoundedReader:
        assert reader.weight.constant is not None
        matrix = reader.matrix(reader.weight.constant.array())
        matrix = matrix[:, :: max(1, matrix.shape[0] * matrix.shape[1] // _OUTPUTS)].astype(np.float32)
        rows = rows_of(site, seen, reader)
        wanted = rows @ np.swapaxes(matrix, 1, 2)
        energy = np.square(wanted).sum(axis=(0, 2), dtype=np.float64)
        usual = float(np.median(energy[energy > 0])) if (energy > 0).any() else 1.0
        energy = np.maximum(energy, _FLOOR * usual)
        return cls(site, reader, {reader.data: seen.bounds(reader.data)}, rows, matrix, wanted, energy, bits)

    def error(self, numbers: Array) -> float:
        """The mean relative error of tokens when inputs are divided by numbers [cells]."""
        low, high = self.bounds[self.reader.data]
        by_position = self.site.by_position(self.reader.data, numbers)
        columns = np.repeat(by_position.reshape(self.reader.groups, 1, -1), self.reader.taps, axis=2)
        columns = columns.astype(np.float32)
        bottom, top = min(0.0, float((low / by_position).min())), max(0.0, float((high / by_position).max()))
        inputs = _rounded_inputs(self.rows / columns, bottom, top)
        made = inputs @ np.swapaxes(_rounded_weights(self.matrix * columns, self.bits), 1, 2)
        off = np.square(made - self.wanted).sum(axis=(0, 2), dtype=np.float64)
        return float((off / self.energy).mean())


def _rounded_inputs(rows: Array, low: float, high: float) -> Array:
    scale, zero = (float(x) for x in grid(np.float32(low), np.float32(high), _INPUT))  # type: ignore[arg-type]
    codes = np.clip(np.rint(rows / np.float32(scale)) + np.float32(zero), _INPUT.qmin, _INPUT.qmax)
    return np.asarray((codes - np.float32(zero)) * np.float32(scale))


def _rounded_weights(matrix: Array, bits: int) -> Array:
    most = float(2 ** (bits - 1) - 1)
    scale = np.abs(matrix).max(axis=2, keepdims=True) / np.float32(most)
    scale = np.where(scale > 0, scale, np.float32(1))
    return np.asarray(np.clip(np.rint(matrix / scale), -most, most) * scale)
