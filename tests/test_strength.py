"""Free strengths under bounds on cost: bisection, noise, what is confirmed on the emitted file. No time is asserted."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.real import RealModel, real_models
from kit.two_layers import two_layers

import mlc
from mlc.cli import run
from mlc.dsl.build import Limit
from mlc.dsl.judge import Measured, Verdict, judge
from mlc.dsl.loops import Parts, flat
from mlc.dsl.program import Program
from mlc.dsl.strengths import SPARE, Choice, choose, distance, excess
from mlc.passes.strength import EVALUATIONS, largest


def ratio_of(steps: Parts) -> float:
    ratio = steps[0].action.ratio
    assert ratio is not None
    return ratio


# -- the search, against simulated models ------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(0.02, 1.2), st.floats(0.0, 0.1), st.integers(0, 99))
def test_the_strength_that_is_chosen_was_seen_to_hold(bound, noise, seed):
    """A model whose time falls with the ratio, measured with noise: whatever is chosen kept the bound, and some."""
    program = Program.of(f"prune where latency <= {bound:.4f}x")
    rng = np.random.default_rng(seed)
    seen: dict[float, float] = {}

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        time = (1 - ratio_of(steps)) * (1 + noise * rng.standard_normal())
        seen[ratio_of(steps)] = time
        return judge(limits, {"latency": Measured(time, 1.0)})

    def drift(_: Parts) -> float:
        raise AssertionError("nobody asks for it")

    choice = choose(program, verdicts=verdicts, drift=drift, can_run=True, samples=False)
    (limit,) = program.limits
    held_there = [t.trial.held for t in choice.trials]
    assert len(choice.trials) <= EVALUATIONS
    if not any(held_there) and choice.warnings:
        assert ratio_of(choice.steps) == 0
        return
    held = [ratio for ratio, time in seen.items() if time <= limit.value * (1 - SPARE)]
    chosen = ratio_of(choice.steps)
    if chosen in held:
        assert all(t.by == "bound" for t in choice.trials)
    else:
        assert chosen == pytest.approx(0.95), "nothing held: as strong as it gets"
        assert not any(held_there)
    if noise == 0 and chosen in held:
        assert chosen - max((r for r in seen if r not in held), default=0.0) <= 0.95 / 64 + 1e-9


def two_steps(hurts: tuple[float, float], bounds: str) -> Choice:
    """Two free steps that each halve the size at their strongest, and hurt differently: the second is `weights`."""
    program = Program.of(f"prune + weights([2, 4, 8]) where {bounds}")

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        first, second = (step.action for step in flat(steps))
        used = (first.ratio / 0.95, second.saving)
        size = (1 - 0.5 * used[0]) * (1 - 0.5 * used[1])
        return judge(limits, {
            "size": Measured(size, 1.0),
            "cosine": Measured(1 - sum(h * u for h, u in zip(hurts, used))),
        })  # fmt: skip

    return choose(program, verdicts=verdicts, drift=lambda _: 0.0, can_run=True, samples=True)


@pytest.mark.parametrize("gentle", [0, 1])
def test_the_step_that_hurts_less_takes_more(gentle: int) -> None:
    """One strength for both does not meet both bounds; half for the one that hurts, or none, does."""
    hurts = (0.01, 0.2) if gentle == 0 else (0.2, 0.01)
    choice = two_steps(hurts, "size <= 0.6x, cosine >= 0.97")
    assert all(v.holds for v in choice.trials[-1].verdicts)
    assert [x.limit.metric for x in choice.trials[-1].verdicts] == ["size", "cosine"]
    first, second = (step.action for step in flat(choice.steps))
    assert (first.ratio / 0.95 > second.saving) is (gentle == 0)
    easy = two_steps((0.01, 0.01), "size <= 0.6x, cosine >= 0.97")
    assert len(easy.trials) <= EVALUATIONS + 1  # one strength for both is tried first


#: What may be tried of two steps, of which one is free and one limits its harm: a strength, less harm, then twice more
#: strength for less harm.
MOST = EVALUATIONS + 1 + 8 + 2 * 9


def harmful(recipe: str, size: Callable[[float, float], float], loss: Callable[[float, float], float]) -> Choice:
    """`prune + int8`: size and lost cosine as functions of the part of its strength that prune takes, and of the damage
    that int8 may do."""
    program = Program.of(recipe)

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        first, second = (step.action for step in flat(steps))
        damage = 0.02 if second.damage is None else second.damage
        used = first.ratio / 0.95
        return judge(limits, {"size": Measured(size(used, damage), 1.0), "cosine": Measured(1 - loss(used, damage))})

    return choose(program, verdicts=verdicts, drift=lambda _: 0.0, can_run=True, samples=True)


@pytest.mark.parametrize(
    ("size", "loss"),
    [
        # int8 leaves a layer alone, which prune has to make up for
        (lambda u, d: (1 - u) * (0.25 if d > 0.015 else 0.5), lambda u, d: 0.02 * (d > 0.015) + 0.005 * u),
        # the harm that int8 may just do leaves prune nothing: it has to do less than that
        (lambda u, d: (1 - u) * (0.5 - 10 * d), lambda u, d: 0.8 * d + 0.01 * u),
    ],
)
def test_what_less_harm_costs_is_made_up_for_by_strength(
    size: Callable[[float, float], float], loss: Callable[[float, float], float]
) -> None:
    choice = harmful("prune + int8 where size <= 0.3x, cosine >= 0.99", size, loss)
    first, second = (step.action for step in flat(choice.steps))
    assert second.damage is not None
    assert first.ratio > 0
    assert size(first.ratio / 0.95, second.damage) <= 0.3
    assert loss(first.ratio / 0.95, second.damage) <= 0.01
    assert len(choice.trials) <= MOST


def test_what_no_strength_makes_up_for_ends_the_search() -> None:
    choice = harmful(
        "prune + int8 where size <= 0.3x, cosine >= 0.99",
        lambda u, d: (1 - 0.2 * u) * (0.25 if d > 0.015 else 0.5),
        lambda u, d: 0.02 * (d > 0.015),
    )
    assert len(choice.trials) <= EVALUATIONS + 1
    nearest = min((t for t in choice.trials if len(t.verdicts) == 2), key=lambda t: sum(map(distance, t.verdicts)))
    assert nearest.steps == " + ".join(str(step) for step in flat(choice.steps))


def test_what_is_out_of_reach_is_judged_with_the_least_harm() -> None:
    """int8 breaks the cosine by default, whatever is in front; with less harm one of the others may be."""
    program = Program.of("prune + weights([2, 4, 8]) + int8 where size <= 0.6x, cosine >= 0.97")

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        first, second, third = (step.action for step in flat(steps))
        used = (first.ratio / 0.95, second.saving)
        damage = 0.02 if third.damage is None else third.damage
        found = Measured(1 - 0.2 * used[0] - 0.01 * used[1] - 10 * damage)
        size = Measured((1 - 0.5 * used[0]) * (1 - 0.5 * used[1] ** 2), 1.0)
        return judge(limits, {"size": size, "cosine": found})

    choice = choose(program, verdicts=verdicts, drift=lambda _: 0.0, can_run=True, samples=True)
    assert all(v.holds for v in verdicts(choice.steps, program.limits))
    in_front = [t for t in choice.trials if "prune(ratio=0%)" in t.steps and "damage" not in t.steps]
    assert any(v.limit.metric == "size" and v.holds for t in in_front for v in t.verdicts), "given up too early"


def test_bounds_that_contradict_each_other_get_what_comes_nearest() -> None:
    choice = two_steps((0.3, 0.1), "size <= 0.6x, cosine >= 0.99")
    judged = [t for t in choice.trials if len(t.verdicts) == 2]
    assert len(judged) > 2
    assert not any(t.trial.held for t in judged)
    nearest = min(judged, key=lambda t: sum(map(distance, t.verdicts)))
    assert nearest.steps == " + ".join(str(step) for step in flat(choice.steps))
    assert max(v.measured for t in judged for v in t.verdicts if v.limit.metric == "cosine") == pytest.approx(
        next(v.measured for v in nearest.verdicts if v.limit.metric == "cosine")
    )


def test_bounds_that_clearly_contradict_each_other_end_the_search() -> None:
    """Neither step alone leaves enough of the quality: what else shares could do is not tried."""
    choice = two_steps((0.3, 0.1), "size <= 0.6x, cosine >= 0.99")
    assert len(choice.trials) <= EVALUATIONS + 3
    assert len({t.steps for t in choice.trials}) >= len(choice.trials) - 1  # alike: for costs, then for all
    one = one_step("int8 where cosine >= 0.99", 0.5, least=0.5)
    assert [t.trial.strength for t in one.trials] == [1.0, 0.0]


def test_what_was_judged_is_not_judged_again() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        asked.append((" + ".join(map(str, flat(steps))), tuple(x.metric for x in limits)))
        return judge(limits, {"size": Measured(0.5, 1.0), "cosine": Measured(0.9)})

    program = Program.of("prune + weights([2, 4, 8]) + int8 where size <= 0.6x, cosine >= 0.99")
    choice = choose(program, verdicts=verdicts, drift=lambda _: 0.0, can_run=True, samples=True)
    assert len(asked) == len(set(asked)) == len(choice.trials)


@pytest.mark.parametrize(("level", "most"), [(None, EVALUATIONS), (0.0, 3), (0.1, 3)])
def test_an_estimate_of_the_right_shape_saves_trials(level: float | None, most: int) -> None:
    program = Program.of("prune where size <= 0.4x")

    def size(steps: Parts) -> float:
        return (1 - ratio_of(steps)) ** 3

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        return judge(limits, {"size": Measured(size(steps), 1.0)})

    choice = choose(
        program,
        verdicts=verdicts,
        drift=lambda _: 0.0,
        can_run=True,
        samples=True,
        foreseen=None if level is None else lambda steps, limits: size(steps) - level,
    )
    assert len(choice.trials) <= most
    assert 0.4 - 0.04 <= size(choice.steps) <= 0.4


def one_step(recipe: str, cosine: float, size: float = 0.0, *, calibrates: bool = True, least: float = 0.0) -> Choice:
    """int8 whose cosine falls with the damage that it is allowed (`cosine` at 2 %, at most 1 - `least`), and whose file
    then shrinks."""
    program = Program.of(recipe)

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        (step,) = flat(steps)
        damage = 0.02 if step.action.damage is None else step.action.damage
        found = Measured(1 - max((1 - cosine) * damage / 0.02, least))
        return judge(limits, {"cosine": found, "size": Measured(1 - size * damage / 0.02, 1.0)})

    return choose(program, verdicts=verdicts, drift=lambda _: 0.0, can_run=True, samples=True, calibrates=calibrates)


def test_a_bound_on_quality_lowers_what_int8_may_cost() -> None:
    kept = one_step("int8 where cosine >= 0.99", 0.995)
    assert [str(s) for s in flat(kept.steps)] == ["int8"]
    assert len(kept.trials) == 1
    lowered = one_step("int8 where cosine >= 0.99", 0.97)
    (step,) = flat(lowered.steps)
    assert 0.004 <= step.action.damage <= 0.02 / 3
    assert lowered.trials[-1].verdicts[0].holds or any(t.verdicts[0].holds for t in lowered.trials)


@pytest.mark.parametrize(("bound", "loss"), [("0pp", 0.003), ("0pp", 0.0005), ("0.01pp", 0.004)])
def test_a_bound_of_nothing_is_approached(bound: str, loss: float) -> None:
    """A bound of 0 has no ratio to be missed by: the nearest is still the nearest, and of equals the gentlest."""
    program = Program.of(f"int8 where acc_drop <= {bound}")

    def verdicts(steps: Parts, limits: Sequence[Limit]) -> Sequence[Verdict]:
        (step,) = flat(steps)
        damage = 0.02 if step.action.damage is None else step.action.damage
        return judge(limits, {"acc_drop": Measured(loss + 0.05 * (damage > 0.001))})

    choice = choose(program, verdicts=verdicts, drift=lambda _: 0.0, can_run=True, samples=True)
    (step,) = flat(choice.steps)
    least = min(t.trial.strength for t in choice.trials)
    assert step.action.damage is not None
    assert step.action.damage <= 0.001
    assert least == 0
    assert len(choice.trials) > 2, "missed by little: what is between is tried"
    assert all(distance(v) < math.inf for t in choice.trials for v in t.verdicts)


def test_shares_that_make_the_same_file_are_not_made_again() -> None:
    """Damage that leaves a layer alone, or does not: two files, whatever the share."""
    tried: list[float] = []

    def measure(share: float) -> float:
        tried.append(share)
        return 0.02 if share > 0.7 else 0.001

    share, trials = largest(measure, lambda over: over <= 0.01, evaluations=8)
    assert share == 0.625
    assert tried == [1.0, 0.5, 0.75, 0.625]
    assert [t.strength for t in trials] == tried


def test_a_trial_holds_where_all_of_its_bounds_do() -> None:
    """Whatever of them the search looks at; the report tells what was moved."""
    choice = one_step("int8 where size <= 0.3x, cosine >= 0.99", 0.985, size=0.75)
    assert {t.moved for t in choice.trials} == {"damage"}
    two = harmful("prune + int8 where size <= 0.3x, cosine >= 0.99", lambda u, d: (1 - u) * (0.5 - 10 * d),
                  lambda u, d: 0.8 * d + 0.01 * u)  # fmt: skip
    assert [t.moved for t in two.trials if len(t.verdicts) == 1] == ["strength"] * len(
        [t for t in two.trials if len(t.verdicts) == 1]
    )
    for told in (t.to_json() for t in (*choice.trials, *two.trials)):
        assert told["held"] is all(b["holds"] for b in told["bounds"])


def test_without_data_nothing_knows_what_harm_it_does() -> None:
    choice = one_step("int8 where cosine >= 0.99", 0.97, calibrates=False)
    assert not choice.trials


def test_what_the_recipe_says_of_damage_stays() -> None:
    choice = one_step("int8(damage=5%) where cosine >= 0.99", 0.9)
    assert [str(s) for s in flat(choice.steps)] == ["int8(damage=5%)"]
    assert not choice.trials


def test_less_harm_does_not_silently_break_a_bound_on_cost() -> None:
    """Size and cosine contradict each other: the nearest is kept, judged by both."""
    choice = one_step("int8 where size <= 0.3x, cosine >= 0.99", 0.985, size=0.75)
    shares = {t.steps: [v.holds for v in t.verdicts] for t in choice.trials}
    assert not any(all(held) for held in shares.values())
    nearest = min(choice.trials, key=lambda t: sum(map(distance, t.verdicts)))
    assert nearest.steps == " + ".join(str(s) for s in flat(choice.steps))


def test_what_was_tried_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mlc"
    command = ["compile", str(two_layers(tmp_path)), "-r", "prune where params <= 0.0001x", "--check", "none"]
    assert run([*command, "-o", str(out)]) == 3
    told = capsys.readouterr().out
    assert "prune(ratio=95%)" in told
    assert "* missed" in told
    trials = json.loads((out / "report.json").read_text())["trials"]
    assert [t["strength"] for t in trials] == [0.0, 1.0]
    assert all([b["bound"] for b in t["bounds"]] == ["params <= 0.0001x"] for t in trials)
    assert all(b["found"] in told for t in trials for b in t["bounds"])


def test_latency_wants_something_to_spare():
    (limit,) = Program.of("prune where latency <= 8ms").limits
    for time, holds in ((0.0079, False), (0.0078, True), (0.0085, False)):
        assert (excess([Verdict(limit, time, time <= 0.008)]) <= 0) is holds
    size = dataclasses.replace(limit, metric="size", value=100.0)
    assert excess([Verdict(size, 100.0, True)]) == 0


def test_a_model_that_is_not_run_is_left_alone():
    def verdicts(_: Parts, __: Sequence[Limit]) -> Sequence[Verdict]:
        raise AssertionError("nothing can be measured")

    choice = choose(
        Program.of("prune where latency <= 0.5x"), verdicts=verdicts, drift=lambda _: 0.0, can_run=False, samples=False
    )
    assert choice.steps[0].action.ratio is None
    assert "nothing can judge them" in choice.warnings[0]


def test_a_bound_that_strength_does_not_help_costs_nothing(tmp_path: Path) -> None:
    """Zeros do not make a file smaller: the model is not emptied for it."""
    result = mlc.compile(
        two_layers(tmp_path), "prune(kind=unstructured) where size <= 0.5x", output=tmp_path / "out.mlc"
    )
    assert result.missed
    assert any("does not help" in w for w in result.report["warnings"])
    assert result.report["steps"][0]["done"] == []


def test_a_bound_that_strength_does_not_help_hides_not_one_that_it_does(tmp_path: Path) -> None:
    source = two_layers(tmp_path, width=512)
    result = mlc.compile(source, "weights([2, 4, 8]) where size <= 0.4x, flops <= 0.2x", check="fast", dims={"N": 1})
    size, flops = result.report["bounds"]
    assert size["holds"]
    assert size["measured"] > 0.15, "no more than the other bound asks for"
    assert flops["measured"] == pytest.approx(1.0)
    (told,) = [w for w in result.report["warnings"] if "does not help" in w]
    assert "flops <= 0.2x" in told
    both = mlc.compile(source, "weights([2, 4, 8]) where size <= 0.01x, flops <= 0.2x", check="fast", dims={"N": 1})
    assert both.report["bounds"][0]["measured"] < 0.2, "as near as it gets"


# -- from end to end ---------------------------------------------------------------------------------------------


def check_latency(report: dict, path: Path | None, missed: tuple) -> None:
    """The report's verdict is that of its own measurement of the emitted file."""
    (bound,) = report["bounds"]
    timing = report["measurements"]["latency"]
    upper = 1 / timing["low"]
    assert bound["measured"] == pytest.approx(upper)
    assert bound["holds"] == (bound["measured"] <= float(bound["bound"].split("<=")[1].strip().rstrip("x")))
    assert bool(missed) != bound["holds"]
    assert report["status"] == ("done" if bound["holds"] else "missed")
    assert path is not None
    assert (path / "model.onnx").is_file()
    assert 1 <= len(report["trials"]) <= EVALUATIONS


