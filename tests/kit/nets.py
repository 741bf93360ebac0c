"""Small networks built by hand, typed by the operator table: one for each way in which axes hang together.

`NETS` maps names to builders of (module, feeds). Weights are seeded; every net fits in a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return self.op("Concat", values, attrs={"axis": axis})

    def slice(self, x: Value, start: int, end: int, axis: int, step: int = 1) -> Value:
        return self.op("Slice", [x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step)])

    def layer_norm(self, x: Value, n: int) -> Value:
        return self.op("LayerNormalization", [x, self.vector(n), self.vector(n)], attrs={"axis": -1})

    def scaled(self, x: Value, by: float) -> Value:
        return self.op("Mul", [x, self.const(np.float32(by))])


def _image(net: Layers, channels: int = 3, size: int = 8) -> tuple[Value, Feeds]:
    x = net.input("x", F32, "N", channels, size, size)
    return x, {"x": np.random.default_rng(1).standard_normal((2, channels, size, size)).astype(np.float32)}


def _tokens(net: Layers, width: int, length: int = 6) -> tuple[Value, Feeds]:
    x = net.input("x", F32, "N", length, width)
    return x, {"x": np.random.default_rng(1).standard_normal((2, length, width)).astype(np.float32)}


def mlp() -> Built:
    """Three hidden layers: three free classes."""
    net = Layers()
    x = net.input("x", F32, "N", 6)
    y = x
    for inputs, outputs in ((6, 40), (40, 48), (48, 20)):
        y = net.relu(net.linear(y, inputs, outputs))
    feeds = {"x": np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)}
    return net.done(net.linear(y, 20, 5)), feeds


def vgg16() -> Built:
    """VGG-16 with narrow layers: 13 convolutions, flatten, 3 linear layers: 15 free classes."""
    net = Layers()
    x, feeds = _image(net, size=32)
    channels = 3
    for width, count in ((4, 2), (6, 2), (8, 3), (10, 3), (10, 3)):
        for _ in range(count):
            x, channels = net.relu(net.conv(x, channels, width)), width
        x = net.pool(x)
    y = net.reshape(x, 0, channels)
    y = net.relu(net.linear(net.op("Flatten", [y]), channels, 16))
    return net.done(net.linear(net.relu(net.linear(y, 16, 12)), 12, 5)), feeds


def vgg_flatten() -> Built:
    """A flatten of channels x 4 x 4 in front of the classifier."""
    net = Layers()
    x, feeds = _image(net)
    x = net.pool(net.relu(net.conv(net.relu(net.conv(x, 3, 8)), 8, 12)))
    return net.done(net.linear(net.relu(net.linear(net.op("Flatten", [x]), 12 * 16, 10)), 10, 5)), feeds


def _resnet(zero_pad: bool) -> Built:
    net = Layers()
    x, feeds = _image(net, size=8)
    x, width = net.relu(net.norm(net.conv(x, 3, 8), 8)), 8
    for stage in range(3):
        for block in range(3):
            stride = 2 if stage and not block else 1
            wide = width * stride
            y = net.relu(net.norm(net.conv(x, width, wide, stride=stride), wide))
            y = net.norm(net.conv(y, wide, wide), wide)
            if stride == 2 and zero_pad:
                x = net.slice(net.slice(x, 0, 1 << 40, 2, 2), 0, 1 << 40, 3, 2)
                x = net.op("Pad", [x, net.ints(0, width // 2, 0, 0, 0, width // 2, 0, 0)])
            elif stride == 2:
                x = net.norm(net.conv(x, width, wide, 1, stride=2), wide)
            x, width = net.relu(net.op("Add", [x, y])), wide
    return net.done(net.head(x, width)), feeds


def resnet20_conv() -> Built:
    """ResNet-20 with convolution shortcuts: 3 stages + 9 inner widths = 12 free classes."""
    return _resnet(zero_pad=False)


def resnet20_pad() -> Built:
    """ResNet-20 with zero-padded shortcuts: 9 inner widths, the first stage and four borders = 14 free classes."""
    return _resnet(zero_pad=True)


def densenet() -> Built:
    net = Layers()
    x, feeds = _image(net)
    x, width = net.conv(x, 3, 8), 8
    for _ in range(3):
        y = net.conv(net.relu(net.norm(x, width)), width, 6)
        x, width = net.concat([x, y], 1), width + 6
    return net.done(net.head(net.relu(net.norm(x, width)), width)), feeds


def mobilenet() -> Built:
    """Inverted residuals with depthwise convolutions, one with squeeze and excitation."""
    net = Layers()
    x, feeds = _image(net)
    x = net.conv(x, 3, 8)
    for excite in (False, True):
        y = net.op("Clip", [net.norm(net.conv(x, 8, 48, 1), 48), net.const(np.float32(0)), net.const(np.float32(6))])
        y = net.relu(net.norm(net.conv(y, 48, 48, group=48), 48))
        if excite:
            gate = net.relu(net.conv(net.op("GlobalAveragePool", [y]), 48, 6, 1))
            y = net.op("Mul", [y, net.op("HardSigmoid", [net.conv(gate, 6, 48, 1)])])
        x = net.op("Add", [x, net.norm(net.conv(y, 48, 8, 1), 8)])
    return net.done(net.head(x, 8)), feeds


def multiplier() -> Built:
    """A depthwise convolution that makes two channels of each."""
    net = Layers()
    x, feeds = _image(net)
    y = net.relu(net.conv(net.conv(x, 3, 6), 6, 12, group=6))
    return net.done(net.head(y, 12)), feeds


def grouped() -> Built:
    """ResNeXt: a convolution in four groups."""
    net = Layers()
    x, feeds = _image(net)
    y = net.relu(net.conv(net.relu(net.conv(x, 3, 16, 1)), 16, 16, group=4))
    return net.done(net.head(net.conv(y, 16, 8, 1), 8)), feeds


def shufflenet() -> Built:
    """Two grouped convolutions with a channel shuffle between them."""
    net = Layers()
    x, feeds = _image(net)
    y = net.relu(net.conv(net.conv(x, 3, 8, 1), 8, 8, 1, group=2))
    y = net.reshape(net.transpose(net.reshape(y, 0, 2, 4, 8, 8), 0, 2, 1, 3, 4), 0, 8, 8, 8)
    return net.done(net.head(net.conv(y, 8, 8, 1, group=2), 8)), feeds


def unet() -> Built:
    """Down, up by a transposed convolution and by resizing, skip connections by concat."""
    net = Layers()
    x, feeds = _image(net)
    a = net.relu(net.conv(x, 3, 6))
    b = net.relu(net.conv(net.pool(a), 6, 10))
    c = net.relu(net.conv(net.pool(b), 10, 12))
    attrs = {"kernel_shape": Ints((2, 2)), "strides": Ints((2, 2))}
    up = net.op("ConvTranspose", [c, net.weight(12, 10, 2, 2), net.vector(10)], attrs=attrs)
    d = net.relu(net.conv(net.concat([up, b], 1), 20, 8))
    scales = net.const(np.array([1, 1, 2, 2], np.float32))
    up = net.op("Resize", [d, None, scales], attrs={"mode": "nearest"})
    return net.done(net.conv(net.concat([up, a], 1), 14, 2, 1)), feeds


def group_norm() -> Built:
    net = Layers()
    x, feeds = _image(net)
    y = net.conv(x, 3, 12)
    y = net.op("GroupNormalization", [y, net.vector(12), net.vector(12)], attrs={"num_groups": 4})
    return net.done(net.head(net.conv(net.relu(y), 12, 6), 6)), feeds


def nhwc() -> Built:
    """Channels last: transposed around every convolution, instance normalization, bias as an Add."""
    net = Layers()
    x = net.input("x", F32, "N", 8, 8, 3)
    y = net.transpose(net.conv(net.transpose(x, 0, 3, 1, 2), 3, 10), 0, 2, 3, 1)
    y = net.relu(net.op("Add", [y, net.vector(10)]))
    y = net.op("InstanceNormalization", [net.transpose(y, 0, 3, 1, 2), net.vector(10), net.vector(10)])
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)}
    return net.done(net.head(net.conv(y, 10, 6), 6)), feeds


def _recurrent(kind: str, gates: int, directions: int) -> Built:
    net = Layers()
    x = net.input("x", F32, 5, "N", 6)
    hidden = 8
    operands = [
        net.dense(x, 6, 10),
        net.weight(directions, gates * hidden, 10),
        net.weight(directions, gates * hidden, hidden),
        net.const(net.draw(directions, 2 * gates * hidden), net.fresh("b")),
    ]
    attrs = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    y = net.node(kind, operands, None, attrs, count=3 if kind == "LSTM" else 2).results[0]
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, -1)
    feeds = {"x": np.random.default_rng(1).standard_normal((5, 2, 6)).astype(np.float32)}
    return net.done(net.dense(y, directions * hidden, 4)), feeds


def lstm() -> Built:
    return _recurrent("LSTM", 4, 2)


def gru() -> Built:
    return _recurrent("GRU", 3, 1)


def attention(net: Layers, x: Value, width: int, heads: int, inner: int, length: int) -> Value:
    """Multi-head self attention over [N, length, width]."""

    def split(v: Value, *perm: int) -> Value:
        return net.transpose(net.reshape(v, 0, length, heads, inner), *perm)

    q, k, v = (net.dense(x, width, heads * inner) for _ in range(3))
    scores = net.op("MatMul", [split(q, 0, 2, 1, 3), split(k, 0, 2, 3, 1)])
    probabilities = net.op("Softmax", [net.scaled(scores, inner**-0.5)], attrs={"axis": -1})
    mixed = net.transpose(net.op("MatMul", [probabilities, split(v, 0, 2, 1, 3)]), 0, 2, 1, 3)
    return net.dense(net.reshape(mixed, 0, length, heads * inner), heads * inner, width)


def bert() -> Built:
    """One encoder block over embedded tokens, position table included; pooled, classified."""
    net = Layers()
    width, length = 12, 6
    ids = net.input("ids", DType.I64, "N", length)
    x = net.op("Gather", [net.const(net.draw(20, width), "embedding"), ids], attrs={"axis": 0})
    x = net.layer_norm(net.op("Add", [x, net.const(net.draw(length, width), "positions")]), width)
    x = net.layer_norm(net.op("Add", [x, attention(net, x, width, 4, 5, length)]), width)
    inner = net.op("Gelu", [net.dense(x, width, 40)])
    x = net.layer_norm(net.op("Add", [x, net.dense(inner, 40, width)]), width)
    pooled = net.op("ReduceMean", [x, net.ints(1)], attrs={"keepdims": 0})
    feeds = {"ids": np.random.default_rng(1).integers(0, 20, (2, length))}
    return net.done(net.linear(pooled, width, 3)), feeds


def vit() -> Built:
    """Patches by a strided convolution, a class token, one block with fused q, k, v."""
    net = Layers()
    width, heads, inner = 12, 3, 4
    x, feeds = _image(net)
    attrs = {"kernel_shape": Ints((4, 4)), "strides": Ints((4, 4))}
    x = net.op("Conv", [x, net.weight(width, 3, 4, 4), net.vector(width)], attrs=attrs)
    x = net.transpose(net.reshape(x, 0, width, 4), 0, 2, 1)
    token = net.op("Expand", [net.const(net.draw(1, 1, width), "token"), net.ints(2, 1, width)])
    x = net.op("Add", [net.concat([token, x], 1), net.const(net.draw(5, width), "positions")])
    fused = net.reshape(net.dense(net.layer_norm(x, width), width, 3 * heads * inner), 2, 5, 3, heads, inner)
    fused = net.transpose(fused, 2, 0, 3, 1, 4)
    q, k, v = (net.op("Gather", [fused, net.const(np.int64(i))], attrs={"axis": 0}) for i in range(3))
    scores = net.op("MatMul", [q, net.transpose(k, 0, 1, 3, 2)])
    mixed = net.op("MatMul", [net.op("Softmax", [scores], attrs={"axis": -1}), v])
    mixed = net.reshape(net.transpose(mixed, 0, 2, 1, 3), 2, 5, heads * inner)
    x = net.op("Add", [x, net.dense(mixed, heads * inner, width)])
    x = net.op("Add", [x, net.dense(net.op("Gelu", [net.dense(net.layer_norm(x, width), width, 20)]), 20, width)])
    first = net.op("Gather", [x, net.const(np.int64(0))], attrs={"axis": 1})
    return net.done(net.linear(first, width, 4)), feeds


def _rotated(net: Layers, x: Value, cos: Value, sin: Value, inner: int) -> Value:
    """Rotary embedding in halves."""
    low, high = net.slice(x, 0, inner // 2, -1), net.slice(x, inner // 2, inner, -1)
    turned = net.concat([net.op("Neg", [high]), low], -1)
    return net.op("Add", [net.op("Mul", [x, cos]), net.op("Mul", [turned, sin])])


def gqa_decoder(rope: bool = False) -> Built:
    """RMS norm by hand, grouped-query attention (2 x 3 heads), gated MLP, embedding tied to the head."""
    net = Layers()
    width, kv, repeat, inner, ff, length, vocabulary = 48, 2, 3, 4, 64, 5, 11
    ids = net.input("ids", DType.I64, "N", length)
    table = net.const(net.draw(vocabulary, width), "embedding")
    x = net.op("Gather", [table, ids], attrs={"axis": 0})
    cos, sin = (net.const(net.draw(length, inner), name) for name in ("cos", "sin"))

    def rms(v: Value) -> Value:
        mean = net.op("ReduceMean", [net.op("Mul", [v, v]), net.ints(-1)], attrs={"keepdims": 1})
        root = net.op("Sqrt", [net.op("Add", [mean, net.const(np.float32(1e-5))])])
        return net.op("Mul", [net.op("Div", [v, root]), net.vector(width)])

    def heads(v: Value, count: int) -> Value:
        projected = net.op("MatMul", [v, net.weight(width, count * inner)])
        split = net.transpose(net.reshape(projected, 0, length, count, inner), 0, 2, 1, 3)
        return split

    def repeated(v: Value) -> Value:
        wide = net.op("Expand", [net.op("Unsqueeze", [v, net.ints(2)]), net.ints(1, kv, repeat, length, inner)])
        return net.reshape(wide, 0, kv * repeat, length, inner)

    h = rms(x)
    q, k, v = heads(h, kv * repeat), heads(h, kv), heads(h, kv)
    if rope:
        q, k = (_rotated(net, t, cos, sin, inner) for t in (q, k))
    scores = net.op("MatMul", [q, net.transpose(repeated(k), 0, 1, 3, 2)])
    mixed = net.op("MatMul", [net.op("Softmax", [scores], attrs={"axis": -1}), repeated(v)])
    merged = net.reshape(net.transpose(mixed, 0, 2, 1, 3), 0, length, kv * repeat * inner)
    x = net.op("Add", [x, net.op("MatMul", [merged, net.weight(kv * repeat * inner, width)])])
    h = rms(x)
    gate, up = (net.op("MatMul", [h, net.weight(width, ff)]) for _ in range(2))
    gated = net.op("Mul", [net.op("Mul", [gate, net.op("Sigmoid", [gate])]), up])
    x = net.op("Add", [x, net.op("MatMul", [gated, net.weight(ff, width)])])
    logits = net.op("MatMul", [rms(x), net.transpose(table, 1, 0)])
    return net.done(logits), {"ids": np.random.default_rng(1).integers(0, vocabulary, (2, length))}


def rope_decoder() -> Built:
    return gqa_decoder(rope=True)


def tied() -> Built:
    """An autoencoder whose decoder is its encoder transposed."""
    net = Layers()
    x = net.input("x", F32, "N", 6)
    w = net.weight(6, 10)
    y = net.op("MatMul", [net.op("Tanh", [net.op("MatMul", [x, w])]), net.transpose(w, 1, 0)])
    return net.done(y), {"x": np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)}


def branches() -> Built:
    """An If whose branches read captured values and yield the same width."""
    net = Layers()
    x = net.input("x", F32, "N", 6)
    flag = net.input("flag", DType.BOOL)
    h = net.relu(net.linear(x, 6, 10))
    regions = {}
    for name in ("then_branch", "else_branch"):
        body = Layers.__new__(Layers)
        Net.__init__(body, name, within=net)
        body.rng = net.rng
        body.output(body.relu(body.linear(h, 10, 12)))
        regions[name] = body.graph
    y = net.node("If", [flag], None, regions=regions).result
    feeds = {"x": np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32), "flag": np.array(True)}
    return net.done(net.linear(y, 12, 5)), feeds


def loops() -> Built:
    """A Loop that carries a hidden state and collects it."""
    net = Layers()
    x = net.input("x", F32, 4, 6)
    h = net.dense(x, 6, 8)
    body = Layers.__new__(Layers)
    Net.__init__(body, "body", within=net)
    body.rng = net.rng
    from mlc.ir.types import tensor

    body.argument(tensor(DType.I64))
    going = body.argument(tensor(DType.BOOL))
    state = body.argument(h.type)
    following = body.op("Tanh", [body.dense(state, 8, 8)])
    for value in (going, following, following):
        body.output(value)
    op = net.node("Loop", [net.const(np.int64(3)), None, h], None, regions={"body": body.graph}, count=2)
    last, every = op.results
    total = net.op(
        "Add",
        [net.dense(last, 8, 4), net.op("ReduceSum", [net.dense(every, 8, 4), net.ints(0)], attrs={"keepdims": 0})],
    )
    return net.done(total), {"x": np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)}


def quantized() -> Built:
    """Weights behind DequantizeLinear with a scale for each output channel."""
    net = Layers()
    x, feeds = _image(net)

    def conv(v: Value, inputs: int, outputs: int) -> Value:
        codes = net.const(net.rng.integers(-127, 128, (outputs, inputs, 3, 3)).astype(np.int8), net.fresh("q"))
        scale = net.const((net.rng.uniform(0.5, 1.5, outputs) / 500).astype(np.float32), net.fresh("s"))
        w = net.op("DequantizeLinear", [codes, scale], attrs={"axis": 0})
        return net.op("Conv", [v, w, net.vector(outputs)], attrs={"pads": Ints((1,) * 4), "kernel_shape": Ints((3, 3))})

    return net.done(net.head(net.relu(conv(net.relu(conv(x, 3, 8)), 8, 6)), 6)), feeds


NETS: Mapping[str, Callable[[], Built]] = {
    f.__name__: f
    for f in (
        mlp, vgg16, vgg_flatten, resnet20_conv, resnet20_pad, densenet, mobilenet, multiplier, grouped, shufflenet,
        unet, group_norm, nhwc, lstm, gru, bert, vit, gqa_decoder, rope_decoder, tied, branches, loops, quantized,
    )
}  # fmt: skip
