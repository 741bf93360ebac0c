"""Bits for each weight under a budget of bytes: the least damage that the saving allows, exactly.

Every weight stays in floats or takes one of the numbers of bits on offer. With s the share of what the fewest bits
everywhere would save,

    minimise  sum of damages   subject to   sum of bytes <= bytes(floats) - s (bytes(floats) - bytes(fewest bits))

as a multiple-choice knapsack (HAWQ-V3, Yao et al. 2021, sec. 3.4; allocate.py). s = 0 leaves everything as it is, s = 1
gives every weight its fewest bits, and the damage of the optimum rises with s. Damage is measured where there is data
(probe.py); without, it is the relative squared error of the weight: the share of noise in what it makes of white
inputs, blind to what later layers do with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..base import SkipCode, Skipped
from .allocate import allocate
from .sites import Site

Options = Sequence[Site]  # of one weight


def by_error(options: Sequence[Options]) -> list[list[float]]:
    """The damage of every option by the error of its weight alone."""
    return [[site.error for site in sites] for sites in options]


def most_bits(options: Sequence[Options]) -> list[Site | None]:
    """For every weight the option with the most bits: what is safe when nothing says how much to save."""
    return [max(sites, key=lambda s: s.bits) for sites in options]


def choose(options: Sequence[Options], damages: Sequence[Sequence[float]], saving: float) -> list[Site | None]:
    """For every weight one of its options, or None for floats."""
    if not options:
        return []
    floats = sum(sites[0].bytes_before for sites in options)
    fewest = sum(min(s.bytes_after for s in sites) for sites in options)
    costs = [[float(sites[0].bytes_before), *(float(s.bytes_after) for s in sites)] for sites in options]
    values = [[0.0, *row] for row in damages]
    found = allocate(costs, values, floats - saving * (floats - fewest))
    return [sites[at - 1] if at else None for sites, at in zip(options, found.options)]


def left_out(options: Sequence[Options], chosen: Sequence[Site | None]) -> list[Skipped]:
    """A line for every reader of a weight that keeps its floats."""
    why = "its floats are worth their bytes: the saving is reached without it"
    return [
        Skipped(reader, SkipCode.HURTS, why, "ask for more saving, or offer more bits")
        for sites, site in zip(options, chosen)
        if site is None
        for reader in sites[0].readers
    ]


def summary(chosen: Sequence[Site | None], judged_by: str) -> str:
    """How many weights got how many bits, and by what."""
    counts = Counter(site.bits if site is not None else 32 for site in chosen)
    parts = [f"{count} in {'floats' if bits == 32 else f'{bits} bits'}" for bits, count in sorted(counts.items())]
    return f"of {len(chosen)} weights {', '.join(parts)}, by {judged_by}"
