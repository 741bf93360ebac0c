"""Operators as linear maps: rows times matrix is what the runtime computes; storing is the inverse of reading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.net import Net
from kit.permute import run

from mlc.ir.core import Ints
from mlc.ir.dtypes import DType
from mlc.passes.linear import Linear, linear_of

F32 = DType.F32


def conv_net(rng, *, channels=4, outputs=6, kernel=(3, 3), attrs=None, size=(7, 8), group=1):
    net = Net()
    x = net.input("x", F32, 2, channels, *size)
    w = net.const(rng.standard_normal((outputs, channels // group, *kernel)).astype(np.float32), "w")
    b = net.const(rng.standard_normal(outputs).astype(np.float32), "b")
    module = net.done(net.op("Conv", [x, w, b], attrs={"kernel_shape": Ints(kernel), "group": group, **(attrs or {})}))
    return module, {"x": rng.standard_normal((2, channels, *size)).astype(np.float32)}


def only_op(module) -> Linear:
    found = [linear for op in module.graph.ops if (linear := linear_of(op)) is not None]
    assert len(found) == 1
    return found[0]


def assert_is_the_map(module, feeds):
    linear = only_op(module)
    (y,) = run(module, feeds)
    x = feeds["x"]
    weight = linear.weight.constant.array()
    rows, matrix = linear.rows(x), linear.matrix(weight)
    flat = (np.moveaxis(y, 1, -1) if "Conv" in linear.op.kind else y).reshape(linear.count(x), linear.groups, -1)
    targets = np.moveaxis(flat, 1, 0)
    assert matrix.shape == linear.shape
    assert rows.shape == (linear.groups, linear.count(x), linear.shape[2])
    made = rows @ np.swapaxes(matrix, 1, 2)
    bias = linear.op.operand(2)
    if bias is not None:
        made = made + bias.constant.array().reshape(linear.groups, 1, -1)
    np.testing.assert_allclose(made, targets, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(linear.stored(matrix), weight)
    picked = np.sort(np.random.default_rng(0).choice(linear.count(x), 3, replace=False))
    np.testing.assert_array_equal(linear.rows(x, picked), rows[:, picked])


@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 1)]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0)]),
)
@settings(max_examples=40, deadline=None)
def test_a_convolution_is_patches_times_matrix(group, kernel, strides, dilations, pads):
    rng = np.random.default_rng(0)
    attrs = {"strides": Ints(strides), "dilations": Ints(dilations), "pads": Ints(pads)}
    assert_is_the_map(*conv_net(rng, kernel=kernel, attrs=attrs, size=(9, 10), outputs=8, group=group))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 1)])
def test_automatic_padding(mode, stride, kernel):
    attrs = {"auto_pad": mode, "strides": Ints((stride, stride))}
    assert_is_the_map(*conv_net(np.random.default_rng(1), kernel=kernel, attrs=attrs))


@pytest.mark.parametrize("space", [(11,), (5, 4, 6)])
def test_any_number_of_spatial_axes(space):
    attrs = {"pads": Ints((1,) * (2 * len(space))), "strides": Ints((2,) * len(space))}
    assert_is_the_map(*conv_net(np.random.default_rng(2), kernel=(3,) * len(space), attrs=attrs, size=space))


@given(
    st.sampled_from([(2, 2), (3, 3), (4, 1)]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([(0, 0, 0, 0), (1, 0, 1, 0), (0, 1, 2, 0), (3, 0, 0, 0)]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_transposed_convolution_is_patches_of_spread_data(kernel, strides, dilations, pads, longer):
    rng, net = np.random.default_rng(6), Net()
    x = net.input("x", F32, 2, 4, 5, 6)
    w = net.const(rng.standard_normal((4, 3, *kernel)).astype(np.float32), "w")
    b = net.const(rng.standard_normal(3).astype(np.float32), "b")
    attrs = {"kernel_shape": Ints(kernel), "strides": Ints(strides), "dilations": Ints(dilations), "pads": Ints(pads)}
    if longer:
        attrs["output_padding"] = Ints(tuple(n - 1 for n in strides))
    module = net.done(net.op("ConvTranspose", [x, w, b], attrs=attrs))
    assert_is_the_map(module, {"x": rng.standard_normal((2, 4, 5, 6)).astype(np.float32)})


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm(turned):
    rng, net = np.random.default_rng(3), Net()
    x = net.input("x", F32, 5, 4)
    w = net.const(rng.standard_normal((6, 4) if turned else (4, 6)).astype(np.float32), "w")
    b = net.const(rng.standard_normal(6).astype(np.float32), "b")
    module = net.done(net.op("Gemm", [x, w, b], attrs={"transB": turned}))
    assert_is_the_map(module, {"x": rng.standard_normal((5, 4)).astype(np.float32)})


def test_matmul_of_any_rank():
    rng, net = np.random.default_rng(4), Net()
    x = net.input("x", F32, 2, 3, 5, 4)
    module = net.done(net.op("MatMul", [x, net.const(rng.standard_normal((4, 6)).astype(np.float32), "w")]))
    assert_is_the_map(module, {"x": rng.standard_normal((2, 3, 5, 4)).astype(np.float32)})


def test_what_is_no_linear_map():
    net = Net()
    x = net.input("x", F32, 4, 4)
    w = net.const(np.eye(4, dtype=np.float32), "w")
    whole = net.input("n", DType.I32, 4, 4)
    picture, kernel = net.input("p", F32, 1, 4, 5, 5), net.const(np.ones((4, 2, 2, 2), np.float32), "k")
    for module in (
        net.op("MatMul", [w, net.const(np.ones((4, 4), np.float32), "both")]),
        net.op("MatMul", [whole, net.const(np.eye(4, dtype=np.int32), "integers")]),
        net.op("MatMul", [net.input("none", F32, 4, 0), net.const(np.zeros((0, 4), np.float32), "empty")]),
        net.op("MatMul", [w, x]),
        net.op("MatMul", [x, x]),
        net.op("Gemm", [x, w], attrs={"alpha": 2.0}),
        net.op("Gemm", [x, w], attrs={"transA": 1}),
        net.op("MatMul", [x, net.const(np.zeros((2, 4, 4), np.float32), "batched")]),
        net.op("Relu", [x]),
        net.op("ConvTranspose", [picture, kernel], attrs={"group": 2}),
        net.op("ConvTranspose", [picture, kernel], attrs={"auto_pad": "SAME_UPPER"}),
        net.op("ConvTranspose", [picture, kernel], attrs={"output_shape": Ints((6, 6))}),
    ):
        assert linear_of(module.op) is None


@pytest.mark.parametrize("directions", [1, 2])
def test_the_input_of_a_recurrent_layer(directions):
    """An RNN whose state is never read: tanh of the map, both directions."""
    rng, net = np.random.default_rng(5), Net()
    x = net.input("x", F32, 3, 3, 4)
    w = net.const(rng.standard_normal((directions, 6, 4)).astype(np.float32), "w")
    r = net.const(np.zeros((directions, 6, 6), np.float32), "r")
    b = net.const(rng.standard_normal((directions, 12)).astype(np.float32), "b")
    attrs = {"hidden_size": 6, "direction": b"bidirectional" if directions == 2 else b"forward"}
    module = net.done(net.node("RNN", [x, w, r, b], attrs=attrs, count=2).results[0])
    feeds = {"x": rng.standard_normal((3, 3, 4)).astype(np.float32)}
    linear = only_op(module)
    (y,) = run(module, feeds)  # [time, directions, batch, hidden]
    made = linear.rows(feeds["x"]) @ np.swapaxes(linear.matrix(w.constant.array()), 1, 2)
    bias = (b.constant.array()[:, :6] + b.constant.array()[:, 6:]).reshape(-1)
    wanted = np.tanh(made[0] + bias).reshape(3, 3, directions, 6)
    np.testing.assert_allclose(np.swapaxes(y, 1, 2), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(linear.stored(linear.matrix(w.constant.array())), w.constant.array())
    np.testing.assert_array_equal(
        linear.matrix(w.constant.array())[0, linear.outputs(np.array([1, 4]))],
        w.constant.array()[:, [1, 4]].reshape(-1, 4),
    )
