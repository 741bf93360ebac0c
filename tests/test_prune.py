"""Structured pruning: the laws, the sizes, the scope."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import plant
from kit.nets import NETS, Layers
from kit.permute import relative, run

from mlc.backends.onnx import to_proto
from mlc.frontends.onnx import load
from mlc.ir.axes import analyse
from mlc.ir.core import Module
from mlc.ir.cost import module_cost
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.text import print_module
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.prune.allocate import rounded
from mlc.passes.prune.criteria import CRITERIA
from mlc.passes.prune.plans import PrunePlan, amount
from mlc.passes.prune.ranges import parse_ranges, ranges
from mlc.passes.prune.structured import Prune

ALL = tuple(NETS)


def plan_of(module: Module) -> PrunePlan:
    plan = module.history[-1].plan
    assert isinstance(plan, PrunePlan)
    return plan


@pytest.mark.parametrize("name", ALL)
def test_zero_ratio_is_the_identity(name):
    module, _ = NETS[name]()
    pruned = Prune(ratio=0.0)(module)
    assert print_module(pruned, digests=True) == print_module(module, digests=True)


@pytest.mark.parametrize("ratio", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", ALL)
def test_pruned_nets_verify_run_and_cost_what_was_planned(name, ratio):
    module, feeds = NETS[name]()
    pruned = Prune(ratio=ratio, multiple=1)(module)
    verify(pruned)
    before, after = run(module, feeds), run(pruned, feeds)
    assert [y.shape for y in before] == [y.shape for y in after]
    plan, cost = plan_of(pruned), module_cost(pruned)
    assert plan.groups
    assert plan.parameters == (module_cost(module).parameters, cost.parameters)
    assert plan.weight_bytes[1] == cost.weight_bytes
    assert plan.macs[1] == amount(cost.macs)
    assert plan.parameters[1] < plan.parameters[0]


#: Nets whose classes do not lie inside each other and run through no norm or softmax: all of them can lose units.
PLAIN = ("mlp", "vgg16", "vgg_flatten", "resnet20_conv", "resnet20_pad", "densenet", "mobilenet", "unet", "lstm", "gru",
         "branches", "loops", "quantized")  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_class_loses_units(name):
    module, _ = NETS[name]()
    plan = Prune(ratio=0.6, multiple=1).plan(module, Context())
    assert [g.id for g in plan.groups] == [c.id for c in analyse(module).free]
    assert plan.skipped == ()


@pytest.mark.parametrize("name", ALL)
def test_sizes_are_the_planned_ones_and_pinned_axes_stay(name):
    module, _ = NETS[name]()
    pruned = Prune(ratio=0.5, multiple=1)(module)
    axes = analyse(module)
    sizes = {g.id: g.after for g in plan_of(pruned).groups}
    for constant, value in module.constants.items():
        if constant not in pruned.constants:
            continue
        shape = pruned.constants[constant].constant.shape
        wanted = tuple(axes.resized(t, sizes) for t in axes.of(value) or ())
        assert shape == wanted


@pytest.mark.parametrize("name", ALL)
def test_removing_zeroed_units_changes_nothing(name):
    """What the plan removes is zeroed in every tensor first: then the outputs stay."""
    module, feeds = NETS[name]()
    step = Prune(ratio=0.4, multiple=1)
    axes = analyse(module)
    first = step.plan(module, Context())
    for g in first.groups:
        plant.zero(module, axes, axes.classes[g.id], parse_ranges(g.removed).tolist())
    pruned = step(module)
    assert [g.removed for g in plan_of(pruned).groups] == [g.removed for g in first.groups]
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def heads_in_the_batch(samples_first: bool) -> Module:
    """Attention heads as PyTorch's MultiheadAttention writes them: N * 6 or 6 * N is one axis, computed from N."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 5, 8)
    n = net.gather(net.op("Shape", [x]), 0, 0)
    many = net.op("Unsqueeze", [net.op("Mul", [n, net.const(np.int64(6))]), net.ints(0)])
    folded, whole = (net.concat([many, net.ints(5, 4)], 0), net.ints(-1, 5, 24))
    wide = net.reshape(net.dense(x, 8, 24), 0, 5, 6, 4)
    order = (0, 2, 1, 3) if samples_first else (2, 0, 1, 3)
    mixed = net.softmax(net.op("Reshape", [net.transpose(wide, *order), folded]), 1)
    if samples_first:
        apart = net.transpose(net.reshape(mixed, -1, 6, 5, 4), 0, 2, 1, 3)
    else:
        size = net.concat([net.ints(6), net.op("Unsqueeze", [n, net.ints(0)]), net.ints(5, 4)], 0)
        apart = net.transpose(net.op("Reshape", [mixed, size]), 1, 2, 0, 3)
    return net.done(net.dense(net.op("Reshape", [apart, whole]), 24, 3))


