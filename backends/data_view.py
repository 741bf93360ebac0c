"""What `mlc data check` found, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SHOWN_SHAPES = 3
_SHOWN_CLASSES = 10
_DIGITS = 12


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print each part of the data, and how it is used."""
    from rich.text import Text

    for name in ("data", "eval"):
        part = found[name]
        if part is None:
            continue
        console.print(Text(f"{part['source']}: {_samples(part['samples'])}, sha256 {part['sha256'][:_DIGITS]}"))
        console.print(_inputs(part["inputs"]))
        for line in _lines(part):
            console.print(Text(line))
    console.print(Text(_use(found)))


def _inputs(inputs: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("input", "type", "shapes of samples", "range", "mean"):
        table.add_column(column)
    for name, each in inputs.items():
        table.add_row(*map(Text, (name, each["type"], _shapes(each), _range(each), _number(each["mean"]))))
    return table


def _shapes(found: Mapping[str, Any]) -> str:
    shapes = found["shapes"]
    several = len(shapes) > 1
    shown = (f"{s['shape']}" + (f" x {s['samples']}" if several else "") for s in shapes[:_SHOWN_SHAPES])
    more = len(shapes) - _SHOWN_SHAPES + found["other_shapes"]
    return ", ".join(shown) + (f", {more} more" if more > 0 else "")


def _range(found: Mapping[str, Any]) -> str:
    if found["min"] is None:
        return "-"
    infinite = found["samples_with_infinity"]
    return f"{_number(found['min'])} to {_number(found['max'])}" + (f", {infinite} with infinity" if infinite else "")


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _lines(part: Mapping[str, Any]) -> Iterator[str]:
    classes = part["classes"]
    if classes is not None:
        counts = ", ".join(f"{label}: {count}" for label, count in classes["counts"][:_SHOWN_CLASSES])
        rest = classes["distinct"] - _SHOWN_CLASSES
        yield f"labels: {classes['distinct']} different: {counts}" + (f", {rest} more" if rest > 0 else "")
    if part["labels"] is not None:
        yield f"labels: {' and '.join(part['labels']['types'])} of shape {_shapes(part['labels'])}"
    yield f"identical samples: {part['identical']}"
    yield from (f"note: {note}" for note in part["notes"])


def _use(found: Mapping[str, Any]) -> str:
    split = found["split"]
    if split is None:
        return f"use: --data calibrates, --eval judges; samples in both: {found['in_both']}"
    if not split["calibrates"] or not split["judges"]:
        return "use: too few samples to split: all of them calibrate, and synthetic input judges"
    return (
        f"use: {_samples(split['calibrates'])} to calibrate, {split['judges']} to judge (seed {split['seed']}); "
        f"identical ones on both sides: {split['on_both_sides']}"
    )
