"""Fields of passes and data sources: how they are declared, checked and written as recipe text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Any, Literal

from . import errors
from .errors import Code

Unit = Literal["ratio", "number", "int", "name", "str", "word", "path", "bool", "ints", "numbers", "size", "data"]


def option(
    default: Any = dataclasses.MISSING,
    *,
    unit: Unit,
    doc: str,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[object] = (),
    positional: bool = False,
) -> Any:
    """A field: its default (None: free), unit, range or choices, and one line of documentation."""
    metadata = {
        "unit": unit, "doc": doc, "low": low, "high": high, "choices": tuple(choices), "positional": positional,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


def format_value(value: Any, unit: str) -> str:
    """A field's value as recipe text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(format_value(v, unit) for v in value) + "]"
    if unit == "ratio":
        return f"{value * 100:g}%"
    if unit == "size":
        return f"{value}B"
    if unit in ("str", "path") or (unit == "word" and not value.isidentifier()):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) else str(value)


_TYPES: dict[str, tuple[type, ...]] = {
    "ratio": (int, float), "number": (int, float), "int": (int,), "name": (str,), "str": (str,), "word": (str,),
    "path": (str,), "bool": (bool,), "ints": (tuple,), "numbers": (tuple,), "size": (int,), "data": (str,),
}  # fmt: skip


#: How units that recipes spell in their own way are given from Python.
_SPELLED = {"ratio": "give a fraction such as 0.5, which recipes write 50%", "size": "give bytes as a whole number"}


def check_field(step: str, f: dataclasses.Field[Any], value: Any) -> None:
    if value is None and f.default is None:
        return
    meta = f.metadata
    if meta.get("unit") not in _TYPES:
        raise TypeError(f"the field {f.name!r} of pass {step!r} is not made by option(..., unit=..., doc=...)")
    wanted = _TYPES[meta["unit"]]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        told = f"'{step}.{f.name}' wants {meta['unit']}, not {value!r}"
        raise errors.error(Code.WRONG_UNIT, told, help=_SPELLED.get(meta["unit"], ""))
    low, high, choices = meta["low"], meta["high"], meta["choices"]
    for item in value if isinstance(value, tuple) else (value,):
        if item != item:
            raise errors.error(Code.OUT_OF_RANGE, f"'{step}.{f.name}' is not a number", help="give a number")
        if choices and item not in choices:
            allowed = ", ".join(map(str, choices))
            raise errors.error(Code.OUT_OF_RANGE, f"'{step}.{f.name}' is {item!r}", help=f"choose one of {allowed}")
        if (low is not None and item < low) or (high is not None and item > high):
            raise errors.error(
                Code.OUT_OF_RANGE,
                f"'{step}.{f.name}' = {format_value(item, meta['unit'])} is out of range",
                help=_range(low, high, meta["unit"]),
            )


def _range(low: float | None, high: float | None, unit: str) -> str:
    """The range as advice: `1% to 100%`, `at least 1`, `at most 4`."""
    if high is None:
        return f"at least {format_value(low, unit)}"
    if low is None:
        return f"at most {format_value(high, unit)}"
    return f"{format_value(low, unit)} to {format_value(high, unit)}"
