"""The range that holds all but a small share of the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....ir.quant import QSpec
from ...histogram import BINS, Array, Bins, Histogram
from ...ports import Accumulator
from .base import Observer, Range

_SLACK = 1e-6  # of a value: shares are binary fractions


@dataclass(frozen=True)
class Percentile(Observer):
    """Clips what lies beyond a percentile, exact to the width of a bin: |x| for symmetric grids, else half the share
    at each end. `percent` is what stays inside: 99.9, 99.99 or 99.999 are usual."""

    name: ClassVar[str] = "percentile"
    percent: float = 99.99

    @property
    def accumulator(self) -> type[Accumulator]:
        return Histogram

    def window(self, result: Bins, spec: QSpec) -> Range:
        outside = 1.0 - self.percent / 100.0
        if spec.symmetric:
            most = np.array([_magnitude(result, c, outside) for c in range(result.channels)])
            return np.maximum(result.low, -most), np.minimum(result.high, most)
        low, high = _tails(result, outside / 2)
        return np.maximum(result.low, low), np.minimum(result.high, high)


def _magnitude(bins: Bins, channel: int, outside: float) -> float:
    """The upper edge of the bin of |x| beyond which at most the share `outside` of the values lies."""
    folded = bins.magnitudes(channel)
    beyond = np.cumsum(folded[::-1])[::-1]  # values in bin i or beyond it
    allowed = outside * float(bins.total[channel]) + _SLACK
    return float(np.count_nonzero(beyond > allowed) * bins.width[channel])


def _tails(bins: Bins, outside: float) -> tuple[Array, Array]:
    """The edges of the bins at both ends beyond which at most the share `outside` of the values lies, each."""
    counts = bins.counts.copy()
    rows = np.arange(bins.channels)
    counts[rows, np.clip(-bins.first, 0, BINS - 1)] += bins.zeros
    allowed = (outside * bins.total + _SLACK)[:, None]
    below = (np.cumsum(counts, axis=1) <= allowed).sum(axis=1)  # bins that are cut at the low end
    above = (np.cumsum(counts[:, ::-1], axis=1) <= allowed).sum(axis=1)
    return (bins.first + below) * bins.width, (bins.first + BINS - above) * bins.width
