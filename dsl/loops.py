"""Running loops: `until B` repeats while B is false; `while B` repeats while it holds and takes the last round back.

Both look before the first round, so that a loop may do nothing. A loop that does not say `times N` has a limit of its
own; one that reaches it before its `until`, or whose round changes nothing, missed that bound. What a loop did is
written out as plain steps, which give the same result whenever they run on the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..ir.core import Module
from ..ir.errors import Code, Diagnostic, MlcError
from ..passes.base import Context
from ..passes.execution import check_needs
from ..passes.pipeline import PlannedStep, before, run
from .build import Limit, Repeat
from .judge import Verdict


@dataclass(frozen=True)
class Loop:
    """A loop with its passes built."""

    body: tuple[PlannedStep | Loop, ...]
    repeat: Repeat


Part = PlannedStep | Loop
Parts = tuple[Part, ...]
#: Judges bounds on a module as they are judged on artifacts.
Measure = Callable[[Module, Sequence[Limit]], Sequence[Verdict]]


@dataclass(frozen=True)
class Round:
    """What was measured after a round; the number 0 stands for what was there before the first."""

    number: int
    verdicts: tuple[Verdict, ...]
    kept: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "bounds": [v.to_json() for v in self.verdicts], "kept": self.kept}


@dataclass(frozen=True)
class Looped:
    """A loop that was run: its rounds and why it ended."""

    repeat: Repeat
    rounds: tuple[Round, ...]
    ended: str
    missed: bool  # whether it ended although its `until` does not hold, and nobody limited it

    def to_json(self) -> dict[str, Any]:
        """What the report says of the loop."""
        kept = sum(r.kept for r in self.rounds) - 1
        return {
            "loop": self.repeat.text,
            "kept": kept,
            "ended": self.ended,
            "rounds": [r.to_json() for r in self.rounds],
        }

    def diagnostics(self) -> tuple[Diagnostic, ...]:
        if not self.missed:
            return ()
        found = self.rounds[-1].verdicts[0]
        message = f"a loop ended before its bound was met: {found}; {self.ended}"
        help = "the best artifact was saved; loosen the bound, or let a round do more"
        return (Diagnostic(Code.BOUND_MISSED, message, found.limit.span, help=help),)


@dataclass(frozen=True)
class Unrolled:
    """A recipe with its loops written out, the module they made, and how each loop went."""

    steps: tuple[PlannedStep, ...]
    module: Module
    loops: tuple[Looped, ...]


def unroll(parts: Parts, module: Module, ctx: Context, measure: Measure) -> Unrolled:
    """Run `parts` on a copy of `module`. Errors: CANNOT_HONOUR for a bound of a loop that nothing can measure."""
    for step in flat(parts):
        check_needs(step.action, ctx)
    worker = _Unroller(ctx, measure)
    made = worker.run(parts, module.clone())
    return Unrolled(tuple(worker.steps), made, tuple(worker.loops))


def flat(parts: Parts, *, rounds: int = 1) -> Iterator[PlannedStep]:
    """The steps in order, those of a loop `rounds` times."""
    for part in parts:
        if isinstance(part, Loop):
            for _ in range(rounds):
                yield from flat(part.body, rounds=rounds)
        else:
            yield part


class _Unroller:
    def __init__(self, ctx: Context, measure: Measure) -> None:
        self.ctx = ctx
        self.measure = measure
        self.steps: list[PlannedStep] = []
        self.loops: list[Looped] = []
        self.changes = 0  # steps that changed something
        self.started: set[int] = set()  # ids of steps of loops that were run

    def run(self, parts: Parts, module: Module) -> Module:
        for part in parts:
            if isinstance(part, Loop):
                module = self.loop(part, module)
            else:
                self.step(part, module)
        return module

    def step(self, step: PlannedStep, module: Module) -> None:
        self.ctx = replace(before(step, module, self.ctx), step=len(self.steps))
        (report,) = run((step,), module, self.ctx)
        self.steps.append(step)
        self.changes += report.changed

    def round(self, body: Parts, module: Module) -> Module:
        """One more time through a loop. What a step names must be served the first time; then it may be used up."""
        named = tuple(
            replace(p, may_idle=True) if isinstance(p, PlannedStep) and id(p) in self.started else p for p in body
        )
        made = self.run(named, module)
        self.started |= {id(part) for part in body}
        return made

    def loop(self, loop: Loop, module: Module) -> Module:
        repeat = loop.repeat
        rounds = [Round(0, self.judge(repeat, module))]
        ended = _enough(repeat, rounds[0], start=True)
        while not ended:
            number = len(rounds)
            if number > repeat.rounds:
                ended = f"after {repeat.rounds}: that is the limit" + ("" if repeat.limited else ": more with times N")
                break
            mark, changes = self.mark(), self.changes
            twin = self.round(loop.body, module.clone())
            if self.changes == changes:
                self.back_to(mark)
                ended = f"round {number} changed nothing"
                break
            found = Round(number, self.judge(repeat, twin))
            ended = _enough(repeat, found, start=False)
            if _broken(repeat, found):
                self.back_to(mark)
                rounds.append(replace(found, kept=False))
                break
            rounds.append(found)
            module = twin
        reached = repeat.until is None or _until(rounds[-1]).holds
        missed = not reached and not repeat.limited and rounds[-1].kept
        self.loops.append(Looped(repeat, tuple(rounds), ended, missed))
        return module

    def mark(self) -> tuple[Context, int, int]:
        return self.ctx, len(self.steps), len(self.loops)

    def back_to(self, mark: tuple[Context, int, int]) -> None:
        """Forget what was run since the mark was set."""
        self.ctx, steps, loops = mark
        del self.steps[steps:], self.loops[loops:]

    def judge(self, repeat: Repeat, module: Module) -> tuple[Verdict, ...]:
        limits = [limit for limit in (repeat.until, repeat.keep) if limit is not None]
        verdicts = tuple(self.measure(module, limits))
        blind = next((v.limit for v in verdicts if v.measured is None), None)
        if blind is not None:
            message = f"'{blind.metric}' cannot be measured on this model, so the loop would not know when to end"
            raise MlcError(Diagnostic(Code.CANNOT_HONOUR, message, blind.span, help="use times N, or another bound"))
        return verdicts


def _until(found: Round) -> Verdict:
    return found.verdicts[0]


def _broken(repeat: Repeat, found: Round) -> bool:
    """Whether the bound of `while` does not hold."""
    return repeat.keep is not None and not found.verdicts[-1].holds


def _enough(repeat: Repeat, found: Round, *, start: bool) -> str:
    """Why a loop ends here; empty if it goes on."""
    when = "at the start" if start else f"after round {found.number}"
    if _broken(repeat, found):
        back = "" if start else ": that round was taken back"
        return f"{found.verdicts[-1].limit.text} does not hold {when} ({found.verdicts[-1].found}){back}"
    if repeat.until is not None and _until(found).holds:
        return f"{_until(found).limit.text} holds {when} ({_until(found).found})"
    return ""
