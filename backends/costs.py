"""The cost table of a target: CPU seconds of operators in their forms, measured on grids of sizes.

A series holds the times of one operator in one form at every point of a grid of sizes (rows, depth and width of a
matrix product; channels and positions of a convolution; elements). Between points time is interpolated linearly in
logarithms; above the grid it grows with the work; below, it stays (what is left is the cost of a call).

`mlc calibrate` measures a table (backends/calibrate.py) and keeps it in the user's cache folder, from where it is read
on the same CPU with the same ONNX Runtime. Without one, the table that comes with mlc answers, and what was decided by
it is said to rest on assumed costs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..ir.disk import write_error
from ..ir.errors import Code, MlcError, error
from .artifact import replace_text
from .machine import Isa, cache_folder, cpu_name, kernel_flags

FORMAT = 1
KIND = "costs of ort(cpu)"
Origin = Literal["measured", "assumed", "given"]
Array = np.ndarray[Any, np.dtype[np.float64]]

_SHIPPED = "costs_vnni.json"
_DIGITS = 4
#: What 8-bit products cost against those of the shipped table, which was measured with VNNI. AVX2 multiplies and adds
#: in two steps and widens in a third; without vectors of bytes nothing is gained over floats.
_ISA_FACTORS: Mapping[Isa, float] = {"vnni": 1.0, "neon": 1.0, "avx2": 2.0, "portable": 4.0}
_INTEGER_FORMS = ("static", "dynamic", "blocks")


@dataclass(frozen=True, slots=True)
class Key:
    """An operator (or a kind of one, `Conv/depthwise`) in a form; bits and block where the form has them."""

    op: str
    form: str
    bits: int = 0
    block: int = 0

    def __str__(self) -> str:
        return " ".join([self.op, self.form, *(str(n) for n in (self.bits, self.block) if n)])

    @classmethod
    def parse(cls, text: str) -> Key:
        op, form, *rest = text.split(" ")
        return cls(op, form, *(int(n) for n in rest))


@dataclass(frozen=True)
class Series:
    """Seconds at every point of a grid: `axes` are names with ascending sizes, `seconds` has one dimension for each."""

    axes: tuple[tuple[str, tuple[int, ...]], ...]
    seconds: Array

    def at(self, sizes: Mapping[str, float]) -> float:
        """Seconds at some sizes, by linear interpolation of logarithms along every axis."""
        work, corners = 1.0, []
        for name, grid in self.axes:
            size = max(float(sizes[name]), grid[0])
            work *= max(1.0, size / grid[-1])
            corners.append(_between(min(size, grid[-1]), grid))
        total = 0.0
        for corner in product(*corners):
            weight = math.prod(w for _, w in corner)
            if weight:
                total += weight * math.log(self.seconds[tuple(i for i, _ in corner)])
        return math.exp(total) * work


def _between(size: float, grid: tuple[int, ...]) -> list[tuple[int, float]]:
    """The neighbours of a size in a grid, with their weights."""
    if len(grid) == 1:
        return [(0, 1.0)]
    lower = min(int(np.searchsorted(grid, size, side="right")) - 1, len(grid) - 2)
    share = math.log(size / grid[lower]) / math.log(grid[lower + 1] / grid[lower])
    return [(lower, 1.0 - share), (lower + 1, share)]


@dataclass(frozen=True)
class CostTable:
    """What operators cost on one machine. `isa` scales costs measured with VNNI to another instruction set."""

    series: Mapping[Key, Series]
    environment: Mapping[str, Any]
    origin: Origin = "measured"
    isa: Isa = "vnni"
    nearest: dict[Key, Key | None] = field(default_factory=dict, repr=False, compare=False)

    def seconds(self, key: Key, sizes: Mapping[str, float]) -> float | None:
        """CPU seconds of one run; None for what was not measured."""
        known = self._known(key)
        if known is None:
            return None
        factor = _ISA_FACTORS[self.isa] if key.form in _INTEGER_FORMS else 1.0
        return self.series[known].at(sizes) * factor

    def _known(self, key: Key) -> Key | None:
        """The key, or the same with the nearest block size that was measured."""
        if key in self.series:
            return key
        if key not in self.nearest:
            alike = [k for k in self.series if (k.op, k.form, k.bits) == (key.op, key.form, key.bits) and k.block]
            best = min(alike, key=lambda k: abs(math.log(k.block / key.block)), default=None) if key.block else None
            self.nearest[key] = best
        return self.nearest[key]

    @cached_property
    def digest(self) -> str:
        """A name for the contents: plans made with equal digests saw equal costs."""
        text = json.dumps([self._body(), self.isa if self.origin == "assumed" else ""], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _body(self) -> dict[str, Any]:
        return {
            str(key): {
                "axes": {name: list(grid) for name, grid in series.axes},
                "seconds": [float(f"{s:.{_DIGITS}g}") for s in series.seconds.ravel()],
            }
            for key, series in sorted(self.series.items(), key=lambda kv: str(kv[0]))
        }

    def to_json(self) -> str:
        document = {"format": FORMAT, "kind": KIND, "environment": dict(self.environment), "series": self._body()}
        return json.dumps(document, indent=1) + "\n"

    def describe(self) -> dict[str, str]:
        """What the report says of the table."""
        return {"costs": self.origin, "digest": self.digest}


# -- files -------------------------------------------------------------------------------------------------------------


def machine(threads: int) -> dict[str, Any]:
    """What measured costs hold for: they are used again where all of this is the same."""
    return {
        "cpu": cpu_name(),
        "isa": kernel_flags(),
        "onnxruntime": version("onnxruntime"),
        "threads": threads,
    }


def cache_path(threads: int, folder: Path | None = None) -> Path:
    """The file that holds the costs of this machine."""
    name = hashlib.sha256(json.dumps(machine(threads), sort_keys=True).encode()).hexdigest()[:12]
    return (folder or cache_folder()) / f"costs-{name}.json"


def known_costs(threads: int, isa: Isa, folder: Path | None = None) -> CostTable:
    """The costs measured on this machine, else the ones that come with mlc. Errors: BAD_TARGET for a broken file."""
    path = cache_path(threads, folder)
    return read(path, "measured") if path.is_file() else assumed_costs(isa)


def assumed_costs(isa: Isa) -> CostTable:
    """The costs that come with mlc."""
    text = (files(__package__) / _SHIPPED).read_text("utf-8")
    return _parse(text, _SHIPPED, "assumed", isa)


def write(table: CostTable, path: Path) -> None:
    """Write a table; the file appears whole or not at all. Errors: OUTPUT."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise write_error(path.parent, cause, "choose another -o") from cause
    replace_text(path, table.to_json())


