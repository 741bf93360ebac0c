"""The steps of random tangles (kit/tangles.py): every operator that joins, cuts, orders or mixes axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kit.tangles import Found, Tangle, shape, template

from mlc.ir.core import Ints, Value
from mlc.ir.dtypes import DType
from mlc.ir.types import tensor

POINT = Ints((1, 1))


@template
def alone(t: Tangle, x: Value) -> Found:
    return t.net.op(t.one(["Relu", "Tanh", "Sin", "Neg", "Abs"]), [x])


@template
def with_constant(t: Tangle, x: Value) -> Found:
    return t.net.op(t.one(["Add", "Mul", "Sub", "Max", "PRelu"]), [x, t.partly(x)])


@template
def with_alike(t: Tangle, x: Value) -> Found:
    return t.net.op(t.one(["Add", "Mul", "Min"]), [x, t.alike(x)])


@template
def broadcast(t: Tangle, x: Value) -> Found:
    y = t.one(t.values)
    fits = all(a == b or 1 in (a, b) for a, b in zip(shape(x)[::-1], shape(y)[::-1]))
    return t.net.op("Add", [x, y]) if fits else None


@template
def masked(t: Tangle, x: Value) -> Found:
    mask = t.net.const(t.rng.random([d if t.below(2) else 1 for d in shape(x)]) > 0.5)
    return t.net.op("Where", [mask, x, t.partly(x)])


@template
def matmul(t: Tangle, x: Value) -> Found:
    batch = shape(x)[:-2] if t.below(2) else ()
    return t.net.op("MatMul", [x, t.weight(*batch, shape(x)[-1], t.one([2, 3, 4, 6]))])


@template
def scores(t: Tangle, x: Value) -> Found:
    n = len(shape(x))
    return t.net.op("MatMul", [x, t.net.transpose(t.alike(x), *range(n - 2), n - 1, n - 2)]) if n > 1 else None


@template
def einsum(t: Tangle, x: Value) -> Found:
    if len(shape(x)) != 2:
        return None
    equation = t.one(["ab,bc->ca", "ab,ab->a", "ab,bb->ab", "ab,bcd->acd", "ab,ac->abc"])
    sizes = dict(zip("abcd", (*shape(x), *t.sizes(2))))
    second = t.weight(*(sizes[letter] for letter in equation[3 : equation.index("-")]))
    return t.net.op("Einsum", [x, second], attrs={"equation": equation})


@template
def diagonal(t: Tangle, x: Value) -> Found:
    square = len(shape(x)) == 2 and shape(x)[0] == shape(x)[1] > 1
    return t.net.op("Einsum", [x], attrs={"equation": "ii->i"}) if square else None


@template
def transpose(t: Tangle, x: Value) -> Found:
    return t.net.transpose(x, *t.order(x))


@template
def reshape(t: Tangle, x: Value) -> Found:
    rest, dims = int(np.prod(shape(x))), []
    while rest > 1 and len(dims) < 3:
        dims.append(t.divisor(rest, least=2) or 1)
        rest //= dims[-1]
    return t.net.reshape(x, *map(int, t.rng.permutation([*dims, rest])))


@template
def shuffle(t: Tangle, x: Value) -> Found:
    *lead, n = shape(x)
    groups = t.divisor(n, least=2, most=n // 2)
    if groups is None:
        return None
    turned = t.net.transpose(t.net.reshape(x, *lead, groups, n // groups), *range(len(lead)), len(lead) + 1, len(lead))
    return t.net.reshape(turned, *lead, n)


@template
def concat(t: Tangle, x: Value) -> Found:
    axis = t.axis(x)

    def fits(y: Value) -> bool:
        a, b = shape(x), shape(y)
        return len(a) == len(b) and all(i == axis or m == n for i, (m, n) in enumerate(zip(a, b)))

    parts = [x, *(t.one([y for y in (*t.values, *t.weights) if fits(y)]) for _ in range(1 + t.below(2)))]
    return t.net.concat([parts[i] for i in t.rng.permutation(len(parts))], axis)


@template
def split(t: Tangle, x: Value) -> Found:
    axis = t.axis(x)
    n = shape(x)[axis]
    if n < 2:
        return None
    first = 1 + t.below(n - 1)
    pieces = list(t.net.split(x, [first, n - first], axis))
    return [*pieces, t.net.concat(pieces[::-1], axis)]


@template
def cut(t: Tangle, x: Value) -> Found:
    axis, step = t.axis(x), t.one([1, 1, 2, 3, -1, -2])
    n = shape(x)[axis]
    return t.net.slice(x, t.below(n), n if step > 0 else -n - 1, axis, step)


def _positions(t: Tangle, n: int) -> Sequence[int]:
    every = np.arange(n)
    return t.one(
        [t.rng.permutation(n), t.rng.integers(0, n, t.one([1, 2, 3, 4])), every.repeat(2), [*every, *every - n]]
    )


@template
def picked(t: Tangle, x: Value) -> Found:
    axis = t.axis(x)
    index = t.net.const(np.array(_positions(t, shape(x)[axis]), np.int64))
    return t.net.op("Gather", [x, index], attrs={"axis": axis})


@template
def picked_in_a_table(t: Tangle, x: Value) -> Found:
    axis = t.axis(x)
    index = t.net.const(t.rng.integers(0, shape(x)[axis], (3, 2)))
    return t.net.op("Gather", [x, index], attrs={"axis": axis})


@template
def picked_by_rows(t: Tangle, x: Value) -> Found:
    return t.net.op("GatherND", [x, t.net.const(t.rng.integers(0, shape(x)[0], (3, 1)))])


@template
def scattered(t: Tangle, x: Value) -> Found:
    n, *rest = shape(x)
    index = t.net.const(t.rng.permutation(n)[:2].reshape(-1, 1))
    attrs = {"reduction": t.one(["none", "add"])}
    return t.net.op("ScatterND", [x, index, t.weight(min(n, 2), *rest)], attrs=attrs)


@template
def padded(t: Tangle, x: Value) -> Found:
    return t.net.op("Pad", [x, t.net.ints(*(t.one([0, 0, 1, 2]) for _ in range(2 * len(shape(x)))))])


@template
def repeated(t: Tangle, x: Value) -> Found:
    return t.net.op("Tile", [x, t.net.ints(*(t.one([1, 1, 2]) for _ in shape(x)))])


@template
def expanded(t: Tangle, x: Value) -> Found:
    dims = [t.one([2, 3, 4]) if n == 1 else n for n in shape(x)]
    return t.net.op("Expand", [x, t.net.ints(*([2] if t.below(2) else []), *dims)])


@template
def unsqueezed(t: Tangle, x: Value) -> Found:
    return t.net.op("Unsqueeze", [x, t.net.ints(t.below(len(shape(x)) + 1))])


@template
def softmax(t: Tangle, x: Value) -> Found:
    return t.net.softmax(x, t.axis(x))


@template
def reduced(t: Tangle, x: Value) -> Found:
    kind = t.one(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"])
    return t.net.op(kind, [x, t.net.ints(t.axis(x))], attrs={"keepdims": t.below(2)})


@template
def normed(t: Tangle, x: Value) -> Found:
    axis = t.axis(x)
    scale, shift = (t.weight(*shape(x)[axis:]) for _ in range(2))
    return t.net.op("LayerNormalization", [x, scale, shift], attrs={"axis": axis})


@template
def normed_in_groups(t: Tangle, x: Value) -> Found:
    if len(shape(x)) < 3:
        return None
    n = shape(x)[1]
    return t.net.op("GroupNormalization", [x, t.weight(n), t.weight(n)], attrs={"num_groups": t.divisor(n) or 1})


@template
def counted(t: Tangle, x: Value) -> Found:
    return t.net.op("CumSum", [x, t.net.const(np.int64(t.axis(x)))]) if t.below(5) == 0 else None


@template
def convolved(t: Tangle, x: Value) -> Found:
    if len(shape(x)) != 4:
        return None
    n = shape(x)[1]
    group = t.divisor(n) or 1
    outputs = group * (1 + t.below(3))
    attrs = {"kernel_shape": POINT, "pads": Ints((0,) * 4), "strides": POINT, "group": group}
    return t.net.op("Conv", [x, t.weight(outputs, n // group, 1, 1), t.weight(outputs)], attrs=attrs)


@template
def to_space(t: Tangle, x: Value) -> Found:
    fits = len(shape(x)) == 4 and shape(x)[1] % 4 == 0
    return t.net.op("DepthToSpace", [x], attrs={"blocksize": 2, "mode": t.one(["DCR", "CRD"])}) if fits else None


@template
def looped(t: Tangle, x: Value) -> Found:
    """A Loop that hands two values on crosswise, one of them re-arranged."""
    y, net = t.alike(x), t.net
    body = net.body()
    body.argument(tensor(DType.I64))
    going = body.argument(tensor(DType.BOOL))
    first, second = body.argument(x.type), body.argument(x.type)
    axis = t.axis(x)
    index = body.const(np.array(t.rng.permutation(shape(x)[axis]) if t.below(2) else range(shape(x)[axis]), np.int64))
    turned = body.op("Tanh", [body.op("Add", [body.op("Gather", [first, index], attrs={"axis": axis}), t.partly(x)])])
    for value in (going, *t.one([(second, turned), (turned, second)])):
        body.output(value)
    trips = net.const(np.int64(1 + t.below(3)))
    return net.node("Loop", [trips, None, x, y], None, regions={"body": body.graph}, count=2).results
