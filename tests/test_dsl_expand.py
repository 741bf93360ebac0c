"""Desugaring and building: what runs is what was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import assume, given, settings
from kit.recipes import PASSES, Int4, Prune, valid_bodies

from mlc.dsl import syntax as ast
from mlc.dsl.names import standard
from mlc.dsl.parser import parse
from mlc.dsl.print import to_text
from mlc.dsl.quantity import Quantity
from mlc.dsl.recipe import Recipe, build, check
from mlc.dsl.signature import Catalog, registered, signature_of
from mlc.ir.errors import Code, MlcError
from mlc.passes.base import option


def _expanded(text: str, choose: str | None = None) -> str:
    return to_text(check(text, choose=choose, catalog=PASSES).expanded)


def _texts(text: str) -> list[str]:
    return [step.text for step in Recipe.parse(text, catalog=PASSES).steps]


@settings(deadline=None)
@given(valid_bodies)
def test_desugaring_is_idempotent_and_stable(text: str) -> None:
    try:
        once = check(text, catalog=PASSES)
    except MlcError as e:
        assume(any(d.code is not Code.ORDER for d in e.diagnostics))  # int4 + prune in some random order
        raise
    again = check(to_text(once.expanded), catalog=PASSES)
    assert again.expanded == once.expanded
    assert to_text(again.expanded) == to_text(once.expanded)
    assert [s.text for s in build(again, catalog=PASSES).steps] == [s.text for s in build(once, catalog=PASSES).steps]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("prune:50%+int4", "prune(ratio=50%) + int4"),
        ("prune()", "prune"),
        ("prune(criterion=l2, ratio=25%)", "prune(ratio=25%, criterion=l2)"),
        ("w4a16(64)", "int4(block=64)"),
        ("w4a16 on Conv", "int4(block=32) on Conv"),
        (
            "(prune + int4) on A on B except C except D",
            "prune on A and B except C or D + int4 on A and B except C or D",
        ),
        ("(prune on A + int4) except C", "prune on A except C + int4 except C"),
        ("(prune + simplify) times 2", "prune + simplify + prune + simplify"),
        ("prune times 2 times 2 on A", "prune on A + prune on A + prune on A + prune on A"),
        ("prune on not (not A)", "prune on A"),
        ("(prune | simplify) on A", "prune on A | simplify on A"),
        ("prune times 3 until size <= 1x on A", "prune on A times 3 until size <= 1x"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert _expanded(text) == expanded


def test_files_expand_lets_parameters_and_goals() -> None:
    text = """
    let big = on MatMul and size > 16KiB
    let q = w4a16(128)
    let half = 50%
    recipe base(r = half, g = 64) = prune(r) on big + int4(g) except big or "head"
      where size <= 0.5x
    recipe main = base(r=30%) where sqnr >= 20dB
    recipe other = simplify + q
    """
    assert _expanded(text, "base") == (
        "prune(ratio=50%) on MatMul and size > 16KiB"
        ' + int4(block=64) except MatMul and size > 16KiB or "head" where size <= 0.5x'
    )
    assert _expanded(text, "main") == (
        "prune(ratio=30%) on MatMul and size > 16KiB"
        ' + int4(block=64) except MatMul and size > 16KiB or "head" where size <= 0.5x, sqnr >= 20dB'
    )
    assert _expanded(text, "other") == "simplify + int4(block=128)"


def test_parameters_stand_in_selectors_and_for_steps() -> None:
    """With their kinds; what a parameter is given is what is written there."""
    text = (
        "recipe cut(part: str, least: size, kind: name = MatMul, then: step = simplify) =\n"
        "  prune(50%) on part and size > least or kind + then except part\n"
        'recipe one = cut("enc.*", 1KiB)\nrecipe two = cut("a", kind=Conv, least=2KiB, then=int4 + int4(64))\n'
    )
    found = {name: _expanded(text, name).split(" + ") for name in ("one", "two")}
    assert found["one"] == ['prune(ratio=50%) on "enc.*" and size > 1KiB or MatMul', 'simplify except "enc.*"']
    assert found["two"] == [
        'prune(ratio=50%) on "a" and size > 2KiB or Conv', 'int4 except "a"', 'int4(block=64) except "a"'
    ]  # fmt: skip


def test_a_let_of_a_pipeline_takes_the_scope_of_its_use() -> None:
    text = "let q = prune(10%) + int4\nrecipe a = q on Conv + simplify"
    assert _expanded(text) == "prune(ratio=10%) on Conv + int4 on Conv + simplify"


def test_the_sole_runnable_recipe_is_the_default() -> None:
    text = "recipe inner(r) = prune(r)\nrecipe main = inner(20%)"
    assert _expanded(text) == "prune(ratio=20%)"
    with pytest.raises(MlcError, match="no recipe 'mian'"):
        check(text, choose="mian", catalog=PASSES)
    with pytest.raises(MlcError, match="one recipe without a name"):
        check("prune", choose="main", catalog=PASSES)


@pytest.mark.parametrize("steps", ["let a0 = prune", "recipe a0 = prune"])
def test_growth_without_end_is_refused(steps: str) -> None:
    doubling = [steps] + [f"{steps.split()[0]} a{i} = a{i - 1} + a{i - 1}" for i in range(1, 40)]
    deep = [steps] + [f"{steps.split()[0]} a{i} = a{i - 1}" for i in range(1, 2000)]
    for lines in (doubling, deep):
        with pytest.raises(MlcError, match="grows too large"):
            check("\n".join([*lines, f"recipe main = a{len(lines) - 1}"]), choose="main", catalog=PASSES)


def test_arguments_become_python_values() -> None:
    text = "simplify(rules='a, b', bn=true) + prune(50%) + prune(ratio=0.25) + prune(none)"
    text += " + nest([8, 4]) + int4(least=4KiB)"
    steps = Recipe.parse(text, catalog=PASSES).steps
    assert [dict(step.arguments) for step in steps] == [
        {"rules": "a, b", "bn": True},
        {"ratio": 0.5},
        {"ratio": 0.25},
        {"ratio": None},
        {"bits": (8, 4)},
        {"least": 4096},
    ]
    assert Prune(**steps[1].arguments) == Prune(ratio=0.5)
    assert Int4(**steps[5].arguments) == Int4(least=4096)


def test_steps_keep_scope_text_and_span() -> None:
    recipe = Recipe.parse('simplify + prune(50%) on "a" except Conv', catalog=PASSES)
    plain, scoped = recipe.steps
    assert plain.scope.everywhere
    assert scoped.scope.on == ast.Glob("a")
    assert scoped.scope.but == ast.KindName("Conv")
    assert scoped.text == 'prune(ratio=50%) on "a" except Conv'
    assert scoped.span is not None
    assert scoped.span.text[scoped.span.start : scoped.span.end] == "prune(50%)"
    assert recipe.explain() == '  simplify\n+ prune(ratio=50%) on "a" except Conv'


def test_bounds_are_in_base_units() -> None:
    text = (
        "prune where size <= 0.3x, latency.p50 < 8ms, agreement >= 99%, acc_drop <= 0.5pp, sqnr >= 20dB,\ncosine > 0.9"
    )
    limits = Recipe.parse(text, catalog=PASSES).limits
    assert [(x.metric, x.statistic, x.comparison, x.value, x.kind) for x in limits] == [
        ("size", "", "<=", 0.3, Quantity.FACTOR),
        ("latency", "p50", "<", 0.008, Quantity.TIME),
        ("agreement", "", ">=", 0.99, Quantity.RATIO),
        ("acc_drop", "", "<=", 0.005, Quantity.POINTS),
        ("sqnr", "", ">=", 20.0, Quantity.LEVEL),
        ("cosine", "", ">", 0.9, Quantity.NUMBER),
    ]
    assert [x.relative for x in limits] == [True, False, False, False, False, False]
    assert limits[0].text == "size <= 0.3x"
    assert limits[0].holds(0.3)
    assert not limits[0].holds(0.31)
    assert not limits[1].holds(0.008)
    (relative,) = Recipe.parse("prune where acc_drop <= 1%", catalog=PASSES).limits
    assert relative.relative


def test_what_cannot_run_yet_can_be_checked_and_explained() -> None:
    text = "prune({20%, 40%}) + (int4 | simplify) until sqnr >= 9dB minimize size search tpe(trials=9)"
    checked = check(text, catalog=PASSES)
    assert check(checked.explain(), catalog=PASSES).expanded == checked.expanded
    with pytest.raises(MlcError) as caught:
        build(checked, catalog=PASSES)
    assert {d.code for d in caught.value.diagnostics} == {Code.NOT_YET}
    assert len(caught.value.diagnostics) == 4


def test_associativity_through_the_whole_front_door() -> None:
    assert _texts("simplify + (prune + int4)") == _texts("(simplify + prune) + int4") == _texts("simplify+prune+int4")


def test_standard_recipes_fit_the_registered_passes() -> None:
    """Sugar is recipe text: each one must check and build against what is really there."""
    catalog = registered()
    for name in standard():
        recipe = Recipe.parse(name, catalog=catalog)
        assert recipe.steps
        assert all(step.name in catalog.names for step in recipe.steps)


def test_signatures_come_from_the_fields_of_a_pass() -> None:
    signature = signature_of(Int4)
    assert (signature.name, signature.after) == ("int4", ("prune",))
    block = signature.parameters["block"]
    assert (block.unit, block.low, block.high, block.positional, block.optional) == ("int", 16, 1024, True, True)
    assert signature_of(Prune).parameters["ratio"].nullable

    @dataclass(frozen=True)
    class NoUnit:
        name: ClassVar[str] = "nounit"
        size: int = 3

    class NoFields:
        name = "nofields"

    for bad in (NoUnit, NoFields):
        with pytest.raises(MlcError, match="cannot be used in recipes"):
            signature_of(bad)


def test_every_unit_of_a_pass_is_understood() -> None:
    """A unit that `option` accepts and the language does not would fail on first use: catch it here."""
    from typing import get_args

    from mlc.dsl.signature import UNITS
    from mlc.dsl.values import WANTS
    from mlc.ir.options import Unit

    assert set(get_args(Unit)) == set(UNITS) == set(WANTS)


def test_catalog_is_asked_only_for_what_the_recipe_names() -> None:
    asked: list[str] = []

    def find(name: str) -> object:
        asked.append(name)
        return PASSES.find(name)

    Recipe.parse("w4a16 + simplify", catalog=Catalog(PASSES.names, find))  # type: ignore[arg-type]
    assert set(asked) == {"int4", "simplify"}


def test_required_argument_of_option() -> None:
    @dataclass(frozen=True)
    class Needs:
        name: ClassVar[str] = "needs"
        text: str = option(unit="str", doc="some text", positional=True)

    catalog = Catalog.of([Needs])
    with pytest.raises(MlcError, match="needs the argument 'text'"):
        Recipe.parse("needs", catalog=catalog)
    assert Recipe.parse("needs('x')", catalog=catalog).steps[0].arguments == {"text": "x"}


def test_parse_is_pure_syntax() -> None:
    """Unknown names and units are for the checker: the parser keeps them."""
    assert to_text(parse("nothing(4bananas) on nowhere")) == "nothing(4bananas) on nowhere"
