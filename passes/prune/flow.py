"""How the units of a class come about: every unit as a combination of features that do not depend on the unit.

For a value that carries the class, the slice of unit i is  sum_k rows[i, k] * feature_k + const[i].  Linear operators
keep that form; after a nonlinear one, equal units (or proportional ones, where the operator is homogeneous) stay
equal and become features themselves. What ends up in the rows of a value decides which units are constant,
duplicates of each other or linearly dependent, whatever the input is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-6  # of a row's norm: a few roundings of float32
MOST_ELEMENTS = 4 << 20  # larger matrices are compared row by row at once and not kept


@dataclass(frozen=True)
class Flow:
    """The units of one class in one value."""

    rows: sparse.csr_array  # [units, features]
    const: Array  # [units]

    @property
    def size(self) -> int:
        return len(self.const)

    @property
    def is_constant(self) -> bool:
        """Whether every unit is a number: a per-unit parameter."""
        return int(self.rows.shape[1]) == 0

    def scaled(self, by: Array | float) -> Flow:
        factor = np.broadcast_to(np.asarray(by, np.float64), (self.size,))
        return Flow(sparse.csr_array(sparse.diags_array(factor) @ self.rows), self.const * factor)

    def shifted(self, by: Array | float) -> Flow:
        return Flow(self.rows, self.const + by)

    def absorbed(self) -> Flow:
        """The constants as one more feature, where they no longer are plain numbers (borders, sums)."""
        if not self.const.any():
            return self
        return Flow(_hstack([self.rows, self.const[:, None]]), np.zeros(self.size))


def constants(values: Array) -> Flow:
    return Flow(sparse.csr_array((len(values), 0)), np.asarray(values, np.float64))


def features(matrix: Array) -> Flow:
    """Units given by dense rows over unknown features; large ones are compared at once."""
    n = matrix.shape[0]
    if matrix.size > MOST_ELEMENTS:
        return grouped(matrix, homogeneous=True, signed=True)
    return Flow(sparse.csr_array(np.asarray(matrix, np.float64)), np.zeros(n))


def joined(flows: Sequence[Flow], *, add_constants: bool) -> Flow:
    """Side by side: a sum of values with unrelated features, or several values at once."""
    n = flows[0].size
    if not add_constants:
        flows = [f.absorbed() for f in flows]
    total = sum((f.const for f in flows), np.zeros(n))
    return Flow(_hstack([f.rows for f in flows]), total)


def _hstack(blocks: Sequence[Any]) -> sparse.csr_array:
    return sparse.csr_array(sparse.hstack([sparse.csr_array(b) for b in blocks], format="csr"))


def full(flow: Flow) -> sparse.csr_array:
    """Rows and constants in one matrix."""
    return _hstack([flow.rows, flow.const[:, None]])


def grouped(matrix: Any, *, homogeneous: bool, signed: bool = False) -> Flow:
    """One feature for each set of equal rows (proportional ones if `homogeneous`); zero rows have none."""
    ids, scale = cluster(matrix, homogeneous=homogeneous, signed=signed)
    inside = np.nonzero(ids >= 0)[0]
    shape = (len(ids), int(ids.max(initial=-1)) + 1)
    rows = sparse.csr_array((scale[inside], (inside, ids[inside])), shape=shape)
    return Flow(rows, np.zeros(len(ids)))


def cluster(matrix: Any, *, homogeneous: bool, signed: bool = False) -> tuple[Array, Array]:
    """The group of every row and its factor to the group's direction; group -1 for zero rows.

    `homogeneous`: positively proportional rows are one group; `signed`: negative factors too.
    """
    n = matrix.shape[0]
    probes = np.random.Generator(np.random.Philox(key=7)).standard_normal((matrix.shape[1], 2))
    norms = _norms(matrix)
    scale = np.where(norms > 0, norms, 1.0) if homogeneous else np.ones(n)
    probe = np.asarray(matrix @ probes, np.float64) / scale[:, None]
    if homogeneous and signed:
        sign = np.where(probe[:, 0] < 0, -1.0, 1.0)
        scale, probe = scale * sign, probe * sign[:, None]
    slack = TOLERANCE * (np.abs(probe[:, 0]) + np.linalg.norm(probes) * norms / np.abs(scale))
    ids = np.full(n, -1, np.int64)
    groups = 0
    window: list[int] = []  # the first rows of recent groups, by probe
    for i in np.argsort(probe[:, 0], kind="stable"):
        if norms[i] == 0:
            continue
        window = [j for j in window if probe[i, 0] - probe[j, 0] <= slack[i]]
        same = next((j for j in window if _equal(matrix, scale, norms, int(i), j)), None)
        if same is None:
            ids[i] = groups
            groups += 1
            window.append(int(i))
        else:
            ids[i] = ids[same]
    return ids, scale


def _norms(matrix: Any) -> Array:
    if sparse.issparse(matrix):
        squares: Array = np.asarray(matrix.multiply(matrix).sum(axis=1), np.float64).ravel()
    else:
        squares = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
    norms: Array = np.sqrt(squares)
    return norms


def _equal(matrix: Any, scale: Array, norms: Array, i: int, j: int) -> bool:
    a, b = _row(matrix, i), _row(matrix, j)
    difference = np.linalg.norm(a / scale[i] - b / scale[j])
    return bool(difference <= TOLERANCE * norms[j] / abs(scale[j]))


def _row(matrix: Any, i: int) -> Array:
    row = matrix[[i]]
    return np.asarray(row.toarray() if sparse.issparse(row) else row, np.float64).ravel()


def unit_rows(array: Array, axis: int, units: Array) -> Array:
    """A constant seen unit by unit: [units, positions of one unit x everything else]."""
    positions = unit_positions(units)
    taken = np.take(array, positions.ravel(), axis=axis)
    rest = np.moveaxis(taken, axis, 0)
    return rest.reshape(positions.shape[0], -1).astype(np.float64)


def unit_positions(units: Array) -> Array:
    """[units, m]: the positions along an axis that belong to each unit, in order."""
    order = np.argsort(units, kind="stable")
    order = order[np.searchsorted(units[order], 0) :]
    return order.reshape(int(units.max()) + 1, -1)
