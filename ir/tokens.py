"""Tokens of the text form. A scanner with one token of lookahead; mistakes carry the span of text they are in."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from .errors import Code, Diagnostic, MlcError, Span

_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN = re.compile(
    rf"""
      (?P<value>%(?:[A-Za-z0-9_./]+|{_STRING}))
    | (?P<node>@(?:[A-Za-z0-9_./]+|{_STRING}))
    | (?P<blob>(?:x|b64)"[^"\n]*")
    | (?P<string>{_STRING})
    | (?P<flat>[a-z]\w*\[[^\]"\n]*\])
    | (?P<word>[A-Za-z_][A-Za-z0-9_.]*(?:::[A-Za-z0-9_.]+)*)
    | (?P<number>-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|inf\b))
    | (?P<unknown>\?\d+)
    | (?P<mark>[(){{}}\[\],:=*+<>])
    """,
    re.VERBOSE,
)
_SPACE = re.compile(r"(?:\s+|\#[^\n]*)*")


class Scanner:
    """Steps through text. `kind` and `text` describe the current token; at the end `kind` is "end"."""

    __slots__ = ("end", "kind", "name", "source", "start", "text")

    def __init__(self, source: str, name: str) -> None:
        self.source, self.name = source, name
        self.kind = self.text = ""
        self.start = self.end = 0
        self.step()

    def step(self) -> str:
        """Go to the next token; the text of the one left behind."""
        left = self.text
        space = _SPACE.match(self.source, self.end)
        self.start = space.end() if space is not None else self.end
        found = _TOKEN.match(self.source, self.start)
        if found is not None:
            self.kind, self.text, self.end = found.lastgroup or "", found[0], found.end()
        elif self.start == len(self.source):
            self.kind, self.text, self.end = "end", "", self.start
        else:
            self.end = self.start + 1
            self.fail("unexpected character")
        return left

    def jump(self, position: int) -> None:
        """Go on reading at `position`."""
        self.end = position
        self.step()

    def fail(self, message: str, *, help: str = "") -> NoReturn:
        """Raise a TEXT error at the current token."""
        raise self.error(message, self.start, self.end, help=help)

    def error(self, message: str, start: int, end: int, *, help: str = "") -> MlcError:
        span = Span(self.source, self.name, start, end)
        return MlcError(Diagnostic(Code.TEXT, message, span, help=help or "docs/ir.md shows how the text is written"))

    def is_mark(self, text: str) -> bool:
        return self.text == text and self.kind == "mark"

    def take(self, mark: str) -> None:
        """Step over a punctuation mark or keyword that must come here."""
        if self.text != mark:
            self.fail(f"expected {mark!r}")
        self.step()

    def accept(self, text: str) -> bool:
        """Step over a mark or keyword if it comes here."""
        if self.text != text:
            return False
        self.step()
        return True

    def integer(self) -> int:
        if self.kind != "number" or not self.text.lstrip("-").isdigit():
            self.fail("expected an integer")
        return int(self.step())

    def string(self) -> str:
        if self.kind != "string":
            self.fail("expected a text in double quotes")
        found = self.unquote(self.text)
        self.step()
        return found

    def word(self) -> str:
        """A bare word, or a quoted one."""
        if self.kind == "word":
            return self.step()
        return self.string()

    def reference(self, kind: str, what: str) -> str:
        """The name in `%name` or `@name`."""
        if self.kind != kind:
            self.fail(f"expected {what}")
        name = self.text[1:]
        if name.startswith('"'):
            name = self.unquote(name)
        self.step()
        return name

    def unquote(self, text: str) -> str:
        try:
            found: str = json.loads(text)
        except ValueError:
            self.fail("this text in quotes has an unknown escape")
        return found
