"""The table of docs/axes.md: classes, pins by reason and what a permutation changes, for every real model.

python benchmarks/axes_table.py [--tier real|slow|all] [--write docs/axes.md] [NAME ...]

`error` is the largest relative change of an output when all free classes are permuted at once; `noise` is that change
when every weight moves by a relative 1e-6 instead (the largest of three draws). A star: activations are not rounded in
these runs (tests/kit/laws.py). `ms` is processor time of the analysis, best of three.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import zoo
from kit import laws
from zoo_table import main

import mlc
from mlc.ir.axes import Axes, analyse
from mlc.ir.core import Module

COLUMNS = ("model", "ops", "free", "sizes", "pinned, by reason", "error", "noise", "ms")


def cells(name: str) -> list[object]:
    path = zoo.path(name)
    module = mlc.load(str(path))
    spent, axes = _timed(module)
    error, noise = laws.permutation_error(name, path, module, axes), laws.noise(name, path, module)
    ops, star = sum(1 for _ in module.walk()), "*" if name in laws.ROUNDED else ""
    found = (name, ops, len(axes.free), sizes(axes), reasons(axes), f"{error:.0e}{star}", f"{noise:.0e}{star}")
    return [*found, f"{spent:.0f}"]


def _timed(module: Module) -> tuple[float, Axes]:
    """Milliseconds of processor time of the fastest of three analyses."""
    best, axes = float("inf"), None
    for _ in range(3):
        start = time.process_time()
        axes = analyse(module)
        best = min(best, 1000 * (time.process_time() - start))
    assert axes is not None
    return best, axes


def sizes(axes: Axes, shown: int = 6) -> str:
    """Sizes of the free classes, largest first: `480x5, 240x7, ...`."""
    found = sorted(Counter(c.size for c in axes.free).items(), reverse=True)
    text = [f"{n}x{k}" if k > 1 else str(n) for n, k in found[:shown]]
    return ", ".join(text) + (", ..." if len(found) > shown else "")


def reasons(axes: Axes) -> str:
    """How many classes of more than one position each reason pins."""
    pins = Counter(c.pin.code for c in axes.pinned if c.pin is not None and c.size > 1)
    return ", ".join(f"{code} {n}" for code, n in sorted(pins.items(), key=lambda item: (-item[1], item[0])))


if __name__ == "__main__":
    main(__doc__, "axes-table", COLUMNS, cells)
