"""`until` and `while`: how often steps run, what is taken back, and what a loop that cannot end says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.net import Net
from kit.two_layers import samples, two_layers

import mlc
from mlc.cli import run
from mlc.dsl.build import MAX_ROUNDS, Repeat
from mlc.dsl.judge import Measured, judge
from mlc.dsl.loops import Loop, unroll
from mlc.dsl.program import Program
from mlc.dsl.recipe import Recipe
from mlc.ir.core import Module
from mlc.ir.errors import MlcError
from mlc.ir.rewrite import Rewriter
from mlc.passes.base import LOSSY, Context, Done, Effect, Pass, Plan, Scope
from mlc.passes.pipeline import PlannedStep
from mlc.passes.pipeline import run as run_steps

WIDTH = 512  # prune leaves multiples of 16


def compiled(tmp_path: Path, recipe: str, **settings: Any) -> dict[str, Any]:
    return mlc.compile(two_layers(tmp_path, width=WIDTH), recipe, **settings).report


def params(report: dict[str, Any], step: int = -1) -> float:
    return report["steps"][step]["after"]["params"] / report["steps"][0]["before"]["params"]


# -- until -------------------------------------------------------------------------------------------------------


def test_until_stops_at_the_first_round_that_reaches_the_bound(tmp_path: Path) -> None:
    report = compiled(tmp_path, "prune(20%) until params <= 0.5x", check="none")
    (loop,) = report["loops"]
    assert [s["text"] for s in report["steps"]] == ["prune(ratio=20%)"] * loop["kept"]
    assert params(report) <= 0.5 < params(report, -2)
    assert loop["ended"].startswith(f"params <= 0.5x holds after round {loop['kept']}")
    assert [r["number"] for r in loop["rounds"]] == list(range(loop["kept"] + 1))
    assert report["status"] == "done"


def test_until_does_nothing_where_the_bound_holds_already(tmp_path: Path) -> None:
    report = compiled(tmp_path, "prune(20%) until params <= 2x + fp16", check="none")
    assert [s["name"] for s in report["steps"]] == ["fp16"]
    assert report["loops"][0]["ended"].startswith("params <= 2x holds at the start")


def test_a_bound_that_rounds_cannot_reach_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last round changes nothing: the loop ends there, not at its limit."""
    out = tmp_path / "out.mlc"
    assert (
        run(["compile", str(two_layers(tmp_path, width=WIDTH)), "-r", "fp16 until size <= 0.1x", "-o", str(out)]) == 3
    )
    told = capsys.readouterr()
    assert "a loop ended before its bound was met: size <= 0.1x" in told.err
    assert "round 2 changed nothing" in told.err
    assert "loop 'fp16 until size <= 0.1x': 1 round" in told.out
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "missed"
    assert [s["text"] for s in report["steps"]] == ["fp16"]


