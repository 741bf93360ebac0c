"""Desugaring: names become what they stand for, until only passes are left.

The result is the recipe in its canonical, expanded form, which `mlc explain` prints: recipes and lets are
replaced by their bodies, positional arguments get their names and the order of the signature, scopes of chains
move to their steps, and `times` is written out. Expanding twice changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..ir.errors import Code, Diagnostic, Span
from . import syntax as ast
from .kinds import fill, misfits
from .names import STANDARD, Names
from .print import expression
from .signature import Catalog, Signature
from .values import MisfitError, near

MAX_STEPS = 1_000  # that one `times` may write out
MAX_DEPTH = 100  # of definitions and brackets in each other
MAX_WORK = 50_000  # nodes that all expansions of one text may visit
_Env = Mapping[str, ast.Expr]
_NOTHING: _Env = {}
_N = TypeVar("_N", bound=ast.Node)


@dataclass(frozen=True, slots=True)
class Expanded:
    """An expanded program, the mistakes found on the way, and names that could not be expanded because of them."""

    program: ast.Program
    diagnostics: tuple[Diagnostic, ...]
    failed: frozenset[str]


@dataclass(slots=True)
class Budget:
    """The work that is left for the expansions of one text."""

    left: int = MAX_WORK

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise _TooLargeError


def expand(program: ast.Program, names: Names, catalog: Catalog) -> Expanded:
    """Expand a recipe; parameters that are unbound stay as names."""
    worker = _Expander(names, catalog, Budget())
    result = worker.program(program, _NOTHING)
    return Expanded(result, tuple(worker.diagnostics), frozenset(worker.failed))


def expand_definition(recipe: ast.Define, names: Names, catalog: Catalog, budget: Budget) -> Expanded:
    """Expand the body of a recipe of a file, parameters standing for their defaults."""
    worker = _Expander(names, catalog, budget)
    worker.unbound = frozenset(p.name for p in recipe.params if p.default is None)
    with worker.inside(recipe.name, recipe.name_span):
        defaults = {p.name: p.default for p in recipe.params if p.default is not None}
        worker.check_kinds(recipe, {name: worker.value(value, _NOTHING) for name, value in defaults.items()})
        result = worker.program(recipe.program, defaults)
    return Expanded(result, tuple(worker.diagnostics), frozenset(worker.failed))


class _TooLargeError(Exception):
    """Raised and caught inside this module, to leave an expansion that grows without end."""


class _Expander:
    def __init__(self, names: Names, catalog: Catalog, budget: Budget) -> None:
        self.names = names
        self.catalog = catalog
        self.diagnostics: list[Diagnostic] = []
        self.failed: set[str] = set()
        self.stack: list[str] = []
        self.depth = 0
        self.budget = budget
        self.unbound: frozenset[str] = frozenset()  # parameters without a value: whatever else has their name

    # ---- programs ----

    def program(self, program: ast.Program, given: _Env) -> ast.Program:
        try:
            env = {name: self.value(value, _NOTHING) for name, value in given.items()}
            body, inner = self.root(program.body, env)
            goal = self.goal(program.goal, env)
        except _TooLargeError:
            self.complain(
                Code.OUT_OF_RANGE,
                "the recipe grows too large when its names are written out",
                program.body.span,
                help=f"at most {MAX_WORK} parts and {MAX_DEPTH} levels",
            )
            return program
        return ast.Program(body, self.merged(inner, goal), span=program.span)

    def root(self, node: ast.Expr, env: _Env) -> tuple[ast.Expr, ast.Goal]:
        """The whole body; if it is the call of one recipe, that recipe's goal comes with it."""
        call = node if isinstance(node, ast.Call) else ast.Call(_ref_name(node), span=node.span)
        recipe = self.names.recipes.get(call.name)
        if recipe is None or call.name in env:
            return self.step(node, env), ast.Goal()
        with self.deeper(), self.inside(recipe.name, call.span) as entered:
            if not entered:
                return node, ast.Goal()
            inner = self.bind(recipe, call, env)
            body, goal = self.root(recipe.program.body, inner)
            body = shown_at(body, call.span) if _is_standard(recipe) else body
            return body, self.merged(goal, self.goal(recipe.program.goal, inner))

    def goal(self, goal: ast.Goal, env: _Env) -> ast.Goal:
        if goal.search is None:
            return goal
        return dataclasses.replace(goal, search=self.arguments(goal.search, env, None))

    def merged(self, inner: ast.Goal, outer: ast.Goal) -> ast.Goal:
        for part in ("objective", "search"):
            if getattr(inner, part) is not None and getattr(outer, part) is not None:
                span = getattr(outer, part).span
                message = f"the recipe that is used has its own {part} already"
                self.complain(Code.DUPLICATE, message, span, help="keep one of them")
        return ast.Goal(
            inner.bounds + outer.bounds,
            outer.objective or inner.objective,
            outer.search or inner.search,
            span=outer.span,
        )

    # ---- expressions in the place of a step ----

    def step(self, node: ast.Expr, env: _Env) -> ast.Expr:
        with self.deeper():
            match node:
                case ast.Chain(steps):
                    return ast.chain([self.step(s, env) for s in steps], span=node.span)
                case ast.Choice(options):
                    return ast.choice([self.step(o, env) for o in options], span=node.span)
                case ast.Scoped():
                    return self.scoped(node, env)
                case ast.Ref(name) if name in env:
                    return self.step(env[name], _NOTHING)
                case ast.Ref(name) if name in self.unbound:
                    return node
                case ast.Ref(name):
                    return self.named(ast.Call(name, span=node.span, name_span=node.span), env)
                case ast.Call():
                    return self.named(node, env)
                case _:
                    return self.value(node, env)

    def named(self, call: ast.Call, env: _Env) -> ast.Expr:
        """A step by its name: a let, a recipe, or a pass."""
        let, recipe = self.names.lets.get(call.name), self.names.recipes.get(call.name)
        if let is not None:
            return self.let(call, let)
        if recipe is not None:
            return self.recipe(call, recipe, env)
        signature = self.catalog.find(call.name) if call.name in self.catalog.names else None
        plain = self.arguments(call, env, signature)
        return plain if plain.arguments else ast.Ref(plain.name, span=plain.span)

    def let(self, call: ast.Call, let: ast.Let) -> ast.Expr:
        unchanged = ast.Ref(call.name, span=call.span)
        if call.arguments:
            self.complain(
                Code.UNKNOWN_ARGUMENT,
                f"'{call.name}' is bound by 'let' and takes no arguments",
                call.arguments[0].span,
                help=f"write it as a recipe: recipe {call.name}(...) = ...",
            )
        if isinstance(let.value, ast.On):
            self.fail(call.name)
            self.complain(
                Code.WRONG_KIND,
                f"'{call.name}' is a selector, not a step",
                call.span,
                help=f"use it as a scope: step on {call.name}",
            )
            return unchanged
        with self.inside(let.name, call.span) as entered:
            return self.step(let.value, _NOTHING) if entered else unchanged

    def recipe(self, call: ast.Call, recipe: ast.Define, env: _Env) -> ast.Expr:
        if recipe.program.goal != ast.Goal():
            self.complain(
                Code.WRONG_KIND,
                f"'{call.name}' has a goal of its own and cannot be a step of a larger recipe",
                call.span,
                help="state bounds, objective and search once, at the end of the whole recipe",
            )
        with self.inside(recipe.name, call.span) as entered:
            if not entered:
                return ast.Ref(call.name, span=call.span)
            body = self.step(recipe.program.body, self.bind(recipe, call, env))
            return shown_at(body, call.span) if _is_standard(recipe) else body

    def bind(self, recipe: ast.Define, call: ast.Call, env: _Env) -> _Env:
        """The parameters of a recipe for one use of it."""
        order = [p.name for p in recipe.params]
        given: dict[str, ast.Expr] = {}
        for name, argument in self.placed(call, order, order, f"{recipe.name}({', '.join(order)})"):
            given.setdefault(name, self.value(argument.value, env))
        for param in recipe.params:
            if param.name not in given and param.default is not None:
                given[param.name] = self.value(param.default, _NOTHING)
            elif param.name not in given:
                self.fail(param.name)
                message, help = f"'{recipe.name}' needs the argument '{param.name}'", f"{recipe.name}({param.name}=...)"
                self.complain(Code.MISSING_ARGUMENT, message, call.span, help=f"write {help}")
        self.check_kinds(recipe, given)
        return given

    def check_kinds(self, recipe: ast.Define, given: _Env) -> None:
        for param in recipe.params:
            if param.name in given:
                self.diagnostics += misfits(recipe.name, param, given[param.name], self.unbound)

    def arguments(self, call: ast.Call, env: _Env, signature: Signature | None) -> ast.Call:
        """The call with expanded values; with a signature, every argument named and in its order."""
        if signature is None:
            same = (dataclasses.replace(a, value=self.value(a.value, env)) for a in call.arguments)
            return dataclasses.replace(call, arguments=tuple(same))
        order = [p.name for p in signature.parameters.values()]
        open_to = [p.name for p in signature.positional]
        found = [
            ast.Argument(self.value(a.value, env), name, span=a.span)
            for name, a in self.placed(call, open_to, None, str(signature), _as_list(call, signature))
        ]
        found.sort(key=lambda a: order.index(a.name) if a.name in order else len(order))
        return dataclasses.replace(call, arguments=tuple(found))

    def placed(
        self, call: ast.Call, positional: list[str], known: Iterable[str] | None, usage: str, surplus: str = ""
    ) -> Iterator[tuple[str, ast.Argument]]:
        """Each argument with its name; complains about duplicates, surplus and (if `known`) unknown ones."""
        seen: set[str] = set()
        places = iter(positional)
        for argument in call.arguments:
            name = argument.name or next(places, None)
            if name is None:
                self.complain(
                    Code.UNKNOWN_ARGUMENT,
                    f"'{call.name}' takes {_count(len(positional))} without a name",
                    argument.span,
                    help=surplus or "name it, or leave it out",
                    note=usage,
                )
            elif name in seen:
                message = f"the argument '{name}' is given twice"
                self.complain(Code.DUPLICATE, message, argument.span, help="keep one of them", note=usage)
            elif known is not None and name not in known:
                message = f"'{call.name}' takes no argument '{name}'"
                help = near(name, known) or "leave it out, or add it to the recipe"
                self.complain(Code.UNKNOWN_ARGUMENT, message, argument.span, help=help, note=usage)
            else:
                seen.add(name)
                yield name, argument

    # ---- values ----

    def value(self, node: ast.Expr, env: _Env) -> ast.Expr:
        """An expression in the place of a value: parameters and lets are replaced, recipes are not."""
        with self.deeper():
            match node:
                case ast.Ref(name) if name in env:
                    return env[name]
                case ast.Ref(name) if name in self.unbound:
                    return node
                case ast.Ref(name) if name in self.names.lets:
                    return self.let_value(node, self.names.lets[name])
                case ast.Call():
                    return self.arguments(node, env, None)
                case ast.ListOf(items) | ast.OneOf(items):
                    return dataclasses.replace(node, items=tuple(self.value(i, env) for i in items))
                case ast.Chain(steps):
                    return ast.chain([self.value(s, env) for s in steps], span=node.span)
                case ast.Choice(options):
                    return ast.choice([self.value(o, env) for o in options], span=node.span)
                case ast.Scoped(body, modifiers):
                    return ast.scoped(self.value(body, env), modifiers, span=node.span)
                case _:
                    return node

    def let_value(self, node: ast.Ref, let: ast.Let) -> ast.Expr:
        if isinstance(let.value, ast.On):
            self.fail(node.name)
            help = f"use it as a scope: step on {node.name}"
            self.complain(Code.WRONG_KIND, f"'{node.name}' is a selector, not a value", node.span, help=help)
            return node
        with self.inside(let.name, node.span) as entered:
            return self.value(let.value, _NOTHING) if entered else node

    # ---- modifiers and selectors ----

    def scoped(self, node: ast.Scoped, env: _Env) -> ast.Expr:
        body = self.step(node.body, env)
        on, but, repeats = [], [], []
        for modifier in node.modifiers:
            if isinstance(modifier, ast.On):
                on.append(self.selector(modifier.selector, env))
            elif isinstance(modifier, ast.Except):
                but.append(self.selector(modifier.selector, env))
            else:
                repeats.append(modifier)
        body = _under(body, on, but)
        if all(isinstance(r, ast.Times) for r in repeats):
            for repeat in repeats:
                body = self.repeated(body, repeat)
            return body
        # `times N` beside `until` or `while` is the limit of their repetitions, not a repetition itself.
        return self.loop(ast.scoped(body, repeats, span=node.span))

    def loop(self, node: ast.Expr) -> ast.Expr:
        """A loop as it is, if it has each of its modifiers once."""
        assert isinstance(node, ast.Scoped)
        for kind, word in ((ast.Until, "until"), (ast.While, "while"), (ast.Times, "times")):
            found = [m for m in node.modifiers if isinstance(m, kind)]
            if len(found) > 1:
                help = "a loop has one of each; put the inner loop into a chain: (step until A + other) until B"
                self.complain(Code.DUPLICATE, f"a second '{word}' of one loop", found[1].span, help=help)
            elif found and isinstance(found[0], ast.Times):
                self.counted(found[0])
        return node

    def counted(self, times: ast.Times) -> int | None:
        """The number of repetitions; None (and a complaint) if it is none."""
        count = times.count.value
        if not times.count.unit and isinstance(count, int) and count >= 1:
            return count
        self.complain(
            Code.OUT_OF_RANGE, "'times' wants a whole number from 1 up", times.count.span, help="write: times 3"
        )
        return None

    def repeated(self, body: ast.Expr, times: ast.Modifier) -> ast.Expr:
        assert isinstance(times, ast.Times)
        count = self.counted(times)
        if count is None:
            return body
        steps = body.steps if isinstance(body, ast.Chain) else (body,)
        if len(steps) * count > MAX_STEPS:
            self.complain(
                Code.OUT_OF_RANGE, f"this repeats to more than {MAX_STEPS} steps", times.count.span, help="repeat less"
            )
            return body
        self.budget.spend(len(steps) * count)
        return ast.chain(steps * count, span=body.span)

    def selector(self, node: ast.Selector, env: _Env) -> ast.Selector:
        with self.deeper():
            match node:
                case ast.KindName(name) if name in env:
                    return self.filled(node, name, env[name])
                case ast.KindName(name) if name in self.names.lets:
                    return self.let_selector(node, self.names.lets[name])
                case ast.Test(value=str(name)) if name in env:
                    return self.filled(node, name, env[name])
                case ast.Not(part):
                    return ast.negate(self.selector(part, env), span=node.span)
                case ast.AllOf(parts):
                    return ast.all_of([self.selector(p, env) for p in parts], span=node.span)
                case ast.AnyOf(parts):
                    return ast.any_of([self.selector(p, env) for p in parts], span=node.span)
                case _:
                    return node

    def filled(self, node: ast.KindName | ast.Test, name: str, value: ast.Expr) -> ast.Selector:
        """A part of a selector with the value of a parameter that it names."""
        try:
            return fill(node, value)
        except MisfitError as e:
            self.fail(name)
            self.diagnostics.append(e.diagnostic)
            return node

    def let_selector(self, node: ast.KindName, let: ast.Let) -> ast.Selector:
        if not isinstance(let.value, ast.On):
            self.fail(node.name)
            self.complain(
                Code.WRONG_KIND,
                f"'{node.name}' is not a selector",
                node.span,
                help=f"bind one with: let {node.name} = on SELECTOR",
            )
            return node
        with self.inside(let.name, node.span) as entered:
            return self.selector(let.value.selector, _NOTHING) if entered else node

    # ---- book-keeping ----

    @contextmanager
    def inside(self, name: str, span: Span | None) -> Iterator[bool]:
        """Enter a definition; False (and a complaint) if it is being expanded already."""
        if name in self.stack:
            self.fail(name)
            path = " -> ".join([*self.stack[self.stack.index(name) :], name])
            help = "take it out of the circle; STEPS times N repeats steps"
            self.complain(Code.CYCLE, f"'{name}' contains itself", span, help=help, note=path)
            yield False
            return
        self.stack.append(name)
        try:
            yield True
        finally:
            self.stack.pop()

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.budget.spend(1)
        if self.depth == MAX_DEPTH:
            raise _TooLargeError
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def fail(self, name: str) -> None:
        self.failed.add(name)

    def complain(self, code: Code, message: str, span: Span | None, *, help: str = "", note: str = "") -> None:
        self.diagnostics.append(Diagnostic(code, message, span, help=help, note=note))


