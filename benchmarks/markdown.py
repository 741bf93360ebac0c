"""Tables of benchmarks inside Markdown pages: between `<!-- name -->` and the next `<!-- end -->`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

END = "<!-- end -->"


def row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*columns: str) -> str:
    return f"{row(columns)}\n|{'---|' * len(columns)}"


def write(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between the markers. Errors: ValueError when the page lacks them."""
    text, start = page.read_text(), f"<!-- {name} -->"
    before, found, rest = text.partition(start)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{page} has no {start} ... {END}")
    page.write_text(f"{before}{start}\n" + "\n".join(lines) + f"\n{END}{after}")
