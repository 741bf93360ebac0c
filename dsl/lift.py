"""From lark's tree to syntax nodes: one function a grammar rule, one table a family of nodes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from lark import Token, Tree

from ..ir.errors import Code, Diagnostic, Span
from . import syntax as ast

_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(.*)")
_EXACT = 10**18  # whole numbers below this are integers, however they were spelled
_T = Tree[Token]


class Lift:
    """Builds the syntax of one text; numbers that are too large are collected as diagnostics."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.diagnostics: list[Diagnostic] = []

    def span(self, part: _T | Token) -> Span:
        where = part if isinstance(part, Token) else part.meta
        if isinstance(part, Tree) and part.meta.empty:
            return Span(self.text, self.name, 0, 0)
        return Span(self.text, self.name, where.start_pos or 0, where.end_pos or 0)

    # ---- roots ----

    def program(self, tree: _T) -> ast.Program:
        body, goal = _trees(tree)[-2:]
        return ast.Program(self.expression(body), self.goal(goal), span=self.span(tree))

    def file(self, tree: _T) -> ast.File:
        return ast.File(tuple(_STATEMENTS[t.data](self, t) for t in _trees(tree)), span=self.span(tree))

    def goal(self, tree: _T) -> ast.Goal:
        bounds: tuple[ast.Bound, ...] = ()
        objective = search = None
        for part in _trees(tree):
            if part.data == "where":
                bounds = tuple(map(self.bound, _trees(part)))
            elif part.data == "search":
                search = self.call(_trees(part)[0])
            else:
                metric = _trees(part)[0]
                objective = ast.Objective(
                    str(part.data), _dotted(_trees(metric)[0]), _judge(metric), span=self.span(part)
                )
        return ast.Goal(bounds, objective, search, span=self.span(tree))

    # ---- leaves ----

    def number(self, token: Token) -> ast.Number:
        found = _NUMBER.match(token)
        assert found is not None
        value = float(found[1])
        if not math.isfinite(value):
            self.diagnostics.append(
                Diagnostic(Code.SYNTAX, "this number is too large", self.span(token), help="the limit is 1e308")
            )
            value = 0.0
        if value == int(value) and abs(value) < _EXACT:
            digits = found[1].lstrip("-").isdigit() and len(found[1]) < len(str(_EXACT))
            return ast.Number(int(found[1]) if digits else int(value), found[2], span=self.span(token))
        return ast.Number(value, found[2], span=self.span(token))

    def bound(self, tree: _T) -> ast.Bound:
        metric = _trees(tree)[0]
        comparison, limit = _tokens(tree)[:2]
        return ast.Bound(
            _dotted(metric),
            str(comparison),
            self.number(limit),
            _judge(tree),
            span=self.span(tree),
            metric_span=self.span(metric),
        )

    # ---- expressions ----

    def expression(self, tree: _T) -> ast.Expr:
        return _EXPRESSIONS[tree.data](self, tree)

    def expressions(self, tree: _T) -> tuple[ast.Expr, ...]:
        return tuple(map(self.expression, _trees(tree)))

    def call(self, tree: _T) -> ast.Call:
        name, *arguments = _trees(tree)
        return ast.Call(
            _dotted(name),
            tuple(map(self.argument, arguments)),
            span=self.span(tree),
            name_span=self.span(name),
        )

    def argument(self, tree: _T) -> ast.Argument:
        if tree.data == "keyword":
            return ast.Argument(self.expression(_trees(tree)[0]), str(_tokens(tree)[0]), span=self.span(tree))
        value = _trees(tree)[0] if tree.data == "positional" else tree
        return ast.Argument(self.expression(value), span=self.span(tree))

    def range(self, tree: _T) -> ast.Range:
        low, high, *by = map(self.number, _tokens(tree))
        return ast.Range(low, high, by[0] if by else None, span=self.span(tree))

    def scoped(self, tree: _T) -> ast.Expr:
        body, *modifiers = _trees(tree)
        return ast.scoped(self.expression(body), [_MODIFIERS[m.data](self, m) for m in modifiers], span=self.span(tree))

    # ---- selectors ----

    def selector(self, tree: _T) -> ast.Selector:
        return _SELECTORS[tree.data](self, tree)

    def test(self, tree: _T) -> ast.Test:
        subject, comparison, value = _tokens(tree)
        right = self.number(value) if value.type == "NUMBER" else str(value)
        return ast.Test(str(subject), str(comparison), right, span=self.span(tree))

    def negation(self, tree: _T) -> ast.Selector:
        part = self.selector(_trees(tree)[0])
        return ast.negate(part, span=self.span(tree)) if len(_tokens(tree)) % 2 else part

    # ---- statements ----

    def use(self, tree: _T) -> ast.Use:
        path, *alias = _tokens(tree)
        return ast.Use(path[1:-1], str(alias[0]) if alias else None, span=self.span(tree))

    def binding(self, tree: _T) -> ast.Binding:
        name = _tokens(tree)[0]
        return ast.Binding(
            str(tree.data),
            str(name),
            self.expression(_trees(tree)[0]),
            span=self.span(tree),
            name_span=self.span(name),
        )

    def let(self, tree: _T) -> ast.Let:
        name, value = _tokens(tree)[0], _trees(tree)[0]
        bound = (
            ast.On(self.selector(_trees(value)[0]), span=self.span(value))
            if value.data == "scope"
            else self.expression(value)
        )
        return ast.Let(str(name), bound, span=self.span(tree), name_span=self.span(name))

    def define(self, tree: _T) -> ast.Define:
        name = _tokens(tree)[0]
        params = tuple(self.param(p) for t in _trees(tree) if t.data == "params" for p in _trees(t))
        return ast.Define(str(name), params, self.program(tree), span=self.span(tree), name_span=self.span(name))

    def param(self, tree: _T) -> ast.Param:
        parts = {str(t.data): t for t in _trees(tree)}
        kind = str(_tokens(parts["kind"])[0]) if "kind" in parts else None
        default = self.expression(_trees(parts["default"])[0]) if "default" in parts else None
        return ast.Param(str(_tokens(tree)[0]), kind, default, span=self.span(tree))

    def compile(self, tree: _T) -> ast.Compile:
        source, recipe, *targets = _trees(tree)
        names = tuple(map(str, _tokens(targets[0]))) if targets else ()
        return ast.Compile(self.expression(source), self.expression(recipe), names, span=self.span(tree))