@pytest.mark.parametrize("samples_first", [True, False])
def test_computed_sizes_are_scaled(samples_first):
    """Six heads for each of N samples become four: the size that is computed from N is multiplied and divided."""
    module = heads_in_the_batch(samples_first)
    axes = analyse(module)
    (heads,) = (c for c in axes.free if c.size == 6)
    plant.zero(module, axes, heads, [0, 2])
    pruned = Prune(ratio=0.34, multiple=1)(module)
    (group,) = (g for g in plan_of(pruned).groups if g.id == heads.id)
    assert parse_ranges(group.removed).tolist() == [0, 2]
    verify(pruned)
    for n in (1, 2, 7):
        feeds = {"x": np.random.default_rng(n).standard_normal((n, 5, 8)).astype(np.float32)}
        assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


@pytest.mark.parametrize("criterion", ["l2", "l1", "group", "fpgm", "random"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_plans_are_deterministic_json(criterion, allocation):
    module, feeds = NETS["mobilenet"]()
    step = Prune(ratio=0.3, criterion=criterion, allocation=allocation)
    one, two = (json.dumps(step.plan(m, Context()).to_json()) for m in (module, module.clone()))
    assert one == two
    assert len(run(step(module), feeds)) == 1


def test_the_group_norm_sums_the_squares_of_slices_and_scales():
    """Of the conv that makes the units, the norm's scale, and the layer that reads them; biases and statistics not."""
    net = Layers()
    conv = net.conv(net.input("x", DType.F32, "N", 3, 8, 8), 3, 8)
    norm = net.norm(conv, 8)
    module = net.done(net.head(net.relu(norm), 8))
    (weight, scale), gemm = (conv.op.operands[1], norm.op.operands[1]), module.graph.outputs[0].op
    made, scaled, read = (np.asarray(v.constant.array(), np.float64) for v in (weight, scale, gemm.operands[1]))
    wanted = (made**2).sum((1, 2, 3)) + scaled**2 + (read**2).sum(0)
    axes = analyse(module)
    (found,) = (c for c in axes.free if c.size == 8)
    scores = CRITERIA["group"](module, axes, found, np.random.default_rng(0))
    np.testing.assert_allclose(scores, wanted / wanted.mean(), rtol=1e-6)


def test_the_pruned_model_survives_the_file():
    module, feeds = NETS["vit"]()
    pruned = Prune(ratio=0.6, multiple=1)(module)
    again = load(to_proto(pruned))
    assert relative(run(pruned, feeds), run(again, feeds)) == 0.0


def test_global_allocation_takes_the_least_important_units():
    """One layer's weights are a hundred times smaller: it loses everything it can."""
    module, _ = NETS["mlp"]()
    axes = analyse(module)
    weak = next(c for c in axes.free if c.size == 40)

    def shrink(rows: np.ndarray) -> None:
        rows[20:] *= 0.01

    for consumers in (False, True):
        plant.edit(module, axes, weak, shrink, consumers=consumers)
    plan = Prune(ratio=20 / 108, allocation="global", multiple=1).plan(module, Context())
    assert [(g.before, g.after, g.removed) for g in plan.groups] == [(40, 20, "20-39")]


@given(st.integers(2, 500), st.floats(0, 1), st.sampled_from([1, 4, 8]))
def test_widths_are_multiples_never_empty_and_monotone(size, ratio, multiple):
    keep = rounded(size * (1 - ratio), size, multiple)
    assert 1 <= keep <= size
    if size >= 32 and keep < size:
        assert keep % multiple == 0
    assert keep >= rounded(size * (1 - min(1.0, ratio + 0.1)), size, multiple)
    assert rounded(size, size, multiple) == size


@pytest.mark.parametrize(
    ("arguments", "after"), [({}, [16, 32, 8]), ({"multiple": 8}, [24, 24, 8]), ({"multiple": 1}, [20, 24, 10])]
)
def test_wide_groups_keep_a_multiple(arguments, after):
    module, _ = NETS["mlp"]()
    plan = Prune(ratio=0.5, **arguments).plan(module, Context())
    assert [(g.before, g.after) for g in plan.groups] == list(zip([40, 48, 20], after))


@given(st.sets(st.integers(0, 60)))
def test_ranges_round_trip(units):
    sorted_units = np.array(sorted(units), np.int64)
    assert parse_ranges(ranges(sorted_units)).tolist() == sorted_units.tolist()


def test_strength_is_monotone_and_explicit_ratios_stay():
    module, _ = NETS["mobilenet"]()
    sizes = [Prune().at(s).plan(module, Context()).parameters[1] for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == module_cost(module).parameters > sizes[1]
    assert Prune(ratio=0.5).at(0.1).ratio == 0.5


def test_scope_needs_every_producer_and_an_exception_drops_the_group():
    module, _ = NETS["resnet20_conv"]()
    axes = analyse(module)
    convs = [op.name for op in module.walk() if op.kind == "Conv"]
    inner = next(g for g in Prune(ratio=0.5).plan(module, Context()).groups if "," not in g.site)
    only = Prune(ratio=0.5).plan(module, Context(scope=Scope(on=frozenset({inner.site}))))
    assert [g.site for g in only.groups] == [inner.site]
    residual = max(axes.free, key=lambda c: len(c.sites))
    but = Context(scope=Scope(but=frozenset({convs[0]})))
    rest = Prune(ratio=0.5).plan(module, but)
    assert residual.id not in {g.id for g in rest.groups}
    assert {s.code for s in rest.skipped} == {SkipCode.SCOPE}


def test_a_scope_that_holds_no_whole_group_is_refused():
    module, _ = NETS["resnet20_conv"]()
    residual = max(Prune(ratio=0.5).plan(module, Context()).groups, key=lambda g: g.site.count(","))
    one = residual.site.split(", ")[0]
    with pytest.raises(MlcError, match="lose units together"):
        Prune(ratio=0.5).plan(module, Context(scope=Scope(on=frozenset({one}))))


def test_skips_name_the_op_and_the_reason():
    module, _ = NETS["bert"]()
    codes = {s.code: s for s in Prune(ratio=0.5).plan(module, Context()).skipped}
    assert "Gather" in codes[SkipCode.PINNED_AXIS].why
    assert "LayerNormalization" in codes[SkipCode.HURTS].why or "MatMul" in codes[SkipCode.HURTS].why
    assert codes[SkipCode.HURTS].what_to_do


def test_a_width_that_hurts_is_pruned_when_it_is_selected():
    module, feeds = NETS["bert"]()
    everything = Context(scope=Scope(on=frozenset(op.name for op in module.walk())))
    pruned = Prune(ratio=0.5, multiple=1)(module, everything)
    assert pruned.constants["embedding"].constant.shape == (20, 6)
    assert run(pruned, feeds)[0].shape == (2, 3)


@pytest.mark.parametrize("arguments", [{"ratio": 1.5}, {"ratio": -0.1}, {"criterion": "best"}, {"multiple": 0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(MlcError):
        Prune(**arguments)


def test_computed_shapes_follow():
    """Shape -> Gather -> Concat -> Reshape, with the head width as a constant element in it."""
    net = Layers()
    x = net.input("x", DType.F32, "N", "T", 6)
    h = net.dense(x, 6, 12)
    sizes = [net.op("Gather", [net.op("Shape", [h]), net.ints(i)], attrs={"axis": 0}) for i in (0, 1)]
    split = net.op("Reshape", [h, net.concat([*sizes, net.ints(4), net.ints(3)], 0)])
    summed = net.op("ReduceSum", [net.op("Tanh", [split]), net.ints(3)], attrs={"keepdims": 0})
    module = net.done(net.dense(summed, 4, 2))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 6)).astype(np.float32)}
    pruned = Prune(ratio=0.5, multiple=1)(module)
    assert plan_of(pruned).groups[0].after == 2
    assert run(pruned, feeds)[0].shape == (2, 3, 2)
