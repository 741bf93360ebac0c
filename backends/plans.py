"""Plans on a terminal: what each step would change and what it would skip.

A plan is plain data of which nothing is known but how it is written: lists of objects become tables, `X_before` and
`X_after` one column, what is the same for all rows stands above them, and numbers are shown by what they count.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .report import count, size, skip_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SHOWN = 12
_LONGEST = 48
_TITLES = {"": "before -> after", "bytes": "size", "weight_bytes": "weights", "macs": "MACs"}
_COUNTED = ("parameters", "macs", "elements")
_SITE = ("site", "name", "op")  # what an object in a cell is called by
_EMPTY: tuple[object, ...] = ("", None, [], {})


class JsonPlan(Protocol):
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Change:
    """A number before and after."""

    before: Any
    after: Any


def show(plans: Sequence[tuple[str, JsonPlan]], console: Console) -> None:
    """Print plans, lists shortened; `--json` has everything."""
    from rich.padding import Padding
    from rich.text import Text

    for step, plan in plans:
        console.print(Text(step, style="bold"))
        found = plan.to_json()
        skips = skip_lines({"skipped": found.pop("skipped")}, "listed by --json")
        notes = found.pop("notes")
        for key, value in _paired(found, _pairs(plan)).items():
            if value in _EMPTY:
                continue
            if _is_table(value):
                rows = [_paired(row) for row in value]
                console.print(Text(f"  {_heading(key, rows)}"))
                console.print(Padding(_table(rows), (0, 0, 0, 4), expand=False))
                _more(len(rows), console)
            elif isinstance(value, list):
                console.print(Text(f"  {_title(key)}: {len(value)}"))
                for item in value[:_SHOWN]:
                    console.print(Text(f"    {_words(key, item)}"))
                _more(len(value), console)
            else:
                console.print(Text(f"  {_title(key)}: {_words(key, value)}"))
        for line in skips:
            console.print(Text(f"  skips {line}"))
        for note in notes:
            console.print(Text(f"  note: {note}"))


def _more(number: int, console: Console) -> None:
    if number > _SHOWN:
        console.print(f"    ... and {number - _SHOWN} more (--json lists them)")


def _pairs(plan: object) -> frozenset[str]:
    """Fields that are declared as two values of a kind, not as a list: before and after."""
    fields = dataclasses.fields(plan) if dataclasses.is_dataclass(plan) else ()
    return frozenset(f.name for f in fields if re.fullmatch(r"tuple\[(\w+), \1\]", str(f.type)))


def _paired(found: Mapping[str, Any], pairs: frozenset[str] = frozenset()) -> dict[str, Any]:
    """`X_before` and `X_after` as one change X; `before` and `after` as a change without a name."""
    shown: dict[str, Any] = {}
    for key, value in found.items():
        stem = key.removesuffix("before")
        if key in pairs:
            shown[key] = _Change(*value)
        elif stem != key and f"{stem}after" in found:
            shown[stem.rstrip("_")] = _Change(value, found[f"{stem}after"])
        elif not (key.endswith("after") and f"{key.removesuffix('after')}before" in found):
            shown[key] = value
    return shown


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all rows but those that are empty everywhere."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if any(row.get(key) not in _EMPTY for row in rows)]


def _common(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all rows say alike, but names (the first column) and changes, which are what a plan is about."""
    first, *rest = rows
    keys = [key for key in _columns(rows)[1:] if not isinstance(first.get(key), _Change)] if rest else []
    return {key: first.get(key) for key in keys if all(row.get(key) == first.get(key) for row in rest)}


def _heading(key: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many there are, their bytes together, and what they have in common."""
    changes = [row["bytes"] for row in rows if isinstance(row.get("bytes"), _Change)]
    total = _Change(sum(c.before for c in changes), sum(c.after for c in changes))
    parts = [str(len(rows)), *([f"{_words('bytes', total)} together"] if changes else [])]
    common = [f"{_title(k)} {_words(k, v)}" for k, v in _common(rows).items()]
    return f"{_title(key)}: {', '.join(parts)}{'; each ' if common else ''}{', '.join(common)}"


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    common = _common(rows)
    keys = [key for key in _columns(rows) if key not in common]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in keys:
        numbers = all(isinstance(row.get(key), int | float | _Change | None) for row in rows)
        table.add_column(_title(key), justify="right" if numbers else "left", overflow="fold")
    for row in rows[:_SHOWN]:
        table.add_row(*(Text(_words(key, row.get(key))) for key in keys))
    return table


def _title(key: str) -> str:
    return _TITLES.get(key, key.replace("_", " "))


def _words(key: str, value: Any) -> str:
    """A value for people, by its kind and by what its key says it counts."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case _Change():
            return f"{_words(key, value.before)} -> {_words(key, value.after)}{_share(value)}"
        case int() if "bytes" in key:
            return size(value)
        case int() if key in _COUNTED:
            return count(value)
        case float():
            return f"{value:.4g}"
        case Mapping():
            return _short(", ".join(f"{_title(k)} {_words(k, v)}" for k, v in value.items() if v not in _EMPTY))
        case list():
            return _listed(value)
    return _short(str(value))


def _share(change: _Change) -> str:
    known = all(isinstance(n, int | float) for n in (change.before, change.after)) and change.before
    return f" ({change.after / change.before:.0%})" if known else ""


def _listed(items: list[Any]) -> str:
    """Numbers all; of names the first, and how many more there are."""
    if all(isinstance(item, int | float) for item in items):
        return _short(str(items))
    first, *rest = _called(items)
    return f"{_short(first)} (+{len(rest)})" if rest else _short(first)


def _called(items: Sequence[Any]) -> Iterator[str]:
    for item in items:
        names = [item[key] for key in _SITE if key in item] if isinstance(item, Mapping) else []
        yield str(names[0]) if names else _words("", item)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
