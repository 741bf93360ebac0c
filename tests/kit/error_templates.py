"""The messages that the code can make, read from its source: each `error(Code.X, message)` as a regular expression."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from kit.layout import modules

_MAKERS = ("error", "Diagnostic", "complain", "bad")


@dataclass(frozen=True)
class Template:
    """A message of a place in the code; what is filled in matches anything."""

    place: str  # module: text with {} for what is filled in
    pattern: re.Pattern[str]


def templates() -> list[Template]:
    """Every message that is written where it is raised, or in the same function."""
    found = {}
    for name, file in modules().items():
        tree = ast.parse(file.read_text())
        for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
            for call in _calls(function):
                for text in _texts(_message(call), function):
                    place = f"{name.removeprefix('mlc.')}: {_shown(text)}"
                    found[place] = Template(place, re.compile(_pattern(text), re.DOTALL))
    return list(found.values())


def _calls(function: ast.FunctionDef) -> Iterator[ast.Call]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and _message(node) is not None:
            yield node


def _message(call: ast.Call) -> ast.expr | None:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name == "bad" and call.args:
        return call.args[0]
    coded = name in _MAKERS and len(call.args) > 1 and "Code." in ast.unparse(call.args[0])
    return call.args[1] if coded else None


def _texts(message: ast.expr | None, function: ast.FunctionDef) -> Iterator[ast.expr]:
    """The texts that a message may be: itself, or all that its name is bound to in the function."""
    if isinstance(message, ast.JoinedStr) or (isinstance(message, ast.Constant) and isinstance(message.value, str)):
        yield message
    elif isinstance(message, ast.IfExp):
        yield from (*_texts(message.body, function), *_texts(message.orelse, function))
    elif isinstance(message, ast.Name):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                yield from _bound(node.targets[0], node.value, message.id, function)


def _bound(target: ast.expr, value: ast.expr, name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name and not isinstance(value, ast.Name):
        yield from _texts(value, function)
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts):
            yield from _bound(one, other, name, function)


def _pattern(text: ast.expr) -> str:
    if isinstance(text, ast.Constant):
        return re.escape(str(text.value))
    assert isinstance(text, ast.JoinedStr)
    return "".join(_pattern(p) if isinstance(p, ast.Constant) else ".*" for p in text.values)


def _shown(text: ast.expr) -> str:
    if isinstance(text, ast.Constant):
        return str(text.value)
    assert isinstance(text, ast.JoinedStr)
    return "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in text.values)
