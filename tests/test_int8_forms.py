"""Forms of `int8` by damage: the budget holds for the quantized module, and what is given up is the slow part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.layers import Layers
from kit.real import RealModel, real_models
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.passes.base import Context, SkipCode
from mlc.passes.instruments import drift
from mlc.passes.quantize.int8.int8 import Int8

VNNI = "ort(cpu, isa=vnni)"


def context(feeds: dict[str, np.ndarray], *, whole: bool = False, target: str = "", **more: Any) -> Context:
    """Without a target, 8-bit forms are taken to be faster even for the smallest products."""
    known = parse_target(target) if target else None
    return Context(target=known, data=Samples(feeds, whole=whole), runner=OrtRunner(), **more)


def measured(module: Module, small: Module, ctx: Context) -> float:
    assert ctx.data is not None
    feeds = [dict(b.inputs) for b in ctx.data.batches(1)]
    runner = OrtRunner()
    plain = runner.prepare(module)
    return drift(runner, small, feeds, [plain.run(f) for f in feeds])


def forms(small: Module) -> dict[str, str]:
    return {r.site: r.form for w in small.history[-1].plan.weights for r in w.readers}  # type: ignore[attr-defined]


def wild() -> tuple[Module, dict[str, np.ndarray]]:
    """Three products; one entry of what the second reads is 3000 times the others, and one row of its weight as much
    less: neither can be held in 8 bits."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 64)
    h = net.relu(net.dense(x, 64, 64))
    spike = np.ones(64, np.float32)
    spike[5] = 3000.0
    weight = net.draw(64, 64)
    weight[5] /= 3000
    h = net.op("MatMul", [net.op("Mul", [h, net.const(spike)]), net.const(weight, "spiked")])
    return net.done(net.dense(net.relu(h), 64, 10)), {
        "x": np.random.default_rng(2).normal(size=(16, 64)).astype(np.float32)
    }


def test_one_site_that_suffers_is_given_up() -> None:
    module, feeds = wild()
    ctx = context(feeds, dims={"N": 1})
    generous, strict = (Int8(damage=d, observer="minmax")(module, ctx) for d in (1.0, 1e-3))
    assert set(forms(generous).values()) == {"static"}
    assert measured(module, generous, ctx) > 0.01
    assert list(forms(strict).values()) == ["static", "static"]
    (left,) = strict.history[-1].skipped  # type: ignore[attr-defined]
    assert left.code is SkipCode.HURTS
    assert "damage" in left.why
    assert measured(module, strict, ctx) <= 1.2e-3
    notes = " ".join(strict.history[-1].notes)  # type: ignore[attr-defined]
    assert "1 of 3 sites got a slower one" in notes


def test_nothing_allowed_leaves_floats_and_says_so() -> None:
    module, feeds = wild()
    small = Int8(damage=0.0)(module, context(feeds, dims={"N": 1}))
    report = small.history[-1]
    assert not report.done  # type: ignore[attr-defined]
    assert {s.code for s in report.skipped} == {SkipCode.HURTS}  # type: ignore[attr-defined]


def test_products_too_small_for_codes_are_only_stored() -> None:
    """The cost table says that rounding takes longer than a product of 64 x 64 saves."""
    module, feeds = wild()
    small = Int8(damage=1.0)(module, context(feeds, dims={"N": 1}, target=VNNI))
    assert set(forms(small).values()) == {"stored"}
    large = Int8(damage=1.0)(module, context(feeds, dims={"N": 1000}, target=VNNI))
    assert set(forms(large).values()) == {"static"}


def test_values_shared_by_products_are_counted_once() -> None:
    """Three products of the same data suffer from its rounding together, not each as much as all of them."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 32)
    heads = [net.op("MatMul", [x, net.const(net.draw(32, 32), f"w{i}")]) for i in range(3)]
    module = net.done(net.concat(heads, 1))
    rows = np.random.default_rng(0).standard_t(3, size=(16, 32)).astype(np.float32)
    ctx = context({"x": rows}, dims={"N": 1})
    all_static = Int8(mode="static", observer="minmax")(module, ctx)
    damage = measured(module, all_static, ctx)
    kept = Int8(damage=1.05 * damage, observer="minmax")(module, ctx)
    assert list(forms(kept).values()) == ["static"] * 3
    less = Int8(damage=0.7 * damage, observer="minmax")(module, ctx)
    assert list(forms(less).values()) == ["dynamic"] * 3, "not floats, nor storage: their sum was not overestimated"
    assert measured(module, less, ctx) <= 0.71 * damage


def test_a_matrix_that_is_first_looked_up_as_a_table_answers_for_its_data() -> None:
    """What rounding the data of the product does is counted although a reader of the weight that comes before has no
    static form: the product gets the next form, not floats."""
    net = Layers()
    ids = net.input("ids", DType.I64, "N", 4)
    x = net.input("x", DType.F32, "N", 32)
    table = net.weight(64, 32)
    net.output(net.op("Gather", [table, ids]))
    module = net.done(net.op("Gemm", [x, table], attrs={"transB": 1}))
    rng = np.random.default_rng(0)
    feeds = {"ids": rng.integers(0, 64, (16, 4)), "x": rng.standard_t(3, size=(16, 32)).astype(np.float32)}
    ctx = context(feeds, dims={"N": 1})
    damage = measured(module, Int8(damage=1.0, observer="minmax")(module, ctx), ctx)
    less = Int8(damage=0.7 * damage, observer="minmax")(module, ctx)
    assert list(forms(less).values()) == ["stored", "dynamic"]
    assert measured(module, less, ctx) <= 0.71 * damage


def test_the_plan_is_the_same_twice() -> None:
    module, feeds = wild()
    ctx = context(feeds, dims={"N": 1})
    step = Int8(damage=1e-3)
    assert step.plan(module, ctx) == step.plan(module, ctx)


def test_weights_that_bodies_read() -> None:
    """A weight behind a branch has a form of its own, and is measured like any other."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 16)
    flag = net.input("flag", DType.BOOL)
    w = net.weight(16, 16)
    branches = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        y = body.op("MatMul", [x, w if name == "then_branch" else body.const(net.draw(16, 16), "other")])
        body.output(y)
        branches[name] = body.graph
    made = net.node("If", [flag], [x.type], regions=branches).result
    module = net.done(net.dense(made, 16, 8))
    rows = np.random.default_rng(0).normal(size=(6, 1, 16)).astype(np.float32)
    feeds = {"x": rows, "flag": np.array([True, False] * 3)}
    ctx = context(feeds, whole=True, dims={"N": 1})
    small = Int8(damage=0.01)(module, ctx)
    assert measured(module, small, ctx) <= 0.011
    assert "dynamic" in forms(small).values()


@real_models("mobilenet_v2", "ppocr_cls")
@pytest.mark.parametrize("budget", [0.02, 0.002])
def test_the_budget_holds_on_real_models(model: RealModel, budget: float) -> None:
    module = load(model.path)
    feeds = [model.feeds(seed) for seed in range(2)]
    stacked = {k: np.stack([f[k] for f in feeds]) for k in feeds[0]}
    small = Int8(damage=budget, observer="minmax")(module, context(stacked, whole=True, target=VNNI))
    ctx = context(stacked, whole=True, target=VNNI)
    assert measured(module, small, ctx) <= 1.5 * budget
    assert "static" in forms(small).values()
