"""A comparison of two artifacts (compare.py) on a terminal, and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import count, drift_words, size
from .report_markdown import code, items, milliseconds, plain, table

if TYPE_CHECKING:
    from rich.console import Console

_HEAD = ("", "A", "B", "B / A")
#: How facts are called and shown; the others are shown as they are.
_SHOWN: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "size": ("size", size),
    "share of the source": ("share of the source", lambda x: f"{x:.3f}x"),
    "params": ("parameters", count),
    "macs": ("MACs", count),
    "latency_ms": ("latency", milliseconds),
    "latency_p95_ms": ("latency, slow runs", milliseconds),
    "memory": ("memory of a process", size),
    "speedup": ("speed-up over the source", lambda x: f"{x:.2f}x"),
    "cosine": ("cosine", lambda x: f"{x:.6f}"),
    "sqnr_db": ("SQNR", lambda x: f"{x:.1f} dB"),
    "top1": ("same best class", lambda x: f"{x:.1%}"),
    "accuracy": ("accuracy", lambda x: f"{x:.2%}"),
}

Found = Mapping[str, Any]


def show(found: Found, console: Console) -> None:
    """Print the comparison."""
    from rich.table import Table
    from rich.text import Text

    for side in ("a", "b"):
        told = found[side]
        style = "" if told["status"] == "done" else "bold red"
        console.print(Text(f"{side.upper()}: {told['path']}: {told['recipe']} ({told['status']})", style=style))
    if found["equal_files"]:
        console.print(Text("both files are equal, byte for byte", style="bold"))
    for title, head, rows in _tables(found):
        view = Table(box=None, pad_edge=False, header_style="bold")
        for name in (title, *head[1:]):
            view.add_column(name, justify="left" if title != "" or not name else "right")
        for row in rows:
            view.add_row(*row)
        console.print(view)
    for line in (*_sites(found), *_settings(found)):
        console.print(Text(line))
    for line in _warnings(found):
        console.print(Text(line, style="yellow"))
    for note in found["notes"]:
        console.print(Text(f"note: {note}"))


def to_markdown(found: Found) -> str:
    """The comparison as a page; names cannot break it."""
    names = (f"{side.upper()}: {code(Path(found[side]['path']).name)}" for side in ("a", "b"))
    parts = [f"## {' and '.join(names)}"]
    if found["equal_files"]:
        parts.append("Both files are equal, byte for byte.")
    parts.append(table(("", "A", "B"), [("recipe", *(code(found[side]["recipe"]) for side in ("a", "b")))], left=3))
    for title, head, rows in _tables(found):
        shown = [tuple(map(plain, row)) for row in rows]
        parts.append(table((title, *head[1:]), shown, left=1 if title == "" else len(head)))
    for title, lines in (
        ("Sites and settings", [*_sites(found), *_settings(found)]),
        ("Warnings", [*_warnings(found)]),
        ("Notes", found["notes"]),
    ):
        parts.append(items(title, [plain(line) for line in lines]))
    return "\n\n".join(part for part in parts if part) + "\n"


# -- parts -------------------------------------------------------------------------------------------------------------


def _tables(found: Found) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """(title, head, rows) of every table that has rows."""
    facts = [_fact(fact) for fact in found["facts"] if fact["a"] is not None or fact["b"] is not None]
    bounds = [(b["bound"], *(_bound(b[side]) for side in ("a", "b"))) for b in found["bounds"]]
    steps = [(str(i), *(_step(s[side]) for side in ("a", "b"))) for i, s in enumerate(found["steps"], start=1)]
    for title, head, rows in (("", _HEAD, facts), ("bound", _HEAD[:3], bounds), ("step", _HEAD[:3], steps)):
        if rows:
            yield title, head, rows


def _fact(fact: Found) -> tuple[str, ...]:
    name, words = _SHOWN.get(fact["name"], (fact["name"], str))
    sides = ("-" if x is None else x if isinstance(x, str) else words(x) for x in (fact["a"], fact["b"]))
    ratio = "" if fact["ratio"] is None else f"{fact['ratio']:.3f}x"
    better = f"{fact['better'].upper()} is better" if fact["better"] else ""
    return name, *sides, ", ".join(filter(None, (ratio, better)))


def _bound(verdict: Found | None) -> str:
    return "-" if verdict is None else f"{verdict['found']}, {'holds' if verdict['holds'] else 'MISSED'}"


def _step(step: Found | None) -> str:
    if step is None:
        return "-"
    skipped = ", ".join(f"{n} {reason}" for reason, n in step["skipped"].items())
    drift = drift_words(step["drift"])
    parts = [f"{step['done']} changed", f"skipped: {skipped}" if skipped else "", size(step["bytes"])]
    return f"{step['text']}: {'; '.join(filter(None, [*parts, f'drift {drift}' if drift != '-' else '']))}"


def _sites(found: Found) -> Iterator[str]:
    for number, step in enumerate(found["steps"], start=1):
        for side in ("a", "b"):
            sites, total = step[f"only_{side}"], step[f"only_{side}_count"]
            if total:
                more = f" and {total - len(sites)} more" if total > len(sites) else ""
                yield f"step {number} changed only in {side.upper()}: {', '.join(sites)}{more}"


def _settings(found: Found) -> Iterator[str]:
    for given in found["settings"]:
        yield f"{given['name']}: {_value(given['a'])} in A, {_value(given['b'])} in B"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={n}" for name, n in value.items())
    return "not given" if value is None else str(value)


def _warnings(found: Found) -> Iterator[str]:
    for side in ("a", "b"):
        yield from (f"warning of {side.upper()}: {text}" for text in found["warnings"][side])
