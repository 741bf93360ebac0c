"""Streaming statistics of values: update, merge, result; memory O(channels), never O(samples)."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _by_channel(values: Array, axis: int | None) -> Array:
    """Values as [channels, rest]; one channel if no axis is given."""
    if axis is None:
        return values.reshape(1, -1).astype(np.float64, copy=False)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64, copy=False)


class MinMax:
    """Smallest and largest value, per tensor or per channel of `axis`. Result: (min, max), arrays [channels]."""

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.low: Array | None = None
        self.high: Array | None = None

    def update(self, values: Array) -> None:
        if values.size:
            rows = _by_channel(values, self.axis)
            self._join(rows.min(axis=1), rows.max(axis=1))

    def _join(self, low: Array, high: Array) -> None:
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def merge(self, other: MinMax) -> None:
        if other.low is not None and other.high is not None:
            self._join(other.low, other.high)

    def result(self) -> tuple[Array, Array]:
        assert self.low is not None, "no values were seen"
        assert self.high is not None
        return self.low, self.high


class Moments:
    """Count, mean and mean square, per tensor or per channel (Chan's parallel update, exact under merge).

    Result: (mean, mean square), arrays [channels] in float64.
    """

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.count = 0
        self.mean: Array = np.zeros(1)
        self.square: Array = np.zeros(1)

    def update(self, values: Array) -> None:
        if values.size:
            rows = _by_channel(values, self.axis)
            self._join(rows.shape[1], rows.mean(axis=1), np.square(rows).mean(axis=1))

    def _join(self, count: int, mean: Array, square: Array) -> None:
        total = self.count + count
        weight = count / total
        self.mean = self.mean + (mean - self.mean) * weight
        self.square = self.square + (square - self.square) * weight
        self.count = total

    def merge(self, other: Moments) -> None:
        if other.count:
            self._join(other.count, other.mean, other.square)

    def result(self) -> tuple[Array, Array]:
        assert self.count, "no values were seen"
        return self.mean, self.square
