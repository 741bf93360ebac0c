"""A small SVG canvas for docs/axes.md: tensors as boxes whose edges are colored by axis class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FONT = "font-family='Helvetica, Arial, sans-serif'"
#: One color for each class of a picture; grey positions are pinned.
COLORS = {"a": "#3b6fb6", "b": "#d9822b", "c": "#3a9a5b", "d": "#b0467e", "-": "#9aa0a6"}
CELL = 12  # of one unit
EDGE = 8  # how thick a colored edge is

Runs = str  # one letter a unit: "aaab" are three units of class a and one of class b


@dataclass
class Canvas:
    """Shapes on a white card; sizes in pixels."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, words: str, *, size: int = 12, anchor: str = "middle", color: str = "#222"
    ) -> None:
        self.parts.append(
            f"<text x='{x:g}' y='{y:g}' {FONT} font-size='{size}' text-anchor='{anchor}' fill='{color}'>"
            f"{escape(words)}</text>"
        )

    def rect(self, x: float, y: float, w: float, h: float, *, fill: str = "#eef1f5", line: str = "#aab2bd") -> None:
        self.parts.append(
            f"<rect x='{x:g}' y='{y:g}' width='{w:g}' height='{h:g}' fill='{fill}' stroke='{line}' stroke-width='0.8'/>"
        )

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points with a head at the last."""
        path = " ".join(f"{'M' if i == 0 else 'L'}{x:g} {y:g}" for i, (x, y) in enumerate(points))
        self.parts.append(f"<path d='{path}' fill='none' stroke='#555' stroke-width='1.4' marker-end='url(#head)'/>")

    def op(self, x: float, y: float, words: str, width: float = 60) -> None:
        """An operator, centered."""
        self.parts.append(
            f"<rect x='{x - width / 2:g}' y='{y - 14:g}' width='{width:g}' height='28' rx='6' "
            "fill='#fff' stroke='#555'/>"
        )
        self.text(x, y + 4, words)

    def cells(self, x: float, y: float, units: Runs, *, down: bool = False) -> None:
        """One axis as a row or a column of colored units."""
        for i, unit in enumerate(units):
            at = (x, y + i * CELL, EDGE, CELL) if down else (x + i * CELL, y, CELL, EDGE)
            self.rect(*at, fill=COLORS[unit], line="#fff")

    def tensor(self, x: float, y: float, name: str, rows: Runs, columns: Runs) -> None:
        """A matrix: axis 0 down its left edge, axis 1 along its upper one."""
        self.rect(x, y, len(columns) * CELL, len(rows) * CELL)
        self.cells(x - EDGE - 1, y, rows, down=True)
        self.cells(x, y - EDGE - 1, columns)
        self.text(x + len(columns) * CELL / 2, y + len(rows) * CELL + 15, name)

    def vector(self, x: float, y: float, name: str, units: Runs) -> None:
        """An axis alone with its name to the left."""
        self.cells(x, y, units)
        self.text(x - 8, y + EDGE, name, anchor="end")

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
        for i, (unit, words) in enumerate(entries):
            self.rect(x, y + i * 18 - 9, 10, 10, fill=COLORS[unit], line="#fff")
            self.text(x + 16, y + i * 18, words, anchor="start")

    def save(self, path: Path, title: str) -> None:
        head = (
            "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' "
            "orient='auto'>"
            "<path d='M0 0L8 4L0 8z' fill='#555'/></marker></defs>"
        )
        card = f"<rect width='{self.width}' height='{self.height}' rx='8' fill='#fff' stroke='#d5dae0'/>"
        size = f"viewBox='0 0 {self.width} {self.height}' width='{self.width}' height='{self.height}'"
        lines = [f"<svg xmlns='http://www.w3.org/2000/svg' {size}>", f"<title>{escape(title)}</title>", head, card]
        path.write_text("\n".join([*lines, *self.parts, "</svg>"]) + "\n")
