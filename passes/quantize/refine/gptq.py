"""GPTQ: weights are rounded one input at a time, and the inputs still to come make up for what that did.

For one linear map W [outputs, depth] on inputs with second moments H = E[x x'] the result minimises, greedily,

    tr((W - Q) H (W - Q)')

(Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ", 2023). The published form works with U, the upper factor of the inverse
H^-1 = U' U. This one works with the upper factor R of H itself, H = R R' (U = R^-1), and inverts only the blocks on its
diagonal: the weights that a block of inputs B starts from, after the inputs A before it were rounded, are

    W_B + (W_A - Q_A) R_AB R_BB^-1

which is the same number, for one factorization and one matrix product. Within a block the errors are handed on by
U_BB = R_BB^-1 as published. Outputs are independent given R and go in pieces that fit a cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....ir.dtypes import DType
from ....ir.quant import QSpec
from ....ir.quant_blocks import CLIPS
from .grids import best_grids

Array = np.ndarray[Any, Any]
DAMPING = 0.01  # of the mean of the diagonal of H
_STEP = 32  # inputs that are rounded between two updates of the rest of a block
_SMALL = 64  # depth up to which factors are found for all groups at once
_PIECE = 1 << 22  # weights that are rounded at once


@dataclass(frozen=True, eq=False)
class Rounded:
    """Codes [groups, outputs, depth] (whole numbers), and scales and zero points [groups, outputs, blocks].

    `block` inputs share a scale; 0: scales are broadcastable to the codes.
    """

    codes: Array
    scale: Array
    zero: Array
    block: int = 0

    @property
    def matrix(self) -> Array:
        """What the codes stand for, in float32."""
        scale, zero = (expanded(p, self.block, self.codes.shape[2]) for p in (self.scale, self.zero))
        return np.asarray((self.codes.astype(np.float32) - zero) * scale)


@dataclass(frozen=True)
class Settings:
    """How weights are rounded: bits and zero points of `spec` (blocks along the depth), the type that scales are
    stored in, the clips that a search of grids tries, `damping` of H relative to the mean of its diagonal, and
    whether inputs go in the order of their importance (act-order: grids are then found before, in place)."""

    spec: QSpec
    scale_type: DType = DType.F32
    clips: tuple[float, ...] = CLIPS
    damping: float = DAMPING
    order: bool = False
    block: int = 128


def gptq(matrix: Array, hessian: Array, settings: Settings, grids: tuple[Array, Array] | None = None) -> Rounded:
    """Round `matrix` [groups, outputs, depth] for inputs with second moments `hessian` [groups, depth, depth].

    `grids` are scales and zero points, broadcastable to the matrix, to keep. Without them, those of a block of
    `spec.block` inputs (0: all) are searched when its first input comes up, on the weights as they are then. Inputs
    that are always zero are rounded to nearest. Computes in the float type of `matrix`. Errors: ValueError when
    numbers are not finite.
    """
    if not (np.isfinite(matrix).all() and np.isfinite(hessian).all()):
        raise ValueError("weights or moments are not finite")
    importance = importance_of(hessian, settings.damping)
    if grids is None and (settings.order or not settings.spec.block):
        block = settings.spec.block
        scale, zero = searched(matrix, importance, settings)
        wide = expanded(scale, block, matrix.shape[2]), expanded(zero, block, matrix.shape[2])
        return replace(gptq(matrix, hessian, settings, wide), scale=scale, zero=zero, block=block)
    if settings.order:
        return _in_order(matrix, hessian, settings, grids)
    factor = _factor(hessian, importance, matrix.dtype)
    importance = importance.astype(matrix.dtype)
    groups, outputs, depth = matrix.shape
    width = max(1, _PIECE // max(1, groups * depth))
    parts = [
        _round(matrix[:, at : at + width], factor, importance, settings, _cut(grids, at, at + width))
        for at in range(0, outputs, width)
    ]
    if len(parts) == 1:
        return parts[0]
    codes, scale, zero = (np.concatenate([getattr(p, n) for p in parts], axis=1) for n in ("codes", "scale", "zero"))
    return Rounded(codes, scale, zero, parts[0].block)


def expanded(parameter: Array, block: int, depth: int) -> Array:
    """Scales or zero points [groups, outputs, blocks] for every input: broadcastable to [groups, outputs, depth]."""
    return np.repeat(parameter, block, 2)[:, :, :depth] if block else parameter


def importance_of(hessian: Array, damping: float = DAMPING) -> Array:
    """How much inputs count [groups, depth]: the diagonal of H, damped; 1 for maps that never see anything."""
    diagonal = np.einsum("gii->gi", hessian)
    mean = diagonal.mean(axis=1, keepdims=True)
    return np.asarray(diagonal + np.where(mean > 0, damping * mean, 1.0))


def searched(matrix: Array, importance: Array, settings: Settings) -> tuple[Array, Array]:
    """Grids [groups, outputs, blocks] of the matrix as it is; errors count by `importance` [groups, depth]."""
    depth = matrix.shape[2]
    block = settings.spec.block or depth
    importance = importance.astype(matrix.dtype)
    found = [
        best_grids(
            np.swapaxes(matrix[:, :, at : at + block], 1, 2),
            importance[:, at : at + block],
            settings.spec,
            settings.scale_type,
            settings.clips,
        )
        for at in range(0, depth, block)
    ]
    scale, zero = (np.stack([f[i] for f in found], axis=2) for i in (0, 1))
    return scale, zero


def hessian_error(difference: Array, hessian: Array) -> float:
    """tr(D H D'), summed over groups: what an error D [groups, outputs, depth] of the weights does to the outputs."""
    return float(np.einsum("god,gde,goe->", difference, hessian, difference, optimize=True))


def _cut(grids: tuple[Array, Array] | None, start: int, stop: int) -> tuple[Array, Array] | None:
    if grids is None:
        return None
    scale, zero = (g if g.shape[1] == 1 else g[:, start:stop] for g in grids)
    return scale, zero


def _factor(hessian: Array, diagonal: Array, dtype: np.dtype[Any]) -> Array:
    """Upper R with R R' = H on its upper triangle (what lies below is undefined), per group; `diagonal` is that of H.

    H is turned around, so that the usual lower factor is R turned around. float64 where `dtype` is not exact enough.
    """
    for exact in dict.fromkeys((dtype, np.dtype(np.float64))):
        turned = np.array(hessian[:, ::-1, ::-1], exact, order="C")
        np.einsum("gii->gi", turned)[...] = diagonal[:, ::-1]
        factor = _lower(turned)
        if factor is not None:
            return factor[:, ::-1, ::-1].astype(dtype, copy=False)
    raise ValueError("the second moments are not positive definite")


def _lower(matrices: Array) -> Array | None:
    """Cholesky factors of symmetric matrices, which may be overwritten; None where there are none."""
    if matrices.shape[1] <= _SMALL:
        try:
            return np.linalg.cholesky(matrices)
        except np.linalg.LinAlgError:
            return None
    from scipy.linalg import lapack  # slow to import; most runs round to nearest

    potrf = lapack.spotrf if matrices.dtype == np.float32 else lapack.dpotrf
    for matrix in matrices:
        _, info = potrf(matrix.T, lower=1, clean=0, overwrite_a=1)  # in place: a symmetric matrix is its transpose
        if info:
            return None
    return np.swapaxes(matrices, 1, 2)


def _in_order(matrix: Array, hessian: Array, settings: Settings, grids: tuple[Array, Array] | None) -> Rounded:
    """The inputs that count most first."""
    assert grids is not None
    order = np.argsort(-np.einsum("gii->gi", hessian), axis=1, kind="stable")
    moved = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2)
    columns = order[:, None, :]
    scale, zero = (np.take_along_axis(np.broadcast_to(g, matrix.shape), columns, 2) for g in grids)
    found = gptq(np.take_along_axis(matrix, columns, 2), moved, replace(settings, order=False), (scale, zero))
    back = np.argsort(order, axis=1)[:, None, :]
    return Rounded(np.take_along_axis(found.codes, back, 2), *grids)


