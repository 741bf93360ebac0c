"""The axis analysis: permuting free classes never changes a function, and nothing is pinned or joined needlessly."""

from __future__ import annotations

import numpy as np
import pytest
from kit.nets import NETS, Layers
from kit.permute import permutations, relative, run
from kit.widen import run_wide, widened

from mlc.ir.axes import analyse
from mlc.ir.dtypes import DType

#: Free classes of the hand-built nets: their sizes, counted by hand from the drawing of the net.
SIZES = {
    "mlp": [48, 40, 20],
    "gated": [20, 12],  # gate and value are cut from one matrix: [u | u]
    "quantized": [8, 6],
    "block_quantized": [10, 4, 4],  # blocks, and what is inside of them
    "dynamic_int8": [16, 10],
    "vgg16": [16, 12, 10, 10, 10, 10, 10, 10, 8, 8, 8, 6, 6, 4, 4],
    "vgg_flatten": [12, 10, 8],
    "resnet20_conv": [32] * 4 + [16] * 4 + [8] * 4,
    "resnet20_pad": [32] * 3 + [16] * 3 + [8] * 6 + [4] * 2,
    "densenet": [8, 6, 6, 6],
    "mobilenet": [48, 48, 8, 6],
    "multiplier": [6, 2],
    "grouped": [8, 4, 4, 4],
    "shufflenet": [4, 4, 2, 2, 2],
    # Shuffling [kept | made] makes both halves one class, which the next unit cuts into 2 and 2.
    "shufflenet_v2": [6, 5, 4, 4, 2, 2],
    "unet": [12, 10, 10, 8, 6],
    "group_norm": [6, 4, 3],
    "nhwc": [10, 6],
    "nhwc_converted": [10, 8],
    "excited": [12, 6, 4],
    "pixel_shuffle": [8, 6, 5],
    "transposed": [4, 3, 2],  # groups, inputs and outputs of a group
    "yolo": [14, 14, 10, 9, 9, 8, 6, 6],  # trunk 8, 6 + 6, 10, 14, neck 9, the heads 9 and 14; anchors are outputs
    "lstm": [10, 8],
    "gru": [10, 8],
    "stacked": [8, 7],
    "bert": [40, 12, 5, 5, 4],
    "vit": [20, 12, 4, 3],  # q, k and v of one matrix [3, heads, width] share a width
    "fused_split": [12, 4, 4, 3],  # cut before the heads are, values have a width of their own
    "alibi": [12, 7, 4, 3],
    "relative": [12, 7, 4, 3],
    "cross_attention": [12, 10, 8, 7, 5, 4, 3, 2],
    "gqa_decoder": [64, 48, 4, 4, 3, 2],
    "rope_decoder": [64, 48, 4, 3, 2, 2],  # the rotated halves are one class of 2
    "rope_interleaved": [64, 48, 10, 5, 3, 2],  # 5 pairs of 2
    "experts_dense": [12, 10, 4],
    "experts_top": [12, 10],  # without the experts, whose numbers TopK yields
    "experts_apart": [12, 9, 8, 7],
    "branches": [12, 10],
    "captured": [12, 10],
    "loops": [8],
    "scans": [8],
    "nested": [11, 9, 8],
    "tied": [10],
    "siamese": [10],
}
#: Sites that may stay behind without a trace, and why.
BLIND = {
    # The bias of the keys: softmax does not see a constant added to every score of a row.
    **dict.fromkeys(("bert", "alibi", "relative"), 2),
    "cross_attention": 4,
    **dict.fromkeys(("tied", "captured"), 1),  # the only site
    "branches": 3,  # the branch that is not taken
}
#: Nets that cannot be held to the precision of doubles.
SINGLE = {
    **dict.fromkeys(("quantized", "block_quantized", "dynamic_int8"), "quantized operators yield float32"),
    "group_norm": "the reference normalizes in float32",
    "transposed": "no double kernel, and the reference has no groups in ConvTranspose",
}


def test_every_net_has_its_known_classes():
    assert set(SIZES) == set(NETS)


@pytest.mark.parametrize("name", NETS)
def test_class_counts(name):
    module, _ = NETS[name]()
    assert sorted((c.size for c in analyse(module).free), reverse=True) == SIZES[name]


@pytest.mark.parametrize("name", NETS)
def test_permuting_all_free_classes_keeps_the_outputs(name):
    module, feeds = NETS[name]()
    axes, before = analyse(module), run(module, feeds)
    for seed in range(3):
        after = run(axes.permuted(permutations(axes, seed)), feeds)
        assert relative(before, after) < 1e-5


