"""Options of structured pruning: allocation by MACs, ratios of their own."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.nets import NETS, Layers
from kit.permute import relative, run
from kit.real import real_models

import mlc
from mlc.backends.onnx import to_proto
from mlc.dsl.program import Program
from mlc.dsl.recipe import Recipe
from mlc.frontends.onnx import load
from mlc.ir import dims
from mlc.ir.axes import analyse
from mlc.ir.core import Ints, Module, Value
from mlc.ir.cost import module_cost
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.passes.base import Context, Scope
from mlc.passes.prune.allocate import Demand, Shrinking, by_work
from mlc.passes.prune.criteria import CRITERIA
from mlc.passes.prune.groups import find_groups
from mlc.passes.prune.plans import PrunePlan
from mlc.passes.prune.structured import Prune
from mlc.passes.prune.work import Work, batch_of_one

FEW = settings(max_examples=8, deadline=None)


def macs(module: Module) -> int:
    found = dims.evaluate(module_cost(module).macs, batch_of_one(module, {}))
    assert found is not None
    return found


def plan_of(module: Module) -> PrunePlan:
    plan = module.history[-1].plan
    assert isinstance(plan, PrunePlan)
    return plan


# -- allocation=flops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_work_is_what_the_pruned_module_costs(name):
    """The model of the work agrees with the cost of the module that the surgery makes."""
    module, _ = NETS[name]()
    axes = analyse(module)
    if any(op.kind in ("If", "Loop") for op in module.walk()):
        return  # how often a Loop runs is not known, nor which branch is the dearer one for all widths
    work = Work(module, axes, {})
    assert work.total({}) == macs(module)
    for ratio in (0.2, 0.6):
        pruned = Prune(ratio=ratio, multiple=1)(module)
        assert work.total({g.id: g.after for g in plan_of(pruned).groups}) == macs(pruned)


@pytest.mark.parametrize("name", ["vgg16", "resnet20_conv", "mobilenet", "densenet", "lstm", "bert", "gqa_decoder"])
@FEW
@given(st.floats(0.0, 0.6))
def test_the_fraction_of_the_macs_goes_and_little_more(name, ratio):
    module, feeds = NETS[name]()
    pruned = Prune(ratio=ratio, allocation="flops", multiple=1)(module)
    plan = plan_of(pruned)
    left = macs(pruned) / macs(module)
    told = plan.notes[-1]
    if "hold no more" in told:
        groups, _ = find_groups(module, analyse(module), Context().scope)
        assert all(g.after == 1 for g in plan.groups), groups
    else:
        assert left <= 1 - ratio + 1e-12
        # One step less would not have been enough: no step saves more than the largest group's.
        assert left > 1 - ratio - 0.25 or ratio == 0.0
    assert f"{1 - left:.1%} of the model's MACs are removed" in told
    assert [y.shape for y in run(pruned, feeds)] == [y.shape for y in run(module, feeds)]


@FEW
@given(st.floats(0.0, 0.9), st.floats(0.0, 0.9), st.sampled_from([1, 4, 16]))
def test_more_macs_are_a_superset_of_units(one, two, multiple):
    module, _ = NETS["mobilenet"]()
    low, high = sorted((one, two))
    sizes = [
        {g.id: g.after for g in Prune(ratio=r, allocation="flops", multiple=multiple).plan(module, Context()).groups}
        for r in (low, high)
    ]
    assert all(sizes[1].get(c, n) <= n and c in sizes[1] for c, n in sizes[0].items())


def two_branches() -> Module:
    """Two equal stacks, one on a sequence four times as long: its units cost four times as much."""
    net = Layers()
    total = None
    for length in (4, 16):
        x = net.input(f"x{length}", DType.F32, "N", length, 8)
        y = net.dense(net.relu(net.dense(x, 8, 32)), 32, 4)
        pooled = net.op("ReduceSum", [y, net.ints(1)], attrs={"keepdims": 0})
        total = pooled if total is None else net.op("Add", [total, pooled])
    return net.done(total)


def test_units_that_cost_more_go_first():
    module = two_branches()
    uniform = Prune(ratio=0.4).plan(module, Context())
    plan = Prune(ratio=0.4, allocation="flops").plan(module, Context())
    assert len(uniform.groups) == 2
    assert [(g.before, g.after) for g in plan.groups] == [(32, 16)]
    assert "40.0% of the model's MACs are removed (7680 to 4608)" in plan.notes[-1]


@pytest.mark.parametrize("name", ["mlp", "vgg16", "resnet20_conv", "mobilenet", "gqa_decoder"])
@FEW
@given(st.floats(0.05, 0.9), st.sampled_from([1, 4]))
def test_every_step_is_the_cheapest_at_the_widths_reached(name, ratio, multiple):
    """The oracle: all prices asked anew before each step."""
    module, _ = NETS[name]()
    axes = analyse(module)
    groups, _ = find_groups(module, axes, Context().scope)
    work = Work(module, axes, {})
    scores = {g.id: CRITERIA["l2"](module, axes, g.axis_class, np.random.default_rng(0)) for g in groups}
    found = {c: len(units) for c, units in by_work(Demand(groups, scores, ratio, multiple, work=work)).items()}
    counts = {g.id: g.size for g in groups}
    falling = [Shrinking(g, np.sort(scores[g.id])[::-1], multiple) for g in groups]
    while work.total(counts) > work.total({}) * (1 - Fraction(str(ratio))):
        priced = [(p, i) for i, s in enumerate(falling) if (p := s.price(work, counts)) is not None]
        if not priced:
            break
        chosen = falling[min(priced)[1]]
        counts[chosen.group.id] = chosen.fewer(counts)
    assert found == counts


def test_one_batch_is_assumed_and_other_sizes_are_asked_for():
    """The rows of a matrix and its columns: the work grows with T and with its square."""
    net = Layers()
    x = net.input("x", DType.F32, "N", "T", 6)
    h = net.relu(net.dense(x, 6, 16))
    scores = net.op("MatMul", [h, net.transpose(h, 0, 2, 1)])
    module = net.done(net.op("MatMul", [scores, net.dense(h, 16, 2)]))
    step = Prune(ratio=0.3, allocation="flops", multiple=1)
    with pytest.raises(MlcError, match="no size is given for T") as caught:
        step.plan(module, Context())
    assert caught.value.diagnostics[0].code is Code.BAD_DIMS
    plan = step.plan(module, Context(dims={"T": 5}))
    assert "MACs are removed" in plan.notes[-1]


def test_unknown_rounds_are_refused():
    module, _ = NETS["loops"]()
    with pytest.raises(MlcError, match="only known when the model runs"):
        Prune(ratio=0.3, allocation="flops").plan(module, Context())


@real_models("mobilenet_v2", "dnsmos", "opennsfw", "ppocrv4_rec")
def test_macs_of_real_models_fall_as_asked(model):
    module, feeds = load(model.path), model.feeds(0)
    binding = {
        d.name: n for v in module.graph.inputs for d, n in zip(v.type.shape, feeds[v.name].shape) if hasattr(d, "name")
    }
    pruned = Prune(ratio=0.4, allocation="flops")(module, Context(dims=binding))
    before, after = (dims.evaluate(module_cost(m).macs, binding) for m in (module, pruned))
    assert 0.5 < after / before <= 0.6
    assert f"({before} to {after})" in plan_of(pruned).notes[-1]
    found = run(load(to_proto(pruned)), feeds)
    assert [y.shape for y in found] == [y.shape for y in run(module, feeds)]
    assert relative(found, found) == 0.0


# -- overrides ---------------------------------------------------------------------------------------------------


def widths(plan: PrunePlan) -> dict[str, tuple[int, int]]:
    return {g.site: (g.before, g.after) for g in plan.groups}


def stack() -> Module:
    """Four layers, named: the second and third are added together."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)

    def layer(name: str, v: Value, inputs: int, outputs: int) -> Value:
        w = net.const(net.draw(inputs, outputs), f"{name}.weight")
        made = net.node("MatMul", [v, w], None)
        made.name = f"{name}/MatMul"
        return made.result

    a = net.relu(layer("layer1", x, 6, 32))
    b = net.relu(net.op("Add", [layer("layer2.0", a, 32, 64), layer("layer2.1", a, 32, 64)]))
    c = net.relu(layer("layer10", b, 64, 32))
    return net.done(layer("head", c, 32, 5))


