"""Which units of a traced class can go without a trace, and what the others have to take over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from . import flow as fl
from .cluster import TOLERANCE, cluster
from .rows import Array, Dense, Multiples, Rows
from .trace import Consumer, Trace

LARGEST_FACTOR = 16.0  # a unit that needs larger multiples of others is left alone: rounding would show
MARGIN = 4 * TOLERANCE  # of a proof of independence that the decomposition would not overturn
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
        return np.sort(self.by_risk)

    @property
    def by_risk(self) -> Array:
        """The units that can go; first those that leave other weights as they are."""
        return np.concatenate([self.unread, self.constant, self.duplicate, self.dependent]).astype(np.int64)

    def sparing(self, units: Array) -> Redundancy:
        """The same, but these units stay, too, with their own columns: nothing is carried to or from them."""
        kept = np.union1d(self.kept, units)
        factors = np.zeros((len(self.removed), len(kept)))
        factors[:, np.searchsorted(kept, self.kept)] = self.factors
        return Redundancy(
            np.setdiff1d(self.unread, units), np.setdiff1d(self.constant, units), np.setdiff1d(self.duplicate, units),
            np.setdiff1d(self.dependent, units), kept, factors[~np.isin(self.removed, units)],
        )  # fmt: skip


def redundancy(t: Trace) -> Redundancy | None:
    """What is redundant in a traced class; None if nothing is, or nobody consumes it."""
    n = t.target.size
    if not t.consumers:
        return None
    unread = np.ones(n, bool)
    for consumer in t.consumers:
        unread &= ~_read(t, consumer)
    seen = [_visible(c) for c in t.consumers]
    rows = seen[0].beside(seen[1:])
    number = rows.empty() & ~unread
    carried = _carried(rows, np.nonzero(~unread & ~number)[0])
    gone = unread | number
    gone[[j for j, _ in carried]] = True
    if not gone.any():
        return None
    return _assemble(n, unread, number, gone, carried)


def columns(t: Trace, c: Consumer) -> Array:
    """The consumer's weight unit by unit."""
    return t.weight_rows(c.weight, c.axis)


def _read(t: Trace, c: Consumer) -> Array:
    """Which units the consumer multiplies by anything but zero."""
    assert c.weight.constant is not None
    array = c.weight.constant.array()
    nonzero = np.asarray(array.any(axis=tuple(a for a in range(array.ndim) if a != c.axis)))
    return np.asarray(nonzero[fl.unit_positions(t.units(c.weight, c.axis))].any(axis=1))


def _visible(c: Consumer) -> Rows:
    """What a consumer sees beyond constants that its bias can take over."""
    return (c.data if c.fold else c.data.absorbed()).rows


Carried = list[tuple[int, tuple[Array, Array, bool]]]  # unit, (carriers, factors, is a duplicate)


def _carried(rows: Rows, alive: Array) -> Carried:
    part = rows.taken(alive)
    ids, scale = cluster(part, homogeneous=True, signed=True)
    first: dict[int, int] = {}
    found: Carried = []
    for position in np.argsort(-np.abs(scale), kind="stable"):  # the largest of a group carries the others
        leader = first.setdefault(int(ids[position]), int(position))
        if leader != position:
            factor = np.array([scale[position] / scale[leader]])
            found.append((int(alive[position]), (alive[[leader]], factor, True)))
    leaders = np.sort(np.array(list(first.values()), np.int64))
    return found + _dependent(part.taken(leaders), alive[leaders], {j: c for j, (c, _, _) in found})


def _dependent(rows: Rows, alive: Array, followers: dict[int, Array]) -> Carried:
    """Rows that are combinations of others, by a QR decomposition with pivoting."""
    n, norms = len(alive), rows.norms()
    if n < 2 or n > MOST_UNITS or n * rows.width > fl.MOST_ELEMENTS or _independent(rows.scaled(1 / norms)):
        return []
    dense = rows.dense() / norms[:, None]
    r, pivot = linalg.qr(dense.T, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(r))
    rank = int((diagonal > TOLERANCE).sum())
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


def _independent(rows: Rows) -> bool:
    """A cheap proof that rows of length 1 are independent: those of one block are, well above the tolerance."""
    return any(_unlike(b) if isinstance(b, Multiples) else _full_rank(b) for b in rows.blocks)


def _unlike(block: Multiples) -> bool:
    """Every unit has a feature of its own."""
    return len(np.unique(block.ids)) == len(block.ids) and bool((np.abs(block.scale) > MARGIN).all())


def _full_rank(block: Dense) -> bool:
    """The Gram matrix over some of the features stays positive; more features can only add to it."""
    n = block.matrix.shape[0]
    for width in (2 * n, block.width):
        if n <= min(width, block.width):
            part = block.matrix[:, :: max(1, block.width // width)]
            gram = part @ part.T
            gram[np.diag_indices_from(gram)] -= MARGIN**2
            if _positive(gram):
                return True
    return False  # perhaps dependent: the QR decomposition decides


def _positive(matrix: Array) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
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
