"""`equalize`: ranges meet in the middle, outputs stay, and one scale per tensor is enough again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kit import laws
from kit.layers import F32, Layers, image, rows
from kit.nets import NETS
from kit.permute import judged, relative, run
from kit.real import RealModel, real_models
from kit.samples import Samples
from kit.widen import run_wide, widened

from mlc.backends.runner import OrtRunner
from mlc.frontends.onnx import load
from mlc.ir.axis_scales import Cells, Scale
from mlc.ir.constants import Constant
from mlc.ir.core import Module
from mlc.ir.rewrite import Rewriter
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.quantize.equalize import Equalize
from mlc.passes.quantize.equalize_solve import Balance, meetings
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.scaling import apply_scales, axes_of
from mlc.passes.rewrite.simplify import Simplify

Feeds = dict[str, np.ndarray]
#: Nets without double kernels.
SINGLES = {"quantized", "block_quantized", "dynamic_int8", "group_norm", "transposed"}


def report(module: Module):
    return module.history[-1]


def array(module: Module, name: str) -> np.ndarray:
    return np.asarray(module.constants[name].constant.array())


def rescaled(module: Module, decades: float, seed: int = 0) -> Module:
    """The same function with every direction scaled by 10^U(-decades, decades)."""
    twin = module.clone()
    axes, rng = axes_of(twin), np.random.default_rng(seed)
    cells = [Cells.of(axes, d) for d in axes.transformations.directions()]
    apply_scales(Rewriter(twin), axes, [Scale(c, 10 ** rng.uniform(-decades, decades, c.count)) for c in cells])
    return twin


def ranges(module: Module, name: str, axis: int) -> np.ndarray:
    w = np.abs(array(module, name))
    return w.max(axis=tuple(i for i in range(w.ndim) if i != axis))


@pytest.mark.parametrize("name", NETS)
def test_outputs_stay_and_a_second_run_does_nothing(name):
    module, feeds = NETS[name]()
    start = rescaled(module, 1.0)
    equal = Equalize()(start)
    verify(equal)
    if name in SINGLES:
        assert relative(run(start, feeds), run(equal, feeds)) < 1e-4
    else:
        assert relative(run_wide(widened(start), feeds), run_wide(widened(equal), feeds)) < 1e-5
    assert not any("not at rest" in note for note in report(equal).notes)
    assert not report(Equalize()(equal)).done
    for op in (s for s in report(equal).skipped if s.code is SkipCode.PINNED_AXIS):
        assert op.why


@pytest.mark.parametrize("name", NETS)
def test_where_scales_meet_makers_and_readers_are_alike(name):
    """In the geometric mean over the weights of either side, for every channel that both sides have."""
    equal = Equalize()(rescaled(NETS[name]()[0], 1.0))
    axes = axes_of(equal)
    balance = Balance(axes, meetings(axes))
    for m in balance.meetings:
        sides = {True: [], False: []}
        for value, axis, x in m.sides:
            sides[x > 0].append(np.log(np.maximum(balance.ranges(m, value, axis), 1e-30)))
        live = np.minimum(*(np.min(s, axis=0) for s in sides.values())) > -20
        np.testing.assert_allclose(*(np.mean(s, axis=0)[live] for s in sides.values()), atol=5e-3)


@pytest.mark.parametrize("name", ["mlp", "vgg16", "resnet20_conv", "densenet", "mobilenet", "grouped"])
def test_wherever_it_starts_it_ends_in_the_same_place(name):
    module = Simplify(fold_affine=True)(NETS[name]()[0])
    one, two = Equalize()(rescaled(module, 1.0, 1)), Equalize()(rescaled(module, 1.0, 2))
    for op in (m for m in one.graph.ops if m.kind in ("Conv", "MatMul", "Gemm") and m.operands[1].constant is not None):
        weight = op.operands[1].name
        np.testing.assert_allclose(array(one, weight), array(two, weight), rtol=0.02, atol=1e-3)


def test_heads_are_not_equalized_once_more_as_a_whole():
    """Positions within every head say it all: queries against keys, values against the output."""
    assert [m.cells.shape for m in meetings(axes_of(NETS["bert"]()[0]))] == [(4, 5), (4, 5)]


def test_a_common_step_that_makes_it_worse_is_undone(monkeypatch):
    module = rescaled(NETS["resnet20_conv"]()[0], 1.0)
    wanted = Equalize()(module)
    monkeypatch.setattr(Balance, "_coupling", lambda self: -0.2 * np.eye(len(self.meetings)))
    found = Equalize()(module)
    assert not any("not at rest" in note for note in report(found).notes)
    for op in (m for m in wanted.graph.ops if m.kind == "Conv"):
        weight = op.operands[1].name
        np.testing.assert_allclose(array(found, weight), array(wanted, weight), rtol=0.05, atol=2e-3)


def pair() -> tuple[Module, Feeds]:
    net = Layers()
    x, feeds = rows(net, 6)
    w1, w2 = net.draw(6, 8), net.draw(8, 4)
    h = net.relu(net.op("Gemm", [x, net.const(w1, "w1"), net.const(net.draw(8), "b1")]))
    return net.done(net.op("Gemm", [h, net.const(w2, "w2"), net.const(net.draw(4), "b2")])), feeds


def test_two_layers_get_the_geometric_mean_in_one_step():
    module, _ = pair()
    equal = Equalize()(module)
    r1, r2 = ranges(module, "w1", 1), ranges(module, "w2", 0)
    s = np.sqrt(r1 * r2) / r2
    np.testing.assert_allclose(array(equal, "w1"), array(module, "w1") / s, rtol=2e-3)
    np.testing.assert_allclose(array(equal, "b1"), array(module, "b1") / s, rtol=2e-3)
    np.testing.assert_allclose(array(equal, "w2"), array(module, "w2") * s[:, None], rtol=2e-3)
    np.testing.assert_array_equal(array(equal, "b2"), array(module, "b2"))


def test_three_layers_around_a_depthwise_convolution():
    net = Layers()
    x, feeds = image(net)
    h = net.relu(net.conv(x, 3, 8, 1))
    h = net.relu(net.conv(h, 8, 8, group=8))
    module = rescaled(net.done(net.conv(h, 8, 4, 1)), 1.0)
    equal = Equalize()(module)
    first, deep, last = (op.operands[1].name for op in equal.graph.ops if op.kind == "Conv")
    np.testing.assert_allclose(ranges(equal, first, 0), ranges(equal, deep, 0), rtol=2e-3)
    np.testing.assert_allclose(ranges(equal, deep, 0), ranges(equal, last, 1), rtol=2e-3)
    assert relative(run(module, feeds), run(equal, feeds)) < 1e-4


def test_channels_without_weights_stay():
    module, feeds = pair()
    w1, w2 = array(module, "w1").copy(), array(module, "w2").copy()
    w1[:, 2], w2[5] = 0, 0
    w1[:, 7] *= 1e-9  # as good as none
    for name, w in (("w1", w1), ("w2", w2)):
        module.constants[name].constant = Constant.of(w)
    equal = Equalize()(module)
    for dead in (2, 5, 7):
        np.testing.assert_array_equal(array(equal, "w1")[:, dead], w1[:, dead])
        np.testing.assert_array_equal(array(equal, "w2")[dead], w2[dead])
        assert array(equal, "b1")[dead] == array(module, "b1")[dead]
    assert relative(run(module, feeds), run(equal, feeds)) < 1e-5


def test_batch_norms_are_folded_first():
    """Ranges are those of the weights as they will be stored."""
    net = Layers()
    x, feeds = image(net)
    h = net.relu(net.norm(net.conv(x, 3, 8), 8))
    module = net.done(net.norm(net.conv(h, 8, 4), 4))
    equal = Equalize()(module)
    assert not any(op.kind == "BatchNormalization" for op in equal.graph.ops)
    assert any("folded first" in note for note in report(equal).notes)
    first, second = (op.operands[1].name for op in equal.graph.ops if op.kind == "Conv")
    np.testing.assert_allclose(ranges(equal, first, 0), ranges(equal, second, 1), rtol=2e-3)
    assert relative(run(module, feeds), run(equal, feeds)) < 1e-4


def test_a_module_with_nothing_to_equalize_is_left_as_it_is():
    net = Layers()
    x, _ = image(net)
    module = net.done(net.op("Sigmoid", [net.norm(net.conv(x, 3, 4), 4)]))
    equal = Equalize()(module)
    assert [op.kind for op in equal.graph.ops] == ["Conv", "BatchNormalization", "Sigmoid"]
    assert not report(equal).notes


@pytest.mark.parametrize("kind", ["Clip", "Gelu", "Sigmoid", "HardSwish", "Softmax"])
def test_what_does_not_commute_is_in_the_way_and_named(kind):
    net = Layers()
    x, _ = image(net)
    h = net.conv(x, 3, 8)
    bounds = [net.const(np.float32(0)), net.const(np.float32(6))] if kind == "Clip" else []
    h = net.op("Mul", [h, net.op(kind, [h])]) if kind == "Sigmoid" else net.op(kind, [h, *bounds])
    module = net.done(net.conv(h, 8, 4))
    first, last = report(Equalize()(module)).skipped
    assert first.code is SkipCode.PINNED_AXIS
    assert f"{kind} behind it" in first.why
    assert "output of the model" in last.why


def test_the_scope_is_kept():
    module, _ = pair()
    first, second = (op.name for op in module.graph.ops if op.kind == "Gemm")
    sites = {
        scope: Equalize().plan(module, Context(scope=scope)).sites
        for scope in (Scope(on=frozenset({first})), Scope(on=frozenset({second})), Scope(but=frozenset({second})))
    }
    assert [len(s) for s in sites.values()] == [1, 0, 0]
    left = Equalize().plan(module, Context(scope=Scope(but=frozenset({second})))).skipped
    assert SkipCode.SCOPE in {s.code for s in left}


def test_weights_that_are_not_finite_are_left_alone():
    module, _ = pair()
    w = array(module, "w1").copy()
    w[0, 0] = np.inf
    module.constants["w1"].constant = Constant.of(w)
    codes = {s.site: s.code for s in Equalize().plan(module, Context()).skipped}
    assert SkipCode.HURTS in codes.values()


def test_the_plan_is_data_and_deterministic():
    module = rescaled(NETS["resnet20_conv"]()[0], 1.0)
    plan, again = (Equalize().plan(module, Context()) for _ in range(2))
    assert plan == again
    found = json.loads(json.dumps(plan.to_json()))
    assert found["sweeps"] > 1
    assert found["sites"][0]["count"] == len(plan.sites[0].numbers)
    assert found["sites"][0]["least"] < 1 < found["sites"][0]["most"]
    assert all(s.after <= s.before * 1.2 for s in plan.sites)


def classifier(seed: int = 0) -> tuple[Module, np.ndarray, np.ndarray, np.ndarray]:
    """A network that tells ten noisy pictures apart: random convolutions, the last layer solved by least squares.

    Returns it with pictures to calibrate on, pictures to judge by, and the labels of these.
    """
    rng = np.random.default_rng(seed)
    prototypes = rng.standard_normal((10, 3, 8, 8)).astype(np.float32)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 10, count)
        return prototypes[labels] + 1.2 * rng.standard_normal((count, 3, 8, 8)).astype(np.float32), labels

    net = Layers(seed)
    x = net.input("x", F32, "N", 3, 8, 8)
    h = net.relu(net.conv(x, 3, 24))
    h = net.pool(net.relu(net.conv(h, 24, 24, group=24)))
    h = net.relu(net.conv(h, 24, 48))
    features = net.op("Flatten", [net.pool(h)])
    last = net.const(np.zeros((48 * 4, 10), np.float32), "last")
    module = net.done(net.op("MatMul", [features, last]))
    pictures, labels = draw(3000)
    z = OrtRunner().prepare(module, (features.name,)).run({"x": pictures})[features.name]
    wanted = np.eye(10)[labels] - 0.1
    solved = np.linalg.solve(z.T @ z + 0.05 * np.trace(z.T @ z) / len(z.T) * np.eye(z.shape[1]), z.T @ wanted)
    module.constants["last"].constant = Constant.of(solved.astype(np.float32))
    return module, draw(64)[0], *draw(2000)


def test_one_scale_per_tensor_is_enough_again():
    """Channels rescaled at random: from chance to within a percentage point of the floats."""
    module, calibration, pictures, labels = classifier()
    broken = rescaled(module, 2.0, seed=1)
    ctx = Context(data=Samples({"x": calibration}), runner=OrtRunner())

    def accuracy(m: Module) -> float:
        (y,) = run(m, {"x": pictures})
        return 100 * float((y.argmax(1) == labels).mean())

    step = Int8(mode="static", per_channel=False)
    floats, rounded, fixed = accuracy(broken), accuracy(step(broken, ctx)), accuracy(step(Equalize()(broken), ctx))
    assert floats == pytest.approx(accuracy(module), abs=0.2)
    assert floats > 90
    assert rounded < 30
    assert fixed > floats - 1


@real_models(
    "mobilenet_v2", "opennsfw_unfolded", "dnsmos", "silero_vad_sequence", "ppocrv4_rec", "mnist_cnn", "khmersm"
)
def test_real_models_keep_their_outputs(model: RealModel):
    module, feeds = load(model.path), laws.feeds(model.name, model.path)
    equal = Equalize()(module)
    verify(equal)
    assert report(equal).done
    error, bar = judged(module, feeds, run(module, feeds), run(equal, feeds))
    assert error < bar
    assert not report(Equalize()(equal)).done
