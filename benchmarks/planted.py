"""The table of docs/passes/prune.md on dead units: planted into every group of every real model, found, removed.

python benchmarks/planted.py [--tier real|slow|all] [--write docs/passes/prune.md] [NAME ...]

Two units of every group of six or more are set to zero in every tensor; bare `prune(multiple=1)` has to find them.
`change` is the largest relative change of an output of the model with the planted units: of these (1 and 3), and when
the last 16 units of every group of at least 32 die instead, so that the kernels sum what is left in the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import zoo
from kit import laws, plant
from kit.permute import relative, run
from zoo_table import main

import mlc
from mlc.ir.axes import AxisClass, analyse
from mlc.passes.base import Context
from mlc.passes.prune.groups import find_groups
from mlc.passes.prune.structured import Prune

COLUMNS = ("model", "groups", "found", "change", "change, last 16 of each")
Chosen = Callable[[AxisClass], list[int]]


def scattered(c: AxisClass) -> list[int]:
    return [1, 3] if c.size >= 6 else []


def last(c: AxisClass) -> list[int]:
    return list(range(c.size - 16, c.size)) if c.size >= 32 else []


def planted(name: str, chosen: Chosen) -> tuple[int, int, float]:
    """How many groups got dead units, how many lost all of them, and what that changed."""
    path = zoo.path(name)
    module = mlc.load(str(path))
    axes = analyse(module)
    groups, _ = find_groups(module, axes, Context().scope, nested="both")
    targets = {g.id: set(units) for g in groups if (units := chosen(g.axis_class))}
    for c, units in targets.items():
        plant.zero(module, axes, axes.classes[c], sorted(units))
    pruned = Prune(multiple=1)(module)
    rounds = pruned.history[-1].plan.rounds
    found = 0
    for r in rounds[0].removals if rounds else ():
        c = axes.within(axes.of(module.constants[r.constant])[r.axis])[r.nth].id
        found += bool(targets.get(c)) and targets[c] <= set(r.units.tolist())
    feeds = laws.feeds(name, path)
    return len(targets), found, relative(run(module, feeds), run(pruned, feeds))


def shown(change: float) -> str:
    return f"{change:.0e}" if change else "0"


def cells(name: str) -> list[object]:
    groups, found, change = planted(name, scattered)
    wide, _, aligned = planted(name, last)
    return [name, groups, found, shown(change), shown(aligned) if wide else "-"]


if __name__ == "__main__":
    main(__doc__, "planted-table", COLUMNS, cells)