@pytest.mark.parametrize("name", [n for n in NETS if n not in SINGLE])
def test_permuting_is_exact_in_double_precision(name):
    module, feeds = NETS[name]()
    module = widened(module)
    axes, before = analyse(module), run_wide(module, feeds)
    assert sorted((c.size for c in axes.free), reverse=True) == SIZES[name]
    assert all(y.dtype == np.float64 for y in before)
    assert relative(before, run_wide(axes.permuted(permutations(axes, 0)), feeds)) < 1e-9


@pytest.mark.parametrize("name", NETS)
def test_leaving_one_site_behind_changes_the_outputs(name):
    """Otherwise the site was joined to the class needlessly."""
    module, feeds = NETS[name]()
    axes, before = analyse(module), run(module, feeds)
    unseen = 0
    for c in axes.free:
        turn = {c.id: np.roll(np.arange(c.size), 1)}
        unseen += sum(relative(before, run(axes.permuted(turn, leave_out=s), feeds)) < 1e-5 for s in c.sites)
    assert unseen == BLIND.get(name, 0)


@pytest.mark.parametrize("name", NETS)
def test_back_and_forth_is_the_identity_and_pins_hold(name):
    module, _ = NETS[name]()
    axes = analyse(module)
    order = permutations(axes, 0)
    there = axes.permuted(order)
    back = analyse(there).permuted({c: np.argsort(p) for c, p in order.items()})
    free = {(s.constant, s.axis) for c in axes.free for s in c.sites}
    for constant, value in module.constants.items():
        original = value.constant.array()
        assert np.array_equal(original, back.constants[constant].constant.array())
        moved = there.constants[constant].constant.array()
        if not any((constant, axis) in free for axis in range(original.ndim)):
            assert np.array_equal(original, moved)


def test_classes_are_numbered_the_same_in_a_clone():
    module, _ = NETS["bert"]()
    one, two = analyse(module), analyse(module.clone())
    assert [(c.id, c.size, c.sites) for c in one.classes] == [(c.id, c.size, c.sites) for c in two.classes]


# -- what must be pinned (each of these was once a spurious free class in some tool) ------------------------------


def _free(net: Layers, *outputs) -> list[int]:
    return sorted(c.size for c in analyse(net.done(*outputs)).free)


def test_operands_that_no_rule_mentions_are_pinned():
    net = Layers()
    x = net.input("x", DType.F32, "N", 3, 4, 4)
    y = net.op("Resize", [x, None, net.const(np.array([1, 1, 2, 2], np.float32))], attrs={"mode": "nearest"})
    assert _free(net, y) == []


def test_a_constant_is_pinned_by_any_use_that_no_rule_mentions():
    net = Layers()
    x, h = net.input("x", DType.F32, "N", 3, 4, 4), net.input("h", DType.F32, "N", 6)
    both = net.const(np.array([1, 1, 2, 2], np.float32))
    y = net.op("Resize", [x, None, both], attrs={"mode": "nearest"})
    z = net.linear(net.op("Mul", [net.linear(h, 6, 4), both]), 4, 3)
    axes = analyse(net.done(y, z))
    assert axes.free == ()
    assert any(c.pin.code == "order-matters" and c.pin.kind == "Resize" for c in axes.pinned)


def test_generated_order_is_pinned():
    net = Layers()
    x = net.input("x", DType.F32, "N", 6)
    h = net.linear(x, 6, 10)
    ramp = net.op("Range", [net.const(np.float32(i)) for i in (0, 10, 1)])
    assert _free(net, net.linear(net.op("Add", [h, ramp]), 10, 3)) == []


def test_a_dynamic_slice_pins_and_a_constant_one_cuts():
    for dynamic, wanted in ((True, []), (False, [4, 6])):
        net = Layers()
        x = net.input("x", DType.F32, "N", 6)
        end = net.input("end", DType.I64, 1) if dynamic else net.ints(4)
        h = net.linear(x, 6, 10)
        cut = net.op("Slice", [h, net.ints(0), end, net.ints(1)])
        total = net.op("ReduceSum", [cut, net.ints(1)])
        assert _free(net, net.op("Add", [total, net.linear(h, 10, 3)])) == wanted


def test_ids_pin_the_table_they_address():
    net = Layers()
    ids = net.input("ids", DType.I64, "N")
    x = net.op("Gather", [net.weight(20, 8), ids], attrs={"axis": 0})
    assert _free(net, net.linear(x, 8, 3)) == [8]


