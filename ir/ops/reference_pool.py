"""Reference of the global average; ONNX's own divides by zero where the tensor has no elements (a batch of none)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Op

Array = np.ndarray[Any, Any]


def global_average_pool(op: Op, arrays: Sequence[Array | None]) -> list[Array]:
    """[N, C, spatial...] to [N, C, 1, ...]; the average of no positions is NaN."""
    (x,) = arrays
    assert x is not None
    axes = tuple(range(2, x.ndim))
    count = int(np.prod(x.shape[2:]))
    if count == 0:
        return [np.full((*x.shape[:2], *(1 for _ in axes)), np.nan, x.dtype)]
    return [np.asarray(x.mean(axis=axes, keepdims=True, dtype=np.float64)).astype(x.dtype)]
