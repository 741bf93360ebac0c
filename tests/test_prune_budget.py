"""What data and memory moments take: laws of rows and runs; which operators are watched and fitted at all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.nets import NETS, Layers
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.ir.axes import analyse
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.passes.base import EVERYWHERE, Context, SkipCode
from mlc.passes.budget import (
    DEFAULT_MEMORY,
    FEWEST_ROWS,
    ROWS_PER_COLUMN,
    allowed,
    pick,
    rows_per_sample,
)
from mlc.passes.prune.fit.elimination import Problem
from mlc.passes.prune.fit.saliency import consumers_of, redundancy
from mlc.passes.prune.groups import find_groups
from mlc.passes.prune.scoring import score
from mlc.passes.prune.structured import Prune
from mlc.passes.statistics import runs

SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), max_size=12)


@given(SIZES, st.integers(1, 20))
def test_runs_hold_all_items_in_order_and_as_many_as_fit(items, most):
    made = list(runs(items, lambda i: i[0], most, lambda a, b: a[1] == b[1]))
    assert [i for run in made for i in run] == items
    for run in made:
        assert len({kind for _, kind in run}) == 1
        assert len(run) == 1 or sum(size for size, _ in run) <= most
    for run, following in itertools.pairwise(made):
        assert run[0][1] != following[0][1] or sum(size for size, _ in run) + following[0][0] > most


@given(st.integers(1, 500), st.floats(0.01, 600), st.integers(0, 9))
def test_picked_rows_are_as_many_as_wanted_in_order_and_different(count, wanted, seed):
    picked = pick(np.random.default_rng(seed), count, wanted)
    if wanted >= count:
        assert picked is None
    else:
        assert picked is not None
        assert len(picked) == max(1, round(wanted))
        assert (np.diff(picked) > 0).all()
        assert picked.min() >= 0
        assert picked.max() < count


@pytest.mark.parametrize("depth", [4, 4608])
def test_samples_share_the_rows_of_a_problem(depth):
    assert rows_per_sample(depth, 50) * 50 == pytest.approx(max(ROWS_PER_COLUMN * depth, FEWEST_ROWS))
    assert rows_per_sample(4, 1) == FEWEST_ROWS
    assert rows_per_sample(4608, 1) == ROWS_PER_COLUMN * 4608


def test_memory_is_that_of_the_limit_or_a_default():
    assert allowed(None) == DEFAULT_MEMORY // 4
    assert allowed(1 << 20) == 1 << 18


def samples(size: int = 12) -> Samples:
    return Samples({"x": np.random.default_rng(0).standard_normal((40, 8, size)).astype(np.float32)}, whole=True)


def test_what_reads_as_much_as_before_is_not_fitted():
    net = Layers(0)
    x = net.input("x", DType.F32, "N", 12)
    h = net.relu(net.op("Gemm", [x, net.weight(12, 32)]))
    h = net.relu(net.op("Gemm", [h, net.weight(32, 24)]))
    module = net.done(net.op("Gemm", [h, net.weight(24, 5)]))
    first, second, _ = (op.name for op in module.graph.ops if op.kind == "Gemm")
    step = Prune(ratio=0.5, multiple=1, overrides={second: 0})
    done = step(module, Context(data=samples(), runner=OrtRunner())).history[-1].done
    assert [d.site for d in done] == [first, second]
    assert "fitted" in done[1].after


@pytest.mark.parametrize(("size", "told"), [(6, []), (2, ["(20 rows, 144 inputs)"])])
def test_fewer_rows_than_inputs_are_told(size, told):
    """Twenty samples of 36 places are rows enough for 16 channels of 9 positions; the same of one place are not."""
    net = Layers(1)
    x = net.input("x", DType.F32, "N", 3, size, size)
    h = net.relu(net.conv(x, 3, 32))
    strides = {
        "kernel_shape": Ints((3, 3)),
        "pads": Ints((1, 1, 1, 1)),
        "strides": Ints((2, 2) if size == 2 else (1, 1)),
    }
    module = net.done(net.op("Conv", [h, net.weight(8, 32, 3, 3)], attrs=strides))
    data = {"x": np.random.default_rng(0).standard_normal((20, 3, size, size)).astype(np.float32)}
    notes = Prune(ratio=0.5)(module, Context(data=Samples(data), runner=OrtRunner())).history[-1].notes
    found = [n for n in notes if "fewer rows" in n]
    assert len(found) == len(told)
    assert all(text in note for text, note in zip(told, found))


def test_grouped_convolutions_are_no_consumers_that_are_watched():
    module, _ = NETS["grouped"]()
    axes = analyse(module)
    watched = [c.linear for k in axes.classes for c in consumers_of(module, axes, k)]
    assert any(op.kind == "Conv" and op.attrs.get("group", 1) > 1 for op in module.graph.ops)
    assert watched
    assert all(linear.groups == 1 for linear in watched)


def transposed() -> Module:
    """Two groups: one that a transposed convolution of unfixed padding reads, one that a plain one does."""
    net = Layers(0)
    x = net.input("x", DType.F32, 2, 4, 6, 6)
    operands = [net.relu(net.conv(x, 4, 32)), net.weight(32, 24, 2, 2)]
    up = net.op("ConvTranspose", operands, attrs={"strides": Ints((2, 2)), "auto_pad": "SAME_UPPER"})
    return net.done(net.conv(net.relu(up), 24, 3))


def drawn(*shape: int) -> Context:
    data = {"x": np.random.default_rng(0).standard_normal((20, *shape)).astype(np.float32)}
    return Context(data=Samples(data, whole=True), runner=OrtRunner())


def test_groups_that_no_linear_operator_reads_are_scored_by_weights_at_the_level_of_the_others():
    module = transposed()
    axes = analyse(module)
    groups, _ = find_groups(module, axes, EVERYWHERE)
    scores, notes = score("auto", module, axes, groups, drawn(2, 4, 6, 6))
    np.testing.assert_array_equal(
        np.concatenate(list(scores.values())),
        np.concatenate(list(score("obs", module, axes, groups, drawn(2, 4, 6, 6))[0].values())),
    )
    blind = [g for g in groups if not consumers_of(module, axes, g.axis_class)]
    assert 0 < len(blind) < len(groups)
    (note,) = notes
    assert note.startswith(f"{len(blind)} groups have no linear consumer to watch")
    level = np.mean(np.concatenate([scores[g.id] for g in groups if g not in blind]))
    for g in blind:
        assert scores[g.id].mean() == pytest.approx(level)
        assert scores[g.id].std() > 0


def test_redundancy_is_what_the_other_units_do_not_explain():
    """Unit 3 varies most, and is a mix of others; all have weights as large."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 5))
    x[:, 3] = x[:, 0] - x[:, 1]
    p = Problem(np.ones((2, 5)), x.T @ x / 2000, np.arange(5)[:, None])
    scores = redundancy([p], 5)
    left = [x[:, i] - x[:, rest] @ np.linalg.lstsq(x[:, rest], x[:, i])[0] for i, rest in _others(5)]
    wanted = np.sqrt([float((r**2).mean()) for r in left])
    assert wanted[3] < 1e-9
    assert scores[3] < scores[2] / 5
    assert scores[2] / scores[4] == pytest.approx(wanted[2] / wanted[4], rel=1e-2)


