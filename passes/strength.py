"""One scalar for the free fields of a pass: the strength at which a condition begins, or ceases, to hold.

Measures are taken to be monotone, as `Pass.at` promises. Every one compiles the model, so few are made; what is
returned was measured, never interpolated.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

EVALUATIONS = 10  # at most: the two ends, bisection between them, and guesses that fail
DRIFT_LIMIT = 0.01  # 1 - cosine, worst float output: what a step without explicit values may cost

_HALVINGS = 6
_PARTS = 2**_HALVINGS  # strengths that a smallest one is found among
_TRIALS = 8  # of a largest one


@dataclass(frozen=True)
class Trial:
    """One strength that was tried, what was measured there, and whether the condition held."""

    strength: float
    measured: float
    held: bool


def largest(
    measure: Callable[[float], float],
    holds: Callable[[float], bool],
    *,
    evaluations: int = _TRIALS,
) -> tuple[float, tuple[Trial, ...]]:
    """The largest tried strength s in [0, 1] with `holds(measure(s))`, by bisection; 0 if none does. Where both sides
    measure what they measured before, strengths make the same files, and the search ends."""
    trials: list[Trial] = []

    def attempt(strength: float) -> bool:
        measured = measure(strength)
        trials.append(Trial(strength, measured, holds(measured)))
        return trials[-1].held

    if attempt(1.0):
        return 1.0, tuple(trials)
    low, high = 0.0, 1.0
    seen: dict[bool, list[float]] = {True: [], False: [trials[0].measured]}  # of each side, by whether it held
    while len(trials) < evaluations and not all(_repeats(side) for side in seen.values()):
        middle = (low + high) / 2
        held = attempt(middle)
        low, high = (middle, high) if held else (low, middle)
        seen[held].append(trials[-1].measured)
    return low, tuple(trials)


def _repeats(measured: list[float]) -> bool:
    return len(measured) > 1 and measured[-1] == measured[-2]


def smallest(
    measure: Callable[[float], float],
    limit: float = 0.0,
    *,
    expected: Callable[[float], float] | None = None,
    above: float | None = None,
) -> tuple[float | None, tuple[Trial, ...]]:
    """The smallest multiple of 1/64 with `measure(s) <= limit` (a size: more strength, smaller file); None if even full
    strength does not reach it.

    `expected` is a cheap estimate of the measure: the better its shape is, the fewer measures are made, whatever its
    level. `above`: a strength below which the limit is known not to be kept.
    """
    trials: list[Trial] = []

    def attempt(part: int) -> _Point:
        strength = part / _PARTS
        measured = measure(strength)
        trials.append(Trial(strength, measured, measured <= limit))
        return _Point(part, measured - limit)

    low = attempt(0) if above is None else _Point(math.ceil(above * _PARTS) - 1, math.inf)
    if low.over <= 0:
        return 0.0, tuple(trials)
    low, high = _guessed(low, attempt, expected)
    high = high or attempt(_PARTS)
    if high.over > 0:
        return None, tuple(trials)
    between = _Between(low, high, expected, left=EVALUATIONS - len(trials) if expected else _HALVINGS + 1)
    while between.open:
        between.learn(attempt(between.guess()))
    return between.high.part / _PARTS, tuple(trials)


@dataclass(frozen=True)
class _Point:
    part: int
    over: float  # what is measured above the limit


def _guessed(
    low: _Point, attempt: Callable[[int], _Point], expected: Callable[[float], float] | None
) -> tuple[_Point, _Point | None]:
    """A part that misses the limit and, perhaps, one that keeps it: where the estimate expects it to be kept somewhere,
    that is tried before the full strength, which then need not be."""
    if expected is None or not math.isfinite(low.over):
        return low, None
    assumed = _Point(_PARTS, low.over + expected(1.0) - expected(low.part / _PARTS))
    if not assumed.over <= 0:  # NaN: nothing is known
        return low, None
    found = attempt(_Between(low, assumed, expected, left=_HALVINGS + 1).guess())
    return (low, found) if found.over <= 0 else (found, None)


@dataclass
class _Between:
    """A part that misses the limit and one that keeps it.

    What is between is guessed: the estimate, moved so that it agrees with what was measured at both ends. Without one
    that is a line through both (regula falsi). The end that stays twice counts half (Illinois rule), and guesses that
    fail leave enough measurements for bisection.
    """

    low: _Point
    high: _Point
    expected: Callable[[float], float] | None
    left: int  # measurements
    stayed: int = 0  # the end that did not move last: -1 low, 1 high

    @property
    def open(self) -> bool:
        return self.high.part - self.low.part > 1

    def guess(self) -> int:
        """A part between both, such that the measurements that are left suffice to bisect what is left then."""
        reach = 1 << (self.left - 1)
        wanted = min(max(self._wanted(), self.high.part - reach), self.low.part + reach)
        return min(max(wanted, self.low.part + 1), self.high.part - 1)

    def learn(self, found: _Point) -> None:
        self.left -= 1
        if found.over <= 0:
            self.low = _half(self.low) if self.stayed == -1 else self.low
            self.high, self.stayed = found, -1
        else:
            self.high = _half(self.high) if self.stayed == 1 else self.high
            self.low, self.stayed = found, 1

    def _wanted(self) -> int:
        """The first part that should keep the limit."""
        low, high = self.low, self.high
        known = math.isfinite(low.over)
        above = high.over - self._estimate(high.part)
        slope = low.over - self._estimate(low.part) - above if known else 0.0
        if not math.isfinite(above + slope) or (self.expected is None and not known):
            return (low.part + high.part) // 2

        def over(part: int) -> float:
            return self._estimate(part) + above + slope * (high.part - part) / (high.part - low.part)

        parts = range(low.part + 1, high.part)
        return low.part + 1 + int(bisect.bisect_left(parts, True, key=lambda part: over(part) <= 0))

    def _estimate(self, part: int) -> float:
        return 0.0 if self.expected is None else self.expected(part / _PARTS)


def _half(point: _Point) -> _Point:
    return replace(point, over=point.over / 2)