def test_a_round_that_uses_up_what_a_selector_names_ends_the_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first round must do something of it; one that finds nothing left is the last."""
    source, out = str(two_layers(tmp_path, width=WIDTH)), tmp_path / "out.mlc"
    assert run(["compile", source, "-r", 'prune(30%) on "fc1" until size <= 0.001x', "-o", str(out)]) == 3
    assert "changed nothing" in capsys.readouterr().err
    assert len(json.loads((out / "report.json").read_text())["steps"]) > 1
    assert run(["compile", source, "-r", 'prune(30%) on "act" until size <= 0.3x', "-o", str(out), "--force"]) == 2


@pytest.mark.parametrize("bound", ["until params <= 0.01x", "while params >= 0.01x"])
def test_a_limit_that_was_asked_for_is_told_not_missed(tmp_path: Path, bound: str) -> None:
    report = compiled(tmp_path, f"prune(20%) times 2 {bound}", check="none")
    assert len(report["steps"]) == 2
    assert report["loops"][0]["ended"] == "after 2: that is the limit"
    assert report["status"] == "done"


# -- while -------------------------------------------------------------------------------------------------------


def test_while_takes_the_last_round_back(tmp_path: Path) -> None:
    report = compiled(tmp_path, "prune(20%) while params >= 0.5x", check="none")
    (loop,) = report["loops"]
    assert params(report) >= 0.5
    *kept, last = loop["rounds"]
    assert [r["kept"] for r in loop["rounds"]] == [*(True for _ in kept), False]
    assert last["bounds"][0]["measured"] < 0.5
    assert "that round was taken back" in loop["ended"]
    assert loop["kept"] == len(report["steps"]) == len(kept) - 1


def test_while_on_quality_is_judged_on_samples(tmp_path: Path) -> None:
    report = compiled(tmp_path, "prune(20%) while cosine >= 0.8", eval=samples(tmp_path))
    assert report["steps"]
    assert report["checks"]["cosine"] >= 0.8
    assert report["loops"][0]["rounds"][-1]["bounds"][0]["measured"] < 0.8


def test_while_that_never_holds_does_nothing(tmp_path: Path) -> None:
    report = compiled(tmp_path, "prune(20%) while params <= 0.5x + fp16", check="none")
    assert [s["name"] for s in report["steps"]] == ["fp16"]
    assert "does not hold at the start" in report["loops"][0]["ended"]


def test_both_bounds_of_one_loop(tmp_path: Path) -> None:
    report = compiled(tmp_path, "prune(20%) until params <= 0.1x while params >= 0.5x", check="none")
    assert params(report) >= 0.5
    assert report["status"] == "done"  # `while` ended it, as was asked


# -- loops in recipes --------------------------------------------------------------------------------------------


def test_an_inner_loop_starts_anew_in_every_round(tmp_path: Path) -> None:
    recipe = "(prune(10%) times 2 while params >= 0.2x + prune(5%)) until params <= 0.3x + fp16"
    report = compiled(tmp_path, recipe, check="none")
    outer = next(x for x in report["loops"] if "until" in x["loop"])
    inner = [x for x in report["loops"] if "until" not in x["loop"]]
    assert len(inner) == outer["kept"] > 1
    assert params(report) <= 0.3
    assert report["steps"][-1]["name"] == "fp16"


def test_strengths_are_chosen_around_loops(tmp_path: Path) -> None:
    report = compiled(tmp_path, "prune + fp16 until size <= 2x where params <= 0.5x", check="none")
    assert report["trials"]
    assert params(report) <= 0.5
    assert [s["name"] for s in report["steps"]] == ["prune"]


def test_plans_show_the_rounds(tmp_path: Path) -> None:
    plans = mlc.plan(two_layers(tmp_path, width=WIDTH), "prune(20%) until params <= 0.5x")
    report = compiled(tmp_path, "prune(20%) until params <= 0.5x", check="none")
    assert [text for text, _ in plans] == [s["text"] for s in report["steps"]]


def test_a_loop_equals_its_rounds_written_out(tmp_path: Path) -> None:
    looped = mlc.compile(
        two_layers(tmp_path, width=WIDTH), "prune(20%, criterion=random) until params <= 0.5x", check="none"
    )
    times = looped.report["loops"][0]["kept"]
    written = mlc.compile(
        two_layers(tmp_path, width=WIDTH), f"prune(20%, criterion=random) times {times}", check="none"
    )
    for name, value in looped.module.constants.items():
        assert np.array_equal(value.constant.array(), written.module.constants[name].constant.array()), name


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("prune until params <= 0.5x until size <= 0.5x", "a second 'until' of one loop"),
        ("prune times 2 times 3 while params >= 0.5x", "a second 'times' of one loop"),
        ("prune times 1.5 until params <= 0.5x", "'times' wants a whole number"),
        ("prune until foo <= 0.5x", "unknown metric 'foo'"),
        ("(prune + int8) until params <= 0.5x", "must come after|comes after"),
    ],
)
def test_loops_that_make_no_sense(recipe: str, message: str) -> None:
    with pytest.raises(MlcError, match=message):
        Program.of(recipe)


def test_bounds_of_loops_must_be_measurable(tmp_path: Path) -> None:
    for recipe, settings_, message in (
        ("prune(20%) until acc_drop <= 1pp", {}, "needs labels"),
        ("prune(20%) while cosine >= 0.9", {"check": "fast"}, "not measured under --check fast"),
        ("prune(20%) while cosine >= 0.9", {"max_memory": 1}, "cannot be measured on this model"),
    ):
        with pytest.raises(MlcError, match=message):
            compiled(tmp_path, recipe, **settings_)


# -- against simulated measures ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Touch(Pass):
    """Says that it did something."""

    name: ClassVar[str] = "touch"
    effect: ClassVar[Effect] = LOSSY

    def plan(self, module: Module, ctx: Context) -> Plan:
        return Plan()

    def apply(self, rw: Rewriter, plan: Plan, ctx: Context) -> Sequence[Done]:
        return (Done("x", "a", "b"),)


@dataclass(frozen=True)
class Once(Touch):
    """The first time only."""

    name: ClassVar[str] = "once"

    def apply(self, rw: Rewriter, plan: Plan, ctx: Context) -> Sequence[Done]:
        return () if any(told.name == self.name for told in rw.module.history) else super().apply(rw, plan, ctx)


def test_what_a_step_names_may_be_used_up_after_the_first_round() -> None:
    """Whatever else the rounds do; the steps that are written out run again."""
    (repeat,) = Recipe.parse("fp16 times 3 while params >= 0.1x").steps
    assert isinstance(repeat, Repeat)
    named = PlannedStep(Once(), lambda _: Scope(on=frozenset({"x"})))

    def rounds(*steps: PlannedStep) -> tuple[PlannedStep, ...]:
        judged = partial(judge, facts={"params": Measured(1.0, 1.0)})
        return unroll((Loop(steps, repeat),), Net().done(), Context(), lambda _, limits: judged(limits)).steps

    made = rounds(named, PlannedStep(Touch()))
    assert [step.name for step in made] == ["once", "touch"] * 3
    reports = run_steps(made, Net().done(), Context())
    assert [told.changed for told in reports] == [True, True, False, True, False, True]
    with pytest.raises(MlcError, match="can change nothing"):
        rounds(PlannedStep(Once()), named)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 1), st.sampled_from(["until", "while"]))
def test_loops_end_where_the_bound_says(values: list[float], bound: float, word: str) -> None:
    """Whatever is measured after each round: the rounds that are kept are those before the bound ends the loop."""
    (repeat,) = Recipe.parse(f"fp16 {word} params {'<=' if word == 'until' else '>='} {bound:.6f}x").steps
    assert isinstance(repeat, Repeat)
    (limit,) = repeat.limits
    series = [*values, *[values[-1]] * MAX_ROUNDS][: MAX_ROUNDS + 1]
    measured = iter(series)
    found = unroll(
        (Loop((PlannedStep(Touch()),), repeat),),
        Net().done(),
        Context(),
        lambda _, limits: judge(limits, {"params": Measured(next(measured), 1.0)}),
    )
    over = [x <= limit.value if word == "until" else x < limit.value for x in series]
    ended = over.index(True) if True in over else None
    rounds = MAX_ROUNDS if ended is None else ended if word == "until" else max(ended - 1, 0)
    assert len(found.steps) == rounds
    assert found.loops[0].missed is (ended is None and word == "until")
    assert ("that is the limit" in found.loops[0].ended) is (ended is None)
