"""The canonical printer of recipes: `parse(to_text(r)) == r` for every recipe in normal form."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..ir.errors import Code, error
from .syntax import (
    KEYWORDS,
    AllOf,
    AnyOf,
    Argument,
    Binding,
    Bound,
    Call,
    Chain,
    Choice,
    Compile,
    Define,
    Except,
    Expr,
    File,
    Flag,
    Glob,
    Goal,
    KindName,
    Let,
    ListOf,
    Modifier,
    Not,
    Number,
    On,
    OneOf,
    Param,
    Program,
    Range,
    Ref,
    Regex,
    Scoped,
    Selector,
    Statement,
    String,
    Test,
    Times,
    Until,
    Use,
    While,
)

WIDTH = 100  # a recipe of a file that is longer is broken at its `+`
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")
_FLAGS = {True: "true", False: "false", None: "none"}

# How tightly a form binds; a part that binds less tightly than its place asks for gets parentheses.
_CHOICE, _CHAIN, _STEP, _PRIMARY = range(4)
_ANY, _ALL, _NOT, _ATOM = range(4)


def to_text(node: Program | File) -> str:
    """The canonical text: one line for a one-liner, one statement a line (or more) for a file."""
    if isinstance(node, Program):
        return " ".join([expression(node.body), *_goal(node.goal)])
    return "".join(_statement(statement) + "\n" for statement in node.statements)


def layout(program: Program) -> str:
    """The canonical text with one step a line."""
    body = program.body
    parts = body.steps if isinstance(body, Chain) else (body,)
    level = _STEP if isinstance(body, Chain) else _CHOICE
    steps = [expression(part, level) for part in parts]
    return "\n".join([f"  {steps[0]}", *(f"+ {step}" for step in steps[1:]), *_goal(program.goal)])


def expression(node: Expr, level: int = _CHOICE) -> str:
    text, own = _expression(node)
    return f"({text})" if own < level else text


def selector(node: Selector, level: int = _ANY) -> str:
    text, own = _selector(node)
    return f"({text})" if own < level else text


def bound(node: Bound) -> str:
    judge = f" for {_name(node.target)}" if node.target else ""
    return f"{_name(node.metric)} {node.comparison} {number(node.limit)}{judge}"


def number(node: Number) -> str:
    return f"{node.value!r}{node.unit}"


def _expression(node: Expr) -> tuple[str, int]:
    if isinstance(node, Choice):
        return " | ".join(expression(o, _CHAIN) for o in node.options), _CHOICE
    if isinstance(node, Chain):
        return " + ".join(expression(s, _STEP) for s in node.steps), _CHAIN
    if isinstance(node, Scoped):
        return " ".join([expression(node.body, _PRIMARY), *map(_modifier, node.modifiers)]), _STEP
    return _primary(node), _PRIMARY


def _primary(node: Expr) -> str:
    match node:
        case Number():
            return number(node)
        case String(value):
            return _quoted(value)
        case Flag(value):
            return _FLAGS[value]
        case Ref(name):
            return _name(name)
        case Call():
            return _call(node)
        case ListOf(items):
            return f"[{', '.join(map(expression, items))}]"
        case OneOf(items):
            return f"{{{', '.join(map(expression, items))}}}"
        case Range(low, high, by):
            step = f" by {number(by)}" if by is not None else ""
            return f"{number(low)}..{number(high)}{step}"
        case Chain() | Choice() | Scoped():
            return expression(node, _PRIMARY)


def _call(node: Call) -> str:
    return f"{_name(node.name)}({', '.join(map(_argument, node.arguments))})"


def _argument(node: Argument) -> str:
    value = expression(node.value)
    return f"{node.name}={value}" if node.name is not None else value


def _modifier(node: Modifier) -> str:
    match node:
        case On(chosen):
            return f"on {selector(chosen)}"
        case Except(chosen):
            return f"except {selector(chosen)}"
        case Times(count):
            return f"times {number(count)}"
        case Until(goal):
            return f"until {bound(goal)}"
        case While(goal):
            return f"while {bound(goal)}"


def _selector(node: Selector) -> tuple[str, int]:
    match node:
        case AnyOf(parts):
            return " or ".join(selector(p, _ALL) for p in parts), _ANY
        case AllOf(parts):
            return " and ".join(selector(p, _NOT) for p in parts), _ALL
        case Not(part):
            return f"not {selector(part, _ATOM)}", _NOT
        case Glob(pattern):
            return _quoted(pattern), _ATOM
        case Regex(pattern):
            return f"~{_quoted(pattern)}", _ATOM
        case KindName(name):
            return _name(name), _ATOM
        case Test(subject, comparison, value):
            right = number(value) if isinstance(value, Number) else _name(value)
            return f"{_name(subject)} {comparison} {right}", _ATOM


def _goal(node: Goal) -> list[str]:
    lines = []
    if node.bounds:
        lines.append("where " + ", ".join(map(bound, node.bounds)))
    if node.objective is not None:
        judge = f" for {_name(node.objective.target)}" if node.objective.target else ""
        lines.append(f"{node.objective.direction} {_name(node.objective.metric)}{judge}")
    if node.search is not None:
        lines.append(f"search {_call(node.search)}")
    return lines


def _statement(node: Statement) -> str:
    match node:
        case Use(path, alias):
            return f"use {_quoted(path)}" + (f" as {_name(alias)}" if alias else "")
        case Binding(kind, name, value):
            return f"{kind} {_name(name)} = {expression(value)}"
        case Let(name, value):
            bound_to = f"on {selector(value.selector)}" if isinstance(value, On) else expression(value)
            return f"let {_name(name)} = {bound_to}"
        case Define():
            return _define(node)
        case Compile(source, recipe, targets):
            to = f" to {', '.join(map(_name, targets))}" if targets else ""
            return f"compile {expression(source)} with {expression(recipe)}{to}"


def _define(node: Define) -> str:
    params = f"({', '.join(map(_param, node.params))})" if node.params else ""
    head = f"recipe {_name(node.name)}{params} ="
    body = expression(node.program.body)
    if len(head) + len(body) >= WIDTH and isinstance(node.program.body, Chain):
        first = f"{head}\n{_broken(node.program.body.steps)}"
    else:
        first = f"{head} {body}"
    return "\n  ".join([first, *_goal(node.program.goal)])


def _broken(steps: Sequence[Expr]) -> str:
    head, *rest = (expression(step, _STEP) for step in steps)
    return "\n".join([f"    {head}", *(f"  + {step}" for step in rest)])


def _param(node: Param) -> str:
    kind = f": {_name(node.kind)}" if node.kind else ""
    default = f" = {expression(node.default)}" if node.default is not None else ""
    return f"{_name(node.name)}{kind}{default}"


def _name(name: str) -> str:
    if not _NAME.match(name) or name in KEYWORDS:
        raise error(
            Code.SYNTAX,
            f"'{name}' cannot be written as a name in a recipe",
            help="use letters, digits and underscores, and none of the language's own words",
        )
    return name


def _quoted(text: str) -> str:
    for quote in ('"', "'"):
        if quote not in text and "\n" not in text and "\r" not in text:
            return quote + text + quote
    raise error(
        Code.SYNTAX,
        f"the string {text!r} cannot be written in a recipe",
        help="a string has no line breaks and holds only one sort of quotes",
    )
