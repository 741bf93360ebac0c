"""How much each unit of a group matters: one score for every unit, higher is kept.

A score sees every site of the group, as DepGraph does (Fang et al., 2023): removing a unit removes its slice of
all of them. Scores are normalised to mean 1 in a group, so that groups can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ...ir.axes import Axes, AxisClass
from ...ir.core import Module
from .groups import constants_of

Scores = np.ndarray[Any, np.dtype[np.float64]]
_ROWS_BYTES = 64 << 20
#: Norms, and the operand that scales every unit.
SCALES: Mapping[str, int] = {
    "BatchNormalization": 1,
    "InstanceNormalization": 1,
    "GroupNormalization": 1,
    "LayerNormalization": 1,
    "RMSNormalization": 1,
}


def site_slices(
    module: Module, axes: Axes, c: AxisClass
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """For every weight axis in which the class occurs: (energy-ready matrix pieces) as (matrix, unit of each row).

    The axis comes first; vectors are used only where a group has nothing else.
    """
    values = [
        v
        for v in constants_of(module, c)
        if v.constant is not None and v.constant.dtype.kind in ("float", "int", "uint")
    ]
    matrices = [v for v in values if v.constant is not None and len(v.constant.shape) >= 2]
    for value in matrices or values:
        assert value.constant is not None
        array = value.constant.array()
        for axis, t in enumerate(axes.of(value) or ()):
            units = axes.units(t, c)
            if (units >= 0).any():
                yield np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1), units


def _norms(module: Module, axes: Axes, c: AxisClass, power: int) -> Scores:
    """The mean over sites of every unit's norm, each site scaled to mean 1."""
    totals: list[Scores] = []
    for matrix, units in site_slices(module, axes, c):
        energy = _row_energy(matrix, power)
        inside = units >= 0
        site = np.bincount(units[inside], weights=energy[inside], minlength=c.size)
        site = np.sqrt(site) if power == 2 else site
        totals.append(site / (site.mean() or 1.0))
    return normalised(np.mean(totals, axis=0)) if totals else np.ones(c.size)


def _row_energy(matrix: np.ndarray[Any, Any], power: int) -> Scores:
    """Sum of |x|^power of every row, in pieces of bounded size."""
    step = max(1, _ROWS_BYTES // max(1, matrix.shape[1] * 8))
    pieces = []
    for start in range(0, matrix.shape[0], step):
        rows = np.asarray(matrix[start : start + step], np.float64)
        pieces.append(np.sum(np.abs(rows) if power == 1 else rows * rows, axis=1))
    return np.concatenate(pieces) if pieces else np.zeros(0)


def normalised(scores: Scores) -> Scores:
    return scores / (scores.mean() or 1.0)


def l1(module: Module, axes: Axes, c: AxisClass, rng: np.random.Generator) -> Scores:
    return _norms(module, axes, c, 1)


def l2(module: Module, axes: Axes, c: AxisClass, rng: np.random.Generator) -> Scores:
    return _norms(module, axes, c, 2)


def group(module: Module, axes: Axes, c: AxisClass, rng: np.random.Generator) -> Scores:
    """The group norm as DepGraph's authors compute it: squares of all slices of a unit and of its scales in norms,
    summed. Sites with more energy say more."""
    total = np.zeros(c.size)
    for matrix, units in (*site_slices(module, axes, c), *_scales(module, axes, c)):
        inside = units >= 0
        total += np.bincount(units[inside], weights=_row_energy(matrix, 2)[inside], minlength=c.size)
    return normalised(total)


def _scales(module: Module, axes: Axes, c: AxisClass) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """What norms multiply each unit by, one column: (scales, unit of each)."""
    for value in constants_of(module, c):
        vector = value.constant is not None and len(value.constant.shape) == 1  # others are slices already
        if vector and any(SCALES.get(use.op.kind) == use.slot for use in value.uses):
            assert value.constant is not None
            for t in axes.of(value) or ():
                yield value.constant.array().reshape(-1, 1), axes.units(t, c)


def fpgm(module: Module, axes: Axes, c: AxisClass, rng: np.random.Generator) -> Scores:
    """Distance from the geometric median (He et al., 2019): what lies amid the others is replaceable."""
    gram = np.zeros((c.size, c.size))
    for matrix, units in site_slices(module, axes, c):
        order = np.argsort(units, kind="stable")
        order = order[np.searchsorted(units[order], 0) :]
        rows = np.asarray(matrix[order], np.float64).reshape(c.size, -1)
        scale = np.sqrt((rows * rows).sum(axis=1)).mean() or 1.0
        gram += (rows @ rows.T) / scale**2
    squares = np.diag(gram)[:, None] + np.diag(gram)[None, :] - 2 * gram
    return normalised(np.sqrt(np.maximum(squares, 0)).sum(axis=1))


def random(module: Module, axes: Axes, c: AxisClass, rng: np.random.Generator) -> Scores:
    return normalised(rng.random(c.size) + 1e-3)


Criterion = Callable[[Module, Axes, AxisClass, np.random.Generator], Scores]
CRITERIA: Mapping[str, Criterion] = {"l2": l2, "l1": l1, "group": group, "fpgm": fpgm, "random": random}
