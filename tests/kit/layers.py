"""The builder of hand-made networks with the usual layers; weights come from one seeded generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from kit.net import Net

from mlc.ir.core import Ints, Module, Value
from mlc.ir.dtypes import DType

Feeds = dict[str, np.ndarray[Any, Any]]
Built = tuple[Module, Feeds]
F32 = DType.F32


class Layers(Net):
    """The builder with the usual layers; weights come from one generator."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def body(self, name: str = "body") -> Layers:
        """A region with layers of its own; weights go on coming from the same generator."""
        body = Layers.__new__(Layers)
        Net.__init__(body, name, within=self)
        body.rng = self.rng
        return body

    def draw(self, *shape: int) -> np.ndarray[Any, Any]:
        fan = int(np.prod(shape[1:])) or 1
        return (self.rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)

    def weight(self, *shape: int) -> Value:
        return self.const(self.draw(*shape), self.fresh("w"))

    def vector(self, n: int) -> Value:
        return self.const(self.rng.uniform(0.5, 1.5, n).astype(np.float32), self.fresh("b"))

    def linear(self, x: Value, inputs: int, outputs: int) -> Value:
        return self.op("Gemm", [x, self.weight(outputs, inputs), self.vector(outputs)], attrs={"transB": 1})

    def dense(self, x: Value, inputs: int, outputs: int) -> Value:
        return self.op("Add", [self.op("MatMul", [x, self.weight(inputs, outputs)]), self.vector(outputs)])

    def conv(self, x: Value, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, group: int = 1) -> Value:
        pad = kernel // 2
        attrs = {
            "kernel_shape": Ints((kernel, kernel)), "pads": Ints((pad,) * 4), "strides": Ints((stride, stride)),
            "group": group,
        }  # fmt: skip
        w = self.weight(outputs, inputs // group, kernel, kernel)
        return self.op("Conv", [x, w, self.vector(outputs)], attrs=attrs)

    def norm(self, x: Value, n: int) -> Value:
        """Batch normalization at inference."""
        return self.op("BatchNormalization", [x, *(self.vector(n) for _ in range(4))], attrs={"epsilon": 1e-5})

    def relu(self, x: Value) -> Value:
        return self.op("Relu", [x])

    def pool(self, x: Value) -> Value:
        attrs = {"kernel_shape": Ints((2, 2)), "strides": Ints((2, 2))}
        return self.op("MaxPool", [x], attrs=attrs)

    def head(self, x: Value, channels: int, classes: int = 5) -> Value:
        return self.linear(self.op("Flatten", [self.op("GlobalAveragePool", [x])]), channels, classes)

    def reshape(self, x: Value, *shape: int) -> Value:
        return self.op("Reshape", [x, self.ints(*shape)])

    def transpose(self, x: Value, *perm: int) -> Value:
        return self.op("Transpose", [x], attrs={"perm": Ints(perm)})

    def softmax(self, x: Value, axis: int = -1) -> Value:
        return self.op("Softmax", [x], attrs={"axis": axis})

    def gather(self, x: Value, index: int, axis: int) -> Value:
        return self.op("Gather", [x, self.const(np.int64(index))], attrs={"axis": axis})

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        return self.node("Split", [x, self.ints(*sizes)], None, {"axis": axis}, count=len(sizes)).results

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return self.op("Concat", values, attrs={"axis": axis})

    def slice(self, x: Value, start: int, end: int, axis: int, step: int = 1) -> Value:
        return self.op("Slice", [x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step)])

    def layer_norm(self, x: Value, n: int) -> Value:
        return self.op("LayerNormalization", [x, self.vector(n), self.vector(n)], attrs={"axis": -1})

    def scaled(self, x: Value, by: float) -> Value:
        return self.op("Mul", [x, self.const(np.float32(by))])

    def rms_norm(self, x: Value, n: int) -> Value:
        """Root-mean-square normalization by its parts."""
        mean = self.op("ReduceMean", [self.op("Mul", [x, x]), self.ints(-1)], attrs={"keepdims": 1})
        root = self.op("Sqrt", [self.op("Add", [mean, self.const(np.float32(1e-5))])])
        return self.op("Mul", [self.op("Div", [x, root]), self.vector(n)])


def image(net: Layers, channels: int = 3, size: int = 8) -> tuple[Value, Feeds]:
    x = net.input("x", F32, "N", channels, size, size)
    return x, {"x": np.random.default_rng(1).standard_normal((2, channels, size, size)).astype(np.float32)}


def tokens(net: Layers, width: int, length: int, name: str = "x") -> tuple[Value, Feeds]:
    x = net.input(name, F32, "N", length, width)
    return x, {name: np.random.default_rng(1).standard_normal((2, length, width)).astype(np.float32)}


def rows(net: Layers, width: int, count: int = 4, name: str = "x") -> tuple[Value, Feeds]:
    x = net.input(name, F32, "N", width)
    return x, {name: np.random.default_rng(1).standard_normal((count, width)).astype(np.float32)}
