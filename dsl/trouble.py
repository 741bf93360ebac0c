"""Syntax errors in human words: what stands there, what could stand there, and the usual slip behind it."""

from __future__ import annotations

import difflib
from collections.abc import Set

import lark

from ..ir.errors import Code, Diagnostic, Span
from .slips import slip

_HUMAN = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "RPAR": "')'",
    "RSQB": "']'",
    "RBRACE": "'}'",
    "COMMA": "','",
    "EQUAL": "'='",
    "CMP": "a comparison such as '<='",
    "PLUS": "'+'",
    "ON": "'on'",
    "WHERE": "'where'",
    "__DOT2": "'..'",
    "__DOT1": "'..'",
    "WITH": "'with'",
}
_STATEMENTS = ("use", "model", "data", "target", "optimizer", "let", "recipe", "compile")


def explain(problem: lark.UnexpectedInput, text: str, source: str, name: str, accepted: Set[str]) -> Diagnostic:
    """The diagnostic of a text that is not a recipe.

    `source` is the text to show (same positions); `accepted` are the terminals that could stand at the problem.
    """
    if not text.strip():
        return Diagnostic(
            Code.SYNTAX,
            "the recipe is empty",
            Span(source, name, 0, 0),
            label="expected a step",
            help="write at least one step, for example: prune + int4",
        )
    if isinstance(problem, lark.UnexpectedToken) and problem.token.type == "$END":
        return _ended(text, source, name, accepted)
    if isinstance(problem, lark.UnexpectedToken):
        token = problem.token
        start = token.start_pos or 0
        return Diagnostic(
            Code.SYNTAX,
            f"unexpected '{token}'",
            Span(source, name, start, start + len(token)),
            label=_expected(accepted),
            help=(_no_number(str(token), accepted) or slip(text, start) or _statement_word(text, start, str(token))),
        )
    at = problem.pos_in_stream or 0
    return _character(text, Span(source, name, at, at + 1), accepted)


def _no_number(word: str, accepted: Set[str]) -> str:
    """Advice for a name where only a number can stand."""
    if not word.isidentifier() or "NUMBER" not in accepted or "NAME" in accepted:
        return ""
    return "only a number can stand here: parameters stand for arguments, steps and selectors"


def _ended(text: str, source: str, name: str, accepted: Set[str]) -> Diagnostic:
    end = len(text.rstrip())
    opened = _unclosed(text)
    note = ""
    if opened is not None:
        line, column = Span(source, name, opened, opened + 1).line_column()
        note = f"'{text[opened]}' was opened at {line}:{column}"
    return Diagnostic(
        Code.SYNTAX,
        "unexpected end of the recipe",
        Span(source, name, end, end + 1),
        label=_expected(accepted),
        note=note,
    )


def _character(text: str, span: Span, accepted: Set[str]) -> Diagnostic:
    char = text[span.start]
    if char in "\"'" or text.startswith(('~"', "~'"), span.start):
        end = text.find("\n", span.start)
        whole = Span(span.text, span.name, span.start, len(text.rstrip()) if end < 0 else end)
        quote = char if char in "\"'" else text[span.start + 1]
        message = "a string without its end"
        return Diagnostic(Code.CHARACTER, message, whole, label=f"expected a closing {quote}")
    return Diagnostic(
        Code.CHARACTER,
        f"unexpected character {char!r}",
        span,
        label=_expected(accepted),
        help=slip(text, span.start),
    )


def _expected(accepted: Set[str]) -> str:
    human = list(dict.fromkeys(text for name, text in _HUMAN.items() if name in accepted))
    return "expected " + " or ".join(human[:4]) if human else ""


def _statement_word(text: str, start: int, word: str) -> str:
    """Advice for a mistyped statement word at the start of a line."""
    if text[text.rfind("\n", 0, start) + 1 : start].strip():
        return ""
    near = difflib.get_close_matches(word, _STATEMENTS, 1, 0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def _unclosed(text: str) -> int | None:
    """The innermost bracket that is still open at the end of the text."""
    stack: list[int] = []
    quote = ""
    comment = False
    for at, char in enumerate(text):
        if char == "\n":
            quote, comment = "", False
        elif comment:
            continue
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#":
            comment = True
        elif char in "([{":
            stack.append(at)
        elif char in ")]}" and stack:
            stack.pop()
    return stack[-1] if stack else None
