"""A histogram of a stream whose range nobody knows beforehand: 2048 bins, exact under growth and merge.

Bins lie on the lattice of multiples of a power of two: bin k of width w = 2^e holds k w <= x < (k + 1) w. The width is
the least with which the values seen so far, and zero, span at most 2048 bins. When the range grows, w doubles and pairs
of bins are added: floor(floor(x / w) / 2) = floor(x / 2w), so nothing is approximated, and counts, width and position
depend on the multiset of values only. Whatever the order of updates and merges, the result is the same.

Exact zeros are counted apart: every grid has a code for zero, and what ReLU and padding leave behind says nothing of
how wide a range should be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from .accumulators import Channels

Array = np.ndarray[Any, Any]

BINS = 2048
_LEAST_EXPONENT = -200  # of the width, while there is nothing but zeros
_PIECE = 1 << 16  # elements that are sorted into bins at once


@dataclass(frozen=True, eq=False)
class Bins:
    """What a `Histogram` found. C channels; bin i of a channel is [first + i, first + i + 1) width.

    counts [C, 2048], width [C] (powers of two), first [C] (whole numbers), zeros [C] (not in the counts), low and
    high [C]: the smallest and largest value. NaN in low and high: there was no value, or one that is not finite.
    """

    counts: Array
    width: Array
    first: Array
    zeros: Array
    low: Array
    high: Array

    @property
    def channels(self) -> int:
        return int(self.counts.shape[0])

    @property
    def total(self) -> Array:
        """Finite values of every channel."""
        return np.asarray(self.counts.sum(axis=1) + self.zeros)

    @property
    def centers(self) -> Array:
        """[C, 2048]; their distance to any value of the bin is at most half the width."""
        return (self.first[:, None] + np.arange(BINS) + 0.5) * self.width[:, None]

    def some(self, channels: slice) -> Bins:
        return Bins(*(getattr(self, f.name)[channels] for f in fields(self)))

    def magnitudes(self, channel: int) -> Array:
        """Counts of |x| in bins of the channel's width, from zero on; exact zeros are left out."""
        first, counts = int(self.first[channel]), self.counts[channel]
        positive, negative = counts[max(0, -first) :], counts[: max(0, -first)][::-1]
        folded = np.zeros(max(positive.size, negative.size), counts.dtype)
        folded[: positive.size] += positive
        folded[: negative.size] += negative
        return folded


class Histogram(Channels):
    """Counts of values per tensor or per channel of `axis`. Result: `Bins`."""

    CHANNEL_BYTES: ClassVar[int] = BINS * 8 + 64

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self._made = False
        self._allocate(1)

    def _allocate(self, channels: int) -> None:
        self.counts = np.zeros((channels, BINS), np.int64)
        self.exponent = np.full(channels, _LEAST_EXPONENT, np.int64)
        self.first, self.zeros = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)
        self.broken = np.zeros(channels, bool)

    def update(self, values: Array) -> None:
        if values.size:
            axis = self.axis
            rows = (
                values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
            )
            self._sized(rows.shape[0])
            for channels in _pieces(rows):
                self._count(rows[channels], channels)

    def _sized(self, channels: int) -> None:
        if not self._made:
            self._allocate(channels)
            self._made = True
        assert channels == self.counts.shape[0], "the number of channels is not the same in all samples"

    def _count(self, rows: Array, at: slice) -> None:
        low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        finite = np.isfinite(low) & np.isfinite(high)
        if not finite.all():
            low, high = _finite_ends(rows)
            self.broken[at] |= ~finite
        self._cover(at, low, high)
        per = np.exp2(-self.exponent[at].astype(np.float64))[:, None]
        step = max(1, _PIECE // rows.shape[0])
        for start in range(0, rows.shape[1], step):
            self._sort(rows[:, start : start + step], per, at)

    def _sort(self, part: Array, per: Array, at: slice) -> None:
        """Add a stretch of every row to the bins, which cover it."""
        real = part * per
        inside = np.isfinite(real) & (part != 0)
        index = np.floor(np.where(inside, real, 0)).astype(np.int64) - self.first[at, None]
        index += BINS * np.arange(len(part))[:, None]
        self.counts[at] += np.bincount(index[inside], minlength=BINS * len(part)).reshape(-1, BINS)
        self.zeros[at] += (part == 0).sum(axis=1)

    def merge(self, other: Histogram) -> None:
        if not other._made:
            return
        self._sized(other.counts.shape[0])
        everything = slice(None)
        self._cover(everything, other.low, other.high)
        self.counts += _moved(other.counts, other.exponent, other.first, self.exponent, self.first)
        self.zeros += other.zeros
        self.broken |= other.broken

    def _cover(self, at: slice, low: Array, high: Array) -> None:
        """Widen bins until they hold [low, high], zero and what they held."""
        self.low[at], self.high[at] = np.minimum(self.low[at], low), np.maximum(self.high[at], high)
        exponent, first = _lattice(np.minimum(self.low[at], 0), np.maximum(self.high[at], 0))
        if not np.array_equal(exponent, self.exponent[at]) or not np.array_equal(first, self.first[at]):
            self.counts[at] = _moved(self.counts[at], self.exponent[at], self.first[at], exponent, first)
            self.exponent[at], self.first[at] = exponent, first

    def result(self) -> Bins:
        unknown = self.broken | ~np.isfinite(self.low) | ~np.isfinite(self.high)
        return Bins(
            self.counts,
            np.exp2(self.exponent.astype(np.float64)),
            self.first,
            self.zeros,
            np.where(unknown, np.nan, self.low),
            np.where(unknown, np.nan, self.high),
        )

    @classmethod
    def join(cls, results: Sequence[Bins]) -> Bins:
        return Bins(*(np.concatenate([getattr(r, f.name) for r in results]) for f in fields(Bins)))


def _pieces(rows: Array) -> Iterator[slice]:
    step = max(1, _PIECE // rows.shape[1])
    for start in range(0, rows.shape[0], step):
        yield slice(start, min(start + step, rows.shape[0]))


def _finite_ends(rows: Array) -> tuple[Array, Array]:
    finite = np.isfinite(rows)
    low = np.where(finite, rows, np.inf).min(axis=1).astype(np.float64)
    return low, np.where(finite, rows, -np.inf).max(axis=1).astype(np.float64)


def _lattice(low: Array, high: Array) -> tuple[Array, Array]:
    """Exponent of the width and first bin, for ranges with low <= 0 <= high: the finest lattice that spans them."""
    exponent = np.maximum(np.frexp(high - low)[1].astype(np.int64) - (BINS.bit_length() - 1), _LEAST_EXPONENT)
    exponent = np.where(high > low, exponent, _LEAST_EXPONENT)
    # The range is less than 2048 widths, but it may begin and end inside a bin: then one doubling more.
    exponent += _bin(high, exponent) - _bin(low, exponent) >= BINS
    return exponent, _bin(low, exponent)


def _bin(value: Array, exponent: Array) -> Array:
    return np.asarray(np.floor(np.ldexp(value, -exponent)).astype(np.int64))


def _moved(counts: Array, exponent: Array, first: Array, to_exponent: Array, to_first: Array) -> Array:
    """The same counts on a lattice that is at least as coarse and covers them."""
    moved = np.zeros_like(counts)
    shift = np.minimum(to_exponent - exponent, 62)
    row, bin = np.nonzero(counts)
    np.add.at(moved, (row, ((first[row] + bin) >> shift[row]) - to_first[row]), counts[row, bin])
    return moved
