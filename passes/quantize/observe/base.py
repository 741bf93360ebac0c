"""What an observer is: a statistic to gather while data streams by, and the range that it suggests for a grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ....ir.quant import QSpec
from ...ports import Accumulator, Request

Array = np.ndarray[Any, Any]
Range = tuple[Array, Array]  # (low, high), one of each per channel


@dataclass(frozen=True)
class Observer(ABC):
    """Chooses the range of real numbers that a grid of `QSpec` covers.

        found = ctx.stats.get(module, [observer.request("x")])
        low, high = observer.bounds(found[observer.request("x")], spec)
        scale, zero = ir.quant.grid(low, high, spec)

    Ranges always hold zero. They are not finite where the tensor held Inf or NaN, or where it was always empty: such
    a tensor cannot be put on a grid, and who asks says so.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def accumulator(self) -> type[Accumulator]:
        """What is gathered; mergeable, with memory that does not grow with the data."""

    @abstractmethod
    def window(self, result: Any, spec: QSpec) -> Range:
        """(low, high), [channels], from the result of the accumulator."""

    def request(self, value: str, axis: int | None = None) -> Request:
        """The statistic of the value called `value`, per tensor or per channel of `axis`."""
        return Request(value, self.accumulator, axis)

    def bounds(self, result: Any, spec: QSpec) -> Range:
        """(low, high) with low <= 0 <= high, in float32, in the shape of the scales of `spec`: () per tensor, else
        [channels]."""
        low, high = self.window(result, spec)
        shape = () if spec.axis is None else low.shape
        ends = np.minimum(low, 0.0), np.maximum(high, 0.0)  # NaN stays
        return ends[0].astype(np.float32).reshape(shape), ends[1].astype(np.float32).reshape(shape)


def cut(low: Array, high: Array, most: Array) -> Range:
    """The range without what lies further than `most` from zero: the larger end is cut first."""
    return np.maximum(np.minimum(low, 0.0), -most), np.minimum(np.maximum(high, 0.0), most)
