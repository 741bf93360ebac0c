"""The canonical text of a recipe file with its comments: what `mlc fmt` writes.

Comments belong to the statement they stand above, or behind. One inside a statement moves above it, because the printer
decides where a statement is broken. Blank lines between statements stay, never two in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.errors import MlcError
from . import syntax as ast
from .parser import comments, is_file, parse, parse_file
from .print import WIDTH, layout, to_text


@dataclass(frozen=True)
class _Piece:
    """A comment or a statement: where it was, and its lines now."""

    start: int
    end: int
    text: str
    comment: bool


def formatted(text: str, name: str = "<recipe>") -> str:
    """The text as `mlc fmt` writes it; that text is written as it is. Errors: everything that cannot be read."""
    statements = list(_statements(text, name))
    remarks = [_Piece(start, end, text[start:end].rstrip(), True) for start, end in comments(text)]
    lines: list[str] = []
    before = 0  # where the piece before ended
    for piece in sorted([*statements, *remarks], key=lambda p: p.start):
        if piece.comment and any(s.start < piece.start < s.end for s in statements):
            continue  # told above its statement
        gap = text[before : piece.start]
        if piece.comment and lines and "\n" not in gap:
            lines[-1] += f"  {piece.text}"
        else:
            if lines and gap.count("\n") > 1:
                lines.append("")
            lines += [p.text for p in remarks if piece.start < p.start < piece.end]
            lines.append(piece.text)
        before = piece.end
    return "".join(f"{line}\n" for line in lines)


def _statements(text: str, name: str) -> Iterator[_Piece]:
    """The statements of a file, or the one recipe that a text is."""
    try:
        found = parse_file(text, name).statements
    except MlcError:
        if is_file(text):
            raise
        found = ()
    for statement in found:
        yield _piece(statement, to_text(ast.File((statement,))).rstrip("\n"))
    if not found:
        program = parse(text, name)
        line = to_text(program)
        yield _piece(program, line if len(line) <= WIDTH else layout(program))


def _piece(node: ast.Node, text: str) -> _Piece:
    assert node.span is not None, "what was read has a place"
    return _Piece(node.span.start, node.span.end, text, False)