def read(path: Path, origin: Origin) -> CostTable:
    """The table in a file. Errors: NOT_FOUND; BAD_TARGET for something else than a table of this format."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        code = Code.BAD_TARGET if path.exists() else Code.NOT_FOUND
        problem = "cannot be read as text" if path.exists() else "does not exist"
        raise error(code, f"the cost table {str(path)!r} {problem}", help="mlc calibrate -o FILE writes one") from cause
    return _parse(text, str(path), origin, "vnni")


def _parse(text: str, name: str, origin: Origin, isa: Isa) -> CostTable:
    try:
        found = json.loads(text)
        if found["kind"] != KIND:
            raise _broken(name, "it is something else")
        if found["format"] > FORMAT:
            raise error(
                Code.FORMAT,
                f"{name!r} has format {found['format']}; this mlc reads up to {FORMAT}",
                help="measure again with mlc calibrate, or update mlc: pip install -U mlc-compress",
            )
        series = {Key.parse(key): _series(key, item) for key, item in found["series"].items()}
        return CostTable(series, dict(found["environment"]), origin, isa)
    except MlcError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        why = f"it lacks {cause}" if isinstance(cause, KeyError) else f"{type(cause).__name__}: {cause}"
        raise _broken(name, why) from cause


def axes_of(op: str) -> tuple[str, ...]:
    """The sizes that a series of an operator is measured by."""
    if op == "MatMul":
        return "M", "K", "N"
    if op.startswith("Conv/"):
        return "channels" if op.startswith("Conv/depthwise") else "pairs", "positions"
    return ("elements",)


def _series(key: str, item: Mapping[str, Any]) -> Series:
    axes = tuple((str(name), tuple(int(n) for n in grid)) for name, grid in item["axes"].items())
    if tuple(name for name, _ in axes) != axes_of(Key.parse(key).op):
        raise ValueError(f"{key!r} is not measured by {', '.join(axes_of(Key.parse(key).op))}")
    seconds = np.asarray(item["seconds"], np.float64).reshape([len(grid) for _, grid in axes])
    if any(grid[0] < 1 or any(a >= b for a, b in pairwise(grid)) for _, grid in axes):
        raise ValueError(f"the sizes of {key!r} are not positive and ascending")
    if not (np.isfinite(seconds).all() and (seconds > 0).all()):
        raise ValueError(f"the times of {key!r} are not positive")
    return Series(axes, seconds)


def _broken(name: str, why: str) -> MlcError:
    return error(
        Code.BAD_TARGET,
        f"{name!r} is not a cost table of mlc: {why}",
        help="measure again with mlc calibrate, or remove the file",
    )
