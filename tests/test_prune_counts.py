"""Units inside units, and the widths that norms run over: what is pruned, what goes on saying the same."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import plant
from kit.layers import Layers
from kit.nets import NETS
from kit.permute import relative, run
from kit.real import real_models

from mlc.backends.onnx import to_proto
from mlc.frontends.onnx import load
from mlc.ir.axes import analyse
from mlc.ir.core import Module, Value
from mlc.ir.cost import module_cost
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.verify import verify
from mlc.passes.base import Context, SkipCode
from mlc.passes.prune.plans import PrunePlan
from mlc.passes.prune.ranges import parse_ranges
from mlc.passes.prune.structured import Prune

FEW = settings(max_examples=12, deadline=None)


def plan_of(module: Module) -> PrunePlan:
    plan = module.history[-1].plan
    assert isinstance(plan, PrunePlan)
    return plan


def zeroed(module: Module, step: Prune) -> None:
    """Zero in every tensor what the step is going to remove."""
    axes = analyse(module)
    for g in step.plan(module, Context()).groups:
        plant.zero(module, axes, axes.classes[g.id], parse_ranges(g.removed).tolist())


# -- nested ------------------------------------------------------------------------------------------------------

NESTED = ("bert", "vit", "gqa_decoder", "rope_decoder", "grouped", "shufflenet")


@pytest.mark.parametrize("nested", ["outer", "inner", "both"])
@pytest.mark.parametrize("name", NESTED)
def test_units_inside_units_leave_consistently(name, nested):
    module, feeds = NETS[name]()
    step = Prune(ratio=0.5, nested=nested, multiple=1)
    pruned = step(module)
    verify(pruned)
    assert plan_of(pruned).parameters[1] == module_cost(pruned).parameters < module_cost(module).parameters
    assert [y.shape for y in run(pruned, feeds)] == [y.shape for y in run(module, feeds)]
    twin = module.clone()
    zeroed(twin, step)
    assert relative(run(twin, feeds), run(step(twin), feeds)) < 1e-5


def test_heads_widths_and_both():
    """Four heads of width 5: queries and keys share one width, values have their own."""
    module, _ = NETS["bert"]()
    sizes = {
        nested: sorted(
            (g.before, g.after) for g in Prune(ratio=0.5, nested=nested, multiple=1).plan(module, Context()).groups
        )
        for nested in ("outer", "inner", "both")
    }
    ffn = (40, 20)
    assert sizes == {
        "outer": [(4, 2), ffn],
        "inner": [(5, 3), (5, 3), ffn],
        "both": [(4, 2), (5, 3), (5, 3), ffn],
    }


def test_both_says_what_is_left_of_the_product():
    module, _ = NETS["bert"]()
    told = "\n".join(Prune(ratio=0.5, nested="both", multiple=1).plan(module, Context()).notes)
    assert re.search(r"c\d+ 4 to 2 x c\d+ 5 to 3, together 30.0% of 20 positions stay", told)


def test_grouped_queries_keep_their_keys():
    """2 key heads of 3 query heads each: widths of queries and keys are one, whatever leaves."""
    module, feeds = NETS["gqa_decoder"]()
    pruned = Prune(ratio=0.5, nested="both", multiple=1)(module)
    projections = [
        v.constant.shape for v in pruned.constants.values() if len(v.constant.shape) == 2 and v.constant.shape[0] == 48
    ]
    q, k, v = projections[:3]
    assert (q[1], k[1], v[1]) == (1 * 2 * 2, 1 * 2, 1 * 2)
    assert np.isfinite(run(pruned, feeds)[0]).all()


def scaled_attention(from_shape: bool) -> tuple[Module, dict]:
    """Attention whose scale 1/sqrt(d) is a constant, or computed from the width of a head."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 6, 12)

    def split(v: Value, *perm: int) -> Value:
        return net.transpose(net.reshape(v, 0, 6, 2, 8), *perm)

    q, k, v = (net.dense(x, 12, 16) for _ in range(3))
    q, k, v = split(q, 0, 2, 1, 3), split(k, 0, 2, 3, 1), split(v, 0, 2, 1, 3)
    root = net.const(np.float32(8**0.5))
    if from_shape:
        width = net.op("Gather", [net.op("Shape", [q]), net.const(np.int64(-1))], attrs={"axis": 0})
        root = net.op("Sqrt", [net.op("Cast", [width], attrs={"to": 1})])
    scores = net.op("Softmax", [net.op("Div", [net.op("MatMul", [q, k]), root])], attrs={"axis": -1})
    mixed = net.reshape(net.transpose(net.op("MatMul", [scores, v]), 0, 2, 1, 3), 0, 6, 16)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 6, 12)).astype(np.float32)}
    return net.done(net.dense(mixed, 16, 3)), feeds


