"""Which rows are equal or proportional: candidates by random probes, then compared number by number."""

from __future__ import annotations

import numpy as np

from .rows import Array, Rows

TOLERANCE = 1e-6  # of a row's norm: a few roundings of float32
_PROBES = 2


def cluster(rows: Rows, *, homogeneous: bool, signed: bool = False) -> tuple[Array, Array]:
    """The group of every row and its factor to the group's direction; group -1 for zero rows.

    `homogeneous`: positively proportional rows are one group; `signed`: negative factors too. Rows of one group are
    close in every random projection, so only neighbours along a projection are compared.
    """
    norms = rows.norms()
    scale = np.where(norms > 0, norms, 1.0) if homogeneous else np.ones(rows.size)
    probe, length = _project(rows)
    probe /= scale[:, None]
    if homogeneous and signed:
        sign = np.where(probe[:, 0] < 0, -1.0, 1.0)
        scale, probe = scale * sign, probe * sign[:, None]
    slack = TOLERANCE * (np.abs(probe) + (length * norms / np.abs(scale))[:, None])
    order = np.argsort(probe[:, 0], kind="stable")
    order = order[norms[order] > 0]
    return _walk(rows, order, scale, norms, probe, slack), scale


def _project(rows: Rows) -> tuple[Array, float]:
    """Every row along random directions, and the length of those directions."""
    rng = np.random.Generator(np.random.Philox(key=7))
    found, squares = np.zeros((rows.size, _PROBES)), 0.0
    for block in rows.blocks:
        probes = rng.standard_normal((block.width, _PROBES))
        found += block.probed(probes)
        squares += float((probes * probes).sum())
    return found, squares**0.5


def _walk(rows: Rows, order: Array, scale: Array, norms: Array, probe: Array, slack: Array) -> Array:
    """Group ids along the first projection. Most rows are far from the one before: they open a group unseen."""
    ids = np.full(rows.size, -1, np.int64)
    alone = np.append(True, np.diff(probe[order, 0]) > slack[order[1:], 0]) if len(order) else np.zeros(0, bool)
    if alone.all():
        ids[order] = np.arange(len(order))
        return ids
    groups = 0
    window: list[int] = []  # the first rows of recent groups, by projection
    for i, far in zip(order.tolist(), alone.tolist()):
        window = [] if far else [j for j in window if probe[i, 0] - probe[j, 0] <= slack[i, 0]]
        near = (j for j in window if abs(probe[i, 1] - probe[j, 1]) <= slack[i, 1])
        same = next((j for j in near if _equal(rows, scale, norms, i, j)), None)
        if same is None:
            ids[i] = groups
            groups += 1
            window.append(i)
        else:
            ids[i] = ids[same]
    return ids


def _equal(rows: Rows, scale: Array, norms: Array, i: int, j: int) -> bool:
    squared = sum(block.distance(i, 1 / scale[i], j, 1 / scale[j]) for block in rows.blocks)
    return bool(squared**0.5 <= TOLERANCE * norms[j] / abs(scale[j]))
