"""A cost table on a terminal: how much faster each form is than floats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .costs import CostTable, Key, Series

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 3  # sizes of an axis


def show(table: CostTable, path: Path, console: Console) -> None:
    """Print a summary: microseconds of the float form, and how often faster the others are."""
    from rich.table import Table
    from rich.text import Text

    forms = sorted({_form(key) for key in table.series if key.form != "float"})
    view = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("operator", "sizes", "float, us", *forms):
        view.add_column(name, justify="left" if name in ("operator", "sizes") else "right")
    for op, series in _float(table).items():
        others = {_form(key): key for key in table.series if key.op == op and key.form != "float"}
        for sizes in _points(series):
            base = series.at(sizes)
            shown = (_ratio(base, table.seconds(others[f], sizes)) if f in others else "-" for f in forms)
            view.add_row(op, " ".join(f"{k}={n}" for k, n in sizes.items()), f"{base * 1e6:.1f}", *shown)
    console.print(view)
    threads = table.environment["threads"]
    console.print(Text(f"costs of {table.environment['cpu']}, {threads} thread(s): {path} (digest {table.digest})"))


def _float(table: CostTable) -> dict[str, Series]:
    return {key.op: series for key, series in table.series.items() if key.form == "float"}


def _form(key: Key) -> str:
    return f"{key.bits} bits / {key.block}" if key.form == "blocks" else key.form


def _points(series: Series) -> list[Mapping[str, int]]:
    """A few points along the diagonal of a grid."""
    count = max(len(grid) for _, grid in series.axes)
    steps = range(0, count, max(1, count // _SHOWN))
    return [{name: grid[min(i, len(grid) - 1)] for name, grid in series.axes} for i in steps]


def _ratio(base: float, seconds: float | None) -> str:
    return "-" if seconds is None else f"{base / seconds:.2f}x"
