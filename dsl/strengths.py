"""Choosing the strength of a recipe's free fields: what a choice is judged by, and the search for it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..passes.base import plain
from ..passes.pipeline import PlannedStep
from ..passes.strength import DRIFT_LIMIT, Trial, largest, smallest
from .build import Limit
from .judge import COSTS, Verdict
from .loops import Loop, Part, Parts, flat
from .program import Program

#: What a trial must keep a bound on latency or memory by, so that the measurement of the artifact confirms it.
SPARE = 0.02
_NOISY = ("latency", "peak_memory")  # measured by running the model


@dataclass(frozen=True)
class Tried:
    """One trial: the strength, the steps it makes, and what was measured of them."""

    by: str  # what judged it: bound or drift
    trial: Trial
    steps: str
    verdicts: tuple[Verdict, ...] = ()
    moved: str = "strength"  # what was set: the strength of free fields, the damage that is allowed, or nothing

    def to_json(self) -> dict[str, Any]:
        """What the report says of the trial."""
        bounds = [v.to_json() for v in self.verdicts]
        return {"judged_by": self.by, "moved": self.moved, **plain(self.trial), "steps": self.steps, "bounds": bounds}


@dataclass(frozen=True)
class Choice:
    """The steps with their free fields set, what was tried, and why nothing was."""

    steps: Parts
    trials: tuple[Tried, ...] = ()
    warnings: tuple[str, ...] = ()


def choose(
    program: Program,
    *,
    verdicts: Judging,
    drift: Callable[[Parts], float],
    can_run: bool,
    samples: bool,
    calibrates: bool = True,
    foreseen: Foreseeing | None = None,
) -> Choice:
    """The steps with their free fields set, when there is something to judge a choice by.

    Bounds on cost ask for the smallest strength that meets them, bounds on quality (or, without bounds, the allowed
    drift) for the largest. Where both are asked for and one strength for all steps does not meet both, the steps share
    the work in other ways. Where bounds on quality are missed then, passes that limit their harm by a default of their
    own limit it further. Without bounds and samples, free fields stay free: passes then do what is provably safe.
    `verdicts` judges the file that some steps make, `drift` their outputs; `samples`: there is data that judges,
    `calibrates`: data to learn from, without which no pass knows what harm it does. `foreseen` is a cheap estimate for
    bounds on cost, where there is one: trials start with what it expects.
    """
    costs = [x for x in program.limits if x.metric in COSTS]
    quality = [x for x in program.limits if x.metric not in COSTS]
    search = _Search(program.parts, verdicts, foreseen, calibrates=calibrates)
    choice = _free_fields(program, search, drift, costs, quality, can_run=can_run, samples=samples)
    return search.gentler(choice, program.limits) if can_run and samples and calibrates and quality else choice


def _free_fields(
    program: Program,
    search: _Search,
    drift: Callable[[Parts], float],
    costs: Sequence[Limit],
    quality: Sequence[Limit],
    *,
    can_run: bool,
    samples: bool,
) -> Choice:
    steps = program.parts
    if not program.free:
        return Choice(steps)
    if not can_run and (any(x.metric in _NOISY for x in costs) or (samples and not costs)):
        return Choice(steps, warnings=(_BLIND,))
    if costs:
        return search.meeting(costs, quality if can_run else [])
    if not samples:
        return Choice(steps)
    if quality:
        best, _ = largest(lambda s: excess(search.trial(s, at(steps, s), quality)), lambda over: over <= 0)
        return search.chosen(best)
    best, trials = largest(lambda s: drift(at(steps, s)), lambda moved: moved <= DRIFT_LIMIT)
    search.tried += [Tried("drift", t, _text(at(steps, t.strength))) for t in trials]
    return search.chosen(best)


_BLIND = "free strengths were left alone: the model is not run, so nothing can judge them"
_UNHELPED = "strength does not help the bound {}: nothing was done for it"

_GENTLER = 6  # trials of less harm
#: Measures are not quite monotone: a bound is out of reach where the least harm misses it by a factor of two.
_CLEARLY = math.log(2)
#: What a bound that asks for (nearly) nothing is missed in parts of: bounds of 0 have no ratio.
_LEAST = {"acc_drop": 0.01, "sqnr": 1.0}

#: What part of a strength each free step takes.
Shares = tuple[float, ...]
Judging = Callable[[Parts, Sequence[Limit]], Sequence[Verdict]]
#: About how much bounds on cost are missed by what some steps make, without making it.
Foreseeing = Callable[[Parts, Sequence[Limit]], float]


class _Search:
    """Trials of one recipe, kept for the report."""

    def __init__(
        self, steps: Parts, verdicts: Judging, foreseen: Foreseeing | None, *, calibrates: bool = True
    ) -> None:
        self.steps = steps
        self.calibrates = calibrates  # whether passes know what harm they do
        self.verdicts = verdicts
        self.foreseen = foreseen
        self.tried: list[Tried] = []
        self.picked: tuple[float, Shares | None] = (0.0, None)  # the strength that was chosen, and its shares
        self._known: list[tuple[Parts, tuple[Verdict, ...]]] = []

    def chosen(self, strength: float, shares: Shares | None = None) -> Choice:
        self.picked = strength, shares
        return Choice(at(self.steps, strength, shares), tuple(self.tried))

    def trial(
        self, strength: float, steps: Parts, limits: Sequence[Limit], moved: str = "strength"
    ) -> tuple[Verdict, ...]:
        """The bounds judged on what some steps make. What was judged before is not tried again."""
        for known, verdicts in self._known:
            if known == steps and {v.limit for v in verdicts} >= set(limits):
                return tuple(v for v in verdicts if v.limit in limits)
        found = tuple(self.verdicts(steps, limits))
        over = excess(found)
        self.tried.append(Tried("bound", Trial(strength, over, over <= 0), _text(steps), found, moved))
        self._known.append((steps, found))
        return found

    def meeting(self, costs: Sequence[Limit], quality: Sequence[Limit]) -> Choice:
        """The strength that meets bounds on cost, shared so that those on quality hold, too; where nothing does, what
        comes nearest. Where costs cannot be met the full strength, unless that brings no bound nearer; bounds that no
        strength brings nearer do not count."""
        found, _ = self._cheapest(costs)
        unhelped, gains = self._unhelped(costs) if found is None else ([], True)
        if unhelped:
            costs = [x for x in costs if gains and x not in unhelped]
            found = self._cheapest(costs)[0] if costs else 0.0
        free = sum(1 for step in flat(self.steps) if _is_free(step))
        if found is None or not quality or free == 1 or not costs:
            choice = self.chosen(1.0 if found is None else found)
        else:
            choice = self._shared(found, costs, quality, free)
        return dataclasses.replace(choice, warnings=tuple(_UNHELPED.format(x.text) for x in unhelped))

    def _unhelped(self, costs: Sequence[Limit]) -> tuple[list[Limit], bool]:
        """The missed bounds that full strength brings no nearer, and whether it brings all together nearer."""
        none, full = (self.trial(s, at(self.steps, s), costs) for s in (0.0, 1.0))
        stuck = [v.limit for before, v in zip(none, full) if not v.holds and distance(v) >= distance(before)]
        return stuck, _total(full) < _total(none)

    def gentler(self, choice: Choice, limits: Sequence[Limit]) -> Choice:
        """The choice as it is where it keeps the bounds on quality, or nothing in it can do less harm; else with the
        most harm that keeps them, or what comes nearest to all bounds. Where even the least harm clearly misses them,
        nothing between is tried. Less harm makes larger files: where a bound on cost is missed for it, free fields
        take more strength."""
        if _gentler(choice.steps, 0.5) == choice.steps:
            return choice
        quality = [x for x in limits if x.metric not in COSTS]
        tries: list[tuple[float, float, Parts]] = []

        def judged(share: float, steps: Parts | None = None) -> list[Verdict]:
            steps = steps or (choice.steps if share == 1 else _gentler(choice.steps, share))
            verdicts = self.trial(share, steps, limits, "damage")
            missed_by = sum(map(distance, verdicts))
            tries.append((missed_by, share if missed_by else -share, steps))  # as gentle as can be where it misses
            return [v for v in verdicts if v.limit in quality]

        if excess(judged(1.0)) > 0 and not _hopeless(judged(0.0)):
            share, _ = largest(lambda share: excess(judged(share)), lambda over: over <= 0, evaluations=_GENTLER)
            if all(missed_by > 0 for missed_by, *_ in tries) and excess(judged(share)) <= 0:
                for less, steps in self._stronger(share, [x for x in limits if x not in quality]):
                    judged(less, steps)
                    if tries[-1][0] == 0:
                        break
        _, _, steps = min(tries, key=lambda tried: tried[:2])
        return dataclasses.replace(choice, steps=steps, trials=tuple(self.tried))

    def _stronger(self, share: float, costs: Sequence[Limit]) -> Iterator[tuple[float, Parts]]:
        """Shares of the harm, with the smallest strength that meets the bounds on cost at each. The smaller the share,
        the more strength it takes: where full strength does not suffice, it does not for smaller ones."""
        strength: float | None
        strength, shares = self.picked
        if not any(map(_is_free, flat(self.steps))):
            return
        for less in (share, share / 2):
            steps = _gentler(self.steps, less)
            strength, _ = self._cheapest(costs, shares, above=strength, steps=steps)
            if strength is None:
                return
            yield less, at(steps, strength, shares)

    def _cheapest(
        self,
        costs: Sequence[Limit],
        shares: Shares | None = None,
        above: float | None = None,
        steps: Parts | None = None,
    ) -> tuple[float | None, tuple[Trial, ...]]:
        """The smallest strength of `steps` that meets bounds on cost, of those `above` one below which none does."""
        foreseen, steps = self.foreseen, steps or self.steps

        @functools.cache
        def expected(strength: float) -> float:
            assert foreseen is not None
            return foreseen(at(steps, strength, shares), costs)

        def measure(strength: float) -> float:
            return excess(self.trial(strength, at(steps, strength, shares), costs))

        return smallest(measure, expected=expected if foreseen is not None else None, above=above)

    def _shared(self, found: float, costs: Sequence[Limit], quality: Sequence[Limit], free: int) -> Choice:
        """Several free steps: one that hurts less may take more of the strength.

        One in front needs at least the strength that all of them alike need: where it clearly misses the bounds on
        quality with the others at none, no strength of the others helps.
        """
        limits = [*costs, *quality]
        candidates: list[tuple[float, float, Shares]] = []

        def judged(strength: float, shares: Shares) -> Sequence[Verdict]:
            verdicts = self.trial(strength, at(self.steps, strength, shares), limits)
            candidates.append((sum(map(distance, verdicts)), strength, shares))
            return verdicts

        for shares in _shares(free):
            alike = len(set(shares)) == 1
            if not alike:
                alone = tuple(float(share == 1) for share in shares)
                verdicts = judged(found, alone)
                if excess(verdicts) <= 0:
                    return self.chosen(found, alone)
                if _hopeless(self._least_missed(found, alone, verdicts, quality)):
                    continue
            strength = found if alike else self._cheapest(costs, shares, above=found)[0]
            if strength is not None and excess(judged(strength, shares)) <= 0:
                return self.chosen(strength, shares)
        _, strength, shares = min(candidates)
        return self.chosen(strength, shares)

    def _least_missed(
        self, strength: float, shares: Shares, verdicts: Sequence[Verdict], quality: Sequence[Limit]
    ) -> Sequence[Verdict]:
        """Bounds on quality as they are judged, or with the least harm of passes that limit it where they are clearly
        missed by default."""
        judged = [v for v in verdicts if v.limit in quality]
        steps = at(self.steps, strength, shares)
        least = _gentler(steps, 0.0) if self.calibrates else steps
        return judged if least == steps or not _hopeless(judged) else self.trial(0.0, least, quality, "damage")


def _shares(free: int) -> list[Shares]:
    """All alike; then one step in front, the others at half and at none of its strength."""
    front = [tuple(1.0 if i == first else rest for i in range(free)) for rest in (0.5, 0.0) for first in range(free)]
    return [(1.0,) * free, *front]


def excess(verdicts: Sequence[Verdict]) -> float:
    """By how much the worst bound is missed; at most 0 where all hold, what is timed with something to spare."""
    return max(v.excess + (SPARE * v.limit.value if v.limit.metric in _NOISY else 0.0) for v in verdicts)


def _hopeless(verdicts: Iterable[Verdict]) -> bool:
    return any(distance(v) > _CLEARLY for v in verdicts)


def distance(verdict: Verdict) -> float:
    """How far a bound is from being met, in terms that can be added up: 0 where it holds, the logarithm of a ratio
    where it does not. Cosine and agreement count by what they lack to 1; what is to be 0 has a unit instead."""
    if verdict.holds:
        return 0.0
    if verdict.measured is None:
        return math.inf
    wanted, found = verdict.limit.value, verdict.measured
    if verdict.limit.metric in ("cosine", "agreement") and wanted < 1:
        return math.log((1 - found) / (1 - wanted))
    return math.log1p(verdict.excess / (max(abs(wanted), _LEAST.get(verdict.limit.metric, 0.0)) or 1.0))


def _total(verdicts: Sequence[Verdict]) -> tuple[int, float]:
    """Distances of several bounds together; what was not measured hides not what was."""
    known = [distance(v) for v in verdicts if v.measured is not None]
    return len(verdicts) - len(known), sum(known)


def at(steps: Parts, strength: float, shares: Shares | None = None) -> Parts:
    """The steps with the free fields of lossy passes set for one strength, of which each may take a share."""
    taken = iter(shares) if shares is not None else itertools.repeat(1.0)
    return tuple(_at(part, strength, taken) for part in steps)


def alone(steps: Parts) -> Iterator[Parts]:
    """Every free step at full strength, the others at none: if it does nothing of what it names then, it never does."""
    free = sum(map(_is_free, flat(steps)))
    for number in range(free):
        taken = iter(float(i == number) for i in range(free))
        yield tuple(_at(part, 1.0, taken, must=True) for part in steps)


def _at(part: Part, strength: float, taken: Iterator[float], *, must: bool = False) -> Part:
    """`must`: at full strength it is an error to do nothing of what is named."""
    if isinstance(part, Loop):
        return dataclasses.replace(part, body=tuple(_at(inner, strength, taken, must=must) for inner in part.body))
    if not _is_free(part):
        return part
    taking = strength * next(taken)
    return dataclasses.replace(part, action=part.action.at(taking), may_idle=not (must and taking == 1))


def _gentler(parts: Parts, share: float) -> Parts:
    """The steps where passes that limit their harm by a default allow themselves less."""
    return tuple(
        dataclasses.replace(part, body=_gentler(part.body, share))
        if isinstance(part, Loop)
        else dataclasses.replace(part, action=part.action.gentler(share))
        for part in parts
    )


def _is_free(step: PlannedStep) -> bool:
    return bool(step.action.free) and step.action.effect.lossy


def _text(steps: Parts) -> str:
    return " + ".join(str(step) for step in flat(steps))
