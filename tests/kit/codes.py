"""Small networks on codes, one operator at a time, and what is left of them when they are turned back to floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from kit.net import Net

from mlc.ir.core import Ints, Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.ops.opdef import Trait
from mlc.ir.ops.table import lookup
from mlc.passes.base import SkipCode

F32, U8, I8, I32, I64 = DType.F32, DType.U8, DType.I8, DType.I32, DType.I64
Array = np.ndarray[Any, Any]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def left(module: Module) -> list[str]:
    """Quantizing operators that are still there."""
    return [op.kind for op in module.walk() if lookup(op.kind).has(Trait.QUANTIZED)]


def skips(module: Module) -> dict[str, SkipCode]:
    return {s.site: s.code for s in module.history[-1].skipped}  # type: ignore[attr-defined]


def only(outputs: dict[str, Array]) -> Array:
    (found,) = outputs.values()
    return found


def codes(net: Net, seed: int, *shape: int, kind: type = np.int8) -> Value:
    info = np.iinfo(kind)
    return net.const(rng(seed).integers(info.min + 1, info.max, shape).astype(kind))


def scalar(net: Net, x: float) -> Value:
    return net.const(np.float32(x))


def u8(net: Net, x: int) -> Value:
    return net.const(np.uint8(x))


def s8(net: Net, x: int = 0) -> Value:
    return net.const(np.int8(x))


IN = (0.02, 120)  # the grid of the input of every case


def given_grid(net: Net) -> list[Value]:
    return [scalar(net, IN[0]), u8(net, IN[1])]


def conv(net: Net, x: Value) -> Value:
    per_channel = net.const(rng(3).uniform(0.001, 0.01, 4).astype(np.float32))
    weight, zeros = codes(net, 1, 4, 3, 3, 3), net.const(np.zeros(4, np.int8))
    bias = net.const(rng(2).integers(-3000, 3000, 4).astype(np.int32))
    operands = [x, *given_grid(net), weight, per_channel, zeros, scalar(net, 0.05), u8(net, 0), bias]
    return net.op("QLinearConv", operands, attrs={"pads": Ints((1, 1, 1, 1))})


def matmul(net: Net, x: Value) -> Value:
    per_column = net.const(rng(3).uniform(0.001, 0.01, 5).astype(np.float32))
    weight, zeros = codes(net, 1, 6, 5), net.const(np.zeros(5, np.int8))
    return net.op("QLinearMatMul", [x, *given_grid(net), weight, per_column, zeros, scalar(net, 0.05), u8(net, 90)])


def qgemm(*, transposed: bool, alpha: float) -> Callable[[Net, Value], Value]:
    def build(net: Net, x: Value) -> Value:
        per_column = net.const(rng(3).uniform(0.001, 0.01, 5).astype(np.float32))
        weight = codes(net, 1, *((5, 6) if transposed else (6, 5)))
        bias = net.const(rng(2).integers(-20000, 20000, 5).astype(np.int32))
        operands = [x, *given_grid(net), weight, per_column, net.const(np.zeros(5, np.int8)), bias]
        attrs = {"transB": int(transposed), "alpha": alpha}
        return net.op(f"{MS}QGemm", [*operands, scalar(net, 0.05), u8(net, 90)], attrs=attrs)

    return build


MS = "com.microsoft::"


def unary(kind: str, scale: float, zero: int, **attrs: Any) -> Callable[[Net, Value], Value]:
    def build(net: Net, x: Value) -> Value:
        return net.op(f"{MS}{kind}", [x, *given_grid(net), scalar(net, scale), u8(net, zero)], attrs=attrs)

    return build


def binary(kind: str) -> Callable[[Net, Value], Value]:
    def build(net: Net, x: Value) -> Value:
        other = net.const(rng(5).integers(0, 256, (1, 6)).astype(np.uint8))
        operands = [x, *given_grid(net), other, scalar(net, 0.01), u8(net, 30), scalar(net, 0.05), u8(net, 100)]
        return net.op(f"{MS}{kind}", operands)

    return build


def concat(net: Net, x: Value) -> Value:
    other = net.const(rng(5).integers(0, 256, (2, 3)).astype(np.uint8))
    parts = [x, *given_grid(net), other, scalar(net, 0.01), u8(net, 30)]
    return net.op(f"{MS}QLinearConcat", [scalar(net, 0.05), u8(net, 100), *parts], attrs={"axis": 1})


def where(net: Net, x: Value) -> Value:
    truth = net.const(rng(5).random((2, 6)) < 0.5)
    other = net.const(rng(6).integers(0, 256, (2, 6)).astype(np.uint8))
    grids = [x, *given_grid(net), other, scalar(net, 0.01), u8(net, 30), scalar(net, 0.05), u8(net, 100)]
    return net.op(f"{MS}QLinearWhere", [truth, *grids])


def through(*moves: tuple[str, dict[str, Any]]) -> Callable[[Net, Value], Value]:
    """QLinearAdd, then operators that work on codes as they are."""

    def build(net: Net, x: Value) -> Value:
        zeros = net.const(np.zeros((1,), np.uint8))
        grids = [x, *given_grid(net), zeros, scalar(net, 1), u8(net, 0), scalar(net, 0.05), u8(net, 100)]
        x = net.op(f"{MS}QLinearAdd", grids)
        for kind, attrs in moves:
            x = MOVES[kind](net, x, attrs)
        return x

    return build


def _plain(kind: str, *more: Any) -> Callable[[Net, Value, dict[str, Any]], Value]:
    return lambda net, x, attrs: net.op(kind, [x, *(net.const(np.asarray(m)) for m in more)], attrs=attrs)


MOVES: dict[str, Callable[[Net, Value, dict[str, Any]], Value]] = {
    "MaxPool": lambda net, x, attrs: net.node("MaxPool", [x], None, attrs).results[0],
    "Transpose": _plain("Transpose"),
    "Pad": _plain("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.uint8(7)),
    "PadDefault": _plain("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "Gather": _plain("Gather", np.array([1, 0])),
    "Concat": lambda net, x, attrs: net.op("Concat", [x, x], attrs=attrs),
    "Resize": lambda net, x, attrs: net.op(
        "Resize", [x, None, net.const(np.array([1, 1, 2, 2], np.float32))], attrs=attrs
    ),
}
IMAGE = (1, 3, 6, 6)


def array_of(value: Value) -> Array:
    assert value.constant is not None
    return value.constant.array()