@pytest.mark.parametrize("kind", ["CumSum", "ArgMax", "TopK", "LRN", "EyeLike"])
def test_order_sensitive_operators_pin(kind):
    net = Layers()
    x = net.input("x", DType.F32, 2, 6)
    h = net.linear(x, 6, 8)
    if kind == "CumSum":
        y = net.op(kind, [h, net.const(np.int64(1))])
    elif kind == "ArgMax":
        y = net.op(kind, [h], attrs={"axis": 1})
    elif kind == "TopK":
        y = net.node(kind, [h, net.ints(3)], None, {"axis": 1}, count=2).results[0]
    elif kind == "LRN":
        y = net.op(kind, [net.reshape(h, 2, 8, 1, 1)], attrs={"size": 3})
    else:
        y = net.op("MatMul", [h, net.op("EyeLike", [net.weight(8, 8)])])
    assert 8 not in _free(net, y)


def test_unknown_operators_pin_everything_they_touch():
    net = Layers()
    x = net.input("x", DType.F32, 2, 6)
    h = net.linear(x, 6, 8)
    y = net.op("my.domain::Thing", [h, net.weight(5, 5)], [h.type])
    axes = analyse(net.done(net.linear(y, 8, 3)))
    assert axes.free == ()
    assert any(c.pin.code == "unknown-operator" and "Thing" in str(c.pin) for c in axes.pinned)


def test_an_option_that_is_not_ruled_is_the_reason():
    """The operator is known; statistics of the batch are not what its rule is about."""
    net = Layers()
    x = net.input("x", DType.F32, 2, 6)
    operands = [net.linear(x, 6, 8), *(net.vector(8) for _ in range(4))]
    y = net.node("BatchNormalization", operands, None, {"training_mode": 1}, count=3).results[0]
    axes = analyse(net.done(net.linear(y, 8, 3)))
    assert axes.free == ()
    assert {c.pin.code for c in axes.pinned if c.size == 8} == {"unknown-option"}


def test_values_captured_by_an_opaque_body_are_pinned():
    net = Layers()
    x = net.input("x", DType.F32, 2, 6)
    h = net.relu(net.linear(x, 6, 8))
    body = net.body()
    inner = body.op("Neg", [h], [h.type])
    body.output(inner)
    y = net.node("my.domain::Maybe", [x], [h.type], regions={"body": body.graph}).result
    assert analyse(net.done(net.linear(net.op("Add", [y, net.linear(h, 8, 8)]), 8, 3))).free == ()


def test_a_mean_over_a_class_is_marked_count_sensitive():
    net = Layers()
    x = net.input("x", DType.F32, 2, 6)
    h = net.linear(x, 6, 8)
    mean = net.op("ReduceMean", [h, net.ints(1)])
    (only,) = analyse(net.done(net.op("Add", [mean, net.linear(h, 8, 3)]))).free
    assert "count-sensitive" in only.marks


def test_the_order_of_picked_experts_is_pinned_by_what_picks():
    module, _ = NETS["experts_top"]()
    experts = [c for c in analyse(module).pinned if c.size == 4]
    assert experts[0].pin.code == "index-leaks"
    assert {c.pin.kind for c in experts} <= {"TopK", "ScatterElements"}
    assert sum(len(c.sites) for c in experts) == 3  # the gate's columns and both stacks of matrices


def test_anchors_are_pinned_by_the_output():
    module, _ = NETS["yolo"]()
    anchors = [c for c in analyse(module).pinned if c.size == 16]
    assert {c.pin.code for c in anchors} == {"interface-output"}
    assert sum(len(c.sites) for c in anchors) == 4  # weight and bias of the last convolution, at both scales


def test_a_frozen_table_pins_what_would_move_with_it():
    """The width that the rotary tables tie through all layers; everything else is as free as before."""
    module, _ = NETS["rope_decoder"]()
    axes = analyse(module, frozen={"cos"})
    assert not any(s.constant in ("cos", "sin") for c in axes.free for s in c.sites)
    assert {(c.pin.code, c.pin.where) for c in axes.pinned for s in c.sites if s.constant == "sin" and s.axis == 1} == {
        ("frozen", "cos")
    }
    assert sorted((c.size for c in axes.free), reverse=True) == [64, 48, 4, 3, 2]


def test_freezing_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no constants to freeze are called lost"):
        analyse(NETS["mlp"]()[0], frozen={"lost"})


def test_what_is_no_permutation_is_refused():
    module, _ = NETS["mlp"]()
    axes = analyse(module)
    c, pinned = axes.free[0], axes.pinned[0]
    wrong = {
        "no class has the id": {len(axes.classes): [0]},
        f"no class has the id '{c.name}'": {c.name: range(c.size)},
        "is pinned": {pinned.id: range(pinned.size)},
        "names each of its": {c.id: range(c.size - 1)},
        f"each of its {c.size} units once": {c.id: [0] * c.size},
    }
    for message, orders in wrong.items():
        with pytest.raises(ValueError, match=message):
            axes.permuted(orders)
