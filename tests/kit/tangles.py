"""Random tangles: small graphs in which axes meet in every odd way, for laws that must hold in any graph.

    tangle = Tangle(seed)
    tangle.module()      a graph whose outputs are all of its values, or (`read=True`) contractions of its last ones
    tangle.feeds

Sizes are few, so that shapes coincide: tensors are added to themselves reshaped, weights are tied and transposed, axes
are cut, shuffled, repeated, padded and picked. Most values start from constants, whose axes begin free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from kit.layers import Layers

from mlc.ir.core import Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import TensorType

SIZES = (1, 2, 2, 3, 4, 4, 6, 8)
MOST_ELEMENTS, MOST_AXES = 600, 5
Found = Value | Sequence[Value] | None
#: Steps that continue from a drawn value, by name; None where one does not fit (kit/tangle_steps.py).
TEMPLATES: dict[str, Callable[[Tangle, Value], Found]] = {}


def template(build: Callable[[Tangle, Value], Found]) -> Callable[[Tangle, Value], Found]:
    TEMPLATES[build.__name__] = build
    return build


def shape(x: Value) -> tuple[int, ...]:
    assert isinstance(x.type, TensorType)
    return tuple(int(d) for d in x.type.shape)  # type: ignore[arg-type]  # the graph has no symbols


class Tangle:
    """One random graph under construction."""

    def __init__(self, seed: int, steps: int = 12) -> None:
        self.rng, self.net = np.random.default_rng(seed), Layers(seed)
        x = self.net.input("x", DType.F32, *self.sizes(2))
        self.feeds = {"x": self.rng.standard_normal(shape(x)).astype(np.float32)}
        self.weights: list[Value] = []
        self.values = [x, *(self.weight(*self.sizes(1 + self.below(4))) for _ in range(3))]
        for _ in range(2 * steps):
            if len(self.values) < steps + 4:
                self._step()

    def module(self, *, read: bool = False) -> Module:
        made = [v for v in self.values if v.op is not None]
        return self.net.done(*([self._contracted(v) for v in made if not v.users] if read else made))

    def _contracted(self, x: Value) -> Value:
        order = self.rng.permutation(len(shape(x))) if self.below(2) else np.arange(len(shape(x)))
        turned = self.net.transpose(x, *map(int, order))
        return self.net.op("MatMul", [turned, self.net.weight(shape(turned)[-1], 3)])

    def _step(self) -> None:
        build = TEMPLATES[self.one(sorted(TEMPLATES))]
        try:
            found = build(self, self.one(self.values))
        except MlcError:  # shapes that do not fit each other
            return
        for y in (found,) if isinstance(found, Value) else found or ():
            if 0 < np.prod(shape(y)) <= MOST_ELEMENTS and 0 < len(shape(y)) <= MOST_AXES:
                self.values.append(y)

    # -- draws -------------------------------------------------------------------------------------------------

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def one(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def sizes(self, count: int) -> list[int]:
        return [self.one(SIZES) for _ in range(count)]

    def axis(self, x: Value) -> int:
        return self.below(len(shape(x)))

    def order(self, x: Value) -> list[int]:
        return [int(i) for i in self.rng.permutation(len(shape(x)))]

    def alike(self, x: Value) -> Value:
        """A value of the same shape, perhaps the same one."""
        return self.one([v for v in self.values if shape(v) == shape(x)])

    def weight(self, *dims: int) -> Value:
        """A constant; often one that is used already, as it is or transposed."""
        same = [w for w in self.weights if shape(w) == dims]
        turned = [w for w in self.weights if len(dims) == 2 and shape(w) == dims[::-1]]
        if same and self.below(5) < 2:
            return self.one(same)
        if turned and self.below(5) < 2:
            return self.net.transpose(self.one(turned), 1, 0)
        self.weights.append(self.net.weight(*dims))
        return self.weights[-1]

    def partly(self, x: Value) -> Value:
        """A constant that broadcasts to a value, with some axes of size 1 or left out."""
        dims = [d if self.below(10) < 7 else 1 for d in shape(x)]
        return self.weight(*dims[self.below(len(dims) + 1) :])

    def divisor(self, n: int, *, least: int = 1, most: int = MOST_ELEMENTS) -> int | None:
        found = [d for d in range(least, min(n, most) + 1) if n % d == 0]
        return self.one(found) if found else None
