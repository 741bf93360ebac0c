"""Networks of plain layers, floating-point and quantized."""

from __future__ import annotations

import numpy as np
from kit.layers import Built, Layers, image, rows

from mlc.ir.core import Ints, Value


def mlp() -> Built:
    """Three hidden layers: three free classes."""
    net = Layers()
    x, feeds = rows(net, 6)
    for inputs, outputs in ((6, 40), (40, 48), (48, 20)):
        x = net.relu(net.linear(x, inputs, outputs))
    return net.done(net.linear(x, 20, 5)), feeds


def gated() -> Built:
    """A gated hidden layer whose gate and value come from one matrix, in front of a residual."""
    net = Layers()
    x, feeds = rows(net, 6)
    x = net.dense(x, 6, 12)
    gate, up = net.split(net.dense(net.rms_norm(x, 12), 12, 40), (20, 20), 1)
    y = net.op("Mul", [net.op("Mul", [gate, net.op("Sigmoid", [gate])]), up])
    return net.done(net.linear(net.op("Add", [x, net.dense(y, 20, 12)]), 12, 3)), feeds


def quantized() -> Built:
    """Weights behind DequantizeLinear with a scale for each output channel."""
    net = Layers()
    x, feeds = image(net)

    def conv(v: Value, inputs: int, outputs: int) -> Value:
        codes = net.const(net.rng.integers(-127, 128, (outputs, inputs, 3, 3)).astype(np.int8), net.fresh("q"))
        scale = net.const((net.rng.uniform(0.5, 1.5, outputs) / 500).astype(np.float32), net.fresh("s"))
        w = net.op("DequantizeLinear", [codes, scale], attrs={"axis": 0})
        return net.op("Conv", [v, w, net.vector(outputs)], attrs={"pads": Ints((1,) * 4), "kernel_shape": Ints((3, 3))})

    return net.done(net.head(net.relu(conv(net.relu(conv(x, 3, 8)), 8, 6)), 6)), feeds


def block_quantized() -> Built:
    """A matrix quantized in four blocks of four inputs: blocks and what is inside move on their own."""
    net = Layers()
    x, feeds = rows(net, 6)
    codes = net.const(net.rng.integers(-127, 128, (16, 10)).astype(np.int8), "codes")
    scale = net.const((net.rng.uniform(0.5, 1.5, (4, 10)) / 500).astype(np.float32), "scale")
    w = net.op("DequantizeLinear", [codes, scale], attrs={"axis": 0, "block_size": 4})
    x = net.op("MatMul", [net.relu(net.linear(x, 6, 16)), w])
    return net.done(net.linear(net.relu(x), 10, 3)), feeds


def dynamic_int8() -> Built:
    """Activations quantized as they come, integer products, scales per column."""
    net = Layers()
    x, feeds = rows(net, 6)
    for inputs, outputs in ((6, 16), (16, 10)):
        codes, scale, zero = net.node("DynamicQuantizeLinear", [x], None, count=3).results
        weight = net.const(net.rng.integers(-127, 128, (inputs, outputs)).astype(np.int8), net.fresh("q"))
        per_column = net.const((net.rng.uniform(0.5, 1.5, outputs) / 500).astype(np.float32), net.fresh("s"))
        total = net.op("Cast", [net.op("MatMulInteger", [codes, weight, zero])], attrs={"to": 1})
        x = net.op("Mul", [total, net.op("Mul", [per_column, scale])])
        x = net.relu(net.op("Add", [x, net.vector(outputs)]))
    return net.done(net.linear(x, 10, 3)), feeds