def test_the_scale_of_attention_stays_that_of_the_whole_head():
    """A width that is read from a shape and becomes a number keeps its value."""
    step = Prune(ratio=0.5, nested="inner", multiple=1)
    (fixed, feeds), (computed, _) = (scaled_attention(from_shape) for from_shape in (False, True))
    assert relative(run(fixed, feeds), run(computed, feeds)) < 1e-6
    a, b = step(fixed), step(computed)
    assert plan_of(a).groups
    assert [g.after for g in plan_of(a).groups] == [g.after for g in plan_of(b).groups]
    assert relative(run(a, feeds), run(b, feeds)) < 1e-6
    assert relative(run(b, feeds), run(load(to_proto(b)), feeds)) == 0.0


def test_what_was_not_chosen_says_how_to():
    module, _ = NETS["bert"]()
    outer, inner = (
        Prune(ratio=0.5, nested=nested, multiple=1).plan(module, Context()) for nested in ("outer", "inner")
    )
    hurts = next(s for s in outer.skipped if "queries and keys" in s.why)
    assert "nested=inner" in hurts.what_to_do
    assert any(s.code is SkipCode.SHARED and "nested=inner" in s.what_to_do for s in outer.skipped)
    assert any(s.code is SkipCode.SHARED and "hold the units" in s.why for s in inner.skipped)


# -- widths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "vit", "gqa_decoder", "rope_decoder"])
def test_the_width_of_an_embedding_is_pruned_when_asked(name):
    module, feeds = NETS[name]()
    plain, wide = (Prune(ratio=0.5, widths=w, multiple=1).plan(module, Context()) for w in (False, True))
    more = {g.before for g in wide.groups} - {g.before for g in plain.groups}
    assert more == {48 if "decoder" in name else 12}
    assert any("enter" in note for note in wide.notes)
    pruned = Prune(ratio=0.5, widths=True, multiple=1)(module)
    verify(pruned)
    assert [y.shape for y in run(pruned, feeds)] == [y.shape for y in run(module, feeds)]


@pytest.mark.parametrize("name", ["gqa_decoder", "rope_decoder"])
def test_zeroed_units_under_an_rms_norm_leave_exactly(name):
    module, feeds = NETS[name]()
    step = Prune(ratio=0.4, widths=True, multiple=1)
    zeroed(module, step)
    pruned = step(module)
    assert any(g.before == 48 and g.after < 30 for g in plan_of(pruned).groups)
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5
    assert [op.kind for op in pruned.walk()] == [op.kind for op in module.walk()], "the norm keeps its form"


NORMS = {
    "by its parts": lambda net, x, n: net.rms_norm(x, n),
    "squared by Pow": lambda net, x, n: net.op(
        "Mul",
        [
            net.op("Div", [x, net.op("Sqrt", [net.op("Add", [net.const(np.float32(1e-3)), net.op("ReduceMean", [
                net.op("Pow", [x, net.const(np.float32(2))]), net.ints(-1)], attrs={"keepdims": 1})])])]),
            net.vector(n),
        ],
    ),
    "by a reciprocal": lambda net, x, n: net.op("Mul", [x, net.op("Reciprocal", [net.op("Sqrt", [net.op(
        "ReduceMean", [net.op("Mul", [x, x]), net.ints(-1)], attrs={"keepdims": 1})])])]),
    "one operator": lambda net, x, n: net.op(
        "SimplifiedLayerNormalization", [x, net.vector(n)], attrs={"epsilon": 1e-2}
    ),
    "epsilon left out": lambda net, x, n: net.op("SimplifiedLayerNormalization", [x, net.vector(n)]),
    "computed scale": lambda net, x, n: net.op(
        "SimplifiedLayerNormalization", [x, net.op("Exp", [net.vector(n)])], attrs={"epsilon": 1e-2}
    ),
    "a plain mean": lambda net, x, n: net.op(
        "Add", [x, net.op("ReduceMean", [x, net.ints(-1)], attrs={"keepdims": 1})]
    ),
}  # fmt: skip


