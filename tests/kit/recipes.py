"""For tests of the recipe language: fixture passes, and random recipes in normal form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hypothesis import strategies as st

from mlc.dsl import syntax as ast
from mlc.dsl.quantity import UNITS
from mlc.dsl.signature import Catalog
from mlc.passes.base import option

# ---- passes: the declarations are what the language sees; they are never run ----


@dataclass(frozen=True)
class Simplify:
    name: ClassVar[str] = "simplify"
    rules: str = option("all", unit="str", doc="rules to apply")
    bn: bool = option(False, unit="bool", doc="fold batch normalization")


@dataclass(frozen=True)
class Prune:
    name: ClassVar[str] = "prune"
    ratio: float | None = option(None, unit="ratio", doc="part of the units to remove", positional=True)
    criterion: str = option("l1", unit="name", doc="importance", choices=("l1", "l2", "taylor"))


@dataclass(frozen=True)
class Int4:
    name: ClassVar[str] = "int4"
    after: ClassVar[tuple[str, ...]] = ("prune",)
    block: int = option(32, unit="int", doc="elements that share a scale", low=16, high=1024, positional=True)
    least: int = option(1024, unit="size", doc="smallest weight to quantize")


@dataclass(frozen=True)
class Int8:
    name: ClassVar[str] = "int8"
    after: ClassVar[tuple[str, ...]] = ("prune",)
    data: str | None = option(None, unit="data", doc="calibration data")
    clip: float = option(3.0, unit="number", doc="clipping range in standard deviations", low=0.5)


@dataclass(frozen=True)
class Nest:
    name: ClassVar[str] = "nest"
    bits: tuple[int, ...] = option(unit="ints", doc="precisions of the artifact", low=2, high=8, positional=True)


PASSES = Catalog.of([Simplify, Prune, Int4, Int8, Nest])


# ---- random syntax, as the constructors of the normal form make it ----

_words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda w: w not in ast.KEYWORDS)
_dotted = st.lists(_words, min_size=1, max_size=3).map(".".join)
_strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12).filter(
    lambda s: not ('"' in s and "'" in s)
)
_values = st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False).map(
    lambda f: int(f) if f == int(f) and abs(f) < 10**18 else f
)
numbers = st.builds(ast.Number, _values, st.sampled_from(sorted(UNITS)))
_comparisons = st.sampled_from(ast.COMPARISONS)
bounds = st.builds(ast.Bound, _dotted, _comparisons, numbers, st.none() | _words)

selectors = st.recursive(
    st.builds(ast.Glob, _strings)
    | st.builds(ast.Regex, _strings)
    | st.builds(ast.KindName, _dotted)
    | st.builds(ast.Test, _words, _comparisons, numbers | _words),
    lambda inner: (
        inner.map(ast.negate)
        | st.lists(inner, min_size=2, max_size=3).map(ast.all_of)
        | st.lists(inner, min_size=2, max_size=3).map(ast.any_of)
    ),
    max_leaves=6,
)
_modifiers = (
    st.builds(ast.On, selectors)
    | st.builds(ast.Except, selectors)
    | st.builds(ast.Times, numbers)
    | st.builds(ast.Until, bounds)
    | st.builds(ast.While, bounds)
)


def _calls(values: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Call]:
    arguments = st.lists(st.builds(ast.Argument, values, st.none() | _words), max_size=3).map(tuple)
    return st.builds(ast.Call, _dotted, arguments)


expressions: st.SearchStrategy[ast.Expr] = st.recursive(
    numbers
    | st.builds(ast.String, _strings)
    | st.builds(ast.Flag, st.sampled_from([True, False, None]))
    | st.builds(ast.Ref, _dotted)
    | st.builds(ast.Range, numbers, numbers, st.none() | numbers),
    lambda inner: (
        _calls(inner)
        | st.lists(inner, max_size=3).map(lambda items: ast.ListOf(tuple(items)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda items: ast.OneOf(tuple(items)))
        | st.lists(inner, min_size=1, max_size=3).map(ast.chain)
        | st.lists(inner, min_size=1, max_size=3).map(ast.choice)
        | st.builds(ast.scoped, inner, st.lists(_modifiers, max_size=3))
    ),
    max_leaves=8,
)
_objectives = st.builds(ast.Objective, st.sampled_from(["minimize", "maximize"]), _dotted, st.none() | _words)
_goals = st.builds(
    ast.Goal, st.lists(bounds, max_size=2).map(tuple), st.none() | _objectives, st.none() | _calls(expressions)
)
programs = st.builds(ast.Program, expressions, _goals)
_params = st.builds(ast.Param, _words, st.none() | _words, st.none() | expressions)
_statements = (
    st.builds(ast.Use, _strings, st.none() | _words)
    | st.builds(ast.Binding, st.sampled_from(ast.BINDINGS), _words, expressions)
    | st.builds(ast.Let, _words, expressions | st.builds(ast.On, selectors))
    | st.builds(ast.Define, _words, st.lists(_params, max_size=2).map(tuple), programs)
    | st.builds(ast.Compile, expressions, expressions, st.lists(_words, max_size=2).map(tuple))
)
files = st.lists(_statements, max_size=4).map(lambda found: ast.File(tuple(found)))


# ---- random recipes that the fixture passes accept ----

_steps = st.sampled_from([
    "simplify", "prune", "prune(50%)", "prune(criterion=l2, ratio=25%)", "int4", "int4(64)", "nest([8, 4])", "w4a16",
    "w4a16(block=128)", "int8(clip=2.5)", "prune:30%",
])  # fmt: skip
_scopes = st.sampled_from(
    ["", ' on "layers.*"', " except Conv", ' on MatMul or size > 64KiB except not "head"', " times 2"]
)


def _combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    joined = st.lists(inner, min_size=2, max_size=3).map(" + ".join)
    return st.builds("({}){}".format, joined, _scopes) | joined


valid_bodies = st.recursive(st.builds("{}{}".format, _steps, _scopes), _combine, max_leaves=6)
