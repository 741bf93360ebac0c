"""One scalar for the free fields of a pass: the largest strength at which a condition still holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

EVALUATIONS = 8
DRIFT_LIMIT = 0.01  # 1 - cosine, worst float output: what a step without explicit values may cost


@dataclass(frozen=True)
class Trial:
    """One strength that was tried, what was measured there, and whether the condition held."""

    strength: float
    measured: float
    held: bool


def largest(
    measure: Callable[[float], float], holds: Callable[[float], bool], *, evaluations: int = EVALUATIONS
) -> tuple[float, tuple[Trial, ...]]:
    """The largest tried strength s in [0, 1] with `holds(measure(s))`, by bisection; 0 if none does.

    Assumes monotone measures, as `Pass.at` promises; the result is one that was measured, never interpolated.
    """
    trials: list[Trial] = []

    def attempt(strength: float) -> bool:
        measured = measure(strength)
        trials.append(Trial(strength, measured, holds(measured)))
        return trials[-1].held

    if attempt(1.0):
        return 1.0, tuple(trials)
    low, high = 0.0, 1.0
    while len(trials) < evaluations:
        middle = (low + high) / 2
        low, high = (middle, high) if attempt(middle) else (low, middle)
    return low, tuple(trials)


def smallest(
    measure: Callable[[float], float], holds: Callable[[float], bool], *, evaluations: int = EVALUATIONS
) -> tuple[float | None, tuple[Trial, ...]]:
    """The smallest tried strength with `holds(measure(s))` (a size bound: more strength, smaller file); None if
    even full strength does not reach it."""
    trials: list[Trial] = []

    def attempt(strength: float) -> bool:
        measured = measure(strength)
        trials.append(Trial(strength, measured, holds(measured)))
        return trials[-1].held

    if attempt(0.0):
        return 0.0, tuple(trials)
    if not attempt(1.0):
        return None, tuple(trials)
    low, high = 0.0, 1.0
    while len(trials) < evaluations:
        middle = (low + high) / 2
        low, high = (low, middle) if attempt(middle) else (middle, high)
    return high, tuple(trials)
