"""How many units each group keeps, and which: widths in multiples, never empty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from ...ir.axes import Index
from .criteria import Scores
from .groups import Group

SLACK = Fraction(1, 10**6)  # of a unit: ratios are binary fractions
WIDE = 32  # groups from this size up keep the whole multiple
NARROW = {1: 4, 2: 8, 3: 8}  # at most this from 8 and 16 units on: half a group is still a choice


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


def uniform(groups: Sequence[Group], scores: Mapping[int, Scores], ratio: float, multiple: int) -> dict[int, Index]:
    """The same fraction of every group."""
    share = 1 - Fraction(str(ratio))
    return {g.id: best(scores[g.id], rounded(g.size * share, g.size, multiple, g.inner)) for g in groups}


def across(groups: Sequence[Group], scores: Mapping[int, Scores], ratio: float, multiple: int) -> dict[int, Index]:
    """The fraction of all units together: the lowest scores anywhere go first."""
    if not groups:
        return {}
    pool = np.concatenate([scores[g.id] for g in groups])
    owner = np.concatenate([np.full(g.size, i) for i, g in enumerate(groups)])
    gone = np.argsort(pool, kind="stable")[: int(len(pool) * Fraction(str(ratio)) + SLACK)]
    lost = np.bincount(owner[gone], minlength=len(groups))
    return {
        g.id: best(scores[g.id], rounded(g.size - int(n), g.size, multiple, g.inner) if n else g.size)
        for g, n in zip(groups, lost)
    }


def best(scores: Scores, keep: int) -> Index:
    """The units with the highest scores, in their old order; ties keep the first."""
    order = np.argsort(-scores, kind="stable")[:keep]
    return np.sort(order).astype(np.int64)


ALLOCATIONS = {"uniform": uniform, "global": across}
