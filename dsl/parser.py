"""From text to syntax: one-liners and files, with every syntax error of a file reported in one run."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
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
    r"^[ \t]*(?:(?:model|data|target|optimizer|let)[ \t]+(?P<name>\w+)[ \t]*=|recipe[ \t]+(?P<recipe>\w+)[ \t]*[=(]"
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


def recover_file(text: str, name: str) -> Parsed:
    """Parse a file; a statement with a syntax error is blanked out, and the rest parsed again."""
    diagnostics: list[Diagnostic] = []
    lost: set[str] = set()
    rest = text
    while True:
        try:
            file = _parse(rest, name, "file", Lift.file, shown=text)
            return Parsed(file, tuple(diagnostics), frozenset(lost))
        except MlcError as e:
            diagnostics += e.diagnostics
            first = e.diagnostics[0].span
            at = first.start if first is not None else 0
            start, end, names = _statement_around(rest, at)
            lost |= names
            if not rest[start:end].strip():
                return Parsed(ast.File(()), tuple(diagnostics), frozenset(lost))
            rest = rest[:start] + re.sub(r"[^\n]", " ", rest[start:end]) + rest[end:]


def _statement_around(text: str, at: int) -> tuple[int, int, set[str]]:
    """The statement that an error at `at` belongs to, and the names it would have bound."""
    at = min(at, len(text.rstrip()) - 1)
    starts = list(_STATEMENT.finditer(text))
    before = [m for m in starts if m.start() <= at]
    after = [m.start() for m in starts if m.start() > at]
    names = {before[-1]["name"] or before[-1]["recipe"] or ""} if before else set()
    return before[-1].start() if before else 0, after[0] if after else len(text), names


def _parse(
    text: str, name: str, start: str, build: Callable[[Lift, lark.Tree[lark.Token]], _T], *, shown: str | None = None
) -> _T:
    """Parse `text`; messages show `shown`, the same text before bad statements were blanked out."""
    source = text if shown is None else shown
    _limit_nesting(text, source, name)
    try:
        tree = _grammar().parse(text, start=start)
    except lark.UnexpectedInput as e:
        raise MlcError(explain(e, text, source, name)) from None
    lift = Lift(source, name)
    node = build(lift, tree)
    if lift.diagnostics:
        raise MlcError(lift.diagnostics)
    return node


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