def normed(form: str, width: int, seed: int) -> tuple[Module, dict]:
    net = Layers(seed)
    x = net.input("x", DType.F32, "N", 6)
    small = net.scaled(net.dense(x, 6, width), 0.1)  # so that epsilon matters
    module = net.done(net.dense(NORMS[form](net, small, width), width, 3))
    return module, {"x": np.random.default_rng(seed).standard_normal((4, 6)).astype(np.float32)}


@pytest.mark.parametrize("form", [f for f in NORMS if f != "a plain mean"])
@FEW
@given(st.integers(8, 40), st.integers(0, 99), st.sampled_from([0.25, 0.5, 0.8]))
def test_every_form_of_rms_norm_is_compensated(form, width, seed, ratio):
    module, feeds = normed(form, width, seed)
    step = Prune(ratio=ratio, widths=True, multiple=1)
    zeroed(module, step)
    pruned = step(module)
    assert plan_of(pruned).groups[0].after < width
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-4


def test_means_go_on_counting_all_units():
    module, feeds = normed("a plain mean", 16, 0)
    axes = analyse(module)
    (c,) = axes.free
    step = Prune(ratio=0.5, widths=True, multiple=1)
    # Zero at the producer is enough: what the mean adds to zeroed units is read by nobody who stays.
    gone = parse_ranges(step.plan(module, Context()).groups[0].removed).tolist()
    plant.zero(module, axes, c, gone)
    assert relative(run(module, feeds), run(step(module), feeds)) < 1e-5


def test_a_layer_norm_by_its_parts_runs_over_what_is_left():
    """Like the operator: the same network either way gives the same numbers."""
    outputs = []
    for parts in (False, True):
        net = Layers(3)
        x = net.input("x", DType.F32, "N", 6)
        h = net.dense(x, 6, 16)
        scale, shift = net.vector(16), net.vector(16)
        if parts:
            centred = net.op("Sub", [h, net.op("ReduceMean", [h, net.ints(-1)], attrs={"keepdims": 1})])
            square = net.op("Pow", [centred, net.const(np.float32(2))])
            spread = net.op("ReduceMean", [square, net.ints(-1)], attrs={"keepdims": 1})
            root = net.op("Sqrt", [net.op("Add", [spread, net.const(np.float32(1e-5))])])
            y = net.op("Add", [net.op("Mul", [net.op("Div", [centred, root]), scale]), shift])
        else:
            y = net.op("LayerNormalization", [h, scale, shift], attrs={"axis": -1, "epsilon": 1e-5})
        module = net.done(net.dense(y, 16, 3))
        feeds = {"x": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)}
        outputs.append(run(Prune(ratio=0.5, criterion="l2", widths=True, multiple=1)(module), feeds))
    assert relative(*outputs) < 1e-5


def test_a_constant_that_others_read_is_scaled_for_the_norm_alone():
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)
    h, scale = net.dense(x, 6, 16), net.vector(16)
    normed = net.op("SimplifiedLayerNormalization", [h, scale], attrs={"epsilon": 1e-5})
    module = net.done(net.dense(net.op("Mul", [normed, scale]), 16, 3))
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)}
    step = Prune(ratio=0.5, widths=True, multiple=1)
    zeroed(module, step)
    assert relative(run(module, feeds), run(step(module), feeds)) < 1e-5


@pytest.mark.parametrize("options", [{"nested": "inner"}, {"widths": True}, {"widths": True, "nested": "both"}])
def test_without_a_ratio_they_say_nothing(options):
    module, _ = NETS["bert"]()
    with pytest.raises(MlcError, match=f"{', '.join(sorted(options))} without a ratio"):
        Prune(**options).plan(module, Context())


# -- real models -------------------------------------------------------------------------------------------------


