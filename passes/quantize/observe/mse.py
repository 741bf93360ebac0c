"""The range whose grid has the least squared error on the data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....ir.quant import QSpec, grid
from ...histogram import BINS, Array, Bins, Histogram
from ...ports import Accumulator
from .base import Observer, Range, cut

#: What share of the largest magnitude is kept. 81 even steps, then ever smaller ones: 2 bits, or an outlier far out.
_SHARES = np.concatenate([np.linspace(1.0, 0.2, 81), 0.2 * 0.9 ** np.arange(1, 31)])
_ENDS = np.linspace(1.0, 0.5, 26)
_GOLDEN = (np.sqrt(5.0) - 1) / 2
_STEPS = 12  # of golden section: the bracket shrinks to 1/300
_SOME = 32  # channels at once

Error = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class LeastSquares(Observer):
    """Minimises the sum of (x - Q(x))^2 over ranges, on the histogram (values lie evenly in their bin).

    Ranges [max(low, -t), min(high, t)] on a grid of t, a golden section around the best of them, then either end by
    itself. The whole range is among the candidates and is left only for less error: never worse than min-max.
    """

    name: ClassVar[str] = "mse"

    @property
    def accumulator(self) -> type[Accumulator]:
        return Histogram

    def window(self, result: Bins, spec: QSpec) -> Range:
        found = [
            _least(result.some(slice(start, start + _SOME)), spec) for start in range(0, result.channels, _SOME)
        ]  # fmt: skip
        low, high = (np.concatenate(ends) for ends in zip(*found))
        known = np.isfinite(result.low)
        return np.where(known, low, result.low), np.where(known, high, result.high)


def squared_error(bins: Bins, low: Array, high: Array, spec: QSpec) -> Array:
    """Sum over the histogram of (x - Q(x))^2 for the grids that cover [low, high]; [channels].

    Values are taken to lie evenly in their bin, and none beyond the extremes. A bin narrower than a thousandth of the
    others is a point. The integral of the squared error is known in closed form, so the bins add no error of their own.
    """
    scale, zero = (p.astype(np.float64)[:, None] for p in grid(low.astype(np.float32), high.astype(np.float32), spec))
    ends = np.nan_to_num(bins.low)[:, None], np.nan_to_num(bins.high)[:, None]
    edges = np.clip((bins.first[:, None] + np.arange(BINS + 1)) * bins.width[:, None], *ends) / scale
    widths = np.diff(edges, axis=1)
    narrow = widths <= 1e-3 * bins.width[:, None] / scale
    integral = np.diff(_integral(edges, spec.qmin - zero, spec.qmax - zero), axis=1)
    points = (edges[:, 1:] + edges[:, :-1]) / 2
    mean = np.where(
        narrow,
        np.square(points - np.clip(np.rint(points), spec.qmin - zero, spec.qmax - zero)),
        integral / np.where(narrow, 1.0, widths),
    )
    return np.asarray((mean * bins.counts).sum(axis=1) * scale[:, 0] ** 2)


def _integral(x: Array, least: Array, most: Array) -> Array:
    """The integral of (t - clip(round(t), least, most))^2 over t from 0 to x."""
    nearest = np.clip(np.rint(x), least, most)
    rest = x - nearest
    return np.asarray(nearest / 12 + rest * rest * rest / 3)


def _least(bins: Bins, spec: QSpec) -> Range:
    low, high = np.nan_to_num(np.minimum(bins.low, 0.0)), np.nan_to_num(np.maximum(bins.high, 0.0))
    error = functools.partial(squared_error, bins, spec=spec)
    share = _search(lambda s: error(*_both(low, high, s)), _SHARES)
    best = _both(low, high, share)
    if spec.symmetric:
        return best
    for end in (1, 0):
        best = _one_end(error, best, end)
    return best


def _both(low: Array, high: Array, share: Array) -> Range:
    return cut(low, high, share * np.maximum(high, -low))


def _one_end(error: Error, best: Range, end: int) -> Range:
    def moved(share: Array) -> Range:
        return (best[0] * share, best[1]) if end == 0 else (best[0], best[1] * share)

    return moved(_search(lambda share: error(*moved(share)), _ENDS))


def _search(error: Callable[[Array], Array], shares: Array) -> Array:
    """The share with the least error, per channel: the best on the grid, then golden section between its neighbours.

    Ties go to the larger share.
    """
    errors = np.stack([error(np.asarray(share)) for share in shares])
    at = errors.argmin(axis=0)
    best: Array = shares[at]
    least = errors[at, np.arange(errors.shape[1])]
    a, b = shares[np.minimum(at + 1, len(shares) - 1)], shares[np.maximum(at - 1, 0)]
    for _ in range(_STEPS):
        inner, outer = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
        low, high = error(inner), error(outer)
        for share, found in ((outer, high), (inner, low)):
            best, least = np.where(found < least, share, best), np.minimum(found, least)
        a, b = np.where(low < high, a, inner), np.where(low < high, outer, b)
    return best
