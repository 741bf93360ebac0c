"""One op on constant operands, asked for its axis rule: permuted operands, and operands with units removed.

    alone = Alone("Gather", [array, indices], {"axis": 1})
    alone.permuted()    the classes that were permuted, and what is wrong ("" if nothing is)
    alone.removed()     the same with units removed; explicit sizes of the op follow (RESIZE)

Without inputs every axis is free that the rule leaves free. The runtime computes, not mlc's own references; an
`oracle` (operands to results, in numpy) stands in where the runtime has no kernel for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from kit.net import Net
from kit.permute import permutations
from onnx import ModelProto

from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.axes import Axes, AxisClass, Index, analyse
from mlc.ir.core import Attr, Module
from mlc.ir.errors import MlcError
from mlc.ir.evaluate import evaluate
from mlc.ir.ops.axes_resizer import CannotResize
from mlc.ir.rewrite import Rewriter
from mlc.passes.prune.surgery import remove_units

Array = np.ndarray[Any, Any]
#: Functions of which removing units yields other numbers, not only fewer.
CHANGED = ("count-sensitive", "attention-inner")
#: Operators that mix the units of a class into each other while they carry them along.
MIXED = {
    "GRU", "LSTM", "LpNormalization", "RNN", "ReduceSum", "ReduceSumSquare",
    "LRN",  # ONNX's reference runs over the channels as many times as there are images
}  # fmt: skip


class Alone:
    """A module of one op whose operands are constants (None: left out)."""

    def __init__(
        self,
        kind: str,
        operands: Sequence[Array | None],
        attrs: Mapping[str, Attr] | None = None,
        results: int = 1,
        *,
        opset: int = 21,
        oracle: Callable[..., Sequence[Array]] | None = None,
    ) -> None:
        self._oracle = oracle
        net = Net(opset=opset)
        net.module.opsets["com.microsoft"] = 1
        values = [None if a is None else net.const(a, f"x{i}") for i, a in enumerate(operands)]
        self.op = net.node(kind, values, None, attrs, count=results)
        self.module = net.done(*self.op.results)
        self.axes = analyse(self.module, pin_outputs=False)

    @property
    def sizes(self) -> list[int]:
        """Of the free classes, largest first."""
        return sorted((c.size for c in self.axes.free), reverse=True)

    @property
    def types(self) -> list[str]:
        """The axes of the first result as text."""
        return [self.axes.text(t) for t in self.axes.of(self.op.results[0]) or ()]

    def run(self) -> list[Array]:
        return self._run(self.module)

    def _run(self, module: Module) -> list[Array]:
        if self._oracle is None:
            return [np.asarray(y) for y in Session(module, optimize=False).run({}).values()]
        (op,) = module.graph.ops
        arrays = [None if v is None or v.constant is None else v.constant.array() for v in op.operands]
        return list(self._oracle(op, *arrays))

    def permuted(self, seed: int = 0, *, bound: float = 1e-5) -> tuple[int, str]:
        chosen: dict[int, Index] = permutations(self.axes, seed)
        return len(chosen), self._compare(chosen, self._run(self.axes.permuted(chosen)), bound)

    def removed(
        self, seed: int = 0, *, only: Sequence[int] | None = None, bound: float = 1e-5, shapes: bool = False
    ) -> tuple[int, str]:
        """Take units of every class (or of those in `only`) away and run what is left.

        The result is the old one with fewer positions where no class matters for the numbers; elsewhere, and with
        `shapes`, its shape is compared alone.
        """
        rng = np.random.default_rng(seed)
        classes = [c for c in self.axes.free if c.size > 1 and (only is None or c.id in only)]
        kept: dict[int, Index] = {c.id: _some(c, rng) for c in classes}
        return self.without(kept, bound=bound, shapes=shapes)

    def without(self, kept: Mapping[int, Index], *, bound: float = 1e-5, shapes: bool = False) -> tuple[int, str]:
        """The same with the units that are to stay given."""
        chosen, twin = self.cut(kept)
        exact = all(not c.marks.keys() & set(CHANGED) and self._survives(c) for c in self.axes.free if c.id in kept)
        return len(chosen), self._compare(chosen, self._run(twin), bound if exact and not shapes else None)

    def cut(self, kept: Mapping[int, Index]) -> tuple[dict[int, Index], Module]:
        """A copy of the module that keeps these units only."""
        return dict(kept), _cut(self.module, kept)

    def _survives(self, c: AxisClass) -> bool:
        """Whether a class occurs in a result: what is summed over is gone."""
        return any(c.id in self.axes.touched(value) for value in self.op.results)

    def _compare(self, chosen: Mapping[int, Index], found: Sequence[Array], bound: float | None) -> str:
        for value, old, new in zip(self.op.results, self.run(), found, strict=True):
            wanted = _taken(self.axes, value, old, chosen)
            if wanted.shape != new.shape:
                return f"shape {new.shape} instead of {wanted.shape}: {self.types}"
            if bound is None:
                continue
            a, b = wanted.astype(np.float64), new.astype(np.float64)
            gap = np.abs(a - b).max(initial=0) / (np.abs(a).max(initial=0) + 1e-30)
            if not gap <= bound:
                return f"{value.name} is off by {gap:.1e}: {self.types}"
        return ""


def _cut(module: Module, kept: Mapping[int, Index]) -> Module:
    twin = module.clone()
    axes = analyse(twin, pin_outputs=False)
    remove_units(Rewriter(twin), axes, kept)
    return twin


def removable(proto: ModelProto) -> tuple[int, str] | None:
    """A model without inputs, one unit of every class taken away, class by class: how many, and what is wrong.

    Shapes are compared, and numbers where the class is only carried along: equal to those of the cut result. None if
    the model cannot be read or evaluated. A class that an operator refuses to shrink, with a reason, does not count.
    """
    try:
        module = load(proto)
        before = evaluate(module, {})
    except MlcError:
        return None
    axes = analyse(module, pin_outputs=False)
    done = 0
    for c in axes.free:
        if c.size == 1:
            continue
        kept = {c.id: np.delete(np.arange(c.size), c.size // 2)}
        try:
            after = evaluate(_cut(module, kept), {})
        except CannotResize:
            continue
        done += 1
        carried = not c.marks.keys() & set(CHANGED) and not op_kinds(module) & MIXED
        for value, y, z in zip(module.graph.outputs, before, after):
            if not isinstance(y, np.ndarray):
                continue
            y, text = _taken(axes, value, y, kept), [axes.text(t) for t in axes.of(value) or ()]
            if y.shape != z.shape:
                return done, f"{value.name}: {z.shape} instead of {y.shape}, {text}"
            if (
                carried
                and c.id in axes.touched(value)
                and not np.allclose(y.astype(float), z.astype(float), 1e-4, 1e-5, equal_nan=True)
            ):
                return done, f"{value.name}: other numbers, {text}"
    return done, ""


def op_kinds(module: Module) -> set[str]:
    return {op.kind for op in module.graph.walk()}


def _taken(axes: Axes, value: Any, array: Array, chosen: Mapping[int, Index]) -> Array:
    for axis, t in enumerate(axes.of(value) or ()):
        index = axes.expand(t, chosen)
        array = array if index is None else np.take(array, index, axis=axis)
    return array


def _some(c: AxisClass, rng: np.random.Generator) -> Index:
    """A random part of the units, never all and never none, in order."""
    return np.sort(rng.choice(c.size, int(rng.integers(1, c.size)), replace=False))