@pytest.mark.parametrize("bound", ["0.7x", "1000x", "0.0001x"])
def test_latency_is_bounded_through_strength(tmp_path: Path, bound: str) -> None:
    source, out = two_layers(tmp_path, width=2048), tmp_path / "out.mlc"
    result = mlc.compile(source, f"prune where latency <= {bound}", output=out)
    check_latency(result.report, result.path, result.missed)
    tried = result.report["trials"]
    step = result.report["steps"][0]
    if bound == "1000x":
        assert [t["strength"] for t in tried] == [0.0]
        assert step["after"]["params"] == step["before"]["params"]
    if bound == "0.0001x":
        assert [t["strength"] for t in tried] == [0.0, 1.0]
        assert result.missed
        assert step["after"]["params"] < 0.1 * step["before"]["params"]


def test_a_missed_latency_exits_3_and_saves_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mlc"
    code = run(["compile", str(two_layers(tmp_path)), "--recipe", "prune where latency <= 0.0001x", "-o", str(out)])
    assert code == 3
    assert (out / "model.onnx").is_file()
    assert "latency <= 0.0001x" in capsys.readouterr().err


@real_models("mnist_cnn")
@pytest.mark.parametrize("metric", ["flops", "params", "size"])
@pytest.mark.parametrize("recipe", ["prune", "prune(allocation=flops)"])
def test_bounds_on_real_models_are_met_with_little_to_spare(
    model: RealModel, metric: str, recipe: str, tmp_path: Path
) -> None:
    result = mlc.compile(model.path, f"{recipe} where {metric} <= 0.5x", output=tmp_path / "out.mlc")
    (bound,) = result.report["bounds"]
    assert bound["holds"]
    assert 0.25 < bound["measured"] <= 0.5


