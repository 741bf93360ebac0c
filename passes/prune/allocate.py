"""How many units each group keeps, and which: widths in multiples, never empty."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from ...ir.axes import Index
from .criteria import Scores
from .groups import Group
from .work import Work

SLACK = Fraction(1, 10**6)  # of a unit: ratios are binary fractions
WIDE = 32  # groups from this size up keep the whole multiple
NARROW = {1: 4, 2: 8, 3: 8}  # at most this from 8 and 16 units on: half a group is still a choice
STEPS = 256  # a group that shrinks by price does so in about this many steps at most


def step(size: int, multiple: int, inner: int = 1) -> int:
    """What the number of units is a multiple of, so that the widths are one of `multiple`.

    Narrow groups take 8 or 4 at most. Units of several positions each need less: heads of width 64 are multiples.
    """
    wanted = multiple if size >= WIDE else min(multiple, NARROW.get(size // 8, 1))
    return wanted // math.gcd(wanted, inner)


def rounded(keep: float | Fraction, size: int, multiple: int, inner: int = 1) -> int:
    """A number of units near `keep`: at least one step, at most all."""
    if keep >= size:
        return size
    unit = step(size, multiple, inner)
    if unit > 1:
        nearest = int(keep / unit + Fraction(1, 2)) * unit
        return min(size, max(unit, nearest))
    return min(size, max(1, math.ceil(keep - SLACK)))


def exact_width(size: int, smallest: int, unit: int) -> int:
    """The width of a group that could go down to `smallest`: the next multiple of `unit` above it.

    A width between multiples is never made, and one that already is stays unless the next multiple below is reached.
    """
    return min(size, -(-smallest // unit) * unit)


@dataclass(frozen=True)
class Demand:
    """What is to be allotted: groups with their scores, the ratio, and the groups that have one of their own."""

    groups: Sequence[Group]
    scores: Mapping[int, Scores]
    ratio: float
    multiple: int
    own: Mapping[int, float] = field(default_factory=dict)  # group -> its ratio
    work: Work | None = None  # for allocations by MACs

    def share(self, g: Group) -> Index:
        """The units of a group that stay when it loses its fraction by itself."""
        keep = g.size * (1 - _exact(self.own.get(g.id, self.ratio)))
        return best(self.scores[g.id], rounded(keep, g.size, self.multiple, g.inner))

    @property
    def open(self) -> list[Group]:
        """The groups among which the ratio may be distributed."""
        return [g for g in self.groups if g.id not in self.own]

    @property
    def settled(self) -> dict[int, Index]:
        return {g.id: self.share(g) for g in self.groups if g.id in self.own}


def uniform(demand: Demand) -> dict[int, Index]:
    """The same fraction of every group."""
    return {g.id: demand.share(g) for g in demand.groups}


def across(demand: Demand) -> dict[int, Index]:
    """The fraction of all units together: the lowest scores anywhere go first."""
    groups = demand.open
    if not groups:
        return demand.settled
    pool = np.concatenate([demand.scores[g.id] for g in groups])
    owner = np.concatenate([np.full(g.size, i) for i, g in enumerate(groups)])
    gone = np.argsort(pool, kind="stable")[: int(len(pool) * _exact(demand.ratio) + SLACK)]
    lost = np.bincount(owner[gone], minlength=len(groups))
    return demand.settled | {
        g.id: best(demand.scores[g.id], rounded(g.size - int(n), g.size, demand.multiple, g.inner) if n else g.size)
        for g, n in zip(groups, lost)
    }


def by_work(demand: Demand) -> dict[int, Index]:
    """The fraction of the MACs of the module: units with the least score per MAC saved go first.

    Groups shrink from multiple to multiple, priced at what the others have come down to, until the MACs of the module
    are at most 1 - ratio of what they were, or no group can shrink. The order does not depend on the ratio: more of it
    removes a superset.
    """
    work = demand.work
    assert work is not None
    settled = demand.settled
    counts = {g.id: len(settled.get(g.id, ())) or g.size for g in demand.groups}
    bound = work.total({}) * (1 - _exact(demand.ratio))
    total = work.total(counts)
    shrinking = [Shrinking(g, np.sort(demand.scores[g.id])[::-1], demand.multiple) for g in demand.open]
    queue = [(cost, i) for i, s in enumerate(shrinking) if (cost := s.price(work, counts)) is not None]
    heapq.heapify(queue)
    while queue and total > bound:
        known, i = heapq.heappop(queue)
        price = shrinking[i].price(work, counts)
        if price is None:
            continue
        if price > known:  # others have shrunk since: what this one saves is less
            heapq.heappush(queue, (price, i))
            continue
        c, fewer = shrinking[i].group.id, shrinking[i].fewer(counts)
        total -= work.saving(c, counts, fewer)
        counts[c] = fewer
        following = shrinking[i].price(work, counts)
        if following is not None:
            heapq.heappush(queue, (following, i))
    return settled | {s.group.id: best(demand.scores[s.group.id], counts[s.group.id]) for s in shrinking}


@dataclass(frozen=True)
class Shrinking:
    """A group on its way down. `scores` are in falling order: the last units go first."""

    group: Group
    scores: Scores
    multiple: int

    def fewer(self, counts: Mapping[int, int]) -> int:
        """The next width: a multiple below the present one; 0 where there is none."""
        unit = step(self.group.size, self.multiple, self.group.inner)
        stride = unit * max(1, self.group.size // (STEPS * unit))
        return (counts[self.group.id] - 1) // stride * stride

    def price(self, work: Work, counts: Mapping[int, int]) -> float | None:
        """Score lost per MAC saved by the next step down; None if there is no step or nothing is saved."""
        c, fewer = self.group.id, self.fewer(counts)
        saving = work.saving(c, counts, fewer) if fewer > 0 else 0
        return float(self.scores[fewer : counts[c]].sum()) / saving if saving > 0 else None


def _exact(ratio: float) -> Fraction:
    return Fraction(str(ratio))


def best(scores: Scores, keep: int) -> Index:
    """The units with the highest scores, in their old order; ties keep the first."""
    order = np.argsort(-scores, kind="stable")[:keep]
    return np.sort(order).astype(np.int64)


Allocation = Callable[[Demand], dict[int, Index]]
ALLOCATIONS: Mapping[str, Allocation] = {"uniform": uniform, "global": across, "flops": by_work}
