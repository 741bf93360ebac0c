"""Bounds missed by a recipe that leaves nothing to choose: what was tried, and what could have been free."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ..ir.errors import MlcError
from ..passes.base import Pass
from ..passes.strength import Trial
from .judge import COSTS, Verdict
from .loops import flat
from .program import Program
from .strengths import Tried, excess

#: Recipes that leave something to a bound on cost.
SEARCHED = ("prune", "weights([2, 4, 8])")


def only(program: Program, verdicts: Sequence[Verdict]) -> Tried:
    """The recipe as it is written, as the one thing that was tried."""
    over = excess(verdicts)
    text = " + ".join(map(str, flat(program.parts)))
    return Tried("bound", Trial(1.0, over, over <= 0), text, tuple(verdicts), "nothing")


def advice(program: Program, verdicts: Sequence[Verdict]) -> str:
    """Why nothing else was tried, and what would be searched for the bounds that were missed."""
    costs = any(v.limit.metric in COSTS for v in verdicts if not v.holds)
    found = dict.fromkeys(text for step in program.steps for text in _openings(step.action, costs=costs))
    if found:
        what = f"leave out {', '.join(found)}, and the bounds choose"
    elif costs:
        what = f"a step that bounds choose for would be {' or '.join(SEARCHED)}"
    else:
        what = "bounds on quality lower what int8 may cost, with --data, where the recipe does not say it"
    return f"nothing in the recipe was free to change, so nothing else was tried: {what}"


def _openings(step: Pass, *, costs: bool) -> Iterator[str]:
    """The arguments of a step without which there would be something to choose."""
    for field in dataclasses.fields(step):
        if field.default is not None or getattr(step, field.name) is None:
            continue
        try:
            other = dataclasses.replace(step, **{field.name: None})
        except MlcError:  # it cannot be left out: another argument wants it
            continue
        if field.name in other.free or (not costs and other.gentler(0.5) != other):
            yield f"'{field.name}' of {step}"
