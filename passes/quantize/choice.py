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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    for allowed, answer in _search(budget):
        picked = allocate(costs, values, allowed).options
        answer.damage = measured(picked)
        value = sum(row[j] for row, j in zip(values, picked))
        if answer.damage <= budget and (best is None or value < best[0]):
            best = value, picked, answer.damage
    if best is not None:
        return Choice(best[1], best[2], (*notes, _why(sites, fastest, best[1], damage)))
    floats = tuple(_floats(options) for options in sites)
    return Choice(floats, 0.0, (*notes, f"nothing keeps the damage within {budget:.3%}: everything stays in floats"))


@dataclass
class _Answer:
    damage: float = 0.0


def _search(budget: float) -> Iterator[tuple[float, _Answer]]:
    """Sums of damages to solve the knapsack for, so that what is measured comes close to the budget from below."""
    allowed, fits, exceeds = budget, 0.0, math.inf
    for _ in range(ROUNDS):
        answer = _Answer()
        yield allowed, answer
        if answer.damage <= budget:
            fits = max(fits, allowed)
            if answer.damage >= _NEAR * budget:
                return
        else:
            exceeds = min(exceeds, allowed)
        guess = allowed * _LESS * float(np.clip(budget / max(answer.damage, 1e-300), 0.1, 10))
        allowed = guess if fits < guess < exceeds else math.sqrt(max(fits, exceeds / 100) * min(exceeds, 10 * allowed))
        if exceeds < _CLOSE * fits:
            return


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
