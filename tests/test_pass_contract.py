"""The contract of passes: options, scopes, reports, order, the registry, instruments, strength."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.dsl.describe import list_passes
from mlc.dsl.syntax import KEYWORDS
from mlc.ir.core import Graph, Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.rewrite import Rewriter
from mlc.ir.types import tensor
from mlc.passes import registry
from mlc.passes.base import (
    EXACT,
    LOSSY,
    Context,
    Done,
    Effect,
    Need,
    Pass,
    Plan,
    Scope,
    SkipCode,
    Skipped,
    option,
    plain,
)
from mlc.passes.pipeline import PlannedStep, check_order, run
from mlc.passes.strength import EVALUATIONS, largest, smallest


@dataclass(frozen=True)
class ScalePlan(Plan):
    constants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale(Pass):
    """Multiplies every constant by `factor`."""

    name: ClassVar[str] = "scale"
    effect: ClassVar[Effect] = LOSSY
    factor: float = option(2.0, unit="number", low=0.5, high=4.0, doc="the factor", positional=True)
    mode: str = option("all", unit="name", choices=("all", "none"), doc="which")
    ratio: float | None = option(None, unit="ratio", low=0.0, high=1.0, doc="free")

    def plan(self, module: Module, ctx: Context) -> ScalePlan:
        return ScalePlan(constants=tuple(module.constants) if self.mode == "all" else ())

    def apply(self, rw: Rewriter, plan: ScalePlan, ctx: Context) -> Sequence[Done]:
        for name in plan.constants:
            old = rw.module.constants[name]
            assert old.constant is not None
            new = rw.constant((old.constant.array() * self.factor).astype(np.float32), f"{name}_scaled")
            rw.replace_uses(old, new)
        return [Done(name, "1", f"{self.factor:g}") for name in plan.constants]


@dataclass(frozen=True)
class Late(Scale):
    name: ClassVar[str] = "late"
    after: ClassVar[tuple[str, ...]] = ("scale",)


@dataclass(frozen=True)
class Hungry(Scale):
    name: ClassVar[str] = "hungry"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})


def module_with_weight() -> Module:
    x = Value(tensor(DType.F32, "N", 3), "x")
    module = Module(Graph("g", [x]), opset=21)
    rw = Rewriter(module)
    weight = rw.constant(np.ones((3, 2), np.float32), "w")
    product = rw.insert("MatMul", [x, weight], before=module.graph, names=["y"])
    module.graph._add_output(product.result, "y")
    return module


def test_a_pass_leaves_its_input_alone_and_reports() -> None:
    module = module_with_weight()
    twin = Scale(factor=3.0)(module)
    assert list(module.constants) == ["w"]
    assert module.history == []
    assert list(twin.constants) == ["w_scaled"]  # the old one is dropped: dead constants never stay
    assert twin.constants["w_scaled"].constant is not None
    assert float(twin.constants["w_scaled"].constant.array()[0, 0]) == 3.0
    (report,) = twin.history
    assert report.text == "scale(factor=3)"  # type: ignore[attr-defined]
    assert report.done == (Done("w", "1", "3"),)  # type: ignore[attr-defined]


def test_plans_are_equal_for_equal_inputs_and_are_json() -> None:
    module = module_with_weight()
    first, second = Scale().plan(module, Context()), Scale().plan(module.clone(), Context())
    assert first == second
    assert json.loads(json.dumps(first.to_json())) == {"skipped": [], "notes": [], "constants": ["w"]}
    with pytest.raises(TypeError, match="no place in a plan"):
        plain(object())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 9.0}, "'scale.factor' = 9 is out of range"),
        ({"factor": "big"}, "'scale.factor' wants number"),
        ({"factor": True}, "'scale.factor' wants number"),
        ({"mode": "some"}, "choose one of all, none"),
        ({"ratio": 1.5}, "'scale.ratio' = 150% is out of range"),
        ({"factor": float("nan")}, "'scale.factor' is not a number"),
    ],
)
def test_fields_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MlcError) as caught:
        Scale(**arguments)
    assert message in str(caught.value)


def test_free_fields_and_their_text() -> None:
    assert Scale().free == ("ratio",)
    assert Scale(ratio=0.25).free == ()
    assert str(Scale(ratio=0.25, mode="none")) == "scale(mode=none, ratio=25%)"
    assert str(Scale()) == "scale"


def test_order_is_checked_and_names_both_steps() -> None:
    check_order([Scale(), Late()])
    with pytest.raises(MlcError, match=r"'scale' comes after 'late'") as caught:
        check_order([Late(), Scale()])
    assert "write scale before late" in str(caught.value)


def test_needs_are_checked_before_any_work() -> None:
    module = module_with_weight()
    with pytest.raises(MlcError, match="'hungry' needs calibration data"):
        run([PlannedStep(Scale()), PlannedStep(Hungry())], module, Context())
    assert list(module.constants) == ["w"], "nothing ran"


def test_scope() -> None:
    module = module_with_weight()
    (op,) = module.graph.ops
    assert Scope().allows(op)
    assert Scope(on=frozenset({op.name})).explicit
    assert not Scope(on=frozenset({"other"})).allows(op)
    assert not Scope(but=frozenset({op.name})).allows_group([op])


def test_rng_is_keyed_by_seed_step_and_tag() -> None:
    draw = Context(seed=1).rng("a").random()
    assert draw == Context(seed=1).rng("a").random()
    assert draw != Context(seed=2).rng("a").random()
    assert draw != Context(seed=1, step=1).rng("a").random()
    assert draw != Context(seed=1).rng("b").random()


def test_every_registered_pass_is_complete() -> None:
    for name in registry.names():
        found = registry.find(name)
        assert found.name == name
        assert found.__doc__
        assert not found.__doc__.startswith(f"{found.__name__}("), f"{name} has only the docstring of a dataclass"
        assert found.effect in (EXACT, LOSSY) or isinstance(found.effect, Effect)
        assert all(after in registry.names() for after in found.after), found.after
        for field in dataclasses.fields(found):
            assert field.metadata["doc"], f"{name}.{field.name} has no documentation"
            assert field.metadata["unit"]
            taken = KEYWORDS.intersection(c for c in field.metadata.get("choices") or () if isinstance(c, str))
            assert not taken, f"{name}.{field.name}={taken} cannot be written in a recipe"


def test_strength_is_found_by_bisection() -> None:
    strength, trials = largest(lambda s: s * s, lambda drift: drift <= 0.25)
    assert 0.49 <= strength <= 0.5
    assert len(trials) == 8
    assert largest(lambda s: 0.0, lambda drift: drift <= 0.01)[0] == 1.0
    assert largest(lambda s: 1.0, lambda drift: drift <= 0.01)[0] == 0.0
    reached, _ = smallest(lambda s: 1 - s, 0.3)
    assert reached is not None
    assert 0.7 <= reached <= 0.72
    assert smallest(lambda s: 1 - s, -0.1)[0] is None


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 99), min_size=65, max_size=65),
    st.integers(0, 99),
    st.lists(st.integers(0, 99), max_size=64),
)
def test_the_smallest_strength_is_the_one_that_bisection_finds(
    values: list[int], limit: int, estimates: list[int]
) -> None:
    """Whatever falls, and however wrong the estimate is: the same strength, measured, in not many more trials."""
    falling = sorted(values, reverse=True)
    guesses = sorted(estimates + [50] * (65 - len(estimates)), reverse=True)
    wanted = next((part / 64 for part, value in enumerate(falling) if value <= limit), None)
    for expected in (None, lambda s: guesses[round(s * 64)], lambda s: falling[round(s * 64)] + 5):
        found, trials = smallest(lambda s: falling[round(s * 64)], limit, expected=expected)
        assert found == wanted
        assert len(trials) == len({t.strength for t in trials}) <= EVALUATIONS
        assert found is None or any(t.strength == found and t.held for t in trials)
    assert len(trials) <= 3  # an estimate of the right shape
    if wanted:
        assert smallest(lambda s: falling[round(s * 64)], limit, above=max(wanted - 0.1, 1 / 64))[0] == wanted


def test_a_smooth_measure_takes_fewer_trials_than_bisection() -> None:
    counts = [len(smallest(lambda s: (1 - s) ** 2, 0.01 * i)[1]) for i in range(2, 99)]
    assert sum(counts) / len(counts) < 7.5
    closer = [
        len(smallest(lambda s: (1 - s) ** 2, 0.01 * i, expected=lambda s: 0.8 * (1 - s) ** 2)[1]) for i in range(2, 99)
    ]
    assert sum(closer) / len(closer) < 6


@dataclass(frozen=True)
class Careless(Scale):
    """Gives back what it should not; `mode` says which."""

    name: ClassVar[str] = "careless"
    what: str = option("plan", unit="name", choices=("plan", "nothing", "words", "idle", "late"), doc="the mistake")

    def plan(self, module: Module, ctx: Context) -> Any:
        return None if self.what == "plan" else ScalePlan()

    def apply(self, rw: Rewriter, plan: ScalePlan, ctx: Context) -> Any:
        late = Skipped("it", SkipCode.HURTS, "seen too late")
        return {"nothing": None, "words": ["done"], "idle": [], "late": [late]}[self.what]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("plan", "careless.plan returned NoneType, not a Plan"),
        ("nothing", "careless.apply returned NoneType, not a sequence of Done and Skipped"),
        ("words", "careless.apply returned str among what it did, not Done or Skipped"),
    ],
)
def test_a_pass_that_breaks_the_contract_is_named(what: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Careless(what=what)(module_with_weight())


def test_what_is_only_skipped_while_a_plan_is_carried_out_is_told() -> None:
    module = module_with_weight()
    report = Careless(what="late")(module).history[-1]
    assert not report.changed  # type: ignore[attr-defined]
    assert [s.why for s in report.skipped] == ["seen too late"]  # type: ignore[attr-defined]
    (op,) = module.graph.ops
    here = Scope(on=frozenset({op.name}), text="on here")
    with pytest.raises(MlcError, match="seen too late"):
        Careless(what="late")(module, Context(scope=here))


def test_a_lossy_step_that_cannot_serve_its_selector_is_an_error() -> None:
    module = module_with_weight()
    (op,) = module.graph.ops
    assert Careless(what="idle")(module).history[-1].done == ()  # type: ignore[attr-defined]
    with pytest.raises(MlcError, match="'careless' can change nothing of what 'on here' names"):
        Careless(what="idle")(module, Context(scope=Scope(on=frozenset({op.name}), text="on here")))


@dataclass(frozen=True)
class Unmade(Scale):
    """A field that is not made by `option`."""

    name: ClassVar[str] = "unmade"
    extra: int = 3


def test_a_field_without_option_is_named() -> None:
    with pytest.raises(TypeError, match=r"the field 'extra' of pass 'unmade' is not made by option"):
        Unmade()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Registers entry points as an installed package would."""

    def register(name: str, value: str) -> None:
        found = [EntryPoint(name, value, "mlc.passes")]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)
        registry._entries.cache_clear()

    yield register
    monkeypatch.undo()
    registry._entries.cache_clear()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("scale", "no.such.module:Scale", "importing it fails: ModuleNotFoundError"),
        ("scale", f"{__name__}:Nothing", "importing it fails: AttributeError"),
        ("scale", f"{__name__}:ScalePlan", "not a subclass of mlc.Pass"),
        ("scales", f"{__name__}:Scale", "both names must be equal"),
        ("unmade", f"{__name__}:Unmade", "its field 'extra' is not made by option"),
    ],
)
def test_an_installed_pass_that_cannot_be_used_is_named(
    name: str, value: str, why: str, installed: Callable[[str, str], None]
) -> None:
    installed(name, value)
    with pytest.raises(MlcError, match=why) as caught:
        registry.find(name)
    assert value in str(caught.value)
    assert any(line.startswith("int4") for line in list_passes()), "the others are still listed"
    assert any("unusable" in line for line in list_passes())


def test_an_installed_pass_works_and_cannot_shadow_ours(installed: Callable[[str, str], None]) -> None:
    installed("scale", f"{__name__}:Scale")
    assert registry.find("scale") is Scale
    installed("int4", f"{__name__}:Scale")
    with pytest.raises(MlcError, match="calls its pass 'int4'"):
        registry.names()
