"""What `mlc inspect --axes` prints: which axes of which weights belong together, and why others may not move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]

_INTERFACE = {"interface-input": "input", "interface-output": "output"}
_SITES = 3  # shown for a class unless all are asked for


def show(table: Mapping[str, Any], console: Console, *, all_sites: bool = False) -> None:
    """Print the table of `ir/axis_table.py`: the free classes with their sites, then the pinned ones by reason."""
    from rich.text import Text

    free = [row for row in table["classes"] if row["free"]]
    pinned = [row for row in table["classes"] if not row["free"]]
    if free:
        console.print(Text(f"{len(free)} free: one permutation at all sites keeps the outputs", style="bold"))
        console.print(_free(free, all_sites))
        console.print()
    console.print(Text(f"{len(pinned)} pinned: only the identity keeps the outputs", style="bold"))
    if pinned:
        console.print(_every_pin(pinned) if all_sites else _by_reason(pinned))


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column in ("size", "classes")
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _free(rows: Sequence[Row], all_sites: bool) -> Table:
    """One row a class; facts that no class of this model has get no column."""
    from rich.text import Text

    facts = [key for key in ("depends_on", "admissible", "marks") if any(row[key] for row in rows)]
    table = _table("class", "size", "sites", *map(_title, facts))
    for row in rows:
        sites = _sites(row, all_sites)
        table.add_row(row["name"], str(row["size"]), Text(sites), *(", ".join(row[key]) for key in facts))
    return table


def _title(fact: str) -> str:
    return {"depends_on": "within", "admissible": "also admits", "marks": "when removed"}[fact]


def _sites(row: Row, all_sites: bool) -> str:
    """The axes of constants: one a line if all are asked for, else the first few."""
    sites = [f"{s['constant']}[{s['axis']}]{_path(row, s)}" for s in row["sites"]]
    if all_sites:
        return "\n".join(sites)
    more = len(sites) - _SITES
    return ", ".join(sites[:_SITES]) + (f" and {more} more" if more > 0 else "")


def _path(row: Row, site: Row) -> str:
    """How the class sits in the axis, where it is not the whole of it."""
    return "" if site["path"] == row["name"] else f" = {site['path']}"


def _by_reason(rows: Sequence[Row]) -> Table:
    """Pinned classes counted by reason, with the op that pinned the first of them."""
    from rich.text import Text

    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["pin"]["code"], []).append(row)
    table = _table("reason", "classes", "first", "of")
    for code, found in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        table.add_row(code, str(len(found)), Text(_site(found[0])), Text(_where(found[0])))
    return table


def _every_pin(rows: Sequence[Row]) -> Table:
    from rich.text import Text

    table = _table("size", "reason", "sites", "of")
    for row in rows:
        sites = "\n".join(f"{s['constant']}[{s['axis']}]" for s in row["sites"])
        table.add_row(str(row["size"]), row["pin"]["code"], Text(sites), Text(_where(row)))
    return table


def _site(row: Row) -> str:
    first = row["sites"][0]
    return f"{first['constant']}[{first['axis']}]"


def _where(row: Row) -> str:
    """The op, or the input or output, that fixes the order; nothing where it is the structure of the axis itself."""
    pin = row["pin"]
    return " ".join(filter(None, (pin["kind"] or _INTERFACE.get(pin["code"], ""), pin["op"])))
