"""The tables of docs/axes.md and docs/passes/prune.md: classes per real model, and what a ratio makes of it.

python benchmarks/prune_table.py [--tier real|slow|all] [NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import numpy as np
import zoo

import mlc
from mlc.ir import dims
from mlc.ir.axes import Axes, analyse
from mlc.ir.core import Module
from mlc.ir.cost import module_cost
from mlc.ir.types import TensorType
from mlc.passes.base import Context
from mlc.passes.prune.groups import find_groups
from mlc.passes.prune.structured import Prune

#: Pins that every model has: kernels, the interface, lists of sizes, gates.
ORDINARY = {"spatial", "interface-input", "interface-output", "shape-operand", "gate", "direction", "time"}


def macs(module: Module, feeds: dict[str, np.ndarray]) -> int | None:
    """The MACs of one run on the feeds; None where a size is only known at run time."""
    binding: dict[str, int] = {}
    for value in module.graph.inputs:
        if isinstance(value.type, TensorType) and value.name in feeds:
            sizes = zip(value.type.shape, feeds[value.name].shape)
            binding.update({d.name: n for d, n in sizes if isinstance(d, dims.Sym)})
    return dims.evaluate(module_cost(module).macs, binding)


def classes(name: str, module: Module) -> str:
    start = time.perf_counter()
    axes = analyse(module)
    spent = time.perf_counter() - start
    groups, _ = find_groups(module, axes, Context().scope)
    return (
        f"| {name} | {sum(1 for _ in module.walk())} | {len(axes.free)} | {sizes(axes)} | {len(groups)} | "
        f"{reasons(axes)} | {spent * 1000:.0f} |"
    )


def sizes(axes: Axes) -> str:
    found = sorted(Counter(c.size for c in axes.free).items(), reverse=True)
    shown = [f"{n}x{k}" if k > 1 else str(n) for n, k in found[:5]]
    return ", ".join(shown) + (", ..." if len(found) > 5 else "")


def reasons(axes: Axes) -> str:
    pins = Counter(c.pin.code for c in axes.pinned if c.pin is not None and c.size > 1)
    return ", ".join(f"{code} {n}" for code, n in pins.most_common() if code not in ORDINARY) or "-"


def pruned(name: str, module: Module, feeds: dict[str, np.ndarray]) -> str:
    cells = []
    before, whole = macs(module, feeds), module_cost(module).weight_bytes
    for ratio in (0.3, 0.5):
        small = Prune(ratio=ratio)(module)
        after = macs(small, feeds)
        cells.append(f"{100 * module_cost(small).weight_bytes / whole:.0f} %")
        cells.append("-" if not before or after is None else f"{100 * after / before:.0f} %")
    bare = Prune(multiple=1)(module).history[-1].plan
    gone = sum(r.before - r.after for round_ in bare.rounds for r in round_.removals)
    return f"| {name} | {' | '.join(cells)} | {gone} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", choices=("real", "slow", "all"), default="real")
    parser.add_argument("--classes-only", action="store_true")
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    names = chosen.names or [n for n, e in zoo.entries().items() if chosen.tier in ("all", e.tier)]
    print("| model | ops | free classes | sizes | prunable | pinned, apart from kernels, interface and gates | ms |")
    print("|---|---|---|---|---|---|---|")
    modules = {n: mlc.load(str(zoo.path(n))) for n in names}
    for name, module in modules.items():
        print(classes(name, module), flush=True)
    if not chosen.classes_only:
        print("\n| model | bytes at 30 % | MACs | bytes at 50 % | MACs | redundant units found |")
        print("|---|---|---|---|---|---|")
        for name, module in modules.items():
            print(pruned(name, module, zoo.feeds(zoo.path(name), 0, name=name)), flush=True)


if __name__ == "__main__":
    main()
