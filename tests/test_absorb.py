"""`absorb`: what a ReLU never cuts moves into the next bias; what that cannot be said of stays."""

from __future__ import annotations

import numpy as np
import pytest
from kit.layers import F32, Layers, image
from kit.permute import relative, run
from kit.real import RealModel, real_models

from mlc.backends.runner import OrtRunner
from mlc.frontends.onnx import load
from mlc.ir.core import Ints, Module, Value
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.quantize.absorb import Absorb

GAMMA = np.array([0.5, -0.5, 1.0, 0.2, 1.0, 0.1, 0.3, 2.0], np.float32)
BETA = np.array([4.0, 4.0, 0.5, 1.0, -3.0, 0.2, 2.0, 6.0], np.float32)
LOWERED = np.array([2.5, 2.5, 0.0, 0.4, 0.0, 0.0, 1.1, 0.0])


def normalized(net: Layers, x: Value, channels: int = 8) -> Value:
    """A batch normalization whose statistics are those of its input."""
    zero, one = (net.const(np.full(channels, v, np.float32)) for v in (0, 1))
    return net.op("BatchNormalization", [x, net.const(GAMMA, "gamma"), net.const(BETA, "beta"), zero, one])


def head(net: Layers, h: Value, kind: str) -> Value:
    if kind == "grouped":
        return net.op("Conv", [h, net.weight(4, 4, 1, 1), net.vector(4)], attrs={"group": 2})
    if kind == "valid":
        return net.op("Conv", [h, net.weight(4, 8, 3, 3)], attrs={"kernel_shape": Ints((3, 3))})
    return net.conv(h, 8, 4, 3 if kind == "padded" else 1)


def network(kind: str = "plain") -> tuple[Module, dict]:
    net = Layers()
    x, feeds = image(net, 8)
    feeds["x"] = np.clip(np.random.default_rng(0).standard_normal((16, 8, 8, 8)), -2.9, 2.9).astype(np.float32)
    return net.done(head(net, net.relu(normalized(net, x)), kind)), feeds


@pytest.mark.parametrize("kind", ["plain", "grouped", "valid"])
def test_outputs_stay_where_nothing_lies_below(kind):
    module, feeds = network(kind)
    absorbed = Absorb()(module)
    verify(absorbed)
    (done,) = absorbed.history[-1].done
    assert done.before == "4 of 8 channels never at zero"
    np.testing.assert_allclose(absorbed.history[-1].plan.sites[0].numbers, LOWERED, atol=1e-6)
    assert relative(run(module, feeds), run(absorbed, feeds)) < 1e-5
    relus = [next(op for op in m.graph.ops if op.kind == "Relu").results[0].name for m in (module, absorbed)]
    before, after = (
        OrtRunner().prepare(m, (name,)).run(feeds)[name] for m, name in zip((module, absorbed), relus, strict=True)
    )
    np.testing.assert_allclose(after, before - LOWERED[:, None, None], atol=1e-5)


def test_what_lies_below_is_little():
    module, feeds = network()
    feeds["x"] = np.random.default_rng(0).standard_normal((64, 8, 8, 8)).astype(np.float32)
    (y,), (z,) = run(module, feeds), run(Absorb()(module), feeds)
    assert 0 < np.square(y - z).sum() < 1e-4 * np.square(y).sum()
    more = run(Absorb(deviations=1.0)(module), feeds)[0]
    assert np.square(y - more).sum() > 10 * np.square(y - z).sum()


def test_a_shift_that_others_read_keeps_its_numbers():
    net = Layers()
    x, feeds = image(net, 8)
    h = net.relu(normalized(net, x))
    beta = next(op for op in net.graph.ops if op.kind == "BatchNormalization").operands[2]
    module = net.done(net.conv(h, 8, 4, 1), net.op("Relu", [beta]))
    np.testing.assert_array_equal(run(Absorb()(module), feeds)[1], np.maximum(BETA, 0))


def refused(kind: str) -> tuple[Module, str]:
    net = Layers()
    x, _ = image(net, 8)
    y = normalized(net, x)
    if kind == "clip":
        h = net.op("Clip", [y, net.const(np.float32(0)), net.const(np.float32(6))])
        return net.done(net.conv(h, 8, 4, 1)), "ReLU alone"
    if kind == "read twice":
        return net.done(net.conv(net.relu(y), 8, 4, 1), y), "ReLU alone"
    if kind == "output":
        return net.done(net.relu(y)), "not a layer"
    if kind == "pool":
        return net.done(net.conv(net.pool(net.relu(y)), 8, 4, 1)), "not a layer"
    return network("padded")[0], "pads it with zeros"


@pytest.mark.parametrize("kind", ["clip", "read twice", "output", "pool", "padded"])
def test_what_cannot_be_lowered(kind):
    module, why = refused(kind)
    (skipped,) = Absorb().plan(module, Context()).skipped
    assert skipped.code is SkipCode.NOT_FOLLOWED
    assert why in skipped.why


def test_scope_nothing_to_lower_and_nothing_to_know():
    module, _ = network()
    norm, conv = (op.name for op in module.graph.ops if op.kind != "Relu")
    for scope in (Scope(but=frozenset({conv})), Scope(on=frozenset({conv}))):
        assert [s.code for s in Absorb().plan(module, Context(scope=scope)).skipped] == [SkipCode.SCOPE]
    assert Absorb().plan(module, Context(scope=Scope(on=frozenset({norm})))).sites
    (skipped,) = Absorb(deviations=10.0).plan(module, Context()).skipped
    assert skipped.code is SkipCode.ALREADY
    net = Layers()
    x = net.input("x", F32, "N", 4)
    assert "no batch normalization" in Absorb().plan(net.done(net.dense(x, 4, 4)), Context()).notes[0]


@real_models("ppocr_cls")
def test_a_real_model_moves_little(model: RealModel):
    module, feeds = load(model.path), model.feeds()
    absorbed = Absorb()(module)
    verify(absorbed)
    assert absorbed.history[-1].done
    assert relative(run(module, feeds), run(absorbed, feeds)) < 0.05
