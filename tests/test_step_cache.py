"""Steps that ran before are not run again: the same result, and another one wherever anything differs."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from kit.two_layers import samples, two_layers

import mlc
from mlc.backends.progress import Lines
from mlc.ir.core import Module
from mlc.ir.rewrite import Rewriter
from mlc.passes import Prune, Weights
from mlc.passes.base import LOSSY, Context, Done, Effect, Pass, Plan, Scope, option
from mlc.passes.cache import StepCache
from mlc.passes.pipeline import PlannedStep, run
from mlc.passes.statistics import version

ROOM = 1 << 30


@dataclass(frozen=True)
class Log(Plan):
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Halve(Pass):
    """Halves every constant, and writes down that it did and whether it was told of a draft."""

    name: ClassVar[str] = "halve"
    effect: ClassVar[Effect] = LOSSY
    ran: ClassVar[list[bool]] = []
    factor: float = option(0.5, unit="number", low=0.1, high=2, doc="by what")

    def plan(self, module: Module, ctx: Context) -> Plan:
        self.ran.append(ctx.draft)
        return Plan()

    def apply(self, rw: Rewriter, plan: Plan, ctx: Context) -> Sequence[Done]:
        for value in list(rw.module.constants.values()):
            if value.constant is not None and value.constant.dtype.is_float:
                halved = (value.constant.array() * self.factor).astype(value.constant.dtype.numpy)
                rw.replace_uses(value, rw.constant(halved, f"{value.name}_half"))
        return (Done("x", "1", "0.5"),)


@dataclass(frozen=True)
class Quick(Halve):
    name: ClassVar[str] = "quick"
    drafts: ClassVar[bool] = True


@pytest.fixture
def ran() -> list[bool]:
    Halve.ran.clear()
    return Halve.ran


def after(source: Module, steps: Sequence[Pass], ctx: Context) -> Module:
    twin = source.clone()
    run([PlannedStep(step) for step in steps], twin, ctx)
    return twin


def test_a_step_that_ran_before_is_not_run_again(tmp_path: Path, ran: list[bool]) -> None:
    source = mlc.load(two_layers(tmp_path))
    ctx = Context(cache=StepCache(ROOM))
    once = after(source, [Halve(), Halve(factor=0.25)], ctx)
    again = after(source, [Halve(), Halve(factor=0.25)], ctx)
    assert len(ran) == 2
    assert version(once) == version(again) == version(after(source, [Halve(), Halve(factor=0.25)], Context()))
    after(source, [Halve(), Halve(factor=0.125)], ctx)
    assert len(ran) == 5  # two without a cache, and the one whose option differs


def test_what_differs_is_run(tmp_path: Path, ran: list[bool]) -> None:
    source = mlc.load(two_layers(tmp_path))
    ctx = Context(cache=StepCache(ROOM))
    others = (
        dataclasses.replace(ctx, step=3),
        dataclasses.replace(ctx, scope=Scope(on=frozenset({op.name for op in source.graph.ops}))),
        dataclasses.replace(ctx, source=source),
    )
    for number, other in enumerate((ctx, *others), start=1):
        after(source, [Halve()], other)
        assert len(ran) == number
    halved = after(source, [Halve()], Context())
    after(halved, [Halve()], ctx)  # other weights
    assert len(ran) == len(others) + 3


def test_what_was_kept_does_not_change_later(tmp_path: Path, ran: list[bool]) -> None:
    """Whoever gets a result may change it, and fill its report."""
    source = mlc.load(two_layers(tmp_path))
    ctx = Context(cache=StepCache(ROOM))
    first = source.clone()
    (told,) = run([PlannedStep(Halve())], first, ctx)
    kept = version(first)
    told.metrics["drift"] = 1.0
    run([PlannedStep(Halve())], first, dataclasses.replace(ctx, cache=None))
    for _ in range(2):
        second = source.clone()
        (other,) = run([PlannedStep(Halve())], second, ctx)
        assert version(second) == kept
        assert other.metrics == {}
        assert other.done == told.done
        assert second.history == [other]
        other.metrics["drift"] = 1.0
        run([PlannedStep(Halve())], second, dataclasses.replace(ctx, cache=None))


def test_only_steps_that_draft_are_told_of_drafts(tmp_path: Path, ran: list[bool]) -> None:
    source = mlc.load(two_layers(tmp_path))
    ctx = Context(cache=StepCache(ROOM))
    for draft in (True, False):
        after(source, [Halve(), Quick()], dataclasses.replace(ctx, draft=draft))
    assert ran == [False, True, False]
    assert Weights.drafts
    assert not Prune.drafts


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, ran: list[bool]) -> None:
    source = mlc.load(two_layers(tmp_path))
    made = after(source, [Halve()], Context())
    room = sum(v.constant.nbytes for v in made.constants.values() if v.constant is not None)
    cache = Context(cache=StepCache(2 * room))
    factors = (0.5, 0.25, 0.5, 0.2, 0.5, 0.25)  # 0.2 takes the place of 0.25
    seen = []
    for factor in factors:
        before = len(ran)
        after(source, [Halve(factor=factor)], cache)
        seen.append(len(ran) > before)
    assert seen == [True, True, False, True, False, True]
    nothing = Context(cache=StepCache(room - 1))
    count = len(ran)
    for _ in range(2):
        after(source, [Halve()], nothing)
    assert len(ran) == count + 2


def test_costs_are_foreseen_without_data(tmp_path: Path) -> None:
    """Few trials with data reach the size, and each is told of in a log."""
    source, data, told = two_layers(tmp_path, width=512), samples(tmp_path), io.StringIO()
    report = mlc.compile(source, "prune + int8 where size <= 0.1x", data=data, eval=data, progress=Lines(told)).report
    (bound,) = report["bounds"]
    assert 0.09 <= bound["measured"] <= 0.1
    assert len(report["trials"]) <= 5
    assert [line.split(":")[0] for line in told.getvalue().splitlines() if "trial" in line] == [
        f"trial {n}" for n in range(1, len(report["trials"]) + 1)
    ]


def test_a_compilation_makes_the_same_file_as_its_steps_alone(tmp_path: Path) -> None:
    source, data = two_layers(tmp_path, width=256), samples(tmp_path)
    tried = mlc.compile(source, "prune + int8 where size <= 0.2x, cosine >= 0.5", data=data, eval=data)
    steps = " + ".join(s["text"] for s in tried.report["steps"])
    alone = mlc.compile(source, steps, data=data, eval=data)
    assert len(tried.report["trials"]) > 2
    assert version(tried.module) == version(alone.module)
    assert [s["done"] for s in tried.report["steps"]] == [s["done"] for s in alone.report["steps"]]
    assert [s["drift"] for s in tried.report["steps"]] == [s["drift"] for s in alone.report["steps"]]
