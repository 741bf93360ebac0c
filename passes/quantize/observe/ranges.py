"""Observers that take the extremes of the data: of all of it, or averaged over samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ....ir.quant import QSpec
from ...accumulators import AverageRange, MinMax, MovingRange
from ...ports import Accumulator
from .base import Observer, Range


@dataclass(frozen=True)
class MinMaxRange(Observer):
    """From the smallest to the largest value: nothing is clipped, and one outlier sets the scale."""

    name: ClassVar[str] = "minmax"

    @property
    def accumulator(self) -> type[Accumulator]:
        return MinMax

    def window(self, result: Any, spec: QSpec) -> Range:
        low, high = result
        return low, high


@dataclass(frozen=True)
class Average(MinMaxRange):
    """The mean of every sample's smallest value to the mean of every sample's largest."""

    name: ClassVar[str] = "average"

    @property
    def accumulator(self) -> type[Accumulator]:
        return AverageRange


@dataclass(frozen=True)
class MovingAverage(MinMaxRange):
    """Exponential moving averages of both ends: e = momentum e + (1 - momentum) x (Jacob et al. 2018, sec. 3.1).

    Later samples count more, so the order of the data matters.
    """

    name: ClassVar[str] = "ema"
    momentum: float = 0.99

    @property
    def accumulator(self) -> type[Accumulator]:
        return MovingRange.with_momentum(self.momentum)