def _round(
    matrix: Array, factor: Array, importance: Array, settings: Settings, grids: tuple[Array, Array] | None
) -> Rounded:
    """Some outputs of all groups. Works on the transpose, in which an input is contiguous."""
    spec = settings.spec
    groups, outputs, depth = matrix.shape
    work = np.array(np.swapaxes(matrix, 1, 2), order="C")  # [groups, depth, outputs]: weights, then their errors
    codes = np.empty(work.shape, spec.storage.numpy if spec.bits == 8 else np.int8)
    if grids is None:
        shape = (groups, -(-depth // spec.block), outputs)
        kept = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for at, end in _blocks(depth, spec.block if grids is None else 0, settings.block):
        upper = np.triu(np.linalg.inv(np.triu(factor[:, at:end, at:end])))
        now = work[:, at:end].copy()
        if at:
            handed = np.swapaxes(np.ascontiguousarray(factor[:, :at, at:end]), 1, 2) @ work[:, :at]
            now += np.swapaxes(upper, 1, 2) @ handed
        for first, last in _steps(at, end, spec.block if grids is None else 0):
            here = slice(first - at, last - at)
            if grids is not None:
                scale, zero = (_rows(g, first, last) for g in grids)
            else:
                if first % spec.block == 0:
                    stop = min(first + spec.block, depth)
                    found = best_grids(
                        now[:, first - at : stop - at],
                        importance[:, first:stop],
                        spec,
                        settings.scale_type,
                        settings.clips,
                    )
                    for all_of_them, ours in zip(kept, found):
                        all_of_them[:, first // spec.block] = ours
                scale, zero = (k[:, first // spec.block, None] for k in kept)
            errors = _round_inputs(now, codes[:, first:last], upper, here, scale, zero, spec)
            now[:, last - at :] -= np.swapaxes(upper[:, here, last - at :], 1, 2) @ errors
        work[:, at:end] -= now
    codes = np.swapaxes(codes, 1, 2)
    if grids is None:
        return Rounded(codes, np.swapaxes(kept[0], 1, 2), np.swapaxes(kept[1], 1, 2), spec.block)
    return Rounded(codes, *grids)


def _rows(parameter: Array, first: int, last: int) -> Array:
    """Scales or zero points [groups, outputs, depth or 1] of some inputs, transposed."""
    some = parameter if parameter.shape[2] == 1 else parameter[:, :, first:last]
    return np.ascontiguousarray(np.swapaxes(some, 1, 2))


def _blocks(depth: int, group: int, wanted: int) -> list[tuple[int, int]]:
    """Blocks of about `wanted` inputs that are whole groups."""
    size = group * max(1, wanted // group) if group else wanted
    return [(at, min(at + size, depth)) for at in range(0, depth, size)]


def _steps(start: int, end: int, group: int) -> list[tuple[int, int]]:
    """Stretches of a block; a group begins where a stretch begins."""
    size = group if group and group <= 2 * _STEP else _STEP
    marks = range(start, end, group) if group else (start,)
    return [
        (at, min(at + size, stop))
        for mark in marks
        for stop in (min(mark + group, end) if group else end,)
        for at in range(mark, stop, size)
    ]


def _round_inputs(now: Array, codes: Array, upper: Array, here: slice, scale: Array, zero: Array, spec: QSpec) -> Array:
    """Round a stretch of inputs one by one; `now` gets the values of the codes. Returns the errors to hand on."""
    count = here.stop - here.start
    errors = np.empty((now.shape[0], count, now.shape[2]), now.dtype)
    own = upper[:, here, here]
    rows = now[:, here]
    for j in range(count):
        s, z = (p[:, j if p.shape[1] > 1 else 0] for p in (scale, zero))
        weight, error = rows[:, j], errors[:, j]
        code = weight / s
        np.rint(code, out=code)
        code += z
        np.clip(code, spec.qmin, spec.qmax, out=code)
        codes[:, j] = code
        code -= z
        code *= s
        np.subtract(weight, code, out=error)
        error /= own[:, j, j, None]
        rows[:, j] = code
        if j + 1 < count:
            rows[:, j + 1 :] -= own[:, j, j + 1 :, None] * error[:, None]
    return errors