@real_models("mnist_cnn")
def test_latency_on_a_real_model(model: RealModel, tmp_path: Path) -> None:
    result = mlc.compile(model.path, "prune where latency <= 0.6x", output=tmp_path / "out.mlc")
    check_latency(result.report, result.path, result.missed)


@real_models("silero_vad_op15")
def test_int8_does_less_where_a_bound_asks_for_it(model: RealModel, tmp_path: Path) -> None:
    feeds = [model.feeds(seed) for seed in range(4)]
    np.savez(tmp_path / "data.npz", **{name: np.stack([f[name] for f in feeds]) for name in feeds[0]})
    options = {"data": tmp_path / "data.npz", "eval": tmp_path / "data.npz"}
    plain = mlc.compile(model.path, "smooth + int8", **options).report["checks"]["cosine"]
    wanted = 1 - (1 - plain) / 2
    result = mlc.compile(model.path, f"smooth + int8 where cosine >= {wanted:.6f}", **options)
    assert not result.missed
    assert result.report["checks"]["cosine"] >= wanted
    assert "damage=" in result.report["recipe"] or len(result.report["trials"]) > 1


# -- selectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "code"),
    [
        ('prune on "fc1" where size <= 0.8x', 0),
        ('prune on "fc1" where size <= 2x', 0),  # no strength is needed
        ('weights([2, 4, 8]) on "fc1" where size <= 0.9x', 0),
        ('prune(kind=unstructured) on "fc1" where size <= 0.5x', 3),
        ('weights([2, 4, 8]) on "act" where size <= 0.9x', 2),
        ('prune on "act" where size <= 2x', 2),
        ('prune + weights([2, 4, 8]) on "act" where size <= 0.5x', 2),
    ],
)
def test_what_a_selector_names_is_asked_of_full_strength(tmp_path: Path, recipe: str, code: int) -> None:
    """Trials that do nothing of it are trials; that no strength does is the error."""
    source, out = two_layers(tmp_path, width=512), tmp_path / "out.mlc"
    assert run(["compile", str(source), "-r", recipe, "-o", str(out), "--check", "fast"]) == code
    assert run(["plan", str(source), "-r", recipe]) == (code if code == 2 else 0)
    assert out.exists() is (code != 2)
