"""Dead units planted into every net and every real model: found, removed, and no output changes."""

from __future__ import annotations

import numpy as np
import pytest
from kit import plant
from kit.layers import Layers, rows
from kit.nets import NETS
from kit.nets_flow import scans
from kit.permute import judged, relative, run
from kit.real import all_models

from mlc.frontends.onnx import load
from mlc.ir.axes import Axes, AxisClass, analyse
from mlc.ir.core import Module
from mlc.ir.rewrite import Rewriter
from mlc.ir.text import print_module
from mlc.passes.base import Context, SkipCode
from mlc.passes.prune.exact.search import touching_ops
from mlc.passes.prune.exact.unread import unread
from mlc.passes.prune.groups import find_groups
from mlc.passes.prune.structured import Prune
from mlc.passes.prune.surgery import remove_units

UNITS = [1, 3]
FEWEST = 6  # units of a class that two are planted into
#: Groups that meet an LSTM which quantizes its state at every step: that range is not followed.
NOT_FOLLOWED = {"ddddocr_ocr_old": 2}


def removable(axes: Axes) -> list[AxisClass]:
    """Classes that may shrink without changing what a norm, a softmax or a block of codes runs over."""
    return [c for c in axes.free if not {"count-sensitive", "block-size"} & set(c.marks)]


def without(module: Module, classes: list[AxisClass]) -> Module:
    twin = module.clone()
    kept = {c.id: np.setdiff1d(np.arange(c.size), UNITS) for c in classes}
    remove_units(Rewriter(twin), analyse(twin), kept)
    return twin


@pytest.mark.parametrize("name", NETS)
def test_removing_zeroed_units_of_any_class_changes_nothing(name):
    module, feeds = NETS[name]()
    ids = [c.id for c in removable(analyse(module)) if c.size > max(UNITS)]
    for chosen in [*([i] for i in ids), ids]:
        module, _ = NETS[name]()
        axes = analyse(module)
        classes = [c for c in axes.free if c.id in chosen]
        for c in classes:
            plant.zero(module, axes, c, UNITS)
        assert relative(run(module, feeds), run(without(module, classes), feeds)) < 1e-5


@all_models()
def test_removing_zeroed_units_of_all_classes_of_a_real_model_changes_nothing(model):
    module, feeds = load(model.path), model.feeds(0)
    axes = analyse(module)
    classes = [c for c in removable(axes) if c.size >= FEWEST]
    assert classes
    for c in classes:
        plant.zero(module, axes, c, UNITS)
    before, after = run(module, feeds), run(without(module, classes), feeds)
    assert all(np.isfinite(y).all() for y in before if y.dtype.kind == "f")
    error, limit = judged(module, feeds, before, after)
    assert error < limit


@all_models()
def test_a_ratio_of_zero_is_the_identity(model):
    module = load(model.path)
    assert print_module(Prune(ratio=0.0)(module)) == print_module(module)


def planted(model) -> tuple[Module, set[int]]:
    """The model with dead units in every group that bare `prune` looks at, and those groups."""
    module = load(model.path)
    axes = analyse(module)
    groups, _ = find_groups(module, axes, Context().scope, nested="both")
    targets = [g.axis_class for g in groups if g.size >= FEWEST]
    for c in targets:
        plant.zero(module, axes, c, UNITS)
    return module, {c.id for c in targets}


@all_models()
def test_dead_units_of_a_real_model_are_found_and_removed(model):
    module, targets = planted(model)
    pruned, feeds = Prune(multiple=1)(module), model.feeds(0)
    report = pruned.history[-1]
    removed = [r for round_ in report.plan.rounds for r in round_.removals]
    axes = analyse(module)
    first = report.plan.rounds[0].removals
    found = {axes.within(axes.of(module.constants[r.constant])[r.axis])[r.nth].id: set(r.units.tolist()) for r in first}
    missed = targets - {c for c, units in found.items() if set(UNITS) <= units}
    assert len(missed) == NOT_FOLLOWED.get(model.name, 0)
    assert sum(s.code is SkipCode.NOT_FOLLOWED for s in report.skipped) >= len(missed)
    if [r.units.tolist() for r in removed] == [UNITS] * len(targets):  # and nothing that the model had of its own
        assert_slices(without(module, [c for c in axes.free if c.id in targets]), pruned)
    error, limit = judged(module, feeds, run(module, feeds), run(pruned, feeds))
    assert error < limit


def assert_slices(expected: Module, pruned: Module) -> None:
    """Only terms that are exactly zero are gone: every weight that is left is, bit for bit, a slice of the old one."""
    shared = pruned.constants.keys() & expected.constants.keys()  # lists of sizes get other names
    assert sum(v.constant.elements > 64 for v in pruned.constants.values()) == sum(
        pruned.constants[name].constant.elements > 64 for name in shared
    )
    for name in shared:
        assert np.array_equal(expected.constants[name].constant.array(), pruned.constants[name].constant.array())


# -- units that nobody reads, in what cannot be followed ----------------------------------------------------------

FOUND_UNREAD = ("lstm", "gru", "stacked", "loops", "scans", "branches", "captured", "nested", "quantized")


