"""The reference of Flatten: ONNX's own asks numpy for a size it cannot infer when the tensor has no elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Op
from .access import attr_int

Array = np.ndarray[Any, Any]


def flatten(op: Op, arrays: Sequence[Array | None]) -> list[Array]:
    """Two axes: what comes before `axis`, and what follows."""
    (x,) = arrays
    assert x is not None
    axis = attr_int(op, "axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return [x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))]
