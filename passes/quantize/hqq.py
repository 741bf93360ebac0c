"""Half-quadratic quantization: grids that minimise the l_p error of a block with p < 1, without data.

Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023): with the error split off as
W_e, alternate between a proximal step and a closed form,

    W_e = shrink(W - W_r),  shrink(x) = sign(x) max(0, |x| - |x|^(p-1) / beta),   beta <- 1.01 beta
    z   = mean(W_q - (W - W_e) / s)

Their zero point is a float, which blocks of ONNX (and their kernels) do not have; rounded to a whole number it would
never move, because the mean above differs from the old zero point by less than half a step. What is left to fit is the
scale, so the closed form here is the least-squares scale for the same half-quadratic target, and the zero point follows
as the nearest whole number:

    s = <W - W_e, W_q - z> / <W_q - z, W_q - z>,   z = round(mean(W_q - (W - W_e) / s))

The loop starts from the range of a block (min-max), and a block stops when its l_p error no longer falls. Errors are
measured in steps, so that results scale with the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.dtypes import DType
from ...ir.quant import QSpec, min_max, settle_scale

Array = np.ndarray[Any, Any]
NORM = 0.7
BETA, GROWTH, ITERATIONS = 10.0, 1.01, 20
_TINY = np.float32(1e-30)


def hqq(x: Array, spec: QSpec, scale_type: DType) -> tuple[Array, Array, Array]:
    """Scales and zero points of the columns of `x` [group, M], and their l_p error."""
    scale, zero = min_max(x, spec, scale_type=scale_type)
    unit, going, beta = scale.copy(), np.arange(x.shape[1]), BETA
    best = lp_error(x, scale, zero, spec, unit)
    for _ in range(ITERATIONS):
        part = x[:, going]
        new_scale, new_zero = step(part, scale[going], zero[going], spec, scale_type, beta)
        error = lp_error(part, new_scale, new_zero, spec, unit[going])
        better = error < best[going]
        going = going[better]
        if not going.size:
            break
        scale[going], zero[going], best[going] = new_scale[better], new_zero[better], error[better]
        beta *= GROWTH
    return scale, zero, best


def step(x: Array, scale: Array, zero: Array, spec: QSpec, scale_type: DType, beta: float) -> tuple[Array, Array]:
    """One round: the proximal step on the error, then the scale and the zero point that fit the rest."""
    steps = _steps(x, scale, zero, spec)
    error = x / scale - steps
    size = np.abs(error)
    kept = np.maximum(size - np.power(np.maximum(size, _TINY), NORM - 1) / np.float32(beta), 0) * np.sign(error)
    target = x - kept * scale
    fitted = np.einsum("ij,ij->j", target, steps) / np.maximum(np.einsum("ij,ij->j", steps, steps), _TINY)
    new_scale = settle_scale(np.where(fitted > 0, fitted, scale), scale_type)
    if spec.symmetric:
        return new_scale, zero
    moved = np.rint(zero + (steps - target / new_scale).mean(0))
    return new_scale, np.clip(moved, spec.qmin, spec.qmax)


def lp_error(x: Array, scale: Array, zero: Array, spec: QSpec, unit: Array) -> Array:
    """sum |x - x'|^p of every column, in steps of `unit`."""
    missed = np.abs(x - _steps(x, scale, zero, spec) * scale) / unit
    total: Array = np.power(missed, NORM).sum(0)
    return total


def _steps(x: Array, scale: Array, zero: Array, spec: QSpec) -> Array:
    """Codes minus zero points."""
    steps: Array = np.rint(x / scale)
    np.maximum(steps, spec.qmin - zero, out=steps)
    np.minimum(steps, spec.qmax - zero, out=steps)
    return steps
