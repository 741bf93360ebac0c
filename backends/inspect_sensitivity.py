"""What `mlc inspect --sensitivity` prints: which weights, and which data, suffer from few bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]

_SHOWN = 20  # sites, unless all are asked for
#: Columns of the table: the head, and the damage it shows.
_HEADS = (
    ("8", "weight 8 bits"),
    ("4", "weight 4 bits"),
    ("4 block 32", "weight 4 bits, block 32"),
    ("2", "weight 2 bits"),
    ("2 block 32", "weight 2 bits, block 32"),
    ("data 8 static", "data 8 bits, static"),
    ("dynamic", "data 8 bits, dynamic"),
)


def show(found: Mapping[str, Any], console: Console, *, all_sites: bool = False) -> None:
    """Print the table of `passes/quantize/sensitivity.py`: the sites with most damage at 4 bits first."""
    from rich.text import Text

    sites: Sequence[Row] = found["sites"]
    reached = [row for row in sites if any(row["damage"].values())]
    shown = reached if all_sites else reached[:_SHOWN]
    if shown:
        title = f"1 - cosine of the worst output, one site at a time, on {found['samples']} samples"
        console.print(Text(title, style="bold"))
        console.print(_table(shown))
    elif not sites:
        console.print(Text("no weight has a form in few bits"))
    for line in _remarks(sites, reached, shown, found["left"]):
        console.print(Text(line))


def _table(shown: Sequence[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    named = any(_op(row) for row in shown)
    for column in ("weight", "of", *(["op"] if named else []), "size"):
        table.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    heads = [(head, key) for head, key in _HEADS if any(key in row["damage"] for row in shown)]
    for head, _ in heads:
        table.add_column(head, justify="right")
    for row in shown:
        damages = (_number(row["damage"].get(key)) for _, key in heads)
        op = [Text(_op(row))] if named else []
        table.add_row(Text(row["weight"]), ", ".join(row["kinds"]), *op, _shape(row), *damages)
    return table


def _op(row: Row) -> str:
    """The op that reads the weight, where it has a name that the weight's does not tell: exporters call some weights
    `onnx::Conv_118`, others by their layer (`encoder.0.weight` of `/encoder/encoder.0/Conv`)."""
    first, *more = row["readers"]
    layer = row["weight"].rpartition("." if "." in row["weight"] else "/")[0]
    told = first in (row["weight"], *row["kinds"]) or (layer and layer in first)
    name = "" if told else str(first)
    return f"{name}, {len(more)} more" if name and more else name


def _remarks(sites: Sequence[Row], reached: Sequence[Row], shown: Sequence[Row], left: Sequence[Row]) -> list[str]:
    lines = []
    if len(shown) < len(reached):
        lines.append(f"{len(reached) - len(shown)} more with less damage: --all")
    if len(reached) < len(sites):
        names = ", ".join(row["weight"] for row in sites if not any(row["damage"].values()))
        lines.append(f"no output moved for {len(sites) - len(reached)}, which the samples do not reach: {names}")
    if any("data 8 bits, dynamic" in row["damage"] and "data 8 bits, static" not in row["damage"] for row in shown):
        lines.append("data without a static grid: inside bodies of If and Loop, not finite, or never seen")
    lines += [f"{row['weight']}: {row['why']}" for row in left]
    return lines


def _number(damage: float | None) -> str:
    return "-" if damage is None else f"{damage:.1e}"


def _shape(row: Row) -> str:
    return "x".join(str(n) for n in row["shape"])
