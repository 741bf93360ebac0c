"""Least-squares reconstruction after pruning: every fit helps where it was made, and plans tell the truth."""

from __future__ import annotations

import numpy as np
import pytest
from kit.nets import NETS, Layers
from kit.permute import relative, run
from kit.real import all_models, real_models
from kit.samples import Samples

from mlc.backends.onnx import to_proto
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module
from mlc.ir.cost import module_cost
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.verify import verify
from mlc.passes.base import Context, SkipCode
from mlc.passes.prune.plans import amount
from mlc.passes.prune.structured import Prune

F32 = DType.F32


def context(feeds, count=24, seed=0, **more) -> Context:
    """Samples like the feeds: floats are drawn, everything else is shuffled along its last axis."""
    rng = np.random.default_rng(seed)

    def one(a):
        if a.dtype.kind == "f":
            return rng.standard_normal(a.shape).astype(a.dtype)
        return rng.permuted(a, axis=-1) if a.ndim else a

    drawn = {name: np.stack([one(a) for _ in range(count)]) for name, a in feeds.items()}
    return Context(data=Samples(drawn, whole=True), runner=OrtRunner(), **more)


def fits_of(module: Module) -> dict[str, tuple[float, float]]:
    """Errors before and after by site."""
    done = module.history[-1].done
    pairs = {d.site: (d.before, d.after) for d in done if d.after.endswith("fitted")}
    return {site: (float(b.split()[1]), float(a.split()[1].rstrip(","))) for site, (b, a) in pairs.items()}


def mlp(width: int = 32, bias: bool = True, seed: int = 0) -> Module:
    net = Layers(seed)
    x = net.input("x", F32, "N", 12)
    make = net.dense if bias else lambda v, i, o: net.op("MatMul", [v, net.weight(i, o)])
    return net.done(make(net.relu(make(net.relu(make(x, 12, width)), width, width)), width, 5))


@pytest.mark.parametrize("name", NETS)
def test_every_fit_is_at_least_as_good_as_the_cut_and_the_plan_says_what_comes(name):
    module, feeds = NETS[name]()
    ctx = context(feeds)
    pruned = Prune(ratio=0.5, multiple=1)(module, ctx)
    verify(pruned)
    assert [y.shape for y in run(pruned, feeds)] == [y.shape for y in run(module, feeds)]
    report = pruned.history[-1]
    fits = fits_of(pruned)
    assert all(after <= before * 1.001 + 1e-6 for before, after in fits.values()), fits
    assert any(note.startswith(f"{len(fits)} operators that read them are fitted") for note in report.notes)
    cost = module_cost(pruned)
    assert report.plan.parameters[1] == cost.parameters
    assert report.plan.weight_bytes[1] == cost.weight_bytes
    assert report.plan.macs[1] == amount(cost.macs)


def test_the_output_comes_closer_and_the_result_is_reproducible():
    module = mlp()
    feeds = {"x": np.random.default_rng(9).standard_normal((200, 12)).astype(np.float32)}
    ctx = context({"x": feeds["x"][:8]}, 100)
    plain = Prune(ratio=0.4, multiple=1, reconstruct="off")(module, ctx)
    fitted = Prune(ratio=0.4, multiple=1)(module, ctx)
    wanted = run(module, feeds)
    assert relative(wanted, run(fitted, feeds)) < 0.7 * relative(wanted, run(plain, feeds))
    again = Prune(ratio=0.4, multiple=1)(module, context({"x": feeds["x"][:8]}, 100))
    assert to_proto(again).SerializeToString(deterministic=True) == to_proto(fitted).SerializeToString(
        deterministic=True
    )


