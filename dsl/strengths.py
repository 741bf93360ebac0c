"""Choosing the strength of a recipe's free fields: what a choice is judged by, and the search for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..passes.strength import DRIFT_LIMIT, Trial, largest, smallest
from .build import Limit
from .judge import COSTS, Verdict
from .loops import Loop, Part, Parts
from .program import Program

#: What a trial must keep a bound on latency or memory by, so that the measurement of the artifact confirms it.
SPARE = 0.02
_NOISY = ("latency", "peak_memory")  # measured by running the model


@dataclass(frozen=True)
class Choice:
    """The steps with their free fields set, what was tried and by what it was judged, and why nothing was."""

    steps: Parts
    trials: tuple[tuple[str, Trial], ...] = ()
    warnings: tuple[str, ...] = ()


def choose(
    program: Program,
    *,
    verdicts: Callable[[Parts, Sequence[Limit]], Sequence[Verdict]],
    drift: Callable[[Parts], float],
    can_run: bool,
    samples: bool,
) -> Choice:
    """The steps with their free fields set, when there is something to judge a choice by.

    Bounds on cost ask for the smallest strength that meets them, bounds on quality (or, without bounds, the allowed
    drift) for the largest. Without either, free fields stay free: passes then do what is provably safe.
    `verdicts` judges the file that some steps make, `drift` their outputs; `samples`: there is data that judges.
    """
    steps = program.parts
    if not program.free:
        return Choice(steps)
    costs = [x for x in program.limits if x.metric in COSTS]
    quality = [x for x in program.limits if x.metric not in COSTS]
    if not can_run and (any(x.metric in _NOISY for x in costs) or (samples and not costs)):
        return Choice(steps, warnings=(_BLIND,))
    if costs:
        found, trials = smallest(lambda s: excess(verdicts(at(steps, s), costs)), lambda over: over <= 0)
        return _meeting(steps, found, trials)
    if not samples:
        return Choice(steps)
    if quality:
        best, trials = largest(lambda s: excess(verdicts(at(steps, s), quality)), lambda over: over <= 0)
        return _chosen(steps, best, "bound", trials)
    best, trials = largest(lambda s: drift(at(steps, s)), lambda moved: moved <= DRIFT_LIMIT)
    return _chosen(steps, best, "drift", trials)


_BLIND = "free strengths were left alone: the model is not run, so nothing can judge them"


def _meeting(steps: Parts, found: float | None, trials: tuple[Trial, ...]) -> Choice:
    """The strength that meets bounds on cost; where none does the full one, unless that gains nothing."""
    if found is None and trials[-1].measured >= trials[0].measured:
        choice = _chosen(steps, 0.0, "bound", trials)
        return dataclasses.replace(choice, warnings=("strength does not help the bound: nothing was done for it",))
    return _chosen(steps, 1.0 if found is None else found, "bound", trials)


def _chosen(steps: Parts, strength: float, by: str, trials: Sequence[Trial]) -> Choice:
    return Choice(at(steps, strength), tuple((by, t) for t in trials))


def excess(verdicts: Sequence[Verdict]) -> float:
    """By how much the worst bound is missed; at most 0 where all hold, what is timed with something to spare."""
    return max(v.excess + (SPARE * v.limit.value if v.limit.metric in _NOISY else 0.0) for v in verdicts)


def at(steps: Parts, strength: float) -> Parts:
    """The steps with the free fields of lossy passes set for one strength."""
    return tuple(_at(part, strength) for part in steps)


def _at(part: Part, strength: float) -> Part:
    if isinstance(part, Loop):
        return dataclasses.replace(part, body=at(part.body, strength))
    free = part.action.free and part.action.effect.lossy
    return dataclasses.replace(part, action=part.action.at(strength)) if free else part