def _others(count: int) -> list[tuple[int, list[int]]]:
    return [(i, [j for j in range(count) if j != i]) for i in range(count)]


def test_bodies_that_read_less_are_told():
    module, feeds = NETS["captured"]()
    data = {name: np.stack([a] * 4) for name, a in feeds.items()}
    ctx = Context(data=Samples(data, whole=True), runner=OrtRunner())
    skipped = Prune(ratio=0.5, multiple=1)(module, ctx).history[-1].skipped
    assert any(s.code is SkipCode.CONTROL_FLOW and "bodies compute is not watched" in s.why for s in skipped)


def test_of_operators_that_cannot_be_fitted_those_are_told_that_read_less():
    """A transposed convolution that only makes fewer units computes what it did; a recurrent one reads its own."""
    net = Layers(1)
    x = net.input("x", DType.F32, 2, 4, 6, 6)
    up = net.op("ConvTranspose", [x, net.weight(4, 32, 2, 2)], attrs={"strides": Ints((2, 2))})
    module = net.done(net.conv(net.relu(up), 32, 3))
    report = Prune(ratio=0.5, multiple=1)(module, drawn(2, 4, 6, 6)).history[-1]
    assert not [s for s in report.skipped if "not fitted" in s.why]
    net = Layers(1)
    x = net.input("x", DType.F32, 5, 2, 12)
    states = net.node("LSTM", [x, net.weight(1, 128, 12), net.weight(1, 128, 32)], None, {"hidden_size": 32}, count=1)
    module = net.done(net.op("MatMul", [net.op("Squeeze", [states.result, net.ints(1)]), net.weight(32, 3)]))
    report = Prune(ratio=0.5, multiple=1)(module, drawn(5, 2, 12)).history[-1]
    assert [s.why for s in report.skipped if "not fitted" in s.why] == [
        "cut, not fitted: the state that LSTM reads again is not watched"
    ]
