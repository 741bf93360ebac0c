"""Streaming statistics of values: update, merge, result; memory O(channels), never O(samples)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, Any]


class Channels:
    """What statistics per channel share: their memory is known beforehand, and ranges of channels can be joined."""

    CHANNEL_BYTES: ClassVar[int] = 64  # of the accumulator, per channel

    @classmethod
    def nbytes(cls, channels: int) -> int:
        return cls.CHANNEL_BYTES * channels

    @classmethod
    def join(cls, results: Sequence[Any]) -> Any:
        """The result over all channels from those of consecutive ranges of channels."""
        return tuple(np.concatenate(parts) for parts in zip(*results))


def _by_channel(values: Array, axis: int | None) -> Array:
    """Values as [channels, rest]; one channel if no axis is given."""
    if axis is None:
        return values.reshape(1, -1).astype(np.float64, copy=False)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64, copy=False)


def _extremes(values: Array, axis: int | None) -> tuple[Array, Array]:
    """Smallest and largest value of every channel, in float64; arrays [channels]."""
    if axis is None:
        return np.array([values.min()], np.float64), np.array([values.max()], np.float64)
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    return values.min(axis=others).astype(np.float64), values.max(axis=others).astype(np.float64)


class MinMax(Channels):
    """Smallest and largest value, per tensor or per channel of `axis`. Result: (min, max), arrays [channels].

    NaN stands for a value that is not a number, and for a tensor that was always empty.
    """

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.low: Array | None = None
        self.high: Array | None = None

    def update(self, values: Array) -> None:
        if values.size:
            self._join(*_extremes(values, self.axis))

    def _join(self, low: Array, high: Array) -> None:
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def merge(self, other: MinMax) -> None:
        if other.low is not None and other.high is not None:
            self._join(other.low, other.high)

    def result(self) -> tuple[Array, Array]:
        if self.low is None or self.high is None:
            return _unseen()
        return self.low, self.high


def _unseen() -> tuple[Array, Array]:
    return np.full(1, np.nan), np.full(1, np.nan)


class AverageRange(Channels):
    """The mean, over updates (runs of the model), of the smallest and of the largest value: (low, high), [channels].

    One update is one run; statistics are gathered sample by sample, so this is the mean over samples. Sums are exact
    in the order of the data up to float64 rounding. NaN as in `MinMax`.
    """

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.count = 0
        self.sums: tuple[Array, Array] = (np.zeros(1), np.zeros(1))

    def update(self, values: Array) -> None:
        if values.size:
            low, high = _extremes(values, self.axis)
            self._join(1, low, high)

    def _join(self, count: int, low: Array, high: Array) -> None:
        self.count += count
        self.sums = self.sums[0] + low, self.sums[1] + high

    def merge(self, other: AverageRange) -> None:
        if other.count:
            self._join(other.count, *other.sums)

    def result(self) -> tuple[Array, Array]:
        return (self.sums[0] / self.count, self.sums[1] / self.count) if self.count else _unseen()


class MovingRange(Channels):
    """Exponential moving averages of the smallest and of the largest value of every update: (low, high), [channels].

        e_1 = x_1,   e_n = momentum e_(n-1) + (1 - momentum) x_n

    In closed form e_n = momentum^n x_1 + d_n with d_n = (1 - momentum) sum of momentum^(n-i) x_i, so that two runs
    merge exactly: that of `other` follows this one. `with_momentum` makes the class for another momentum.
    """

    MOMENTUM: ClassVar[float] = 0.99

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.count = 0
        self.first: Array = np.zeros((2, 1))
        self.decayed: Array = np.zeros((2, 1))

    def update(self, values: Array) -> None:
        if values.size:
            ends = np.stack(_extremes(values, self.axis))
            self._follow(1, ends, (1 - self.MOMENTUM) * ends)

    def _follow(self, count: int, first: Array, decayed: Array) -> None:
        self.first = first if self.count == 0 else self.first
        self.decayed = self.decayed * self.MOMENTUM**count + decayed
        self.count += count

    def merge(self, other: MovingRange) -> None:
        assert other.MOMENTUM == self.MOMENTUM, "averages of different momentum"
        if other.count:
            self._follow(other.count, other.first, other.decayed)

    def result(self) -> tuple[Array, Array]:
        if not self.count:
            return _unseen()
        low, high = self.first * self.MOMENTUM**self.count + self.decayed
        return low, high

    @classmethod
    def with_momentum(cls, momentum: float) -> type[MovingRange]:
        """The accumulator of this momentum, in (0, 1); the same class for the same number."""
        assert 0 < momentum < 1, f"a momentum is between 0 and 1, not {momentum}"
        return _moving(momentum)


@functools.cache
def _moving(momentum: float) -> type[MovingRange]:
    if momentum == MovingRange.MOMENTUM:
        return MovingRange
    return type("MovingRange", (MovingRange,), {"MOMENTUM": momentum})


class Moments(Channels):
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