@real_models("smart_turn", "khmersm", "minilm")
def test_widths_of_heads_on_real_models(model):
    module, feeds = load(model.path), model.feeds(0)
    pruned = Prune(ratio=0.3, nested="inner")(module)
    assert plan_of(pruned).parameters[1] == module_cost(pruned).parameters < module_cost(module).parameters
    before, after = run(module, feeds), run(load(to_proto(pruned)), feeds)
    assert [(y.shape, y.dtype) for y in before] == [(y.shape, y.dtype) for y in after]
    assert all(np.isfinite(y).all() for y in after)


@real_models("smart_turn", "smollm2_135m")
def test_the_residual_width_of_real_models(model):
    module, feeds = load(model.path), model.feeds(0)
    pruned = Prune(ratio=0.3, widths=True)(module)
    (residual,) = [g for g in plan_of(pruned).groups if g.before in (384, 576) and len(g.constants) > 20]
    assert residual.after < residual.before
    before, after = run(module, feeds), run(load(to_proto(pruned)), feeds)
    assert [(y.shape, y.dtype) for y in before] == [(y.shape, y.dtype) for y in after]
    assert all(np.isfinite(y).all() for y in after)


# -- every net ---------------------------------------------------------------------------------------------------

#: A layer norm, a group norm or a softmax runs over units that leave: nothing makes up for that exactly.
NOT_EXACT = frozenset({"bert", "vit", "fused_split", "cross_attention", "group_norm", "experts_dense"})


@pytest.mark.parametrize("ratio", [0.3, 0.5])
@pytest.mark.parametrize("name", NETS)
def test_everything_at_once_leaves_consistently(name, ratio):
    """Every class that may lose units does: recurrent, tied, shuffled, grouped, in bodies; the file says the same."""
    module, feeds = NETS[name]()
    step = Prune(ratio=ratio, nested="both", widths=True, multiple=1)
    pruned = step(module)
    free = {c.id for c in analyse(module).free if "block-size" not in c.marks}
    small = {c.id for c in analyse(module).free if c.size * ratio < 1}
    assert free - small <= {g.id for g in plan_of(pruned).groups} <= free
    assert relative(run(pruned, feeds), run(load(to_proto(pruned)), feeds)) == 0.0
    twin = module.clone()
    zeroed(twin, step)
    exact = relative(run(twin, feeds), run(step(twin), feeds))
    assert exact < 1e-5 or name in NOT_EXACT


def recurrent(kind: str, directions: int, extras: bool) -> tuple[Module, dict]:
    """A recurrent layer whose whole sequence and last state are both used; `extras`: initial states, peepholes."""
    net = Layers(1)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    x = net.input("x", DType.F32, 5, 2, 10)
    operands = [
        net.dense(x, 10, 7), net.weight(directions, gates * 8, 7), net.weight(directions, gates * 8, 8),
        net.const(net.draw(directions, 2 * gates * 8), "bias"),
    ]  # fmt: skip
    if extras:
        states = range(2 if kind == "LSTM" else 1)
        operands += [None, *(net.const(net.draw(directions, 2, 8), f"state{i}") for i in states)]
        operands += [net.const(net.draw(directions, 3 * 8), "peepholes")] if kind == "LSTM" else []
    attrs = {"hidden_size": 8, "direction": "bidirectional" if directions == 2 else "reverse"}
    results = net.node(kind, operands, None, attrs, count=3 if kind == "LSTM" else 2).results
    sequence = net.reshape(net.transpose(results[0], 2, 0, 1, 3), 2, 5, directions * 8)
    last = net.reshape(net.transpose(results[1], 1, 0, 2), 2, directions * 8)
    total = net.op("ReduceSum", [sequence, net.ints(1)], attrs={"keepdims": 0})
    module = net.done(net.op("Add", [net.dense(total, directions * 8, 3), net.dense(last, directions * 8, 3)]))
    return module, {"x": np.random.default_rng(2).standard_normal((5, 2, 10)).astype(np.float32)}


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_hidden_states_leave_with_their_gates(kind, directions, extras):
    module, feeds = recurrent(kind, directions, extras)
    step = Prune(ratio=0.5, multiple=1)
    zeroed(module, step)
    pruned = step(module)
    assert sorted((g.before, g.after) for g in plan_of(pruned).groups) == [(7, 4), (8, 4)]
    assert next(op for op in pruned.walk() if op.kind == kind).attrs["hidden_size"] == 4
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5
