"""The range whose grid keeps most of what the distribution says: least Kullback-Leibler divergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....ir.quant import QSpec
from ...histogram import BINS, Array, Bins, Histogram
from ...ports import Accumulator
from .base import Observer, Range, cut

_STRIDE = 8  # bins between the ranges that are tried first; all around the best are tried then
_SMALL = 1e-4  # of a count: what stands for an empty bin


@dataclass(frozen=True)
class Entropy(Observer):
    """Clips where the clipped and rounded distribution diverges least from the original (Migacz 2017).

    For every threshold of T bins: P is the histogram inside with the tails added to the outermost bins; Q the
    histogram inside without them, merged into as many levels as the grid has and spread evenly over the bins of a
    level that are not empty. The threshold with the least KL(P || Q) wins. Symmetric grids see |x| and half as many
    levels. Exact zeros are left out: they have a code of their own.
    """

    name: ClassVar[str] = "entropy"

    @property
    def accumulator(self) -> type[Accumulator]:
        return Histogram

    def window(self, result: Bins, spec: QSpec) -> Range:
        most = np.array([_threshold(result, c, spec) for c in range(result.channels)])
        known = np.isfinite(result.low)
        low, high = cut(result.low, result.high, most)
        return np.where(known, low, result.low), np.where(known, high, result.high)


def _threshold(bins: Bins, channel: int, spec: QSpec) -> float:
    """The largest magnitude that is kept; infinite where there is nothing to gain."""
    if spec.symmetric:
        counts, origin = bins.magnitudes(channel), 0
    else:
        counts, origin = bins.counts[channel], int(np.clip(-bins.first[channel], 0, BINS))
    levels = 1 << (spec.bits - 1 if spec.symmetric else spec.bits)
    used = np.flatnonzero(counts)
    if used.size == 0:
        return np.inf
    whole = int(max(used[-1] + 1 - origin, origin - used[0]))

    def divergence(size: int) -> float:
        first, last = max(origin - size, int(used[0])), min(origin + size, int(used[-1]) + 1)
        return _divergence(counts, first, last, levels) if last - first >= levels else np.inf

    coarse = [*range(whole, 0, -_STRIDE)]
    best = min(coarse, key=divergence)
    fine = range(min(whole, best + _STRIDE - 1), max(0, best - _STRIDE), -1)
    size = min((best, *fine), key=divergence)
    return np.inf if size == whole else (size + 0.5) * float(bins.width[channel])


def _divergence(counts: Array, first: int, last: int, levels: int) -> float:
    """KL(P || Q) of the bins [first, last) on so many levels."""
    inside = counts[first:last].astype(np.float64)
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    level = np.arange(inside.size) * levels // inside.size
    mass = np.bincount(level, inside, levels)
    used = np.bincount(level, inside > 0, levels)
    q = np.where(inside > 0, (mass / np.maximum(used, 1))[level], 0.0)
    p, q = np.where(p > 0, p, _SMALL), np.where(q > 0, q, _SMALL)
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))
