"""Probing: damage is what the rounded model would do, nothing rounded is exactly 0, and what is odd is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from kit.layers import Layers
from kit.net import Net
from kit.nets import NETS
from kit.real import RealModel, real_models
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.frontends.onnx import load
from mlc.ir.constants import Constant
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.quant import QSpec, dequantize, grid, quantize
from mlc.ir.quant_blocks import quantize_constant
from mlc.ir.rewrite import Rewriter
from mlc.ir.types import TensorType
from mlc.passes.base import Context
from mlc.passes.instruments import drift
from mlc.passes.linear import linear_of
from mlc.passes.quantize.int8.codes import quantize_channels
from mlc.passes.quantize.probe import Coded, Probe, affordable

U8 = QSpec(8, False, False)


def context(feeds: dict[str, np.ndarray], **more: Any) -> Context:
    """Calibration data of as many samples as axis 0 is long."""
    return Context(data=Samples(feeds), runner=OrtRunner(), **more)


def mlp(hidden: int = 16) -> tuple[Module, dict[str, np.ndarray]]:
    net = Layers()
    x = net.input("x", DType.F32, "N", 8)
    h = net.relu(net.linear(x, 8, hidden))
    return net.done(net.linear(h, hidden, 4)), {"x": np.random.default_rng(1).normal(size=(12, 8)).astype(np.float32)}


def weights(module: Module) -> list[str]:
    found = [linear_of(op) for op in module.walk()]
    return list(dict.fromkeys(x.weight.name for x in found if x is not None))


def activations(module: Module) -> list[str]:
    found = [linear_of(op) for op in module.walk()]
    return list(dict.fromkeys(x.data.name for x in found if x is not None))


def array(module: Module, name: str) -> np.ndarray:
    constant = module.constants[name].constant
    assert constant is not None
    return constant.array()


def coarse(values: np.ndarray, bits: int = 3) -> np.ndarray:
    """Values on few levels."""
    step = np.abs(values).max() / 2 ** (bits - 1)
    return (np.rint(values / step) * step).astype(values.dtype)


def with_weights(module: Module, changed: dict[str, np.ndarray]) -> Module:
    twin = module.clone()
    rw = Rewriter(twin)
    for name, values in changed.items():
        rw.set_constant(twin.constants[name], Constant.of(values))
    return twin


def expected_drift(module: Module, changed: Module, ctx: Context) -> float:
    """What the damage of all samples must be: of the two models run as they are."""
    assert ctx.data is not None
    runner = OrtRunner()
    feeds = [dict(b.inputs) for b in ctx.data.batches(1)]
    reference = [runner.prepare(module).run(f) for f in feeds]
    return drift(runner, changed, feeds, reference)


def test_damage_is_that_of_the_rounded_model() -> None:
    module, feeds = mlp()
    ctx = context(feeds)
    names = weights(module)
    probe = Probe(module, ctx, names, samples=99)
    assert probe.samples == 12
    assert probe.damage() == 0.0
    single = []
    for name in names:
        changed = {name: coarse(array(module, name))}
        single.append(probe.damage(weights=changed))
        assert single[-1] == pytest.approx(expected_drift(module, with_weights(module, changed), ctx), abs=1e-6)
        assert single[-1] > 1e-3
    both = {name: coarse(array(module, name)) for name in names}
    assert probe.damage(weights=both) == pytest.approx(
        expected_drift(module, with_weights(module, both), ctx), abs=1e-6
    )
    assert probe.damage() == 0.0, "nothing is remembered"
    assert probe.damage(weights={names[0]: array(module, names[0])}) == 0.0


def test_activations_are_rounded_on_their_grid() -> None:
    """Against a net whose input was rounded beforehand."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 8)
    module = net.done(net.linear(x, 8, 4))
    rows = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    scale, zero = np.float32(0.31), np.float32(120)
    rounded = dequantize(quantize(rows, scale, zero, U8), scale, zero, U8)
    probe = Probe(module, context({"x": rows}), [], {"x": (float(scale), int(zero))})
    runner = OrtRunner()
    reference = [runner.prepare(module).run({"x": r[None]}) for r in rows]
    assert probe.damage() == 0.0
    wanted = drift(runner, module, [{"x": r[None]} for r in rounded], reference)
    assert probe.damage(activations=["x"]) == pytest.approx(wanted, abs=1e-7)
    own = []
    for row in rows:
        s, z = grid(np.minimum(row.min(), 0), np.maximum(row.max(), 0), U8)
        own.append({"x": dequantize(quantize(row, s, z, U8), s, z, U8)[None]})
    wanted = drift(runner, module, own, reference)
    assert 0 < probe.damage(dynamic=["x"]) == pytest.approx(wanted, abs=1e-7)
    assert probe.damage(dynamic=["x"]) < probe.damage(activations=["x"])