@pytest.mark.parametrize("name", FOUND_UNREAD)
def test_dead_units_are_found_behind_recurrence_bodies_and_codes(name):
    module, feeds = NETS[name]()
    axes = analyse(module)
    targets = [c for c in axes.free if c.size >= FEWEST]
    for c in targets:
        plant.zero(module, axes, c, UNITS)
    pruned = Prune(multiple=1)(module)
    first = pruned.history[-1].plan.rounds[0].removals
    assert [r.unread for r in first] == ["1, 3"] * len(targets)
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-5


def test_a_state_that_only_the_next_step_reads_stays():
    """Nobody outside reads unit 2, but the recurrent weight of the Scan does."""
    module, feeds = scans()
    axes = analyse(module)
    (c,) = axes.free
    plant.unread(module, axes, c, [2])  # clears the rows of the recurrent and of the last weight
    recurrent = next(v for v in module.constants.values() if v.constant.shape == (8, 8))
    array = np.array(recurrent.constant.array())
    array[2] = 1.0
    recurrent.constant = type(recurrent.constant).of(array)
    pruned = Prune(multiple=1)(module)
    assert pruned.history[-1].plan.rounds == ()
    assert relative(run(module, feeds), run(pruned, feeds)) == 0.0


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_hidden_unit_that_only_its_own_layer_reads_stays(name):
    module, _ = NETS[name]()
    axes = analyse(module)
    hidden = axes.free[1]
    assert hidden.size == 8
    plant.unread(module, axes, hidden, UNITS)  # clears what the next layer reads, not the recurrent weights
    assert Prune(multiple=1)(module).history[-1].plan.rounds == ()


def integer_layer(zero_point: int, code: int) -> Module:
    """A linear layer of 8 hidden units whose second weight is integer; unit 1 is multiplied by `code - zero_point`."""
    net = Layers()
    x, _ = rows(net, 6)
    h = net.op("QuantizeLinear", [net.relu(net.linear(x, 6, 8)), net.const(np.float32(0.05)), net.const(np.uint8(0))])
    codes = net.rng.integers(1, 200, (8, 4)).astype(np.uint8)
    codes[1] = code
    operands = [h, net.const(codes, "codes"), net.const(np.uint8(0)), net.const(np.uint8(zero_point))]
    total = net.op("Cast", [net.op("MatMulInteger", operands)], attrs={"to": 1})
    return net.done(net.linear(total, 4, 3))


@pytest.mark.parametrize(("zero_point", "code", "found"), [(0, 0, True), (7, 7, True), (7, 0, False), (0, 7, False)])
def test_codes_stand_for_zero_at_their_zero_point(zero_point, code, found):
    pruned = Prune(multiple=1)(integer_layer(zero_point, code))
    assert [r.unread for round_ in pruned.history[-1].plan.rounds for r in round_.removals] == ["1"] * found


def test_units_that_a_maximum_reads_stay():
    net = Layers()
    x, _ = rows(net, 6)
    h = net.relu(net.linear(x, 6, 8))
    largest = net.op("ReduceMax", [h, net.ints(1)], attrs={"keepdims": 1})
    module = net.done(net.op("Add", [net.linear(h, 8, 3), largest]))
    axes = analyse(module)
    plant.unread(module, axes, axes.free[0], UNITS)
    assert Prune(multiple=1)(module).history[-1].plan.rounds == ()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("weight", "bias", "activation", "found"),
    [(0, 0, "Relu", True), (1, 0, "Relu", False), (0, 1, "Relu", False), (0, 0, "Sigmoid", False)],
)
def test_units_that_a_dynamic_range_reads_stay(weight, bias, activation, found, fused):
    """Units 1 and 3 are multiplied by zero; they go if their values are zero, too: the range does not notice."""
    net = Layers()
    x, _ = rows(net, 6)
    factors = np.ones((3, 8), np.float32)
    factors[:, UNITS] = np.array([[weight], [bias], [0]])
    w, b = net.const(net.draw(6, 8) * factors[0]), net.const(net.rng.uniform(1, 2, 8).astype(np.float32) * factors[1])
    h = net.op("Gemm", [x, w, b]) if fused else net.op("Add", [net.op("MatMul", [x, w]), b])
    h = net.op(activation, [h])
    codes, scale, zero = net.node("DynamicQuantizeLinear", [h], None, count=3).results
    second = net.const((net.rng.integers(1, 99, (8, 3)) * factors[2][:, None]).astype(np.int8))
    product = net.op("Cast", [net.op("MatMulInteger", [codes, second, zero])], attrs={"to": 1})
    pruned = Prune(multiple=1)(net.done(net.op("Mul", [product, scale])))
    assert [r.unread for round_ in pruned.history[-1].plan.rounds for r in round_.removals] == ["1, 3"] * found


def test_units_that_a_softmax_runs_over_are_read():
    net = Layers()
    x, _ = rows(net, 6)
    module = net.done(net.linear(net.softmax(net.linear(x, 6, 8)), 8, 3))
    axes = analyse(module)
    (c,) = axes.free
    plant.unread(module, axes, c, UNITS)
    assert unread(module, axes, c, touching_ops(module, axes)[c.id]) is None


def test_a_dynamic_range_does_not_notice_units_that_are_zero():
    module, feeds = NETS["dynamic_int8"]()
    axes = analyse(module)
    for c in axes.free:
        plant.zero(module, axes, c, UNITS)
    pruned = Prune(multiple=1)(module)
    assert [r.unread for r in pruned.history[-1].plan.rounds[0].removals] == ["1, 3"] * 2
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-6
