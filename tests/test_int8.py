"""`int8`: what becomes codes, on which grids, and that the artifact computes what the codes say."""

from __future__ import annotations

import numpy as np
import pytest
from kit.layers import Feeds, Layers, image
from kit.nets import NETS
from kit.samples import Samples

from mlc.backends.legalize import legalize
from mlc.backends.ort import Session
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.ir.core import Module, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.types import TensorType
from mlc.passes.base import Context
from mlc.passes.quantize.int8.glue import GLUE, Behaviour
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.int8.plan import Int8Plan

TARGET = parse_target("ort(cpu, isa=vnni)")


def context(feeds: Feeds, **more: object) -> Context:
    """The feeds, whole, as the only sample."""
    data = Samples({name: a[None] for name, a in feeds.items()}, whole=True)
    return Context(target=TARGET, data=data, runner=OrtRunner(), **more)  # type: ignore[arg-type]


def ops(module: Module, kind: str) -> list[Op]:
    return [op for op in module.walk() if op.kind == kind]


def kinds(module: Module) -> list[str]:
    return [op.kind for op in module.walk()]


def plan_of(module: Module) -> Int8Plan:
    plan = module.history[-1].plan  # type: ignore[attr-defined]
    assert isinstance(plan, Int8Plan)
    return plan


def forms(module: Module) -> list[str]:
    return [r.form for w in plan_of(module).weights for r in w.readers]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


def agree(reference: dict[str, np.ndarray], found: dict[str, np.ndarray], least: float) -> None:
    for name, wanted in reference.items():
        if wanted.dtype.kind == "f":
            assert found[name].dtype == wanted.dtype
            assert cosine(wanted, found[name]) > least, name


# -- every net ---------------------------------------------------------------------------------------------------------


_OTHERS = ("bert", "experts_top", "lstm", "gated", "captured", "unet", "tied", "transposed", "grouped")


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "auto") for name in NETS), *((n, m) for n in _OTHERS for m in ("dynamic", "stored"))]
)
def test_artifacts_compute_what_the_codes_say(name: str, mode: str) -> None:
    module, feeds = NETS[name]()
    small = Int8(mode=mode)(module, context(feeds))
    check_placement(small)
    floats = Session(module, optimize=False).run(feeds)
    standard = Session(small, optimize=False).run(feeds)
    agree(floats, standard, 0.95)
    agree(standard, Session(legalize(small, TARGET).module).run(feeds), 0.999)


def check_placement(module: Module) -> None:
    """Rounded values come from floats, codes of one move share a grid, convolutions have codes around them."""
    for op in module.walk():
        if op.kind == "QuantizeLinear":
            assert isinstance(op.operands[0].type, TensorType)  # type: ignore[union-attr]
            assert op.operands[0].type.dtype is DType.F32  # type: ignore[union-attr]
    plan = plan_of(module)
    grids = {a.value: (a.scale, a.zero) for a in plan.activations}
    assert len(grids) == len(plan.activations)
    named = {op.results[0].name: op for op in module.walk() if op.results}
    for op in (named[name] for name in plan.glue if name in named):  # a HardSigmoid became an Add
        data = op.operands if GLUE[op.kind].every_operand else op.operands[:1]
        assert all(made_by(v) == "DequantizeLinear" for v in data), f"{op} reads floats"
        rounded = op.results[0].users
        assert all(u.kind == "QuantizeLinear" for u in rounded), f"{op} makes floats"
        if GLUE[op.kind].behaviour is Behaviour.VIEW:
            assert grid_of(data[0]) == grid_of_quantizer(rounded[0]), f"{op} moves to another grid"
    static = {r.op for w in plan.weights for r in w.readers if r.form == "static"}
    for op in module.walk():
        if op.results and op.results[0].name in static:
            assert made_by(op.operands[0]) == "DequantizeLinear"
            assert made_by(op.operands[1]) == "DequantizeLinear"
            if op.kind == "Conv":
                assert [u.kind for u in op.results[0].users] == ["QuantizeLinear"]


def made_by(value: Value | None) -> str:
    """What makes a value, at most a transposition away."""
    op = value.op if value is not None else None
    if op is not None and op.kind == "Transpose":
        inner = op.operands[0]
        return made_by(inner) if inner is not None else ""
    return op.kind if op is not None else ""


def grid_of(value: Value | None) -> tuple[float, int]:
    assert value is not None
    assert value.op is not None
    return _grid(value.op)


def grid_of_quantizer(op: Op) -> tuple[float, int]:
    return _grid(op)


def _grid(op: Op) -> tuple[float, int]:
    scale, zero = (op.operand(slot).constant.array() for slot in (1, 2))  # type: ignore[union-attr]
    return float(scale), int(zero)


# -- placement ---------------------------------------------------------------------------------------------------------


def test_a_clamp_stays_where_nothing_rounds_before_it() -> None:
    """Sums of codes that are only read in floats are sums of floats: what follows them is not left out."""
    net = Layers()
    x, feeds = image(net)
    y = net.conv(x, 3, 8)
    shifted = net.op("Add", [y, net.const(np.float32(3))])
    clipped = net.op("Clip", [shifted, net.const(np.float32(0)), net.const(np.float32(1))])
    module = net.done(net.op("Exp", [clipped]))
    small = Int8()(module, context(feeds))
    assert not plan_of(small).glue
    assert kinds(small).count("Clip") == 1
    agree(Session(module).run(feeds), Session(small).run(feeds), 0.999)
