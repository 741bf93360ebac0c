"""Image networks: residual, concatenated, depthwise, grouped and shuffled channels, channels last, up and down."""

from __future__ import annotations

import numpy as np
from kit.layers import F32, Built, Layers, image

from mlc.ir.core import Ints, Value


def vgg16() -> Built:
    """VGG-16 with narrow layers: 13 convolutions, flatten, 3 linear layers: 15 free classes."""
    net = Layers()
    x, feeds = image(net, size=32)
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
    x, feeds = image(net)
    x = net.pool(net.relu(net.conv(net.relu(net.conv(x, 3, 8)), 8, 12)))
    return net.done(net.linear(net.relu(net.linear(net.op("Flatten", [x]), 12 * 16, 10)), 10, 5)), feeds


def _resnet(zero_pad: bool) -> Built:
    net = Layers()
    x, feeds = image(net, size=8)
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
    x, feeds = image(net)
    x, width = net.conv(x, 3, 8), 8
    for _ in range(3):
        y = net.conv(net.relu(net.norm(x, width)), width, 6)
        x, width = net.concat([x, y], 1), width + 6
    return net.done(net.head(net.relu(net.norm(x, width)), width)), feeds


def mobilenet() -> Built:
    """Inverted residuals with depthwise convolutions, one with squeeze and excitation."""
    net = Layers()
    x, feeds = image(net)
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
    x, feeds = image(net)
    y = net.relu(net.conv(net.conv(x, 3, 6), 6, 12, group=6))
    return net.done(net.head(y, 12)), feeds


def grouped() -> Built:
    """ResNeXt: a convolution in four groups."""
    net = Layers()
    x, feeds = image(net)
    y = net.relu(net.conv(net.relu(net.conv(x, 3, 16, 1)), 16, 16, group=4))
    return net.done(net.head(net.conv(y, 16, 8, 1), 8)), feeds


def shufflenet() -> Built:
    """Two grouped convolutions with a channel shuffle between them."""
    net = Layers()
    x, feeds = image(net)
    y = net.relu(net.conv(net.conv(x, 3, 8, 1), 8, 8, 1, group=2))
    y = net.reshape(net.transpose(net.reshape(y, 0, 2, 4, 8, 8), 0, 2, 1, 3, 4), 0, 8, 8, 8)
    return net.done(net.head(net.conv(y, 8, 8, 1, group=2), 8)), feeds


def unet() -> Built:
    """Down, up by a transposed convolution and by resizing, skip connections by concat."""
    net = Layers()
    x, feeds = image(net)
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
    x, feeds = image(net)
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


def shufflenet_v2() -> Built:
    """Two units that work on half of the channels, concat and shuffle: the halves are cut out of shuffled channels."""
    net = Layers()
    x, feeds = image(net)
    x = net.relu(net.conv(x, 3, 8))
    for middle in (5, 6):
        kept, y = net.split(x, (4, 4), 1)
        y = net.relu(net.conv(net.relu(net.conv(y, 4, middle, 1)), middle, 4, 1))
        x = net.concat([kept, y], 1)
        if middle == 5:
            x = net.reshape(net.transpose(net.reshape(x, 0, 2, 4, 8, 8), 0, 2, 1, 3, 4), 0, 8, 8, 8)
    return net.done(net.head(x, 8)), feeds


def pixel_shuffle() -> Built:
    """Upsampling by DepthToSpace and by its Reshape, Transpose and Reshape: the slots of a pixel are fixed."""
    net = Layers()
    x, feeds = image(net, size=4)
    x = net.relu(net.conv(x, 3, 8))
    x = net.op("DepthToSpace", [net.conv(x, 8, 24)], attrs={"blocksize": 2, "mode": "DCR"})
    x = net.reshape(net.conv(net.relu(x), 6, 20), 0, 5, 2, 2, 8, 8)
    x = net.reshape(net.transpose(x, 0, 1, 4, 2, 5, 3), 0, 5, 16, 16)
    return net.done(net.conv(x, 5, 2)), feeds


def transposed() -> Built:
    """A transposed convolution in two groups."""
    net = Layers()
    x, feeds = image(net)
    attrs = {"kernel_shape": Ints((2, 2)), "strides": Ints((2, 2)), "group": 2}
    y = net.op("ConvTranspose", [net.relu(net.conv(x, 3, 8)), net.weight(8, 3, 2, 2), net.vector(6)], attrs=attrs)
    return net.done(net.head(net.relu(y), 6)), feeds


def excited() -> Built:
    """Squeeze and excitation by a mean, two linear layers and a Reshape, as PyTorch exports it."""
    net = Layers()
    x, feeds = image(net)
    y = net.relu(net.conv(x, 3, 12))
    squeezed = net.op("ReduceMean", [y, net.ints(2, 3)], attrs={"keepdims": 0})
    gate = net.op("Sigmoid", [net.linear(net.relu(net.linear(squeezed, 12, 4)), 4, 12)])
    y = net.op("Mul", [y, net.reshape(gate, 0, 12, 1, 1)])
    return net.done(net.head(net.conv(y, 12, 6), 6)), feeds


def _last(net: Layers, x: Value, *operands: int, group: int = 1, stride: int = 1) -> Value:
    """A convolution of a value with channels last."""
    inputs, outputs, kernel = operands
    y = net.conv(net.transpose(x, 0, 3, 1, 2), inputs, outputs, kernel, group=group, stride=stride)
    return net.transpose(y, 0, 2, 3, 1)


def nhwc_converted() -> Built:
    """As converted from TensorFlow: Transposes around every convolution, Pad, Concat and parameters channels last."""
    net = Layers()
    x = net.input("x", F32, "N", 8, 8, 3)
    x = net.op("Add", [_last(net, x, 3, 8, 3), net.vector(8)])
    x = net.op("Clip", [x, net.const(np.float32(0)), net.const(np.float32(6))])
    x = net.op("Pad", [_last(net, x, 8, 8, 3, group=8), net.ints(0, 0, 0, 0, 0, 1, 1, 0)])
    scale, shift = (net.const(net.rng.uniform(0.5, 1.5, (1, 1, 1, 8)).astype(np.float32), name) for name in "st")
    x = net.relu(net.op("Add", [net.op("Mul", [x, scale]), shift]))
    y = net.relu(net.op("Add", [_last(net, x, 8, 10, 1), net.vector(10)]))
    y = net.op("ReduceMean", [net.concat([x, y], 3), net.ints(1, 2)], attrs={"keepdims": 0})
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)}
    return net.done(net.dense(y, 18, 4)), feeds