def test_only_operators_with_weights_read_the_rounded_value() -> None:
    """The residual path around a product stays in floats; a value that only an Add reads is rounded for it."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 8)
    half = net.op("Mul", [x, net.const(np.float32(0.5))])
    dead = net.op("MatMul", [half, net.const(np.zeros((8, 8), np.float32), "zero")])
    module = net.done(net.op("Add", [dead, half]))
    rows = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    grids = {half.name: (0.5, 128), dead.name: (0.5, 128)}
    probe = Probe(module, context({"x": rows}), ["zero"], grids)
    assert probe.damage(activations=[half.name]) == 0.0, "the product of zeros is zero, and the sum reads floats"
    everywhere = Probe(module, context({"x": rows}), ["zero"], grids, glue=module.graph.output_names)
    assert everywhere.damage(activations=[half.name]) > 1e-3, "unless the sum works on codes"
    ones = np.ones((8, 8), np.float32)
    assert probe.damage({"zero": ones}) != probe.damage({"zero": ones}, activations=[half.name])
    assert probe.damage({"zero": ones}, activations=[dead.name]) != probe.damage({"zero": ones})


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_kind_of_network(name: str) -> None:
    """Bodies of If, Loop and Scan, recurrent nets, attention, detection: probed, and exactly 0 with nothing rounded."""
    module, feeds = NETS[name]()
    whole = Samples({k: np.asarray(v)[None] for k, v in feeds.items()}, whole=True)
    grids = dict.fromkeys(activations(module), (0.02, 128))
    probe = Probe(module, Context(data=whole, runner=OrtRunner()), weights(module), grids)
    assert probe.damage() == 0.0
    for weight in weights(module)[:3]:
        probe_damage = probe.damage(weights={weight: coarse(array(module, weight), 2)})
        wanted = drift(
            OrtRunner(), with_weights(module, {weight: coarse(array(module, weight), 2)}), [feeds],
            [OrtRunner().prepare(module).run(feeds)],
        )  # fmt: skip
        assert probe_damage == pytest.approx(wanted, abs=1e-4)
    for value in activations(module)[:3]:
        assert 0 <= probe.damage(activations=[value]) < 1
        assert 0 <= probe.damage(dynamic=[value]) < 0.5


def branchy() -> tuple[Module, dict[str, np.ndarray]]:
    """A weight and a value that bodies capture, read outside as well; the branch depends on the data."""
    net = Net()
    x = net.input("x", DType.F32, "N", 4)
    w = net.const(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32), "w")
    h = net.op("Mul", [x, net.const(np.float32(1.5))])
    first = net.op("Squeeze", [net.op("Slice", [h, net.ints(0, 0), net.ints(1, 1), net.ints(0, 1)])])
    condition = net.op("Greater", [first, net.const(np.float32(0))])
    branches = {}
    for name, factor in (("then_branch", 1.0), ("else_branch", -2.0)):
        body = net.body(name)
        y = body.op("MatMul", [h, w])
        body.output(body.op("Mul", [y, body.const(np.float32(factor))]))
        branches[name] = body.graph
    shape = h.type
    chosen = net.node("If", [condition], [shape], regions=branches).result
    module = net.done(net.op("Add", [chosen, net.op("MatMul", [h, w])]))
    return module, {"x": np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)}


def test_constants_and_values_that_bodies_capture() -> None:
    module, feeds = branchy()
    ctx = context(feeds)
    (value,) = (v for v in activations(module))
    probe = Probe(module, ctx, ["w"], {value: (0.05, 100)}, samples=99)
    assert probe.damage() == 0.0
    changed = {"w": coarse(array(module, "w"))}
    assert probe.damage(changed) == pytest.approx(
        expected_drift(module, with_weights(module, changed), ctx), abs=1e-6
    )  # fmt: skip
    assert probe.damage(activations=[value]) > 0


def test_a_value_inside_a_body() -> None:
    net = Net()
    x = net.input("x", DType.F32, "N", 4)
    condition = net.const(np.array(True))
    branches = {}
    for name in ("then_branch", "else_branch"):
        body = net.body(name)
        h = body.op("Relu", [x])
        body.output(body.op("MatMul", [h, net.const(np.eye(4, dtype=np.float32), f"w_{name}")]))
        branches[name] = (body.graph, h.name)
    made = net.node("If", [condition], [x.type], regions={k: g for k, (g, _) in branches.items()}).result
    module = net.done(made)
    rows = np.abs(np.random.default_rng(1).normal(size=(4, 4))).astype(np.float32)
    inside = branches["then_branch"][1]
    probe = Probe(module, context({"x": rows}), ["w_then_branch"], {inside: (0.5, 0)})
    rounded = np.rint(rows / 0.5) * 0.5
    wanted = 1 - float(np.vdot(rows, rounded) / np.linalg.norm(rows) / np.linalg.norm(rounded))
    assert probe.damage(activations=[inside]) == pytest.approx(wanted, abs=1e-5)


def test_half_precision_models() -> None:
    net = Layers()
    x = net.input("x", DType.F16, "N", 8)
    w = net.const(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float16), "w")
    module = net.done(net.op("MatMul", [x, w]))
    rows = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float16)
    probe = Probe(module, context({"x": rows}), ["w"], {"x": (0.3, 120)})
    assert probe.damage() == 0.0
    assert probe.damage(weights={"w": coarse(array(module, "w")).astype(np.float32)}) > 1e-3
    assert 0 < probe.damage(dynamic=["x"]) < probe.damage(activations=["x"])


def test_outputs_without_floats_are_counted() -> None:
    net = Layers()
    x = net.input("x", DType.F32, "N", 8)
    y = net.linear(x, 8, 4)
    module = net.done(net.op("ArgMax", [y], [TensorType(DType.I64, (x.type.shape[0], 1))], {"axis": 1}))  # type: ignore[union-attr]
    rows = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    (weight,) = weights(module)
    probe = Probe(module, context({"x": rows}), [weight])
    assert probe.damage() == 0.0
    flipped = -array(module, weight)
    runner, (output,) = OrtRunner(), module.graph.output_names
    answers = [runner.prepare(m).run({"x": rows})[output] for m in (module, with_weights(module, {weight: flipped}))]
    wanted = np.mean(answers[0] != answers[1])
    assert probe.damage({weight: flipped}) == pytest.approx(wanted)


def test_tensors_of_a_sequence_are_outputs() -> None:
    rows = np.random.default_rng(1).normal(size=(12, 8)).astype(np.float32)
    damages = []
    for as_sequence in (False, True):
        net = Layers()
        y = net.linear(net.input("x", DType.F32, "N", 8), 8, 4)
        module = net.done(net.op("SequenceConstruct", [y]) if as_sequence else y)
        (weight,) = weights(module)
        damages.append(Probe(module, context({"x": rows}), [weight]).damage({weight: coarse(array(module, weight))}))
    assert damages[0] == damages[1] > 0


def test_samples_are_spread_and_few() -> None:
    """Eight of many, from the beginning to the end: sorted data must not hide a class."""
    module, _ = mlp()
    rows = np.arange(200, dtype=np.float32)[:, None] * np.ones((1, 8), np.float32)
    probe = Probe(module, context({"x": rows}), [])
    seen = [float(f["x"][0, 0]) for f in probe._feeds]
    assert seen == [0, 25, 50, 75, 100, 125, 150, 175]
    assert Probe(module, context({"x": rows[:3]}), []).samples == 3


def test_heavy_models_are_asked_with_fewer_samples() -> None:
    net = Layers()
    x = net.input("x", DType.F32, "N", 3, "H", "W")
    module = net.done(net.conv(x, 3, 64))
    small, large = ({"N": 1, "H": size, "W": size} for size in (8, 3000))
    assert affordable(module, Context(dims=small), 100) == 8
    assert affordable(module, Context(dims=large), 100) == 1
    assert affordable(module, Context(dims=large), 1) == 8
    assert affordable(module, Context(), 100) == 8, "nothing is known of the sizes"


def test_memory_limits_the_samples() -> None:
    module, _ = mlp()
    rows = np.ones((8, 8), np.float32)
    assert Probe(module, context({"x": rows}, max_memory=4 * 100), []).samples == 2
    assert Probe(module, context({"x": rows}, max_memory=1), []).samples == 1


def coded(module: Module, name: str, spec: QSpec) -> tuple[Coded, np.ndarray]:
    """A weight in codes, and the floats that they stand for."""
    constant = module.constants[name].constant
    assert constant is not None
    per_channel = not spec.block and spec.symmetric
    made = quantize_channels(constant, spec.axis, spec.bits) if per_channel else quantize_constant(constant, spec)
    zero = made.zero.array() if made.zero is not None else None
    return Coded(made, spec), dequantize(made.codes.array(), made.scale.array().astype(np.float32), zero, spec)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16])
@pytest.mark.parametrize(
    "spec",
    [QSpec(8, True, True, 0), QSpec(7, True, True, 1), QSpec(8, True, True), QSpec(4, False, False, 0, 16)],
    ids=str,
)
def test_codes_are_what_they_stand_for(spec: QSpec, dtype: DType) -> None:
    """The same number as with the floats in place of the weight, one by one and together."""
    net = Layers()
    made = net.input("x", dtype, "N", 32)
    for name in ("first", "second"):
        values = np.random.default_rng(len(name)).normal(size=(32, 32)).astype(dtype.numpy)
        made = net.op("MatMul", [made, net.const(values, name)])
    module = net.done(made)
    ctx = context({"x": np.random.default_rng(1).normal(size=(6, 32)).astype(dtype.numpy)})
    found = {name: coded(module, name, spec) for name in ("first", "second")}
    probe = Probe(module, ctx, [], codes={name: codes for name, (codes, _) in found.items()})
    assert probe.damage() == 0.0
    asked = [["first"], ["second"], ["first", "second"]]
    damages = [probe.damage(codes=names) for names in asked]
    for names, damage in zip(asked, damages):
        assert damage == probe.damage({name: found[name][1] for name in names}) > 0
    assert damages[0] != damages[1]
    assert probe.damage() == 0.0, "nothing is remembered"


@pytest.mark.parametrize("name", sorted(NETS))
def test_codes_in_every_kind_of_network(name: str) -> None:
    module, feeds = NETS[name]()
    whole = Samples({k: np.asarray(v)[None] for k, v in feeds.items()}, whole=True)
    found = {w: coded(module, w, QSpec(4, True, True, 0)) for w in weights(module)}
    probe = Probe(
        module, Context(data=whole, runner=OrtRunner()), [], codes={w: codes for w, (codes, _) in found.items()}
    )
    assert probe.damage() == 0.0
    for weight, (_, floats) in found.items():
        assert probe.damage(codes=[weight]) == probe.damage({weight: floats})
    assert probe.damage(codes=list(found)) == probe.damage({w: floats for w, (_, floats) in found.items()})


def test_a_question_may_bring_grids() -> None:
    module, feeds = mlp()
    ctx = context(feeds)
    first, second = (dict.fromkeys(activations(module), (scale, 120)) for scale in (0.05, 0.3))
    probe = Probe(module, ctx, [], first)
    own = probe.damage(activations=list(first))
    assert probe.damage(activations=second) == Probe(module, ctx, [], second).damage(activations=list(second)) > own
    assert probe.damage(activations=first) == own == probe.damage(activations=list(first)), "nothing is remembered"


def test_stages_change_no_answer() -> None:
    """A run that starts where something changes says what a whole one says; outputs in front are as they were."""
    rng = np.random.default_rng(0)
    net = Net()
    made = net.input("x", DType.F32, "N", 16)
    for index in range(20):
        weight = net.const(rng.normal(size=(16, 16)).astype(np.float32), f"w{index}")
        made = net.op("Add", [made, net.op("Tanh", [net.op("MatMul", [made, weight])])])
        if index in (0, 12, 19):
            net.output(net.op("Mul", [made, net.const(np.float32(2))]), f"y{index}")
    ctx = context({"x": rng.normal(size=(4, 16)).astype(np.float32)}, dims={"N": 1})
    names, grids = weights(net.module), dict.fromkeys(activations(net.module), (0.1, 128))
    codes = {n: coded(net.module, n, QSpec(4, True, True, 1))[0] for n in names[::2]}
    probes = [Probe(net.module, ctx, names[1::2], grids, codes=codes, stages=count) for count in (1, 5)]
    assert [len(probe._stages) for probe in probes] == [1, 5]
    for probe in probes:
        assert probe.damage() == 0.0
    questions: list[dict[str, Any]] = [
        *({"weights": {n: coarse(array(net.module, n))}} for n in names[1::2]),
        *({"codes": [n]} for n in codes),
        *({mode: [n]} for n in grids for mode in ("activations", "dynamic")),
        {
            "codes": list(codes),
            "activations": list(grids),
            "weights": {names[-1]: coarse(array(net.module, names[-1]))},
        },
    ]
    for question in questions:
        whole, staged = (probe.damage(**question) for probe in probes)
        assert staged == pytest.approx(whole, rel=1e-3)
        assert staged > 0


@dataclass
class Weighing:
    """Notes how much is handed to a run."""

    fed: list[int] = field(default_factory=list)

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Any:
        ready = OrtRunner().prepare(module, taps)

        class Noting:
            def run(_, feeds: Any) -> dict[str, Any]:
                self.fed.append(sum(np.asarray(a).nbytes for a in feeds.values()))
                return ready.run(feeds)

        return Noting()


def test_weights_stay_where_they_are() -> None:
    """The runtime holds them: a question hands over a sample and what it rounds, and nothing as large as a weight."""
    module, feeds = mlp(hidden=512)
    runner, names = Weighing(), weights(module)
    codes = {name: coded(module, name, QSpec(8, True, True, 1))[0] for name in names}
    probe = Probe(module, Context(data=Samples(feeds), runner=runner), [], codes=codes, samples=1)
    probe.damage(codes=names)
    assert max(runner.fed) < 100 < min(array(module, name).nbytes for name in names)
    assert not any(isinstance(v, np.ndarray) and v.nbytes > 100 for v in vars(probe).values())


@dataclass
class Counting:
    runner: OrtRunner = field(default_factory=OrtRunner)
    prepared: int = 0

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Any:
        self.prepared += 1
        return self.runner.prepare(module, taps)


def test_one_executable_answers_everything() -> None:
    module, feeds = mlp()
    runner = Counting()
    names = weights(module)
    probe = Probe(
        module, Context(data=Samples(feeds), runner=runner), names, dict.fromkeys(activations(module), (0.1, 9))
    )
    for name in names:
        probe.damage({name: coarse(array(module, name))}, activations(module))
    assert runner.prepared == 1
    assert set(module.constants) >= set(names), "the module itself is as it was"


def test_what_is_odd_is_refused() -> None:
    module, feeds = mlp()
    ctx = context(feeds)
    name = weights(module)[0]
    cases: list[tuple[Any, str]] = [
        (lambda: Probe(module, ctx, ["nothing"]), "no constant of floats 'nothing'"),
        (lambda: Probe(module, ctx, [], {"nothing": (1.0, 0)}), "no float value 'nothing'"),
        (lambda: Probe(module, ctx, [], {module.graph.output_names[0]: (1.0, 0)}), "no operator reads"),
        (lambda: Probe(module, ctx, []).damage({name: array(module, name)}), "was not opened"),
        (lambda: Probe(module, ctx, []).damage(activations=["x"]), "has no grid"),
        (lambda: Probe(module, ctx, []).damage(activations={"x": (1.0, 0)}), "has no grid"),
        (lambda: Probe(module, ctx, [name]).damage(codes=[name]), "has no codes"),
    ]
    for build, message in cases:
        with pytest.raises(MlcError, match=message):
            build()
    for broken in (Context(), Context(data=ctx.data), Context(eval=ctx.data, runner=ctx.runner)):
        with pytest.raises(MlcError) as caught:
            Probe(module, broken, [])
        assert caught.value.diagnostics[0].code is Code.NO_DATA


@real_models("minilm")
def test_sites_of_a_real_model(model: RealModel) -> None:
    module = load(model.path)
    feeds = [model.feeds(seed) for seed in range(2)]
    data = Samples({k: np.stack([f[k] for f in feeds]) for k in feeds[0]}, whole=True)
    names = weights(module)[:4]
    values = activations(module)[:2]
    probe = Probe(module, Context(data=data, runner=OrtRunner()), names, dict.fromkeys(values, (0.05, 128)))
    for name in names:
        fine, rough = (probe.damage({name: coarse(array(module, name), bits)}) for bits in (8, 4))
        assert 0 < fine < rough < 0.5
    assert 0 < probe.damage(dynamic=values) < 0.1
