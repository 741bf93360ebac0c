"""Instruments of the pipeline: sizes, printing after changes, numerics, and finding the step that breaks a bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from ..ir.core import Module
from ..ir.cost import module_cost
from ..ir.dims import evaluate
from ..ir.progress import Listener
from ..ir.text import print_module
from .base import Context, PassReport
from .pipeline import PlannedStep, run
from .ports import Array, Feeds, Runner

_CHUNK = 1 << 17  # numbers that are widened to float64 at a time: they stay in the cache


class SizeDelta:
    """Nodes, parameters, weight bytes and MACs before and after every step."""

    def __init__(self, dims: Mapping[str, int] | None = None) -> None:
        self._dims = dict(dims or {})
        self._last: dict[str, Any] = {}

    def before(self, index: int, step: PlannedStep, module: Module) -> None:
        self._last = self._last or sizes(module, self._dims)

    def after(self, index: int, step: PlannedStep, module: Module, report: PassReport) -> None:
        now = sizes(module, self._dims)
        report.metrics["before"], report.metrics["after"] = self._last, now
        self._last = now


def sizes(module: Module, dims: Mapping[str, int]) -> dict[str, Any]:
    """Node, parameter, byte and MAC counts; MACs are text while a dimension they need is unbound."""
    cost = module_cost(module)
    macs = evaluate(cost.macs, dims)
    return {
        "nodes": sum(1 for _ in module.walk()),
        "params": cost.parameters,
        "bytes": cost.weight_bytes,
        "macs": macs if macs is not None else str(cost.macs),
    }


class Steps:
    """Tells a listener of every step that begins."""

    def __init__(self, listener: Listener, total: int) -> None:
        self._listener, self._total = listener, total

    def before(self, index: int, step: PlannedStep, module: Module) -> None:
        self._listener.step(str(step), index + 1, self._total)

    def after(self, index: int, step: PlannedStep, module: Module, report: PassReport) -> None:
        """Nothing to note."""


class PrintChanged:
    """Prints the IR text after every step that changed it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def before(self, index: int, step: PlannedStep, module: Module) -> None:
        """Nothing to note."""

    def after(self, index: int, step: PlannedStep, module: Module, report: PassReport) -> None:
        if report.changed:
            self._stream.write(f"// after step {index + 1}: {step}\n{print_module(module)}\n")


class Drift:
    """Distance of every float output from the reference's after each step (1 - cosine, worst output)."""

    def __init__(self, runner: Runner, feeds: Sequence[Feeds], reference: Sequence[Mapping[str, Array]]) -> None:
        self._runner, self._feeds, self._reference = runner, feeds, reference

    def before(self, index: int, step: PlannedStep, module: Module) -> None:
        """Nothing to note."""

    def after(self, index: int, step: PlannedStep, module: Module, report: PassReport) -> None:
        if report.changed:
            report.metrics["drift"] = drift(self._runner, module, self._feeds, self._reference)


def drift(runner: Runner, module: Module, feeds: Sequence[Feeds], reference: Sequence[Mapping[str, Array]]) -> float:
    """1 - cosine of the worst float output over all samples; 1 for outputs that differ in shape or finiteness."""
    angles: dict[str, Angle] = {}
    executable = runner.prepare(module)
    for feed, expected in zip(feeds, reference):
        found = arrays(executable.run(feed))
        for name, wanted in arrays(expected).items():
            if wanted.dtype.kind == "f":
                angles.setdefault(name, Angle()).update(wanted, found.get(name, ABSENT))
    return max((1.0 - angle.cosine for angle in angles.values()), default=0.0)


#: Stands for an output that is not there, in place of one that is: its shape is that of none.
ABSENT: Array = np.zeros((0,) * 9)


def arrays(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Outputs that can be compared: tensors, and the elements of sequences (`y[0]`)."""
    found: dict[str, Array] = {}
    for name, value in outputs.items():
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, list):
            found |= arrays({f"{name}[{index}]": item for index, item in enumerate(value)})
    return found


@dataclass
class Angle:
    """The cosine between two streams of arrays, each seen as one long vector: one number a sample still says
    something over several samples. Positions that are not finite in both are left out."""

    dot: float = 0.0
    squares: tuple[float, float] = (0.0, 0.0)
    equal: bool = True
    broken: bool = False  # shapes or finiteness differ

    def update(self, a: Array, b: Array) -> None:
        if a.shape != b.shape:
            self.broken = True
            return
        x, y = a.reshape(-1), b.reshape(-1)
        for start in range(0, x.size, _CHUNK):
            self._add(x[start : start + _CHUNK], y[start : start + _CHUNK])

    def _add(self, a: Array, b: Array) -> None:
        same = np.isfinite(a)
        if not np.array_equal(same, np.isfinite(b)):
            self.broken = True
            return
        if not same.all():
            a, b = a[same], b[same]
        x, y = a.astype(np.float64), b.astype(np.float64)
        # Not x @ y: a threaded BLAS takes longer for vectors of this size, and its sums depend on the threads.
        self.dot += float((x * y).sum())
        self.squares = self.squares[0] + float((x * x).sum()), self.squares[1] + float((y * y).sum())
        self.equal = self.equal and np.array_equal(x, y)

    @property
    def cosine(self) -> float:
        """1 for equal streams, zeros included; 0 if they cannot be compared, or one is all zeros."""
        norm = math.sqrt(self.squares[0] * self.squares[1])
        if self.broken or self.equal or norm == 0.0:
            return float(self.equal and not self.broken)
        found = self.dot / norm
        return min(1.0, found) if math.isfinite(found) else 0.0  # squares of float64 may overflow: min() would say 1


def cosine(a: Array, b: Array) -> float:
    """Cosine of two arrays seen as vectors; 1 if both are zero, 0 if shapes or finiteness differ."""
    angle = Angle()
    angle.update(a, b)
    return angle.cosine


def first_diverging(
    runner: Runner, before: Module, after: Module, feeds: Feeds, *, tolerance: float = 1e-3
) -> tuple[str, float] | None:
    """The first op, in program order, whose result (found by name in both modules) differs by more than
    `tolerance` in cosine; with that distance. None if all common values agree."""
    names = {v.name for op in before.graph.ops for v in op.results}
    common = [op for op in after.graph.ops if any(v.name in names for v in op.results)]
    taps = [v.name for op in common for v in op.results if v.name in names]
    expected, found = runner.prepare(before, taps).run(feeds), runner.prepare(after, taps).run(feeds)
    for op in common:
        for value in op.results:
            if value.name in names and expected[value.name].dtype.kind == "f":
                distance = 1.0 - cosine(expected[value.name], found[value.name])
                if distance > tolerance:
                    return op.name, distance
    return None


def bisect(steps: Sequence[PlannedStep], module: Module, ctx: Context, holds: Callable[[Module], bool]) -> int | None:
    """Index of the first step after which `holds` is false; None if it holds to the end.

    Assumes that what is broken stays broken, so that O(log n) prefixes are run.
    """
    low, high = 0, len(steps)  # the prefix of length `low` holds, that of length `high` is the suspect
    if _prefix_holds(steps, high, module, ctx, holds):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _prefix_holds(steps, middle, module, ctx, holds) else (low, middle)
    return high - 1


def _prefix_holds(
    steps: Sequence[PlannedStep], length: int, module: Module, ctx: Context, holds: Callable[[Module], bool]
) -> bool:
    twin = module.clone()
    run(steps[:length], twin, ctx)
    return holds(twin)
