"""Places where a rule of simplify must not fire, with the reason that it gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kit.net import Net

from mlc.ir.core import Ints, Module, Value
from mlc.ir.dims import Sym
from mlc.ir.dtypes import DType
from mlc.ir.rewrite import Rewriter
from mlc.passes.base import SkipCode
from mlc.passes.rewrite.catalogue import RULES
from mlc.passes.rewrite.driver import Driver

F32 = DType.F32
Case = Callable[[Net], Module]
CASES: list[object] = []


def refused(rule: str, code: SkipCode, why: str) -> Callable[[Case], Case]:
    """Registers a module in which `rule` must give `code` with a reason that says `why`."""

    def register(case: Case) -> Case:
        CASES.append(pytest.param(rule, case, code, why, id=f"{rule}: {why}"))
        return case

    return register


@pytest.mark.parametrize(("rule", "case", "code", "why"), CASES)
def test_refused(rule: str, case: Case, code: SkipCode, why: str) -> None:
    module = case(Net())
    rw = Rewriter(module)
    driver = Driver(rw, [r for r in RULES if r.name == rule], lambda op: True)
    driver.settle()
    assert rule not in driver.tally
    (found,) = (r for reasons in driver.refused.values() for r in reasons.values())
    assert found.code is code
    assert why in found.why


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@refused("neutral-element", SkipCode.NOT_CONSTANT, "may broadcast")
def _(n: Net) -> Module:
    return n.done(n.op("Add", [n.input("x", F32, 3), n.const(np.zeros((2, 3), np.float32))]))


@refused("dropout", SkipCode.NOT_CONSTANT, "training mode")
def _(n: Net) -> Module:
    x, mode = n.input("x", F32, 3), n.input("training", DType.BOOL)
    return n.done(n.op("Dropout", [x, n.const(np.float32(0.5)), mode]))


@refused("dropout", SkipCode.SHARED, "mask is read")
def _(n: Net) -> Module:
    return n.done(*n.node("Dropout", [n.input("x", F32, 3)], count=2).results)


@refused("known-where", SkipCode.NOT_CONSTANT, "broadcast")
def _(n: Net) -> Module:
    condition = n.const(np.ones((2, 3), bool))
    return n.done(n.op("Where", [condition, n.input("x", F32, 3), n.input("y", F32, 3)]))


@refused("cast-cast", SkipCode.DTYPE, "loses bits")
def _(n: Net) -> Module:
    half = n.op("Cast", [n.input("x", F32, 3)], attrs={"to": DType.F16.onnx})
    return n.done(n.op("Cast", [half], attrs={"to": F32.onnx}))


@refused("slice-slice", SkipCode.NOT_CONSTANT, "same axis")
def _(n: Net) -> Module:
    bounds = n.ints(1), n.ints(4), n.ints(0)
    return n.done(n.op("Slice", [n.op("Slice", [n.input("x", F32, 9), *bounds]), *bounds]))


@refused("reshape-constant", SkipCode.NOT_CONSTANT, "more than one size")
def _(n: Net) -> Module:
    x = n.input("x", F32, "N", "T", 4)
    size = [n.op("Gather", [n.op("Shape", [x]), n.ints(axis)]) for axis in (0, 1)]
    return n.done(n.op("Reshape", [x, n.op("Concat", [size[1], size[0], n.ints(4)], attrs={"axis": 0})]))


@refused("flat-softmax", SkipCode.NOT_CONSTANT, "several axes")
def _(n: Net) -> Module:
    soft = n.op("Softmax", [n.op("Flatten", [n.input("x", F32, 2, 3, 4)])], attrs={"axis": -1})
    return n.done(n.op("Reshape", [soft, n.ints(2, 3, 4)]))


def _pad(n: Net, *pads: int, value: float = 0.0, mode: str = "constant") -> Value:
    return n.op("Pad", [n.input("x", F32, 1, 2, 6, 6), n.ints(*pads), n.const(np.float32(value))], attrs={"mode": mode})


@refused("pad-conv", SkipCode.UNSUPPORTED, "zeros only")
def _(n: Net) -> Module:
    return n.done(n.op("Conv", [_pad(n, 0, 0, 1, 1, 0, 0, 1, 1, value=1.0), n.const(ones(1, 2, 3, 3))]))


@refused("pad-conv", SkipCode.NOT_CONSTANT, "samples or channels")
def _(n: Net) -> Module:
    return n.done(n.op("Conv", [_pad(n, 0, 1, 0, 0, 0, 0, 0, 0), n.const(ones(1, 3, 3, 3))]))


@refused("pad-conv", SkipCode.UNSUPPORTED, "auto_pad")
def _(n: Net) -> Module:
    pad = _pad(n, 0, 0, 1, 1, 0, 0, 1, 1)
    return n.done(n.op("Conv", [pad, n.const(ones(1, 2, 3, 3))], attrs={"auto_pad": "SAME_UPPER"}))


@refused("pad-maxpool", SkipCode.UNSUPPORTED, "largest element")
def _(n: Net) -> Module:
    attrs = {"kernel_shape": Ints((3, 3))}
    return n.done(n.op("MaxPool", [_pad(n, 0, 0, 1, 1, 0, 0, 1, 1)], attrs=attrs))


@refused("pad-maxpool", SkipCode.UNSUPPORTED, "nothing but padding")
def _(n: Net) -> Module:
    pad = _pad(n, 0, 0, 3, 3, 0, 0, 3, 3, mode="edge")
    return n.done(n.op("MaxPool", [pad], attrs={"kernel_shape": Ints((3, 3))}))


@refused("pad-averagepool", SkipCode.UNSUPPORTED, "does not count")
def _(n: Net) -> Module:
    attrs = {"kernel_shape": Ints((3, 3)), "pads": Ints((1, 1, 1, 1))}
    return n.done(n.op("AveragePool", [_pad(n, 0, 0, 1, 1, 0, 0, 1, 1)], attrs=attrs))


@refused("fold-affine", SkipCode.NOT_CONSTANT, "one number per channel")
def _(n: Net) -> Module:
    conv = n.op("Conv", [n.input("x", F32, 1, 2, 3, 3), n.const(ones(4, 2, 1, 1))])
    return n.done(n.op("Mul", [conv, n.const(ones(3))]))


@refused("fold-affine", SkipCode.GROWS, "in place of")
def _(n: Net) -> Module:
    """Weights of two convolutions: scaled for one of them, they would be in the file twice."""
    weight, x = n.const(ones(64, 8, 3, 3)), n.input("x", F32, 1, 8, 5, 5)
    conv, twin = n.op("Conv", [x, weight]), n.op("Conv", [x, weight], attrs={"group": 1})
    return n.done(n.op("Mul", [conv, n.const(2 * ones(64, 1, 1))]), twin)


@refused("fold-affine", SkipCode.HURTS, "not be finite")
def _(n: Net) -> Module:
    conv = n.op("Conv", [n.input("x", F32, 1, 2, 3, 3), n.const(3e38 * ones(4, 2, 1, 1))])
    return n.done(n.op("Mul", [conv, n.const(10 * ones(4, 1, 1))]))


@refused("constants", SkipCode.GROWS, "in place of")
def _(n: Net) -> Module:
    table = n.op("Expand", [n.const(np.float32(2.0)), n.ints(40, 50)])
    return n.done(n.op("Add", [n.input("x", F32, 40, 50), table]))


@refused("matmul-add", SkipCode.NOT_CONSTANT, "broadcast")
def _(n: Net) -> Module:
    product = n.op("MatMul", [n.input("x", F32, 1, 4), n.const(ones(4, 5))])
    return n.done(n.op("Add", [product, n.const(ones(3, 5))]))


@refused("equal-scale", SkipCode.HURTS, "rounds differently")
def _(n: Net) -> Module:
    once = n.op("Mul", [n.input("x", F32, 3), n.const(np.float32(0.3))])
    return n.done(n.op("Mul", [once, n.const(np.float32(0.7))]))


@refused("equal-scale", SkipCode.HURTS, "ends a Gelu")
def _(n: Net) -> Module:
    x = n.input("x", F32, 3)
    bell = n.op("Erf", [n.op("Div", [x, n.const(np.float32(np.sqrt(2)))])])
    gelu = n.op("Mul", [n.op("Mul", [x, n.op("Add", [bell, n.const(ones(1))])]), n.const(np.float32(0.5))])
    return n.done(n.op("Mul", [gelu, n.const(np.arange(1, 4, dtype=np.float32))]))


@refused("gather-concat", SkipCode.NOT_CONSTANT, "not known")
def _(n: Net) -> Module:
    joined = n.op("Concat", [n.input("x", F32, Sym("N"), 2), n.input("y", F32, Sym("M"), 2)], attrs={"axis": 0})
    return n.done(n.op("Gather", [joined, n.ints(1)]))
