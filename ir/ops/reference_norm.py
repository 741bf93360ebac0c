"""Numpy references of norms that ONNX describes only as functions of other operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Op
from .access import attr_float, attr_int

Array = np.ndarray[Any, Any]


def group_norm(op: Op, arrays: Sequence[Array | None]) -> list[Array]:
    """Groups of channels to mean 0 and deviation 1, then a scale and bias per channel."""
    x, scale, bias = (a for a in arrays if a is not None)
    groups = attr_int(op, "num_groups", 1)
    wide = x.astype(np.float32).reshape(x.shape[0], groups, -1)
    mean, variance = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    normed = ((wide - mean) / np.sqrt(variance + attr_float(op, "epsilon", 1e-5))).reshape(x.shape)
    per_channel = (1, -1, *(1,) * (x.ndim - 2))
    return [(normed * scale.reshape(per_channel) + bias.reshape(per_channel)).astype(x.dtype)]
