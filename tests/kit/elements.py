"""Random elements of the groups that act on axes, and what happens when one is forced where it is not admitted."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlc.ir.axes import Axes, AxisClass
from mlc.ir.axis_admissible import Group
from mlc.ir.axis_maps import UnitMap
from mlc.ir.axis_matrix import Matrices, along, kronecker
from mlc.ir.constants import Constant
from mlc.ir.core import Module

Array = np.ndarray[Any, Any]


def element(group: Group, n: int, rng: np.random.Generator) -> Array:
    """A member that is far from the identity, and well conditioned."""
    if group is Group.POSITIVE_DIAGONAL:
        return np.diag(np.exp(rng.uniform(-1, 1, n)))
    if group is Group.SIGN:
        signs = rng.choice([-1.0, 1.0], n)
        signs[0] = -1.0
        return np.diag(signs)
    rotation, _ = np.linalg.qr(rng.standard_normal((n, n)))
    if group is Group.ORTHOGONAL:
        return rotation
    return rotation @ np.diag(np.exp(rng.uniform(-1, 1, n))) @ np.linalg.qr(rng.standard_normal((n, n)))[0]


def unit_map(group: Group, n: int, rng: np.random.Generator) -> UnitMap:
    matrix = element(group, n, rng)
    return UnitMap(matrix, np.linalg.inv(matrix).T, group)


def forced(axes: Axes, c: AxisClass, m: UnitMap) -> Module:
    """The module with a map at all sites of a class as if it were a permutation, whatever the class admits."""
    twin = axes.module.clone()
    for name, axis in dict.fromkeys((s.constant, s.axis) for s in c.sites):
        value = twin.constants[name]
        reads = axes.transformations.exponents(c.atom, Group.PERM).get((name, axis), 1) < 0
        types = axes.of(axes.module.constants[name])
        matrix = kronecker(types[axis], Matrices({c.atom: m.into if reads else m.out}, {}), {})
        value.constant = Constant.of(np.ascontiguousarray(along(value.constant.array(), matrix, axis)))
    return twin
