"""Places where the rules of `simplify` fit: a generator of random typed instances for every rule.

    @instance("cast-cast")
    def _(d): return d.net.done(...)

A generator draws shapes, element types, numbers and attributes, and returns a module in which its rule must fire.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from kit.net import Net

from mlc.ir.core import Attr, Module, Value
from mlc.ir.dims import Dim, Sym
from mlc.ir.dtypes import DType

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
Generator = Callable[["Draw"], Module]
INSTANCES: dict[str, list[Generator]] = {}


def instance(rule: str) -> Callable[[Generator], Generator]:
    """Registers a generator of instances of the rule."""

    def register(generator: Generator) -> Generator:
        INSTANCES.setdefault(rule, []).append(generator)
        return generator

    return register


@dataclass
class Draw:
    """Hypothesis' drawing function, the net under construction, and shorthands for both."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    net: Net = field(default_factory=Net)

    def size(self, low: int = 1, high: int = 4) -> int:
        return int(self.draw(st.integers(low, high)))

    def one(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def shape(self, low: int = 1, high: int = 4, *, least: int = 1) -> tuple[Dim, ...]:
        """Random sizes; the first may be the symbol N."""
        sizes: list[Dim] = [self.size(least) for _ in range(self.size(low, high))]
        if sizes and self.draw(st.booleans()):
            sizes[0] = Sym("N")
        return tuple(sizes)

    def fixed(self, low: int = 1, high: int = 4) -> tuple[int, ...]:
        return tuple(self.size() for _ in range(self.size(low, high)))

    def x(self, *shape: Dim, dtype: DType = F32) -> Value:
        return self.net.input(f"x{len(self.net.graph.inputs)}", dtype, *shape)

    def image(self, channels: int | None = None, least: int = 3) -> Value:
        return self.x(self.one(1, 2), channels or self.size(), self.size(least, 7), self.size(least, 7))

    def perm(self, rank: int) -> tuple[int, ...]:
        return tuple(self.draw(st.permutations(range(rank))))

    def floats(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Value:
        rng = np.random.default_rng(self.size(0, 999))
        return self.net.const(rng.uniform(low, high, shape).astype(np.float32))

    def op(self, kind: str, *operands: Value | None, **attrs: Attr) -> Value:
        return self.net.op(kind, list(operands), attrs=attrs)

    def ints(self, *values: int) -> Value:
        return self.net.ints(*values)

    def done(self, *outputs: Value) -> Module:
        """The module; outputs that would be inputs or constants are passed through an op that stays."""
        return self.net.done(*outputs)
