"""Selectors: what matches, what never matches, and what is said when nothing does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import recipes
from kit.recipes import PASSES
from kit.two_layers import two_layers

import mlc
from mlc.dsl import syntax as ast
from mlc.dsl.build import Step
from mlc.dsl.parser import parse
from mlc.dsl.recipe import Recipe
from mlc.dsl.scopes import check_parts, resolve, select
from mlc.dsl.selectors import check_selector, predicate
from mlc.dsl.sites import OpSite
from mlc.ir.core import Loc, Op
from mlc.ir.errors import Code, MlcError
from mlc.ir.patterns import glob_regex, normal


@dataclass(frozen=True)
class Place:
    """A site made by hand."""

    names: tuple[str, ...]
    kind: str = "Conv"
    properties: Mapping[str, float | str] = field(default_factory=dict)


def _selector(text: str) -> ast.Selector:
    scoped = parse(f"step on {text}").body
    assert isinstance(scoped, ast.Scoped)
    (on,) = scoped.modifiers
    assert isinstance(on, ast.On)
    return on.selector


def _step(text: str) -> Step:
    (step,) = Recipe.parse(text, catalog=PASSES).steps
    return step


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (
            "layers.1",
            "layers.1 layers/1 /layers.1/weight layers.1.conv.bias",
            "layers.10 layers.11.w layer.1 x.layers.1",
        ),
        ("/layers/1", "layers.1 /layers/1/w", "layers.10"),
        ("layers.*.weight", "layers.1.weight layers/22/weight /layers.1/weight/q", "layers.1.bias layers.1.a.weight"),
        ("layers.1*", "layers.1 layers.10 layers.1x.w", "layers.2"),
        ("*.weight", "conv.weight", "a.b.weight weight"),
        ("**.weight", "weight conv.weight a.b.c.weight a.weight.q", "conv.weights weighty"),
        ("enc.**.w", "enc.w enc.1.w enc.1.2.w", "dec.w enc.1.x"),
        ("enc.**", "enc.1 enc.1.2", "enc encoder.1"),
        ("head.*", "head.fc head.fc.weight", "head header.fc"),
        ("**conv**", "a.preconv2.b conv", "a.b"),
        ("a+b(c)[d]", "a+b(c)[d]", "aab"),
        ("onnx::MatMul_1", "onnx::MatMul_1", "onnx::MatMul_12"),
    ],
)
def test_globs(pattern: str, yes: str, no: str) -> None:
    test = predicate(ast.Glob(pattern))
    for name in yes.split():
        assert test(Place((name,))), name
    for name in no.split():
        assert not test(Place((name,))), name


_segment = st.text("abc1_", min_size=1, max_size=3)
_names = st.lists(_segment, min_size=1, max_size=5)


@settings(deadline=None)
@given(_names, st.lists(st.sampled_from("./"), min_size=5, max_size=5), st.integers(1, 5))
def test_a_prefix_selects_its_subtree_whatever_the_separators(parts: list[str], marks: list[str], keep: int) -> None:
    name = "".join(part + mark for part, mark in zip(parts, marks)).rstrip("./")
    assert predicate(ast.Glob(".".join(parts[:keep])))(Place((name,)))
    longer = [*parts[: keep - 1], parts[min(keep, len(parts)) - 1] + "0"]
    assert not predicate(ast.Glob(".".join(longer)))(Place((name,)))


@settings(deadline=None)
@given(_names, st.lists(_segment | st.sampled_from(["*", "**"]), min_size=1, max_size=4))
def test_globs_agree_with_matching_segment_by_segment(parts: list[str], pattern: list[str]) -> None:
    def matches(want: list[str], have: list[str]) -> bool:
        if not want:
            return True  # a prefix is enough
        if want[0] == "**":
            if len(want) == 1:
                return bool(have)
            return any(matches(want[1:], have[i:]) for i in range(len(have) + 1))
        return bool(have) and want[0] in ("*", have[0]) and matches(want[1:], have[1:])

    found = glob_regex(".".join(pattern)).match(normal("/".join(parts)))
    assert bool(found) == matches(pattern, parts)


CONV = Place(("enc.conv", "enc.conv.weight"), "Conv", {"size": 4096, "bits": 32, "rank": 4, "dtype": "f32"})
GEMM = Place(("head.fc",), "Gemm", {"size": 100, "bits": 16, "rank": 2, "dtype": "f16"})
GELU = Place(("act",), "com.microsoft.Gelu")
SITES = (CONV, GEMM, GELU)


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("Conv", [CONV]),
        ("Conv or Gemm", [CONV, GEMM]),
        ("not Conv", [GEMM, GELU]),
        ("Gelu", [GELU]),
        ("com.microsoft.Gelu", [GELU]),
        ('"enc.conv.weight"', [CONV]),
        ('~"^(enc|head)\\."', [CONV, GEMM]),
        ("size >= 4KiB", [CONV]),
        ("size < 4KiB", [GEMM]),
        ("not size < 4KiB", [CONV, GELU]),
        ("rank == 2 or rank > 3", [CONV, GEMM]),
        ("dtype == float16", [GEMM]),
        ("dtype != f16", [CONV]),
        ('Conv and "enc" or Gelu', [CONV, GELU]),
        ('Conv and ("head" or size > 1KiB)', [CONV]),
    ],
)
def test_selection(text: str, matched: list[Place]) -> None:
    selector = _selector(text)
    assert check_selector(selector) == []
    assert list(select(selector, SITES)) == matched


@settings(deadline=None)
@given(recipes.selectors)
def test_checked_selectors_never_fail_on_a_site(selector: ast.Selector) -> None:
    if not check_selector(selector) and not any(
        isinstance(n, ast.Number) and n.unit not in ("", "KiB") for n in ast.walk(selector)
    ):
        assert [predicate(selector)(site) in (True, False) for site in SITES]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"enc.conf"', r"nearest names are enc\.conv"),
        ('"conv"', r'"\*\*\.conv" would match 1 of 3 operators'),
        ('"CONV"', "upper and lower case ignored, it would match 1 of 3"),
        ('~"^ENC"', r'~"\(\?i\)\^ENC" would match 1 of 3'),
        ("Conf", "did you mean 'Conv'"),
        ("LSTM", "the model has Conv, Gemm, com.microsoft.Gelu"),
        ("size > 1MiB", "'size' goes from 100 to 4096"),
        ("macs > 5", "no operator has the property 'macs'"),
        ("dtype == int8", "'dtype' is f16, f32"),
        ("Conv and rank == 2", "Conv alone matches 1; rank == 2 alone matches 1"),
        ('Conv and "hed"', 'nothing matches "hed"'),
    ],
)
def test_no_match_says_what_is_near(text: str, said: str) -> None:
    with pytest.raises(MlcError) as caught:
        select(_selector(text), SITES)
    assert {d.code for d in caught.value.diagnostics} == {Code.NO_MATCH}
    assert re.search(said, str(caught.value))
    assert "-->" in str(caught.value)


def test_both_parts_that_match_nothing_are_reported() -> None:
    with pytest.raises(MlcError) as caught:
        select(_selector('"x.y" or LSTM'), SITES)
    assert len(caught.value.diagnostics) == 2


def test_scopes_resolve_to_names() -> None:
    scope = resolve(_step('prune on Conv or Gemm except "head"'), SITES)
    assert scope.on == {"enc.conv", "head.fc"}
    assert scope.but == {"head.fc"}
    assert scope.text == 'on Conv or Gemm except "head"'
    assert resolve(_step("prune"), SITES).on is None
    for miss in ('prune on "x"', 'prune except "x"'):
        with pytest.raises(MlcError, match="nothing matches"):
            resolve(_step(miss), SITES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('prune on Conv or "hed"', 'nothing matches "hed"'),
        ("prune on (Conv or Gem) and size > 1B", "did you mean 'Gemm'"),
        ('prune on Conv and not "hed"', 'nothing matches "hed"'),
        ("prune except Conv or LSTM", "nothing matches LSTM"),
    ],
)
def test_a_part_that_matches_nothing_is_told_before_any_work(text: str, said: str) -> None:
    """The rest of the selector matches something: without this the typo would be silent."""
    step = _step(text)
    assert resolve(step, SITES)  # as it is in the middle of a recipe, where earlier steps may have used it up
    with pytest.raises(MlcError) as caught:
        check_parts(step, SITES)
    assert [d.code for d in caught.value.diagnostics] == [Code.NO_MATCH]
    assert said in str(caught.value)


def test_a_compilation_checks_the_parts(tmp_path: Path) -> None:
    with pytest.raises(MlcError, match='nothing matches "fc3"'):
        mlc.compile(two_layers(tmp_path), 'int4 on "fc1" or "fc3"')
    assert mlc.compile(two_layers(tmp_path), 'int4 on "fc1" or "fc2"', check="none").report["steps"][0]["done"]


def test_nodes_without_a_name_can_be_selected() -> None:
    """Many exporters leave node names empty: such a node goes by the name of its first output."""
    unnamed = Op("Conv", loc=Loc("conv_out"))
    other = Op("Gemm", loc=Loc("gemm_out"))
    for text in ("prune on Conv", 'prune on "conv_out"', "prune except Gemm"):
        scope = resolve(_step(text), map(OpSite, (unnamed, other)))
        assert scope.allows(unnamed), text
        assert not scope.allows(other), text


def test_kinds_of_other_domains() -> None:
    site = OpSite(Op("com.microsoft::MatMulNBits", name="q"))
    for text in ("MatMulNBits", "com.microsoft.MatMulNBits"):
        assert select(_selector(text), [site]) == (site,)