def test_units_that_others_reproduce_are_made_up_for():
    """The second half of the hidden units is a mix of the first: half can go and nothing is lost."""
    net, rng = Layers(), np.random.default_rng(0)
    x = net.input("x", F32, "N", 12)
    half = rng.standard_normal((12, 8)).astype(np.float32)
    first = np.hstack([half, half @ rng.standard_normal((8, 8)).astype(np.float32)])
    module = net.done(net.op("MatMul", [net.op("MatMul", [x, net.const(first, "w1")]), net.weight(16, 5)]))
    feeds = {"x": rng.standard_normal((64, 12)).astype(np.float32)}
    pruned = Prune(ratio=0.5, multiple=1, penalty=1e-7)(module, context(feeds, 20))
    assert pruned.history[-1].plan.groups[0].after == 8
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-3


@pytest.mark.parametrize("bias", [True, False])
def test_means_move_into_biases(bias):
    """An Add behind a MatMul takes them; where there is none, one appears."""
    module = mlp(bias=bias)
    pruned = Prune(ratio=0.5, multiple=1)(module, context({"x": np.zeros((8, 12), np.float32)}, 50))
    adds = [sum(op.kind == "Add" for op in m.graph.ops) for m in (module, pruned)]
    assert adds == ([3, 3] if bias else [0, 2])


def test_batch_norms_see_the_variance_that_is_left():
    net = Layers()
    x = net.input("x", F32, "N", 3, 8, 8)
    y = net.relu(net.norm(net.conv(x, 3, 16), 16))
    module = net.done(net.head(net.relu(net.norm(net.conv(y, 16, 24), 24)), 24))
    ctx = context({"x": np.zeros((4, 3, 8, 8), np.float32)}, 30)
    pruned = Prune(ratio=0.5, multiple=1)(module, ctx)
    before, after = ([op for op in m.graph.ops if op.kind == "BatchNormalization"] for m in (module, pruned))
    kept = next(g for g in pruned.history[-1].plan.groups if g.before == 24)
    from mlc.passes.prune.ranges import parse_ranges

    stay = np.setdiff1d(np.arange(24), parse_ranges(kept.removed))
    factor = after[1].operand(4).constant.array() / before[1].operand(4).constant.array()[stay]
    assert ((factor > 0.1) & (factor < 1.0)).all()
    np.testing.assert_array_equal(after[1].operand(3).constant.array(), before[1].operand(3).constant.array()[stay])


def test_what_is_not_fitted_is_reported():
    net = Layers()
    x = net.input("x", F32, "N", 12)
    shared = net.weight(32, 32)
    y = net.relu(net.dense(x, 12, 32))
    y = net.relu(net.op("MatMul", [net.relu(net.op("MatMul", [y, shared])), shared]))
    module = net.done(net.dense(y, 32, 5))
    skipped = Prune(ratio=0.5, multiple=1)(module, context({"x": np.zeros((8, 12), np.float32)})).history[-1].skipped
    assert [s.code for s in skipped if "not fitted" in s.why] == [SkipCode.SHARED] * 2
    module, feeds = NETS["transposed"]()
    skipped = Prune(ratio=0.5, multiple=1)(module, context(feeds)).history[-1].skipped
    assert any("ConvTranspose is not fitted" in s.why for s in skipped)
    tight = Prune(ratio=0.5, multiple=1)(mlp(64), context({"x": np.zeros((8, 12), np.float32)}, max_memory=1 << 14))
    assert any("--max-memory" in s.what_to_do for s in tight.history[-1].skipped)
    assert not fits_of(tight)


