"""Which units of a traced class can go without a trace, and what the others have to take over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from . import flow as fl
from .flow import Array
from .trace import Consumer, Trace

LARGEST_FACTOR = 16.0  # a unit that needs larger multiples of others is left alone: rounding would show
MOST_UNITS = 2048  # of a rank computation


@dataclass(frozen=True)
class Redundancy:
    """Units that can go: nobody reads them, they are numbers, or others carry them."""

    unread: Array
    constant: Array
    duplicate: Array
    dependent: Array
    kept: Array
    #: [removed, kept] in the order of `removed`: what consumers add to the columns of kept units
    factors: Array

    @property
    def removed(self) -> Array:
        return np.sort(np.concatenate([self.unread, self.constant, self.duplicate, self.dependent])).astype(np.int64)


def redundancy(t: Trace) -> Redundancy | None:
    """What is redundant in a traced class; None if nothing is, or nobody consumes it."""
    n = t.target.size
    if not t.consumers:
        return None
    unread = np.ones(n, bool)
    for consumer in t.consumers:
        unread &= ~columns(t, consumer).any(axis=1)
    rows = fl.joined([_visible(c) for c in t.consumers], add_constants=True).rows
    number = (np.diff(rows.indptr) == 0) & ~unread
    carried = _carried(rows, np.nonzero(~unread & ~number)[0])
    gone = unread | number
    gone[[j for j, _ in carried]] = True
    if not gone.any():
        return None
    return _assemble(n, unread, number, gone, carried)


def columns(t: Trace, c: Consumer) -> Array:
    """The consumer's weight unit by unit."""
    assert c.weight.constant is not None
    return fl.unit_rows(c.weight.constant.array(), c.axis, t.units(c.weight, c.axis))


def _visible(c: Consumer) -> fl.Flow:
    """What a consumer sees beyond constants that its bias can take over."""
    flow = c.data if c.fold else c.data.absorbed()
    rows = flow.rows.copy()
    rows.eliminate_zeros()
    return fl.Flow(sparse.csr_array(rows), np.zeros(flow.size))


Carried = list[tuple[int, tuple[Array, Array, bool]]]  # unit, (carriers, factors, is a duplicate)


def _carried(rows: sparse.csr_array, alive: Array) -> Carried:
    part = sparse.csr_array(rows[alive])
    ids, scale = fl.cluster(part, homogeneous=True, signed=True)
    first: dict[int, int] = {}
    found: Carried = []
    for position in np.argsort(-np.abs(scale), kind="stable"):  # the largest of a group carries the others
        leader = first.setdefault(int(ids[position]), int(position))
        if leader != position:
            factor = np.array([scale[position] / scale[leader]])
            found.append((int(alive[position]), (alive[[leader]], factor, True)))
    leaders = np.sort(np.array(list(first.values()), np.int64))
    return found + _dependent(sparse.csr_array(part[leaders]), alive[leaders], {j: c for j, (c, _, _) in found})


def _dependent(rows: sparse.csr_array, alive: Array, followers: dict[int, Array]) -> Carried:
    """Rows that are combinations of others, by a QR decomposition with pivoting."""
    n = len(alive)
    per_feature = np.bincount(rows.indices, minlength=rows.shape[1])
    if n < 2 or n > MOST_UNITS or n * rows.shape[1] > fl.MOST_ELEMENTS or (per_feature <= 1).all():
        return []
    dense = rows.toarray()
    dense = dense[:, per_feature > 0]
    norms = np.linalg.norm(dense, axis=1)
    dense /= norms[:, None]
    if n <= dense.shape[1] and _independent(dense):
        return []
    r, pivot = linalg.qr(dense.T, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(r))
    rank = int((diagonal > fl.TOLERANCE).sum())
    leaders = {int(c[0]) for c in followers.values()}
    found: Carried = []
    if rank == n:
        return found
    factors = linalg.solve_triangular(r[:rank, :rank], r[:rank, rank:])
    for k, position in enumerate(pivot[rank:]):
        carriers = pivot[:rank]
        weights = factors[:, k] * norms[position] / norms[carriers]
        used = np.abs(weights) > 1e-9
        # A unit that carries duplicates stays: their factors refer to it.
        if np.abs(factors[:, k]).max(initial=0) <= LARGEST_FACTOR and int(alive[position]) not in leaders:
            found.append((int(alive[position]), (alive[carriers[used]], weights[used], False)))
    return found


def _independent(rows: Array) -> bool:
    """A cheap proof that unit rows are independent: their Gram matrix stays positive well above the tolerance."""
    gram = rows @ rows.T
    gram[np.diag_indices_from(gram)] -= 10 * fl.TOLERANCE**2
    try:
        np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        return False  # perhaps dependent: the QR decomposition decides
    return True


def _assemble(n: int, unread: Array, number: Array, gone: Array, carried: Carried) -> Redundancy:
    if gone.all():
        gone[0] = unread[0] = number[0] = False  # a group is never empty
    kept, removed = np.nonzero(~gone)[0], np.nonzero(gone)[0]
    place = {int(u): i for i, u in enumerate(kept)}
    row = {int(u): i for i, u in enumerate(removed)}
    factors = np.zeros((len(removed), len(kept)))
    for unit, (carriers, weights, _) in carried:
        for carrier, weight in zip(carriers, weights):
            factors[row[unit], place[int(carrier)]] = weight
    duplicate = [u for u, (_, _, same) in carried if same]
    dependent = [u for u, (_, _, same) in carried if not same]
    return Redundancy(
        np.nonzero(unread)[0], np.nonzero(number)[0], np.sort(np.array(duplicate, np.int64)),
        np.sort(np.array(dependent, np.int64)), kept, factors,
    )  # fmt: skip