ALL_HALF = {"layer1/MatMul": (32, 16), "layer2.0/MatMul, layer2.1/MatMul": (64, 32), "layer10/MatMul": (32, 16)}


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ("", {}),
        ("layer2: 25%", {"layer2.0/MatMul, layer2.1/MatMul": (64, 48)}),
        ({"layer2/*": 0.25, "layer10": 0}, {"layer2.0/MatMul, layer2.1/MatMul": (64, 48), "layer10/MatMul": None}),
        ("layer1: 0.75, head: 0%", {"layer1/MatMul": (32, 16)}),
        ("**: 0%, layer1.weight: 50%", {"layer2.0/MatMul, layer2.1/MatMul": None, "layer10/MatMul": None}),
        # a quarter of 32 rounds to nothing
        ("layer1: 50%, **: 25%", {k: (64, 48) if n == 64 else None for k, (n, _) in ALL_HALF.items()}),
    ],
    ids=["none", "prefix", "mapping", "nothing", "constant", "later"],
)
@pytest.mark.parametrize("allocation", ["uniform", "global", "flops"])
def test_named_groups_have_a_ratio_of_their_own(overrides, changed, allocation):
    found = widths(Prune(ratio=0.5, overrides=overrides, allocation=allocation).plan(stack(), Context()))
    wanted = {k: v for k, v in (ALL_HALF | changed).items() if v is not None}
    named = changed if allocation != "uniform" else wanted  # the others divide what is left between them
    assert {k: found.get(k) for k in named} == {k: wanted.get(k) for k in named}


