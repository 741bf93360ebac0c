"""Numbers with units: what kind of quantity a unit makes of a number, and its value in the base unit."""

from __future__ import annotations

import difflib
import enum
from dataclasses import dataclass

from ..ir.errors import Code, Diagnostic
from .syntax import Number


class Quantity(enum.Enum):
    """The kinds of numbers; the value is how messages name them."""

    NUMBER = "plain number"
    RATIO = "ratio (%)"
    POINTS = "number of percentage points (pp)"
    FACTOR = "factor relative to the input model (x)"
    TIME = "time (ms)"
    SIZE = "size (KiB)"
    ENERGY = "energy (mJ)"
    LEVEL = "level (dB)"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Unit:
    """`value * times / over` is the value in the base unit of the kind (1, seconds, bytes, joules, dB)."""

    kind: Quantity
    times: int = 1
    over: int = 1


UNITS = {
    "": Unit(Quantity.NUMBER),
    "%": Unit(Quantity.RATIO, over=100),
    "pp": Unit(Quantity.POINTS, over=100),
    "x": Unit(Quantity.FACTOR),
    "ns": Unit(Quantity.TIME, over=10**9),
    "us": Unit(Quantity.TIME, over=10**6),
    "ms": Unit(Quantity.TIME, over=10**3),
    "s": Unit(Quantity.TIME),
    "B": Unit(Quantity.SIZE),
    "KB": Unit(Quantity.SIZE, times=10**3),
    "MB": Unit(Quantity.SIZE, times=10**6),
    "GB": Unit(Quantity.SIZE, times=10**9),
    "KiB": Unit(Quantity.SIZE, times=2**10),
    "MiB": Unit(Quantity.SIZE, times=2**20),
    "GiB": Unit(Quantity.SIZE, times=2**30),
    "mJ": Unit(Quantity.ENERGY, over=10**3),
    "dB": Unit(Quantity.LEVEL),
}


def kind_of(number: Number) -> Quantity | None:
    """The kind of quantity, None for an unknown unit."""
    unit = UNITS.get(number.unit)
    return unit.kind if unit else None


def base_value(number: Number) -> int | float:
    """The value in the base unit: 50% is 0.5, 4KiB is 4096, 3ms is 0.003. An exact integer stays one."""
    unit = UNITS[number.unit]
    scaled = number.value * unit.times
    return scaled if unit.over == 1 else scaled / unit.over


#: How a value in the base unit is told: what it is divided by, its format and the unit.
_SPOKEN = {
    Quantity.NUMBER: (1, ".6g", ""),
    Quantity.RATIO: (0.01, ".4g", "%"),
    Quantity.POINTS: (0.01, ".3g", " pp"),
    Quantity.FACTOR: (1, ".4g", "x"),
    Quantity.TIME: (1e-3, ".4g", " ms"),
    Quantity.ENERGY: (1e-3, ".4g", " mJ"),
    Quantity.LEVEL: (1, ".4g", " dB"),
}
_SIZES = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def spoken(value: float, kind: Quantity) -> str:
    """A value in the base unit of its kind, for people: `6.28 MiB`, `0.3x`, `27.4 dB`."""
    if kind is Quantity.SIZE:
        unit, over = next(((u, n) for u, n in _SIZES if abs(value) >= n), ("B", 1))
        return f"{value / over:.6g} {unit}"
    divisor, form, unit = _SPOKEN[kind]
    return f"{value / divisor:{form}}{unit}"


def unknown_unit(number: Number) -> Diagnostic | None:
    """The diagnostic for a unit that does not exist."""
    if number.unit in UNITS:
        return None
    known = {unit.lower(): unit for unit in UNITS if unit}
    near = difflib.get_close_matches(number.unit.lower(), known, 1, 0.6)
    advice = f"did you mean '{number.value!r}{known[near[0]]}'? " if near else ""
    return Diagnostic(
        Code.WRONG_UNIT,
        f"unknown unit '{number.unit}'",
        number.span,
        label="no unit of this name",
        help=f"{advice}the units are {', '.join(u for u in UNITS if u)}",
    )
