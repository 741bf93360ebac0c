"""From text to syntax: one-liners and files, with every syntax error of a file reported in one run."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import TypeVar

import lark

from ..ir.errors import Code, Diagnostic, MlcError, Span
from . import syntax as ast
from .lift import Lift
from .trouble import explain

MAX_NESTING = 32  # brackets; the passes over the tree recurse
_STATEMENT = re.compile(
    r"^[ \t]*(?:(?:model|data|target|optimizer|let)[ \t]+(?P<name>\w+)[ \t]*[=(]|recipe[ \t]+(?P<recipe>\w+)[ \t]*[=(]"
    r"|use[ \t]*[\"']|compile[ \t]+[\w\"'(\[])",
    re.MULTILINE,
)
_QUIET = re.compile(r"\"[^\"\r\n]*\"|'[^'\r\n]*'|#[^\n]*")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file as far as it could be read: its good statements, what was wrong, and the names of bad statements."""

    file: ast.File
    diagnostics: tuple[Diagnostic, ...]
    lost: frozenset[str]


def parse(text: str, name: str = "<recipe>") -> ast.Program:
    """The syntax of a one-line recipe."""
    return _parse(text, name, "oneliner", Lift.program)


def parse_file(text: str, name: str = "<file>") -> ast.File:
    """The syntax of a recipe file; raises one `MlcError` with every syntax error."""
    parsed = recover_file(text, name)
    if parsed.diagnostics:
        raise MlcError(parsed.diagnostics)
    return parsed.file


def is_file(text: str) -> bool:
    """Whether the text holds statements (`recipe x = ...`) rather than one bare recipe."""
    return _STATEMENT.search(_QUIET.sub(_blank_comment, text)) is not None


def comments(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every comment."""
    return (m.span() for m in _QUIET.finditer(text) if m[0].startswith("#"))


def recover_file(text: str, name: str) -> Parsed:
    """Parse a file; if that fails, parse its statements one by one, so that each tells its own error."""
    try:
        return Parsed(_parse(text, name, "file", Lift.file), (), frozenset())
    except MlcError as e:
        whole = e
    good: list[ast.Statement] = []
    diagnostics: list[Diagnostic] = []
    lost: set[str] = set()
    for start, end, bound in _statements(text):
        alone = _blank(text[:start]) + text[start:end]  # positions stay those of the file
        try:
            good += _parse(alone, name, "file", Lift.file, shown=text).statements
        except MlcError as e:
            diagnostics += e.diagnostics
            lost |= bound
    return Parsed(ast.File(tuple(good)), tuple(diagnostics) or whole.diagnostics, frozenset(lost))


def _statements(text: str) -> Iterator[tuple[int, int, set[str]]]:
    """Start and end of each statement, judged by how its line begins, and the name that it binds."""
    found = list(_STATEMENT.finditer(_QUIET.sub(_blank_comment, text)))
    starts = [m.start() for m in found]
    if not found or text[: starts[0]].strip():
        yield 0, starts[0] if found else len(text), set()
    for match, end in zip(found, [*starts[1:], len(text)]):
        yield match.start(), end, {match["name"] or match["recipe"] or ""}


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _parse(
    text: str,
    name: str,
    start: str,
    build: Callable[[Lift, lark.Tree[lark.Token]], _T],
    *,
    shown: str | None = None,
) -> _T:
    """Parse `text`; messages show `shown`, the same text before bad statements were blanked out."""
    source = text if shown is None else shown
    _limit_nesting(text, source, name)
    try:
        tree = _grammar().parse(text, start=start)
    except lark.UnexpectedInput as e:
        raise MlcError(explain(e, text, source, name, _accepted(text, start, e))) from None
    lift = Lift(source, name)
    node = build(lift, tree)
    if lift.diagnostics:
        raise MlcError(lift.diagnostics)
    return node


def _accepted(text: str, start: str, problem: lark.UnexpectedInput) -> set[str]:
    """The terminals that could stand at the problem: asked of the parser before it sees what does stand there."""
    ended = isinstance(problem, lark.UnexpectedToken) and problem.token.type == "$END"
    at = len(text) if ended else problem.pos_in_stream or 0
    replay = _grammar().parse_interactive(text, start=start)
    lex: Callable[[object], Iterator[lark.Token]] = replay.lexer_thread.lex
    with contextlib.suppress(lark.UnexpectedInput):  # the problem itself, met again
        for token in lex(replay.parser_state):
            if (token.start_pos or 0) >= at:
                break
            replay.feed_token(token)
    ask: Callable[[], set[str]] = replay.accepts
    return ask()


def _limit_nesting(text: str, source: str, name: str) -> None:
    depth = 0
    for found in re.finditer(r"[\[({})\]]", _QUIET.sub(lambda m: " " * len(m[0]), text)):
        depth += 1 if found[0] in "([{" else -1
        if depth > MAX_NESTING:
            span = Span(source, name, found.start(), found.end())
            message = f"brackets are nested more than {MAX_NESTING} deep"
            raise MlcError(Diagnostic(Code.SYNTAX, message, span, help="name the inner part with 'let'"))


def _blank_comment(found: re.Match[str]) -> str:
    return " " * len(found[0]) if found[0].startswith("#") else found[0]


@functools.cache
def _grammar() -> lark.Lark:
    text = resources.files(__package__).joinpath("recipe.lark").read_text(encoding="utf-8")
    make: Callable[..., lark.Lark] = lark.Lark
    return make(
        text,
        parser="lalr",
        start=["oneliner", "file"],
        propagate_positions=True,
        maybe_placeholders=False,
    )
