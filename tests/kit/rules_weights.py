"""Instances of the rules of `simplify` on convolutions, pools, products, arithmetic with constants, and If."""

from __future__ import annotations

import numpy as np
from kit.rules_draw import I64, Draw, instance

from mlc.ir.core import Attr, Ints, Module, Value
from mlc.ir.dims import Sym

# -- convolution and pooling -------------------------------------------------------------------------------------------


def _padded(d: Draw, x: Value, largest: int = 2, **attrs: Attr) -> Value:
    amounts = [d.size(0, largest) for _ in range(4)]
    if d.one(True, False):
        zero = [d.net.const(np.float32(0))] if d.one(True, False) else []
        return d.op("Pad", x, d.ints(0, 0, *amounts[:2], 0, 0, *amounts[2:]), *zero, **attrs)
    return d.op("Pad", x, d.ints(*amounts), None, d.ints(2, -1), **attrs)


@instance("pad-conv")
def _(d: Draw) -> Module:
    channels, k = d.size(), d.size(1, 3)
    own: dict[str, Attr] = d.one({}, {"pads": Ints((1, 0, 0, 1))}, {"auto_pad": "VALID"})
    weight = d.floats(d.size(), channels, k, k)
    return d.done(d.op("Conv", _padded(d, d.image(channels)), weight, strides=Ints((d.size(1, 2), 1)), **own))


@instance("pad-maxpool")
def _(d: Draw) -> Module:
    x = d.image()
    form = d.one("edge", "infinite", "positive")
    if form == "infinite":
        padded = d.op("Pad", x, d.ints(0, 0, 1, d.size(0, 2), 0, 0, 0, 2), d.net.const(np.float32(-np.inf)))
    else:
        x = d.op("Relu", x) if form == "positive" else x
        padded = _padded(d, x, mode="edge" if form == "edge" else "constant")
    return d.done(d.op("MaxPool", padded, kernel_shape=Ints((3, 3)), strides=Ints((d.size(1, 2), 2))))


@instance("pad-averagepool")
def _(d: Draw) -> Module:
    own: dict[str, Attr] = d.one({}, {"count_include_pad": 1, "pads": Ints((0, 0, 0, 0))})
    return d.done(d.op("AveragePool", _padded(d, d.image()), kernel_shape=Ints((3, 3)), **own))


@instance("pad-conv")
def _(d: Draw) -> Module:
    """A Transpose between the Pad and the Conv, as channels-last exporters leave it."""
    channels, k = d.size(), d.size(1, 3)
    x = d.x(d.one(1, Sym("N")), d.size(3, 6), d.size(3, 6), channels)
    amounts = [d.size(0, 2) for _ in range(4)]
    padded = d.op("Pad", x, d.ints(0, *amounts[:2], 0, 0, *amounts[2:], 0))
    turned = d.op("Transpose", padded, perm=Ints((0, 3, 1, 2)))
    return d.done(d.op("Conv", turned, d.floats(d.size(), channels, k, k)))


@instance("fold-affine")
def _(d: Draw) -> Module:
    group = d.size(1, 2)
    inside, out, k = group * d.size(1, 2), group * d.size(1, 3), d.size(1, 2)
    bias = d.one((), (d.floats(out),))
    x = d.image(inside)
    if d.one(True, False):
        conv = d.op("Conv", x, d.floats(out, inside // group, k, k), *bias, group=group)
    else:
        conv = d.op("ConvTranspose", x, d.floats(inside, out // group, k, k), *bias, group=group)
    kind = d.one("BatchNormalization", "Mul", "Add", "Sub", "Div")
    if kind == "BatchNormalization":
        parameters = [d.floats(out), d.floats(out), d.floats(out), d.floats(out, low=0.1)]
        return d.done(d.op(kind, conv, *parameters, epsilon=0.01))
    c = d.floats(out, 1, 1, low=0.5, high=2.0)
    left = kind != "Div" and d.one(True, False)
    return d.done(d.op(kind, *((c, conv) if left else (conv, c))))


# -- products, algebra, control ----------------------------------------------------------------------------------------


def _bias(d: Draw, width: int) -> Value:
    return d.one(d.floats(width), d.floats(1, width), d.floats())


@instance("matmul-add")
def _(d: Draw) -> Module:
    inner, width = d.size(), d.size()
    product = d.op("MatMul", d.x(Sym("N"), inner), d.floats(inner, width))
    return d.done(d.op("Add", *d.one((product, _bias(d, width)), (_bias(d, width), product))))


@instance("gemm-add")
def _(d: Draw) -> Module:
    inner, width = d.size(), d.size()
    transposed = d.one(0, 1)
    weight = d.floats(width, inner) if transposed else d.floats(inner, width)
    product = d.op("Gemm", d.x(Sym("N"), inner), weight, transB=transposed, alpha=0.5)
    return d.done(d.op("Add", product, _bias(d, width)))


@instance("transpose-gemm")
def _(d: Draw) -> Module:
    a, b, c = d.size(), d.size(), d.size()
    left, right = d.x(a, b), d.x(b, c)
    if d.one(True, False):
        return d.done(d.op("Gemm", d.op("Transpose", d.x(b, a)), right, transA=0))
    return d.done(d.op("Gemm", left, d.op("Transpose", d.x(b, c), perm=Ints((1, 0))), transB=1))


@instance("equal-scale")
def _(d: Draw) -> Module:
    shape = d.fixed(1, 3)
    if d.one(True, False):
        kinds = d.one(("Add", "Sub"), ("Add", "Add"), ("Sub", "Sub"), ("Mul", "Mul"))
        constants = [d.net.const(np.int64(d.size(-5, 5))) for _ in kinds]
        x: Value = d.x(*shape, dtype=I64)
    else:
        kinds = d.one(("Mul", "Mul"), ("Mul", "Div"), ("Div", "Mul"))
        constants = [d.net.const(np.float32(2.0 ** d.size(-3, 3))) for _ in kinds]
        x = d.x(*shape)
    for kind, c in zip(kinds, constants):
        x = d.op(kind, x, c)
    return d.done(d.op("Neg", x))


@instance("merge-constants")
def _(d: Draw) -> Module:
    shape = d.fixed(1, 3)
    kinds = d.one(("Add", "Sub"), ("Sub", "Add"), ("Mul", "Div"), ("Div", "Div"), ("Add", "Add"))
    x: Value = d.x(*shape)
    for kind in kinds:
        x = d.op(kind, x, d.floats(*d.one(shape, shape[-1:], ()), low=0.5, high=1.5))
    return d.done(d.op("Neg", x))


@instance("known-if")
def _(d: Draw) -> Module:
    x = d.x(*d.shape())
    y = d.op("Relu", x)
    bodies = {}
    for name, kind in (("then_branch", "Neg"), ("else_branch", "Abs")):
        body = d.net.body(name)
        result = body.op(kind, [y])
        body.output(body.op("Add", [result, x]))
        bodies[name] = body.graph
    condition = d.net.const(np.array(d.one(True, False)))
    chosen = d.net.node("If", [condition], [x.type], regions=bodies).result
    return d.done(d.op("Abs", chosen))