def test_what_gives_way_is_told():
    plan = Prune(ratio=0.5, overrides="layer1: 50%, **: 25%, layer2.0: 0%, head: 0%").plan(stack(), Context())
    told = "\n".join(plan.notes)
    assert "'layer1: 50%' gives way to '**: 25%' for layer1/MatMul" in told
    assert "'layer2.0: 0%' names only some of what makes layer2.0/MatMul, layer2.1/MatMul" in told
    assert "'head: 0%' names nothing that could lose units" in told


@pytest.mark.parametrize(
    ("overrides", "message", "code"),
    [
        ("layer3: 50%", 'no operator matches the override "layer3"(.|\n)*nearest names are.*layer', Code.NO_MATCH),
        ("layer1", "no 'pattern: ratio'", Code.WRONG_UNIT),
        ("layer1: much", "no 'pattern: ratio'", Code.WRONG_UNIT),
        ({"layer1": "much"}, "has the entry", Code.WRONG_UNIT),
        ("layer1: 150%", "asks for 150%", Code.OUT_OF_RANGE),
        ("/: 50%", "empty pattern", Code.BAD_SELECTOR),
        ("layer2.0: 50%", "layers that are added together", Code.CANNOT_HONOUR),
        ("head: 50%", "nothing that can lose units", Code.CANNOT_HONOUR),
    ],
)
def test_overrides_that_cannot_be_honoured_are_refused(overrides, message, code):
    with pytest.raises(MlcError, match=message) as caught:
        Prune(ratio=0.3, overrides=overrides).plan(stack(), Context())
    assert caught.value.diagnostics[0].code is code


def test_overrides_need_a_ratio():
    with pytest.raises(MlcError, match="overrides without a ratio"):
        Prune(overrides="layer1: 50%").plan(stack(), Context())


@pytest.mark.parametrize(
    "options",
    [
        {"criterion": "fpgm"},
        {"allocation": "flops"},
        {"reconstruct": "off"},
        {"allocation": "global", "criterion": "l1"},
    ],
)
def test_what_says_how_a_ratio_is_taken_needs_one(options):
    with pytest.raises(MlcError, match=f"{', '.join(options)} without a ratio") as caught:
        Prune(**options).plan(stack(), Context())
    assert caught.value.diagnostics[0].code is Code.CANNOT_HONOUR
    assert Prune(**options, ratio=0.5).plan(stack(), Context()).groups


def test_a_penalty_without_a_fit_is_refused():
    with pytest.raises(MlcError, match="penalty with reconstruct=off"):
        Prune(ratio=0.5, penalty=1.0, reconstruct="off")
    with pytest.raises(MlcError, match="needs calibration data"):
        Prune(ratio=0.5, penalty=1.0)(stack(), Context())