def _trees(tree: _T) -> list[_T]:
    return [child for child in tree.children if isinstance(child, Tree)]


def _tokens(tree: _T) -> list[Token]:
    return [child for child in tree.children if isinstance(child, Token)]


def _dotted(tree: _T) -> str:
    return ".".join(_tokens(tree))


def _judge(tree: _T) -> str | None:
    found = [str(_tokens(t)[0]) for t in _trees(tree) if t.data == "judge"]
    return found[0] if found else None


_EXPRESSIONS: dict[str, Callable[[Lift, _T], ast.Expr]] = {
    "choice": lambda x, t: ast.choice(x.expressions(t), span=x.span(t)),
    "chain": lambda x, t: ast.chain(x.expressions(t), span=x.span(t)),
    "scoped": Lift.scoped,
    "call": Lift.call,
    "shorthand": Lift.call,
    "ref": lambda x, t: ast.Ref(_dotted(_trees(t)[0]), span=x.span(t)),
    "word": lambda x, t: ast.Ref(str(_tokens(t)[0]), span=x.span(t)),
    "range": Lift.range,
    "number": lambda x, t: x.number(_tokens(t)[0]),
    "string": lambda x, t: ast.String(_tokens(t)[0][1:-1], span=x.span(t)),
    "true": lambda x, t: ast.Flag(True, span=x.span(t)),
    "false": lambda x, t: ast.Flag(False, span=x.span(t)),
    "none": lambda x, t: ast.Flag(None, span=x.span(t)),
    "list": lambda x, t: ast.ListOf(x.expressions(t), span=x.span(t)),
    "oneof": lambda x, t: ast.OneOf(x.expressions(t), span=x.span(t)),
}

_MODIFIERS: dict[str, Callable[[Lift, _T], ast.Modifier]] = {
    "on": lambda x, t: ast.On(x.selector(_trees(t)[0]), span=x.span(t)),
    "but": lambda x, t: ast.Except(x.selector(_trees(t)[0]), span=x.span(t)),
    "times": lambda x, t: ast.Times(x.number(_tokens(t)[0]), span=x.span(t)),
    "until": lambda x, t: ast.Until(x.bound(_trees(t)[0]), span=x.span(t)),
    "while": lambda x, t: ast.While(x.bound(_trees(t)[0]), span=x.span(t)),
}

_SELECTORS: dict[str, Callable[[Lift, _T], ast.Selector]] = {
    "anyof": lambda x, t: ast.any_of(map(x.selector, _trees(t)), span=x.span(t)),
    "allof": lambda x, t: ast.all_of(map(x.selector, _trees(t)), span=x.span(t)),
    "negation": Lift.negation,
    "glob": lambda x, t: ast.Glob(_tokens(t)[0][1:-1], span=x.span(t)),
    "regex": lambda x, t: ast.Regex(_tokens(t)[0][2:-1], span=x.span(t)),
    "test": Lift.test,
    "kindname": lambda x, t: ast.KindName(_dotted(_trees(t)[0]), span=x.span(t)),
}

_STATEMENTS: dict[str, Callable[[Lift, _T], ast.Statement]] = {
    "use": Lift.use,
    "model": Lift.binding,
    "data": Lift.binding,
    "target": Lift.binding,
    "optimizer": Lift.binding,
    "let": Lift.let,
    "recipe": Lift.define,
    "compile": Lift.compile,
}