@pytest.mark.parametrize("name", ["lstm", "gru", "stacked"])
def test_recurrent_layers_are_fitted_to_what_their_gates_saw(name):
    module, feeds = NETS[name]()
    ctx = context(feeds, 60)
    pruned = {
        fit: Prune(ratio=0.4, multiple=1, criterion="l2", reconstruct=fit)(module, ctx) for fit in ("off", "auto")
    }
    layers = {op.name for op in module.graph.ops if op.kind in ("LSTM", "GRU", "RNN")}
    assert layers & fits_of(pruned["auto"]).keys()
    wanted = run(module, feeds)
    assert relative(wanted, run(pruned["auto"], feeds)) < relative(wanted, run(pruned["off"], feeds))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_whose_lost_inputs_others_reproduce_loses_nothing(kind, gates, biased):
    """Half of the inputs are a mix of the rest, so the gates can be made up for exactly."""
    net, rng = Layers(), np.random.default_rng(0)
    x = net.input("x", F32, 5, 2, 6)
    half = rng.standard_normal((6, 8)).astype(np.float32) / 3
    both = np.hstack([half, half @ rng.standard_normal((8, 8)).astype(np.float32) / 3])
    h = net.op("Add", [net.op("MatMul", [x, net.const(both, "w1")]), net.vector(16)])
    bias = [net.weight(2, 2 * gates * 4)] if biased else []
    operands = [h, net.weight(2, gates * 4, 16), net.weight(2, gates * 4, 4), *bias]
    y = net.node(kind, operands, None, {"hidden_size": 4, "direction": "bidirectional"}, count=2).results[0]
    module = net.done(net.op("MatMul", [y, net.weight(4, 3)]))
    feeds = {"x": rng.standard_normal((5, 2, 6)).astype(np.float32)}
    chosen = Prune(ratio=0.5, multiple=1, penalty=1e-7, overrides={y.op.name: 0.0})
    pruned = chosen(module, context(feeds, 60))
    assert [g.after for g in pruned.history[-1].plan.groups] == [8]
    assert relative(run(module, feeds), run(pruned, feeds)) < 2e-3


def test_what_data_needs_is_asked_for_before_any_work():
    for step in (Prune(ratio=0.5, criterion="obs"), Prune(ratio=0.5, reconstruct="lstsq")):
        with pytest.raises(MlcError) as caught:
            step(mlp())
        assert caught.value.diagnostics[0].code is Code.NO_DATA
    data = context({"x": np.zeros((8, 12), np.float32)}).data
    with pytest.raises(MlcError, match="a runner"):
        Prune(ratio=0.5)(mlp(), Context(data=data))


@pytest.mark.parametrize("criterion", ["obs", "activation", "redundancy"])
def test_criteria_on_data_spare_what_works(criterion):
    """Units that data never switches on go first, however large their weights are."""
    net, rng = Layers(), np.random.default_rng(0)
    x = net.input("x", F32, "N", 12)
    w, b = net.draw(12, 32) * 3, np.zeros(32, np.float32)
    b[::2] = -100.0
    hidden = net.relu(net.op("Add", [net.op("MatMul", [x, net.const(w, "w")]), net.const(b, "b")]))
    loud = np.where(np.arange(32)[:, None] % 2, 1, 4) * net.draw(32, 5)
    module = net.done(net.op("MatMul", [hidden, net.const(loud.astype(np.float32), "v")]))
    feeds = {"x": rng.standard_normal((32, 12)).astype(np.float32)}
    pruned = Prune(ratio=0.5, multiple=1, criterion=criterion, reconstruct="off")(module, context(feeds))
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-6


@real_models("ppocrv4_rec")
def test_a_real_model_comes_closer(model):
    from mlc.frontends.onnx import load

    module = load(model.path)
    step = {"ratio": 0.3, "criterion": "l2"}
    ctx = context({name: a[..., :96] for name, a in model.feeds().items()}, 12)
    feeds = {name: a[..., :96] for name, a in model.feeds(seed=5).items()}
    plain, fitted = Prune(**step, reconstruct="off")(module, ctx), Prune(**step)(module, ctx)
    wanted = run(module, feeds)
    assert relative(wanted, run(fitted, feeds)) < relative(wanted, run(plain, feeds))


@pytest.mark.slow
@all_models()
def test_every_real_model_can_be_fitted(model):
    from mlc.frontends.onnx import load

    drawn = [model.feeds(seed=s) for s in range(3)]
    data = Samples({name: np.stack([f[name] for f in drawn]) for name in drawn[0]}, whole=True)
    pruned = Prune(ratio=0.3)(load(model.path), Context(data=data, runner=OrtRunner()))
    assert all(after <= before * 1.001 + 1e-6 for before, after in fits_of(pruned).values())
    for y in run(pruned, drawn[0]):
        assert y.dtype.kind != "f" or np.isfinite(y).all()
