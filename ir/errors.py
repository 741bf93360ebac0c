"""Errors a user can cause: stable codes, one clear message, and the exit status of the command line.

Every message says what is wrong, where, and what to do instead. `MlcError` may carry several diagnostics, so
that all mistakes of one file are reported in one run. Anything else that escapes is a bug of mlc (exit 1).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Code(enum.Enum):
    """Stable error codes. The value is (code, title); titles become the headings of docs/errors.md."""

    # E01xx recipe syntax
    SYNTAX = ("E0101", "unexpected token in a recipe")
    CHARACTER = ("E0102", "unexpected character in a recipe")
    UNFORMATTED = ("E0103", "a recipe file that is not formatted")
    # E02xx names, kinds and values in recipes
    UNKNOWN_STEP = ("E0201", "unknown step")
    UNKNOWN_ARGUMENT = ("E0202", "unknown argument")
    WRONG_KIND = ("E0203", "a value, a step or a selector in the wrong place")
    WRONG_UNIT = ("E0204", "a value of the wrong unit or type")
    OUT_OF_RANGE = ("E0205", "a value out of range")
    EMPTY_RANGE = ("E0206", "an empty range")
    DUPLICATE = ("E0207", "a name or argument given twice")
    ORDER = ("E0208", "steps in an order that cannot work")
    NOT_YET = ("E0209", "a feature of the language that cannot be executed yet")
    CYCLE = ("E0211", "a recipe that contains itself")
    MISSING_ARGUMENT = ("E0212", "a required argument is missing")
    UNKNOWN_RECIPE = ("E0213", "a recipe that the file does not hold")
    # E03xx bounds
    UNKNOWN_METRIC = ("E0301", "unknown metric")
    METRIC_UNIT = ("E0302", "a bound without its unit")
    BOUND_MISSED = ("E0303", "a bound was not met")
    BOUND_SENSE = ("E0304", "a bound that asks for the worse side")
    BAD_METRIC = ("E0305", "a metric of yours that fails")
    # E04xx selectors
    NO_MATCH = ("E0401", "a selector that matches nothing")
    BAD_SELECTOR = ("E0402", "an invalid selector")
    CANNOT_HONOUR = ("E0403", "an explicit request that cannot be honoured")
    SKIPPED_STRICT = ("E0404", "sites were skipped under --strict")
    # E05xx data, targets and needs
    NO_DATA = ("E0501", "data is needed")
    BAD_DATA = ("E0502", "data that does not fit the model")
    BAD_TARGET = ("E0503", "unknown or unsupported target")
    MISSING_EXTRA = ("E0504", "an optional dependency is not installed")
    BAD_DIMS = ("E0505", "a symbolic dimension without a value")
    # E06xx model files
    NOT_A_MODEL = ("E0601", "the file is not a model")
    BROKEN_MODEL = ("E0602", "the model is broken")
    EXTERNAL_DATA = ("E0603", "external data is missing, short or outside the model's folder")
    UNSUPPORTED_MODEL = ("E0604", "the model uses something that is not supported")
    BAD_WEIGHTS = ("E0605", "a weight holds NaN")
    # E07xx the IR
    VERIFY = ("E0701", "an invariant of the IR does not hold")
    TEXT = ("E0702", "text of mlc that does not parse")
    # E08xx the environment and the output
    OUTPUT_EXISTS = ("E0801", "the output exists already")
    OUTPUT = ("E0802", "the output cannot be written")
    NOT_FOUND = ("E0803", "a file was not found")
    USAGE = ("E0804", "wrong use of a command or function")
    RUNTIME = ("E0805", "the runtime refuses the model")
    FORMAT = ("E0806", "a file of a newer format")
    BROKEN_PASS = ("E0807", "a pass of yours, or of a package, that cannot be used")
    MEMORY = ("E0808", "out of memory")
    USER_CODE = ("E0809", "user code that is refused")

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def title(self) -> str:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of source text (a recipe or IR text): `text[start:end]` of the source called `name`."""

    text: str
    name: str
    start: int
    end: int

    def line_column(self) -> tuple[int, int]:
        """One-based line and column of the start."""
        line = self.text.count("\n", 0, self.start) + 1
        return line, self.start - (self.text.rfind("\n", 0, self.start) + 1) + 1


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: a code, a message, where it is (a span of text, or a place in words) and what to do."""

    code: Code
    message: str
    span: Span | None = None
    where: str = ""
    label: str = ""
    help: str = ""
    note: str = ""

    def __str__(self) -> str:
        lines = [f"error[{self.code.code}]: {self.message}"]
        gutter = " "
        if self.span is not None:
            gutter, caret = _caret(self.span, self.label)
            lines += caret
        elif self.where:
            lines.append(f"  --> {self.where}")
        lines += [f"{gutter} = {kind}: {text}" for kind, text in (("help", self.help), ("note", self.note)) if text]
        return "\n".join(lines)


def _caret(span: Span, label: str) -> tuple[str, list[str]]:
    line, column = span.line_column()
    source = span.text.split("\n")[line - 1]
    width = max(1, min(span.end - span.start, len(source) - column + 1))
    gutter = " " * len(str(line))
    marks = " " * (column - 1) + "^" * width + (f" {label}" if label else "")
    return gutter, [
        f"{gutter}--> {span.name}:{line}:{column}",
        f"{gutter} |",
        f"{line} | {source}",
        f"{gutter} | {marks}",
    ]


class MlcError(Exception):
    """The user's input, environment or wish cannot be served. Carries diagnostics and the exit status."""

    exit_status = 2

    def __init__(self, diagnostics: Diagnostic | Sequence[Diagnostic]) -> None:
        found = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = found
        super().__init__("\n\n".join(str(d) for d in found))


class BoundError(MlcError):
    """A bound or `--strict` was missed; the best artifact was saved (exit 3)."""

    exit_status = 3


class ResourceError(MlcError):
    """Out of memory or disk (exit 4)."""

    exit_status = 4


MEMORY_HELP = "lower --max-memory, take fewer or smaller samples (take=N, --dims), or --check fast; or close programs"


def error(code: Code, message: str, *, where: str = "", help: str = "", note: str = "") -> MlcError:
    """Shorthand for an `MlcError` with one diagnostic that has no span of text."""
    return MlcError(Diagnostic(code, message, where=where, help=help, note=note))
