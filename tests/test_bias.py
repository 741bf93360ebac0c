"""Adding numbers to a result: that result moves by exactly them, and nothing else does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kit.layers import Layers
from kit.permute import run

from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.ir.rewrite import Rewriter
from mlc.ir.verify import verify
from mlc.passes.bias import add_bias

F32 = DType.F32
SHAPE = (4, 6)
DELTA = np.array([1.0, -2.0, 0.5, 3.0, 0.25])

#: What follows a MatMul, by name: (net, product, bias, other input) to the values that come out.
FOLLOWERS = {
    "nothing": lambda n, y, b, o: [n.op("Neg", [y])],
    "add": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [y, b])])],
    "add_in_front": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [b, y])])],
    "sub": lambda n, y, b, o: [n.op("Neg", [n.op("Sub", [y, b])])],
    "add_of_a_row": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [y, n.const(np.ones((1, 5), np.float32))])])],
    "add_of_a_number": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [y, n.const(np.ones(1, np.float32))])])],
    "add_of_computed": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [y, o])])],
    "twice_itself": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [y, y])])],
    "two_readers": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [y, b])]), n.op("Abs", [y])],
    "bias_read_elsewhere": lambda n, y, b, o: [n.op("Neg", [n.op("Add", [y, b])]), n.op("Mul", [o, b])],
}


def product(follower: str) -> Module:
    net = Layers(0)
    x, other = net.input("x", F32, *SHAPE), net.input("o", F32, 4, 5)
    y = net.op("MatMul", [x, net.weight(6, 5)])
    return net.done(*FOLLOWERS[follower](net, y, net.const(net.draw(5), "b"), other))


def gemm(kind: str) -> Module:
    net = Layers(0)
    x, other, bias = net.input("x", F32, *SHAPE), net.input("o", F32, 4, 5), net.const(net.draw(5), "b")
    third = {"none": [], "own": [bias], "shared": [bias], "computed": [net.op("Abs", [other])]}[kind]
    y = net.op("Gemm", [x, net.weight(6, 5), *third])
    return net.done(net.op("Neg", [y]), *([net.op("Mul", [other, bias])] if kind == "shared" else []))


def expected(module: Module, kind: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs when the product itself is made anew with the numbers added to an extra input."""
    twin = module.clone()
    op = next(op for op in twin.graph.ops if op.kind == kind)
    rw = Rewriter(twin, by="oracle")
    users = op.result.users
    following = next(later for earlier, later in itertools.pairwise(twin.graph.ops) if earlier is op)
    added = rw.insert("Add", [op.result, rw.constant(Constant.of(DELTA, F32), "delta")], before=following).result
    rw.replace_uses(op.result, added, only=users)
    verify(twin)
    return run(twin, feeds)


@pytest.mark.parametrize(
    ("module", "kind"),
    [*((product(f), "MatMul") for f in FOLLOWERS), *((gemm(k), "Gemm") for k in ("none", "own", "shared", "computed"))],
    ids=[*FOLLOWERS, "gemm", "gemm_own", "gemm_shared", "gemm_computed"],
)
def test_one_result_moves_and_nothing_else(module, kind):
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal(SHAPE).astype(np.float32), "o": rng.standard_normal((4, 5)).astype(np.float32)}
    feeds = {v.name: feeds[v.name] for v in module.graph.inputs}
    wanted = expected(module, kind, feeds)
    twin = module.clone()
    op = next(op for op in twin.graph.ops if op.kind == kind)
    add_bias(Rewriter(twin, by="test"), op, DELTA, F32)
    verify(twin)
    for a, b in zip(wanted, run(twin, feeds), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("follower", ["add", "add_in_front", "bias_read_elsewhere"])
def test_a_bias_behind_a_product_takes_them_without_another_op(follower):
    module = product(follower)
    before = len(list(module.graph.ops))
    add_bias(Rewriter(module, by="test"), next(op for op in module.graph.ops if op.kind == "MatMul"), DELTA, F32)
    assert len(list(module.graph.ops)) == before


def test_a_convolution_gets_one():
    net = Layers(0)
    x = net.input("x", F32, 1, 3, 5, 5)
    module = net.done(net.op("Conv", [x, net.weight(5, 3, 3, 3)], attrs={"kernel_shape": Ints((3, 3))}))
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 5, 5)).astype(np.float32)}
    (before,) = run(module, feeds)
    add_bias(Rewriter(module, by="test"), next(iter(module.graph.ops)), DELTA, F32)
    (after,) = run(module, feeds)
    np.testing.assert_allclose(after, before + DELTA[:, None, None], rtol=1e-5, atol=1e-5)
