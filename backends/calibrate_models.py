"""The small models that `mlc calibrate` times: one operator in one form, with random numbers for its weight.

Every function yields the bytes of an ONNX model whose rows (or positions) are symbolic, so that one session serves all
of them. Codes are drawn over their full range: no kernel is faster for zeros, but none should get the chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
_OPSET, _IR = 21, 10
_MS = "com.microsoft"
_STEP, _MIDDLE = np.float32(0.02), 128  # of activations: what numbers near 1 need


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _codes(dtype: Any, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return np.random.default_rng(0).integers(limits.min, limits.max + 1, shape, dtype)


def _model(
    nodes: Sequence[NodeProto], x: tuple[Any, Sequence[int | str]], weights: Mapping[str, Array], y: Any
) -> bytes:
    """A model from its input `x` to its output `y`; both are given by element type, `x` with its shape."""
    kind, shape = x
    made = helper.make_graph(
        list(nodes),
        "calibrate",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", y, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MS, 1)]
    data: bytes = helper.make_model(made, opset_imports=opsets, ir_version=_IR).SerializeToString()
    return data


_GRID: dict[str, Array] = {"x_scale": np.asarray(_STEP), "x_zero": np.asarray(_MIDDLE, np.uint8)}


# -- matrix products: x [M, K] float -> y [M, N] float -----------------------------------------------------------------


def float_product(depth: int, width: int) -> bytes:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model([node], (TensorProto.FLOAT, ("M", depth)), {"w": random(0, depth, width)}, TensorProto.FLOAT)


def static_product(depth: int, width: int, *, signed: bool = False) -> bytes:
    """The rounding of the input and the product of its codes; `signed`: codes of the input from -128 on."""
    zero = np.asarray(0, np.int8) if signed else _GRID["x_zero"]
    weights: dict[str, Array] = {"w": _codes(np.int8, depth, width), "w_scale": np.full(width, 1e-3, np.float32)}
    return _static(depth, weights, zero)


def _static(depth: int, weights: Mapping[str, Array], zero: Array) -> bytes:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["codes"]),
        helper.make_node("MatMulIntegerToFloat", ["codes", "w", "x_scale", "w_scale", "x_zero"], ["y"], domain=_MS),
    ]
    tensors = {**weights, **_GRID, "x_zero": zero}
    return _model(nodes, (TensorProto.FLOAT, ("M", depth)), tensors, TensorProto.FLOAT)


def loud_product(depth: int, width: int) -> tuple[bytes, float]:
    """A static product of the largest codes, for inputs beyond the grid; and the number that every result must be.

    Two products of 255 and 127 do not fit into 16 bits: kernels that add pairs there saturate.
    """
    weights: dict[str, Array] = {
        "w": np.full((depth, width), 127, np.int8),
        "w_scale": np.full(width, 1e-3, np.float32),
    }
    data = _static(depth, weights, _GRID["x_zero"])
    return data, depth * (255 - _MIDDLE) * 127 * float(_STEP) * 1e-3


def dynamic_product(depth: int, width: int) -> bytes:
    weights = {"w": _codes(np.int8, depth, width), "w_scale": np.full(width, 1e-3, np.float32)}
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "w_scale"], ["y"], domain=_MS)
    return _model([node], (TensorProto.FLOAT, ("M", depth)), weights, TensorProto.FLOAT)


def blocks_product(depth: int, width: int, *, bits: int, block: int) -> bytes:
    blocks = -(-depth // block)
    weights = {
        "w": _codes(np.uint8, width, blocks, block * bits // 8),
        "w_scale": np.full((width, blocks), 1e-3, np.float32),
    }
    attrs: dict[str, Any] = {"K": depth, "N": width, "bits": bits, "block_size": block, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", "w", "w_scale"], ["y"], domain=_MS, **attrs)
    return _model([node], (TensorProto.FLOAT, ("M", depth)), weights, TensorProto.FLOAT)


# -- convolutions: chains of `length`, so that what their ends cost can be subtracted ----------------------------------


def _conv(channels: int, area: int, groups: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    side = round(area**0.5)
    attrs = {"kernel_shape": [side, side], "pads": [side // 2] * 4, "group": groups}
    return (channels, channels // groups, side, side), attrs


def float_convs(channels: int, area: int, groups: int, length: int) -> bytes:
    shape, attrs = _conv(channels, area, groups)
    nodes, weights, x = [], {}, "x"
    for i in range(length):
        y = "y" if i + 1 == length else f"v{i}"
        weights[f"w{i}"] = random(i, *shape) / np.float32(np.sqrt(np.prod(shape[1:])))
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [y], **attrs))
        x = y
    return _model(nodes, (TensorProto.FLOAT, (1, channels, "H", "W")), weights, TensorProto.FLOAT)


def static_convs(channels: int, area: int, groups: int, length: int) -> bytes:
    """Codes in, codes out, between them a chain in Q/DQ form, which the runtime turns into QLinearConv."""
    shape, attrs = _conv(channels, area, groups)
    grid = ["x_scale", "x_zero"]
    weights: dict[str, Array] = {**_GRID, "w_scale": np.full(channels, 1e-3, np.float32)}
    nodes, codes = [], "x"
    for i in range(length):
        out = "y" if i + 1 == length else f"codes{i}"
        weights[f"w{i}"] = _codes(np.int8, *shape)
        nodes += [
            helper.make_node("DequantizeLinear", [codes, *grid], [f"x{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", "w_scale"], [f"wf{i}"], axis=0),
            helper.make_node("Conv", [f"x{i}", f"wf{i}"], [f"y{i}"], **attrs),
            helper.make_node("QuantizeLinear", [f"y{i}", *grid], [out]),
        ]
        codes = out
    return _model(nodes, (TensorProto.UINT8, (1, channels, "H", "W")), weights, TensorProto.UINT8)


# -- everything else: x [1, C, H, W] -----------------------------------------------------------------------------------

_POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
#: Operator: number of operands (all of them x), attributes, and the operands of its 8-bit form in order, where it has
#: a kernel of its own. `g` stands for a scale and a zero point.
_GLUE: Mapping[str, tuple[int, Mapping[str, Any], str]] = {
    "Add": (2, {}, "xgxgg"),
    "Mul": (2, {}, "xgxgg"),
    "Concat": (2, {"axis": 1}, "gxgxg"),
    "Sigmoid": (1, {}, "xgg"),
    "LeakyRelu": (1, {}, "xgg"),
    "Softmax": (1, {"axis": -1}, "xgg"),
    "AveragePool": (1, _POOL, "xgg"),
    "GlobalAveragePool": (1, {}, "xgg"),
}
_QLINEAR_ATTRS: Mapping[str, Mapping[str, Any]] = {
    "GlobalAveragePool": {"channels_last": 0},
    "Softmax": {"axis": -1, "opset": _OPSET},
}
GLUE = tuple(_GLUE)


def float_glue(kind: str) -> bytes:
    operands, attrs, _ = _GLUE[kind]
    node = helper.make_node(kind, ["x"] * operands, ["y"], **attrs)
    return _model([node], (TensorProto.FLOAT, (1, "C", "H", "W")), {}, TensorProto.FLOAT)


def static_glue(kind: str) -> bytes:
    """Codes in, codes out."""
    _, attrs, form = _GLUE[kind]
    operands = [name for letter in form for name in (["x"] if letter == "x" else ["x_scale", "x_zero"])]
    node = helper.make_node(f"QLinear{kind}", operands, ["y"], domain=_MS, **(_QLINEAR_ATTRS.get(kind) or attrs))
    return _model([node], (TensorProto.UINT8, (1, "C", "H", "W")), dict(_GRID), TensorProto.UINT8)


def boundary(kind: str) -> bytes:
    """QuantizeLinear or DequantizeLinear alone."""
    types = (TensorProto.FLOAT, TensorProto.UINT8)
    x, y = types if kind == "QuantizeLinear" else reversed(types)
    node = helper.make_node(kind, ["x", "x_scale", "x_zero"], ["y"])
    return _model([node], (x, (1, "C", "H", "W")), dict(_GRID), y)


def nothing() -> bytes:
    """What a call costs."""
    node = helper.make_node("Neg", ["x"], ["y"])
    return _model([node], (TensorProto.FLOAT, ("M", 1)), {}, TensorProto.FLOAT)