def test_a_selector_that_names_nothing_prunable_is_told_what_would_be():
    """Of two layers that make the same units only one is selected; what is pinned elsewhere is beside the point."""
    scope = Scope(frozenset({"layer2.0/MatMul"}), text='on "layer2.0"')
    with pytest.raises(MlcError, match="can remove nothing") as caught:
        Prune(ratio=0.5).plan(stack(), Context(scope=scope))
    assert "layer2.0/MatMul, layer2.1/MatMul" in str(caught.value.diagnostics[0].help)


def test_what_a_selector_does_not_touch_is_not_blamed():
    """Beside a selected reader there is a table that ids address: that it is pinned explains nothing."""
    net = Layers()
    ids, x = net.input("ids", DType.I64, "N", 3), net.input("x", DType.F32, "N", 3, 12)
    table = net.op("Gather", [net.weight(40, 16), ids], attrs={"axis": 0})
    reader = net.dense(net.relu(net.dense(x, 12, 32)), 32, 16)
    module = net.done(net.op("Relu", [table]), net.relu(reader))
    (name,) = [op.name for op in module.graph.ops if op.kind == "MatMul" and op.operand(1).constant.shape == (32, 16)]
    with pytest.raises(MlcError, match="can remove nothing") as caught:
        Prune(ratio=0.5).plan(module, Context(scope=Scope(frozenset({name}), text="on it")))
    assert "select every operator that makes the units" in caught.value.diagnostics[0].help


def test_except_spares_what_a_named_op_reads():
    """The second layer only reads the units of the first: those stay, too, as its weight would shrink."""
    scope = Scope(but=frozenset({"layer2.0/MatMul"}))
    assert set(widths(Prune(ratio=0.5).plan(stack(), Context(scope=scope)))).isdisjoint(
        {"layer1/MatMul", "layer2.0/MatMul, layer2.1/MatMul"}
    )
    assert "layer1/MatMul" in widths(Prune(ratio=0.5).plan(stack(), Context()))


def test_small_scores_are_told_apart():
    from mlc.passes.prune.by_ratio import _digits

    assert [_digits(x) for x in (2.3456e-8, 0.123456, 12.0)] == [2.346e-8, 0.1235, 12.0]


@pytest.mark.parametrize("check", ["none", "fast"])
def test_work_is_counted_at_the_sizes_of_samples_whatever_is_checked(tmp_path, check):
    net = Layers()
    x = net.input("x", DType.F32, "N", "T", 12)
    h = net.dense(net.relu(net.dense(x, 12, 32)), 32, 16)
    module = net.done(net.op("MatMul", [h, net.op("Transpose", [h], attrs={"perm": Ints((0, 2, 1))})]))
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 7, 12), np.float32))
    step = Prune(ratio=0.5, allocation="flops", criterion="l2", reconstruct="off")
    for data in (None, tmp_path / "data.npz"):
        plans = [mlc.compile(module, [step], data=data, check=c).module.history[0].plan for c in (check, "full")]
        assert plans[0] == plans[1]
        assert plans[0].groups


def test_overrides_in_a_recipe():
    recipe = Recipe.parse('prune(50%, overrides="layer2/**: 25%, layer10: 0%")')
    (step,) = Program.of(recipe).steps
    assert widths(step.action.plan(stack(), Context())) == {
        "layer1/MatMul": (32, 16), "layer2.0/MatMul, layer2.1/MatMul": (64, 48),
    }  # fmt: skip
    assert str(Recipe.parse(str(recipe))) == str(recipe)


@real_models("mobilenet_v2")
def test_overrides_on_a_real_model(model):
    module = load(model.path)
    plain = Prune(ratio=0.5).plan(module, Context())
    alone = [g.site for g in plain.groups if "," not in g.site]
    spared = Prune(ratio=0.5, overrides=dict.fromkeys(alone[:3], 0)).plan(module, Context())
    assert widths(spared) == {k: v for k, v in widths(plain).items() if k not in alone[:3]}


def test_a_ratio_as_text_is_told_how_python_spells_it():
    with pytest.raises(MlcError, match="wants ratio, not '50%'") as caught:
        Prune(ratio="50%")
    assert "0.5" in caught.value.diagnostics[0].help
