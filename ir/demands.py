"""What a model demands of its inputs beyond their types: sizes that its operators can work with, and numbers that its
tables have.

Both come from the graph: types are inferred anew for the sizes at hand, numbers are followed to the tables
(ir/picks.py). What cannot be told is not refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .core import Graph, Module
from .dims import Sym
from .errors import Diagnostic, MlcError
from .infer import infer_op, settle
from .picks import Beyond, Picks
from .types import TensorType, Type

Array = np.ndarray[Any, Any]
Shapes = tuple[tuple[int, ...], ...]  # of the inputs in order
_TRUNCATING = frozenset({"AveragePool", "LpPool", "MaxPool"})  # run with windows wider than what they slide over
_STEPS = 16  # sizes below a wrong one that are tried one by one
_MULTIPLES = (2, 4, 8, 16, 32, 64)  # what strides add up to


@dataclass(frozen=True)
class Typed:
    """What a model makes of inputs of some sizes: the types of its outputs, sizes of values that decide about
    numbers; or, with these sizes, why it cannot work."""

    outputs: Mapping[str, Type] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    refusal: Diagnostic | None = None


@dataclass(frozen=True)
class Nearest:
    """Sizes close to wrong ones that the model works with: one axis of an input (`axis`), or a whole shape."""

    input: str
    shape: tuple[int, ...]
    axis: int | None = None


class Demands:
    """The demands of one module, which must not change meanwhile."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._picks = Picks(module)
        self._typed: dict[Shapes, Typed] = {}

    def typed(self, shapes: Shapes) -> Typed:
        """Types for inputs of these shapes; inferred once for each."""
        if shapes not in self._typed:
            self._typed[shapes] = self._infer(shapes)
        return self._typed[shapes]

    def beyond(self, feeds: Mapping[str, Array]) -> Beyond | None:
        """A number in whole inputs that a table of the model does not have."""
        return self._picks.beyond(
            feeds, self.typed(tuple(feeds[v.name].shape for v in self._module.graph.inputs)).sizes
        )

    def nearest(self, shapes: Shapes) -> Nearest | None:
        """The sizes below wrong ones that the model works with: of one axis, or of all free ones; None if none is
        found."""

        def works(sizes: Mapping[Sym, int]) -> bool:
            return self._infer(self._bound(shapes, sizes)).refusal is None

        free = self._free(shapes)
        for symbol, (name, axis, size) in free.items():
            if (good := _largest(size, lambda n, s=symbol: works({s: n}))) is not None:  # type: ignore[misc]
                return Nearest(name, self._bound(shapes, {symbol: good})[self._place(name)], axis)
        for multiple in _MULTIPLES:
            sizes = {s: size // multiple * multiple for s, (_, _, size) in free.items() if size >= multiple}
            if sizes and works(sizes):
                name = next(iter(free.values()))[0]
                return Nearest(name, self._bound(shapes, sizes)[self._place(name)])
        return None

    def _infer(self, shapes: Shapes) -> Typed:
        twin = self._module.clone()
        for value, shape in zip(twin.graph.inputs, shapes):
            assert isinstance(value.type, TensorType), "what can be fed has a rank"
            value.type = TensorType(value.type.dtype, shape)
        try:
            _infer_graph(twin.graph, twin)
        except MlcError as refusal:
            return Typed(refusal=refusal.diagnostics[0])
        sized = self._picks.sized
        known = {
            v.name: v.type.static_shape for v in twin.values() if v.name in sized and isinstance(v.type, TensorType)
        }
        outputs = {name: v.type for name, v in zip(twin.graph.output_names, twin.graph.outputs)}
        return Typed(outputs, {name: shape for name, shape in known.items() if shape is not None})

    def _free(self, shapes: Shapes) -> dict[Sym, tuple[str, int, int]]:
        """The sizes that the model leaves open, but that of the batch: input, axis and size; inner axes come last."""
        found: dict[Sym, tuple[str, int, int]] = {}
        for name, axis, dim, size in self._axes(shapes):
            if isinstance(dim, Sym) and size > 1:
                found.setdefault(dim, (name, axis, size))
        batch = {dim for _, axis, dim, _ in self._axes(shapes) if axis == 0}
        return {s: where for s, where in found.items() if s not in batch} or found

    def _axes(self, shapes: Shapes) -> Iterator[tuple[str, int, Any, int]]:
        for value, shape in zip(self._module.graph.inputs, shapes):
            assert isinstance(value.type, TensorType)
            for axis, (dim, size) in enumerate(zip(value.type.shape, shape)):
                yield value.name, axis, dim, size

    def _bound(self, shapes: Shapes, sizes: Mapping[Sym, int]) -> Shapes:
        """The shapes with other sizes for some symbols."""
        found = []
        for value, shape in zip(self._module.graph.inputs, shapes):
            assert isinstance(value.type, TensorType)
            found.append(tuple(sizes.get(d, n) if isinstance(d, Sym) else n for d, n in zip(value.type.shape, shape)))
        return tuple(found)

    def _place(self, name: str) -> int:
        return [v.name for v in self._module.graph.inputs].index(name)


def _infer_graph(graph: Graph, module: Module) -> None:
    """Infer the main graph. Bodies that do not fit are no refusal: these sizes may never take that branch. Nor are
    windows that the runtime runs all the same."""
    for op in graph.ops:
        try:
            found = infer_op(op, module, require=False)
        except MlcError:
            if not op.regions and op.kind not in _TRUNCATING:
                raise
            continue  # the results keep the types that hold for all sizes
        for value, inferred in zip(op.results, found):
            settle(value, inferred, keep=False)


def _largest(size: int, works: Callable[[int], bool]) -> int | None:
    """The largest size below a wrong one that works, as far as a short search tells."""
    for near in range(size - 1, max(0, size - 1 - _STEPS), -1):
        if works(near):
            return near
    good, bad = size // 2, size
    while good and not works(good):
        good, bad = good // 2, good
    while good and bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if works(middle) else (good, middle)
    return good or None
