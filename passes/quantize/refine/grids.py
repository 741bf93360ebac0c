"""Grids whose error counts by importance: the scale and zero point of a group of weights, by a weighted search.

    min over clip c of  sum_j h_j (w_j - Q_c(w_j))^2

Q_c rounds to the grid that covers the share c of the range of the group; at the end the scale that weighted least
squares fits to the best codes is tried. h is how much an input counts: the diagonal of a Hessian. The full range is
among the candidates, so the error is never more than that of min-max.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ir.dtypes import DType
from ....ir.quant import QSpec, grid, settle_scale
from ....ir.quant_blocks import CLIPS

Array = np.ndarray[Any, Any]
_CACHE = 1 << 16  # elements that are searched at once


def best_grids(
    weights: Array, importance: Array, spec: QSpec, scale_type: DType = DType.F32, clips: tuple[float, ...] = CLIPS
) -> tuple[Array, Array]:
    """(scale, zero point) [groups, outputs] for `weights` [groups, block, outputs] and `importance` [groups, block].

    Scales are float32 numbers that `scale_type` holds exactly, zero points whole numbers. `clips` are the shares of
    the range that are tried besides all of it.
    """
    groups, block, outputs = weights.shape
    width = max(1, _CACHE // max(1, groups * block))
    parts = [
        _search(weights[:, :, at : at + width], importance[:, :, None], spec, scale_type, clips)
        for at in range(0, outputs, width)
    ]
    return np.concatenate([p[0] for p in parts], axis=1), np.concatenate([p[1] for p in parts], axis=1)


def _search(
    x: Array, importance: Array, spec: QSpec, scale_type: DType, clips: tuple[float, ...]
) -> tuple[Array, Array]:
    low, high = np.minimum(x.min(1), 0), np.maximum(x.max(1), 0)
    scale, zero = grid(low, high, spec, scale_type=scale_type)
    tried = [c for c in clips if c != 1.0]
    if not tried:
        return scale, zero
    scaled, steps = np.empty_like(x), np.empty_like(x)

    def error(scale: Array, zero: Array) -> Array:
        """Of each group; leaves codes less zero points in `steps`."""
        np.divide(x, scale[:, None], out=scaled)
        np.rint(scaled, out=steps)
        np.clip(steps, (spec.qmin - zero)[:, None], (spec.qmax - zero)[:, None], out=steps)
        np.subtract(scaled, steps, out=scaled)
        np.square(scaled, out=scaled)
        np.multiply(scaled, importance, out=scaled)
        return np.asarray(scaled.sum(1) * np.square(scale))

    least = error(scale, zero)
    for clip in tried:
        share = x.dtype.type(clip)
        found = grid(low * share, high * share, spec, scale_type=scale_type)
        scale, zero, least = _better((*found, error(*found)), (scale, zero, least))
    error(scale, zero)
    weighted = steps * importance
    power = np.einsum("gbo,gbo->go", weighted, steps)
    fitted = np.einsum("gbo,gbo->go", weighted, x) / np.where(power > 0, power, 1)
    found = settle_scale(np.where((power > 0) & (fitted > 0), fitted, scale), scale_type), zero
    return _better((*found, error(*found)), (scale, zero, least))[:2]


def _better(found: tuple[Array, Array, Array], best: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    less = found[2] < best[2]
    scale, zero, error = (np.where(less, a, b) for a, b in zip(found, best))
    return scale, zero, error
