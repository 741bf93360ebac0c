"""Instances of the rules of `simplify` on single ops, shapes and chains (those on weights: rules_weights.py)."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from kit.rules_draw import BOOL, F32, I64, Draw, instance

from mlc.ir.core import Attr, Ints, Module, Value
from mlc.ir.dims import Sym
from mlc.ir.dtypes import DType

# -- identities ------------------------------------------------------------------------------------------------------


@instance("identity")
def _(d: Draw) -> Module:
    return d.done(d.op("Relu", d.op("Identity", d.x(*d.shape(0, 4, least=0)))))


@instance("dropout")
def _(d: Draw) -> Module:
    ratio, mode = d.net.const(np.float32(0.3)), d.net.const(np.array(False))
    operands = d.one((), (ratio,), (ratio, mode))
    return d.done(d.op("Abs", d.op("Dropout", d.x(*d.shape()), *operands)))


@instance("neutral-element")
def _(d: Draw) -> Module:
    shape = d.fixed(0, 3)
    x = d.x(*shape)
    kind, number = d.one(("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1), ("Pow", 1))
    c = d.net.const(np.full(d.one((), shape, shape[1:], (1,) * len(shape)), number, np.float32))
    left = kind in ("Add", "Mul") and d.one(True, False)
    return d.done(d.op("Neg", d.op(kind, *((c, x) if left else (x, c)))))


@instance("neutral-element")
def _(d: Draw) -> Module:
    x = d.x(*d.shape(), dtype=BOOL)
    kind, number = d.one(("And", True), ("Or", False), ("Xor", False))
    c = d.net.const(np.array(number))
    return d.done(d.op("Not", d.op(kind, *d.one((x, c), (c, x)))))


@instance("same-cast")
def _(d: Draw) -> Module:
    dtype = d.one(F32, I64, DType.F16, BOOL)
    return d.done(d.op("Size", d.op("Cast", d.x(*d.shape(), dtype=dtype), to=dtype.onnx)))


@instance("same-order")
def _(d: Draw) -> Module:
    shape = d.shape()
    return d.done(d.op("Relu", d.op("Transpose", d.x(*shape), perm=Ints(range(len(shape))))))


@instance("same-shape")
def _(d: Draw) -> Module:
    shape = d.shape(2, 4)
    x = d.x(*shape)
    wanted = d.ints(*(-1 if isinstance(s, Sym) else s for s in shape))
    ones = d.ints(*(1 if isinstance(s, Sym) else s for s in shape))
    same = d.one(lambda: d.op("Reshape", x, wanted), lambda: d.op("Expand", x, ones))()
    return d.done(d.op("Relu", same))


@instance("same-shape")
def _(d: Draw) -> Module:
    return d.done(d.op("Relu", d.op("Flatten", d.x(Sym("N"), d.size()), axis=1)))


@instance("empty-pad")
def _(d: Draw) -> Module:
    shape = d.shape()
    mode = d.one("constant", "edge", "reflect")
    return d.done(d.op("Relu", d.op("Pad", d.x(*shape), d.ints(*[0] * (2 * len(shape))), mode=mode)))


@instance("full-slice")
def _(d: Draw) -> Module:
    shape = d.shape()
    axis = d.size(0, len(shape) - 1)
    end = d.one(2**63 - 1, 1000)
    operands = [d.ints(0), d.ints(2**63 - 1 if isinstance(shape[axis], Sym) else end), d.ints(axis)]
    steps = d.one([], [d.ints(1)])
    return d.done(d.op("Relu", d.op("Slice", d.x(*shape), *operands, *steps)))


@instance("idle-clip")
def _(d: Draw) -> Module:
    low = d.one(None, d.net.const(np.float32(-np.inf)))
    high = d.one(None, d.net.const(np.float32(np.inf)))
    return d.done(d.op("Abs", d.op("Clip", d.x(*d.shape()), low, high)))


@instance("tile-once")
def _(d: Draw) -> Module:
    shape = d.shape()
    return d.done(d.op("Relu", d.op("Tile", d.x(*shape), d.ints(*[1] * len(shape)))))


@instance("same-size")
def _(d: Draw) -> Module:
    x = d.image()
    mode = d.one("nearest", "linear")
    scales = d.net.const(np.ones(4, np.float32))
    return d.done(d.op("Relu", d.op("Resize", x, None, scales, mode=mode)))


@instance("one-piece")
def _(d: Draw) -> Module:
    shape = d.fixed()
    axis = d.size(0, len(shape) - 1)
    return d.done(d.op("Relu", d.op("Split", d.x(*shape), d.ints(shape[axis]), axis=axis)))


@instance("one-operand")
def _(d: Draw) -> Module:
    kind = d.one("Concat", "Sum", "Max", "Min", "Mean")
    attrs: dict[str, Attr] = {"axis": 0} if kind == "Concat" else {}
    return d.done(d.op("Relu", d.op(kind, d.x(*d.shape()), **attrs)))


@instance("split-concat")
def _(d: Draw) -> Module:
    shape = (*d.fixed(0, 2), a := d.size(), *d.fixed(0, 1))
    axis = len(shape) - 1 - (len(shape) - 1 - shape.index(a))
    pieces = [d.size() for _ in range(d.size(2, 3))]
    x = d.x(*shape[:axis], sum(pieces), *shape[axis + 1 :])
    parts = d.net.node("Split", [x, d.ints(*pieces)], attrs={"axis": axis}, count=len(pieces)).results
    return d.done(d.op("Relu", d.op("Concat", *parts, axis=d.one(axis, axis - len(shape)))))


@instance("known-where")
def _(d: Draw) -> Module:
    shape = d.shape()
    condition = d.net.const(np.full(d.one((), (1,) * len(shape)), d.one(True, False)))
    return d.done(d.op("Relu", d.op("Where", condition, d.x(*shape), d.x(*shape))))


@instance("equal-where")
def _(d: Draw) -> Module:
    shape = d.shape()
    x = d.x(*shape)
    return d.done(d.op("Relu", d.op("Where", d.x(*d.one(shape, (1,), ()), dtype=BOOL), x, x)))


@instance("twice")
def _(d: Draw) -> Module:
    kind = d.one("Relu", "Abs", "Floor", "Ceil", "Round", "Sign")
    return d.done(d.op(kind, d.op(kind, d.x(*d.shape()))))


@instance("undone")
def _(d: Draw) -> Module:
    kind, dtype = d.one(("Neg", F32), ("Neg", I64), ("Not", BOOL), ("BitwiseNot", I64))
    return d.done(d.op("Size", d.op(kind, d.op(kind, d.x(*d.shape(), dtype=dtype)))))


@instance("clip-clip")
def _(d: Draw) -> Module:
    """One of the two may be a Relu; then the other's lower bound takes the zero's place."""
    relu = d.one(None, 0, 1)

    def clip(x: Value, place: int) -> Value:
        if relu == place:
            return d.op("Relu", x)
        low = d.draw(st.floats(-1 if relu is None else 0, 1, width=32))
        high = d.draw(st.floats(low, 1, width=32))
        return d.op("Clip", x, d.net.const(np.float32(low)), d.one(None, d.net.const(np.float32(high))))

    return d.done(d.op("Neg", clip(clip(d.x(*d.shape()), 0), 1)))


# -- shapes ------------------------------------------------------------------------------------------------------------


@instance("known-value")
def _(d: Draw) -> Module:
    x = d.x(*d.fixed(2, 4))
    sizes = d.op("Shape", d.op("Relu", x))
    index = d.size(0, 1)
    return d.done(d.op("Reshape", x, d.op("Concat", d.ints(-1), d.op("Gather", sizes, d.ints(index)), axis=0)))


@instance("reshape-constant")
def _(d: Draw) -> Module:
    a, b = d.size(), d.size()
    x = d.x(Sym("N"), a, b)
    batch = d.op("Gather", d.op("Shape", x), d.ints(0))
    order = d.one((batch, d.ints(a * b)), (batch, d.ints(b), d.ints(a)), (d.ints(a), batch, d.ints(b)))
    return d.done(d.op("Reshape", x, d.op("Concat", *order, axis=0)))


@instance("expand-constant")
def _(d: Draw) -> Module:
    x = d.x(Sym("N"), 1, d.size())
    batch = d.op("Gather", d.op("Shape", x), d.ints(0))
    return d.done(d.op("Expand", x, d.op("Concat", batch, d.ints(d.size(2, 4)), d.ints(1), axis=0)))


@instance("constants")
def _(d: Draw) -> Module:
    shape = d.fixed(2, 3)
    perm = d.perm(len(shape))
    weight = d.op("Transpose", d.floats(*shape), perm=Ints(perm))
    kind = d.one("Neg", "Abs", "Floor")
    return d.done(d.op("Add", d.x(*(shape[a] for a in perm)), d.op(kind, weight)))


@instance("constants")
def _(d: Draw) -> Module:
    """A table that is larger than the ops that make it is folded with what is made of it."""
    table = d.op("Expand", d.net.const(np.float32(2.0)), d.ints(40, 50))
    total = d.op("ReduceSum", d.op("Cos", table), d.ints(0, 1), keepdims=0)
    return d.done(d.op("Add", d.x(*d.shape()), total))


# -- chains ------------------------------------------------------------------------------------------------------------


@instance("transpose-transpose")
def _(d: Draw) -> Module:
    shape = d.shape(2, 4)
    first = d.op("Transpose", d.x(*shape), perm=Ints(d.perm(len(shape))))
    attrs: dict[str, Attr] = d.one({}, {"perm": Ints(d.perm(len(shape)))})
    return d.done(d.op("Transpose", first, **attrs))


@instance("cast-cast")
def _(d: Draw) -> Module:
    source, between = d.one((DType.I8, DType.I32), (DType.U8, DType.I16), (BOOL, F32), (DType.F16, F32),
                            (DType.I32, I64), (DType.I16, F32), (F32, DType.F64), (DType.U16, F32))  # fmt: skip
    target = d.one(F32, I64, DType.I32, BOOL, DType.F16)
    return d.done(d.op("Cast", d.op("Cast", d.x(*d.shape(), dtype=source), to=between.onnx), to=target.onnx))


@instance("view-back")
def _(d: Draw) -> Module:
    shape = d.shape(2, 3)
    axis = d.size(0, len(shape))
    x = d.x(*shape)
    back = d.op("Squeeze", d.op("Unsqueeze", x, d.ints(axis)), d.ints(axis))
    return d.done(d.op("Relu", back))


@instance("squeeze-squeeze")
def _(d: Draw) -> Module:
    shape = d.shape(1, 3)
    first, second = d.size(0, len(shape)), d.size(0, len(shape) + 1)
    x = d.op("Unsqueeze", d.op("Unsqueeze", d.x(*shape), d.ints(first)), d.ints(second))
    if d.one(True, False):
        return d.done(x)
    wide = d.op("Relu", x)
    return d.done(d.op("Squeeze", d.op("Squeeze", wide, d.ints(second)), d.ints(first - len(shape) - 1)))


@instance("reshape-reshape")
def _(d: Draw) -> Module:
    a, b, c = d.size(), d.size(), d.size()
    x = d.x(Sym("N"), a, b, c)
    inner = d.one(lambda: d.op("Flatten", x, axis=1), lambda: d.op("Reshape", x, d.ints(-1, a * b, c)))()
    return d.done(d.op("Reshape", inner, d.ints(*d.one((-1, c, b, a), (-1, a, b * c), (-1, 1, a * b * c)))))


@instance("concat-concat")
def _(d: Draw) -> Module:
    shape = d.shape(2, 3)
    axis = d.size(0, len(shape) - 1)
    inner = d.op("Concat", d.x(*shape), d.x(*shape), axis=axis)
    parts = [inner, d.x(*shape)]
    return d.done(d.op("Concat", *(parts if d.one(True, False) else parts[::-1]), axis=axis - len(shape)))


@instance("slice-slice")
def _(d: Draw) -> Module:
    x = d.x(Sym("N"), 5, 6)
    first, second = d.one((1, 2), (2, 1), (-1, 1), (-2, 2))
    inner = d.op("Slice", x, d.ints(d.size(0, 2)), d.ints(d.size(3, 5)), d.ints(first), d.ints(d.size(1, 2)))
    return d.done(d.op("Slice", inner, d.ints(4), d.ints(0), d.ints(second), d.ints(-1)))


@instance("reduce-keepdims")
def _(d: Draw) -> Module:
    kind = d.one("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")
    axes = d.one((1,), (2,), (1, 2), (-1,))
    keep = d.one(0, 1)
    reduced = d.op(kind, d.x(Sym("N"), d.size(), d.size()), d.ints(*axes), keepdims=keep)
    return d.done(d.op("Squeeze" if keep else "Unsqueeze", reduced, d.ints(*axes)))


@instance("gather-concat")
def _(d: Draw) -> Module:
    sizes = [d.size() for _ in range(3)]
    rest = d.fixed(1, 2)
    joined = d.op("Concat", *(d.x(s, *rest) for s in sizes), axis=0)
    index = d.size(-sum(sizes), sum(sizes) - 1)
    return d.done(d.op("Gather", joined, d.one(d.ints(index), d.net.const(np.int64(index))), axis=0))


@instance("flat-softmax")
def _(d: Draw) -> Module:
    shape = (Sym("N"), d.size(), d.size(2), *d.one((), (1,), (1, 1)))
    x = d.x(*shape)
    soft = d.op(d.one("Softmax", "LogSoftmax"), d.op("Flatten", x, axis=2), axis=-1)
    return d.done(d.op("Reshape", soft, d.ints(-1, *(s for s in shape[1:] if isinstance(s, int)))))


@instance("shape-source")
def _(d: Draw) -> Module:
    x = d.x(*d.shape(1, 3))
    kind = d.one("Relu", "Exp", "Softmax")
    return d.done(d.op("Shape", d.op(kind, x)))