def _is_standard(recipe: ast.Define) -> bool:
    return recipe.span is not None and recipe.span.name == STANDARD


def shown_at(node: _N, span: Span | None) -> _N:
    """The node with the spans of standard recipes moved to where the user named them."""

    def moved(part: ast.Node) -> ast.Node:
        changes = {name: span for name in _SPANS if getattr(getattr(part, name, None), "name", "") == STANDARD}
        return dataclasses.replace(part, **changes)

    return ast.mapped(node, moved)


_SPANS = ("span", "name_span", "metric_span")


def _ref_name(node: ast.Expr) -> str:
    return node.name if isinstance(node, ast.Ref) else ""


def _count(number: int) -> str:
    return f"{number or 'no'} argument{'' if number == 1 else 's'}"


def _as_list(call: ast.Call, signature: Signature) -> str:
    """Advice for numbers that were meant as one list: `weights(4, 8)`."""
    values = [a.value for a in call.arguments if a.name is None]
    lists = bool(signature.positional) and signature.positional[-1].unit in ("ints", "numbers")
    if not lists or len(signature.positional) > 1 or not all(isinstance(v, ast.Number) for v in values):
        return ""
    return f"a list is one value: {call.name}({expression(ast.ListOf(tuple(values)))})"


def _under(body: ast.Expr, on: list[ast.Selector], but: list[ast.Selector]) -> ast.Expr:
    """`body` with a scope on each of its steps; a step has at most one `on`, then one `except`."""
    if not on and not but:
        return body
    match body:
        case ast.Chain(steps):
            return ast.chain([_under(s, on, but) for s in steps], span=body.span)
        case ast.Choice(options):
            return ast.choice([_under(o, on, but) for o in options], span=body.span)
        case ast.Scoped(inner, modifiers):
            rest = [m for m in modifiers if not isinstance(m, ast.On | ast.Except)]
            if rest:
                return ast.Scoped(_under(inner, on, but), tuple(rest), span=body.span)
            on = [m.selector for m in modifiers if isinstance(m, ast.On)] + on
            but = [m.selector for m in modifiers if isinstance(m, ast.Except)] + but
            return _under(inner, on, but)
    scope: list[ast.Modifier] = []
    if on:
        scope.append(ast.On(ast.all_of(on, span=on[0].span), span=on[0].span))
    if but:
        scope.append(ast.Except(ast.any_of(but, span=but[0].span), span=but[0].span))
    return ast.scoped(body, scope, span=body.span)
