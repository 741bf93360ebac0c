"""The clip of every group of weights, by what it does to the outputs: AWQ's search, on second moments.

    min over c of  (w - Q_c(w))' H_gg (w - Q_c(w))

for each group g of inputs that share a scale, where Q_c rounds to the grid that covers the share c of its range and H
are the second moments of the inputs (Lin et al., "AWQ", 2024, with all rows instead of a sample). The full range is
among the candidates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ....ir.quant import grid
from .gptq import Rounded, Settings

Array = np.ndarray[Any, Any]
SHARES = tuple(1 - i / 40 for i in range(21))  # down to a half in 20 steps
_PIECE = 1 << 20  # weights that are searched at once


def clipped(matrix: Array, hessian: Array, settings: Settings) -> Rounded:
    """Round `matrix` [groups, outputs, depth] to nearest on the best clips for `hessian` [groups, depth, depth]."""
    depth = matrix.shape[2]
    block = settings.spec.block or depth
    parts = [
        _best(matrix[:, :, at : at + block], hessian[:, at : at + block, at : at + block], settings)
        for at in range(0, depth, block)
    ]
    codes = np.concatenate([p.codes for p in parts], axis=2)
    scale, zero = (np.concatenate([getattr(p, name) for p in parts], axis=2) for name in ("scale", "zero"))
    return Rounded(codes, scale, zero, settings.spec.block)


def _best(matrix: Array, hessian: Array, settings: Settings) -> Rounded:
    """One group of inputs; outputs in pieces."""
    width = max(1, _PIECE // (matrix.shape[0] * matrix.shape[2]))
    pieces = [_search(matrix[:, at : at + width], hessian, settings) for at in range(0, matrix.shape[1], width)]
    codes, scale, zero = (
        np.concatenate([getattr(p, name) for p in pieces], axis=1) for name in ("codes", "scale", "zero")
    )
    return replace(pieces[0], codes=codes, scale=scale, zero=zero)


def _search(matrix: Array, hessian: Array, settings: Settings) -> Rounded:
    spec = settings.spec
    low, high = (np.minimum(matrix.min(2), 0), np.maximum(matrix.max(2), 0))
    hessian = hessian.astype(np.float32)
    best: tuple[Array, Array, Array] | None = None
    for share in SHARES:
        scale, zero = grid(low * np.float32(share), high * np.float32(share), spec, scale_type=settings.scale_type)
        scale, zero = scale[:, :, None], zero[:, :, None]
        codes = np.clip(np.rint(matrix / scale) + zero, spec.qmin, spec.qmax)
        off = (codes - zero) * scale - matrix
        error = np.einsum("god,god->go", off @ hessian, off)[:, :, None]
        if best is None:
            best = error, scale, zero
        else:
            less = error < best[0]
            error, scale, zero = (np.where(less, a, b) for a, b in zip((error, scale, zero), best))
            best = error, scale, zero
    assert best is not None
    _, scale, zero = best
    return Rounded(np.clip(np.rint(matrix / scale) + zero, spec.qmin, spec.qmax), scale, zero)
