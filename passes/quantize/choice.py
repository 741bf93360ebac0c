"""Which form every site gets: the fastest whose damage, all sites together, stays within a budget.

    minimise  time + what bytes are worth     subject to   damage <= budget

First the fastest form of every site is tried, all of them at once: mostly that is it. If the outputs suffer more than
the budget allows, every form of every site is measured by itself, and the knapsack (allocate.py) is solved with the
sum of these damages in place of the damage: noise of different sites is nearly uncorrelated, so its squares add up, and
1 - cosine is half the relative square. What it picks is measured as a whole; where that is too much, or far less than
allowed, the knapsack is solved for another sum. So the budget holds on what was measured, not on a sum.

Where the target knows no seconds, forms are ranked by what they usually take of the time in floats, and a note says so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ports import Form
from .allocate import allocate

#: Time in a form as a share of the time in floats, where nothing was measured: CPUs with dot products of bytes.
ASSUMED: Mapping[Form, float] = {"static": 0.4, "dynamic": 0.5, "blocks": 0.6, "stored": 1.0, "fp16": 1.0, "float": 1.0}
#: What the bytes of all weights are worth: this share of the time of the model. Decides between forms of equal speed.
_BYTES_WORTH = 0.05
#: How often the knapsack is solved, at most.
ROUNDS = 8
_LESS = 0.9  # of what the last measurement suggests
_NEAR = 0.8  # of the budget: good enough
_CLOSE = 1.1  # sums that differ by less are not told apart


@dataclass(frozen=True)
class Option:
    """A form of a site, the seconds that it takes (None: unknown) and the bytes that its weight takes in the file."""

    form: Form
    seconds: float | None
    nbytes: int


@dataclass(frozen=True)
class Choice:
    """The position of every site's form among its options, the damage of them all together, and what to tell."""

    picked: tuple[int, ...]
    damage: float
    notes: tuple[str, ...] = ()


Sites = Sequence[Sequence[Option]]
Alone = Callable[[int, int], float]  # damage of one option (site, option) with everything else in floats
Together = Callable[[Sequence[int]], float]  # damage of an option for every site


def choose(sites: Sites, budget: float, together: Together, alone: Alone) -> Choice:
    """One option for every site. Every site has one in floats, of damage 0.

    Deterministic given the measurements. `alone` is called at most once per option that is not in floats, and only if
    the fastest forms together do too much damage; `together` at most once for the same options.
    """
    measured = functools.cache(together)  # different sums may have the same answer
    values, notes = prices(sites)
    free = [[0.0] * len(options) for options in sites]
    fastest = allocate(free, values, 0.0).options
    damage = measured(fastest)
    if damage <= budget:
        return Choice(fastest, damage, notes)
    costs = [
        [0.0 if option.form == "float" else max(0.0, alone(i, j)) for j, option in enumerate(options)]
        for i, options in enumerate(sites)
    ]
    best: tuple[float, tuple[int, ...], float] | None = None  # its value, the options, their damage
    bracket = _Bracket(budget, budget)
    for _ in range(ROUNDS):
        picked = allocate(costs, values, bracket.allowed).options
        found = measured(picked)
        value = sum(row[j] for row, j in zip(values, picked))
        if found <= budget and (best is None or value < best[0]):
            best = value, picked, found
        if not bracket.learn(found):
            break
    if best is not None:
        return Choice(best[1], best[2], (*notes, _why(sites, fastest, best[1], damage)))
    floats = tuple(_floats(options) for options in sites)
    return Choice(floats, 0.0, (*notes, f"nothing keeps the damage within {budget:.3%}: everything stays in floats"))


@dataclass
class _Bracket:
    """Which sum of damages to solve the knapsack for, so that what is measured comes close to the budget from below."""

    budget: float
    allowed: float
    fits: float = 0.0
    exceeds: float = math.inf

    def learn(self, damage: float) -> bool:
        """Take what was measured for `allowed`, and move that; whether another sum is worth trying."""
        if damage <= self.budget:
            self.fits = max(self.fits, self.allowed)
            if damage >= _NEAR * self.budget:
                return False
        else:
            self.exceeds = min(self.exceeds, self.allowed)
        guess = self.allowed * _LESS * float(np.clip(self.budget / max(damage, 1e-300), 0.1, 10))
        between = math.sqrt(max(self.fits, self.exceeds / 100) * min(self.exceeds, 10 * self.allowed))
        self.allowed = guess if self.fits < guess < self.exceeds else between
        return self.exceeds >= _CLOSE * self.fits


def prices(sites: Sites) -> tuple[list[list[float]], tuple[str, ...]]:
    """The value of every option: its time plus what its bytes are worth, and a note if times were assumed."""
    known = [[o.seconds for o in options] for options in sites]
    floats = [_known_floats(options) for options in sites]
    usual = sorted(s for s in floats if s is not None)
    middle = usual[len(usual) // 2] if usual else 1.0
    guessed = 0
    times: list[list[float]] = []
    for options, seconds, base in zip(sites, known, floats):
        whole = [s for s in seconds if s is not None]
        guessed += len(whole) < len(options)
        reference = middle if base is None else base
        times.append(whole if len(whole) == len(options) else [ASSUMED[o.form] * reference for o in options])
    total = sum(max(row) for row in times if row)
    weight = _BYTES_WORTH * total / max(1, sum(max(o.nbytes for o in options) for options in sites))
    values = [[t + weight * o.nbytes for t, o in zip(row, options)] for row, options in zip(times, sites)]
    note = f"the target knows no times for {guessed} of {len(sites)} sites: forms were ranked as they usually are"
    return values, (note,) if guessed else ()


def _known_floats(options: Sequence[Option]) -> float | None:
    return next((o.seconds for o in options if o.form == "float"), None)


def _floats(options: Sequence[Option]) -> int:
    return next(j for j, o in enumerate(options) if o.form == "float")


def _why(sites: Sites, fastest: Sequence[int], picked: Sequence[int], damage: float) -> str:
    changed = sum(a != b for a, b in zip(fastest, picked))
    return (
        f"the fastest form everywhere does a damage of {damage:.3%}: {changed} of {len(sites)} sites got a slower one"
    )
