"""Numpy reference of Pad. ONNX's own lacks negative pads, which cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Op
from .access import attr_text

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad(op: Op, arrays: Sequence[Any]) -> list[Any]:
    """Data, pads (all begins, then all ends), fill value, axes."""
    data, pads, value, axes = (*arrays, None, None)[:4]
    chosen = [int(a) % data.ndim for a in (range(data.ndim) if axes is None else axes)]
    before, after = np.zeros(data.ndim, np.int64), np.zeros(data.ndim, np.int64)
    before[chosen], after[chosen] = pads[: len(chosen)], pads[len(chosen) :]
    cut = tuple(slice(max(0, -b), n - max(0, -a)) for b, a, n in zip(before, after, data.shape))
    widths = list(zip(np.maximum(before, 0), np.maximum(after, 0)))
    mode = attr_text(op, "mode", "constant")
    if mode == "constant":
        fill = data.dtype.type(0) if value is None else np.asarray(value).reshape(-1)[0]
        return [np.pad(data[cut], widths, mode="constant", constant_values=fill)]
    return [np.pad(data[cut], widths, mode=_MODES[mode])]  # type: ignore[call-overload]
