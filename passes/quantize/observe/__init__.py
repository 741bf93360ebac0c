"""Observers: how the range of a tensor is chosen from calibration data. Streaming, mergeable, deterministic."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Observer as Observer
from .entropy import Entropy
from .mse import LeastSquares
from .percentile import Percentile
from .ranges import Average, MinMaxRange, MovingAverage

#: By the name that recipes use.
OBSERVERS: Mapping[str, Observer] = {
    o.name: o for o in (MinMaxRange(), Average(), MovingAverage(), Percentile(), LeastSquares(), Entropy())
}
