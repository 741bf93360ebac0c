"""Reported errors of a reconstruction against the models themselves: what was fitted, and to which units."""

from __future__ import annotations

import numpy as np
import pytest
from kit.nets import Layers
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.passes.base import Context, SkipCode
from mlc.passes.linear import linear_of
from mlc.passes.prune.ranges import parse_ranges
from mlc.passes.prune.structured import Prune

F32 = DType.F32


def shifted(net: Layers, size: int):
    return net.const(net.draw(size) * 2 + 1, f"shift{size}")


def gemms() -> tuple[Module, tuple[int, ...]]:
    """Gemm with biases, stored both ways; the first of two biases has one number for all."""
    net = Layers(3)
    x = net.input("x", F32, 8, 12)
    h = net.relu(net.op("Gemm", [x, net.weight(12, 32), shifted(net, 32)]))
    h = net.relu(net.op("Gemm", [h, net.weight(24, 32), shifted(net, 1)], attrs={"transB": 1}))
    return net.done(net.op("Gemm", [h, net.weight(24, 5), shifted(net, 5)])), (8, 12)


def products() -> tuple[Module, tuple[int, ...]]:
    net = Layers(4)
    x = net.input("x", F32, 2, 6, 12)
    h = net.relu(net.op("Add", [net.op("MatMul", [x, net.weight(12, 32)]), shifted(net, 32)]))
    h = net.relu(net.op("Add", [shifted(net, 24), net.op("MatMul", [h, net.weight(32, 24)])]))
    return net.done(net.op("MatMul", [h, net.weight(24, 5)])), (2, 6, 12)


def convolutions() -> tuple[Module, tuple[int, ...]]:
    net = Layers(5)
    x = net.input("x", F32, 2, 3, 9, 8)
    same = {"kernel_shape": Ints((3, 3)), "pads": Ints((1, 1, 1, 1))}
    h = net.relu(net.op("Conv", [x, net.weight(32, 3, 3, 3), shifted(net, 32)], attrs=same))
    wide = {"kernel_shape": Ints((3, 2)), "strides": Ints((2, 1)), "auto_pad": "SAME_UPPER"}
    h = net.relu(net.op("Conv", [h, net.weight(24, 32, 3, 2), shifted(net, 24)], attrs=wide))
    return net.done(net.op("Conv", [h, net.weight(5, 24, 1, 1)], attrs={"kernel_shape": Ints((1, 1))})), (2, 3, 9, 8)


def data_of(shape: tuple[int, ...], count: int = 25) -> Samples:
    return Samples({"x": np.random.default_rng(7).standard_normal((count, *shape)).astype(np.float32)}, whole=True)


def collected(module: Module, name: str, data: Samples) -> np.ndarray:
    executable = OrtRunner().prepare(module, (name,))
    return np.concatenate([np.asarray(executable.run(b.inputs)[name]) for b in data.batches(1)])


def kept_of(pruned: Module, name: str) -> np.ndarray | None:
    """The units that stay in the result of a linear op, which makes the units of the group named after it."""
    for g in pruned.history[-1].plan.groups:
        if name in g.site.split(", "):
            return np.setdiff1d(np.arange(g.before), parse_ranges(g.removed))
    return None


def error(wanted: np.ndarray, got: np.ndarray, axis: int) -> float:
    a, b = (np.moveaxis(v, axis, -1).reshape(-1, v.shape[axis]).astype(np.float64) for v in (wanted, got))
    return float(((a - b) ** 2).mean(axis=0).sum() / a.var(axis=0).sum())


@pytest.mark.parametrize("net", [gemms, products, convolutions])
def test_errors_are_those_between_the_models(net):
    """`after` is what the fitted model does to its result; `before` of the first is what the bare cut does to it."""
    module, shape = net()
    data = data_of(shape)
    ctx = Context(data=data, runner=OrtRunner())
    fitted, cut = (Prune(ratio=0.5, multiple=1, reconstruct=r, criterion="l2")(module, ctx) for r in ("auto", "off"))
    told = {d.site: (d.before, d.after) for d in fitted.history[-1].done if d.after.endswith("fitted")}
    linears = [found for op in module.graph.ops if (found := linear_of(op)) is not None]
    assert len(told) == 2
    for i, linear in enumerate(linears[1:]):
        name, axis = linear.op.name, 1 if linear.op.kind == "Conv" else -1
        wanted, kept = collected(module, with_bias(module, name), data), kept_of(fitted, name)
        wanted = wanted if kept is None else np.take(wanted, kept, axis)
        before, after = (float(text.split()[1]) / 100 for text in told[name])
        if i == 0:
            assert error(wanted, collected(cut, with_bias(cut, name), data), axis) == pytest.approx(before, rel=0.01)
        made = collected(fitted, with_bias(fitted, name), data)
        assert error(wanted, made, axis) == pytest.approx(after, rel=0.02, abs=1e-5)


def with_bias(module: Module, name: str) -> str:
    """Where the result of a linear op is complete: behind the Add of its bias, if it has one."""
    result = next(op for op in module.graph.ops if op.name == name).result
    users = [op for op in result.users if op.kind == "Add"]
    return users[0].result.name if users else result.name


@pytest.mark.parametrize("rows", [(4, 5), (4, 1)])
def test_a_bias_that_differs_from_row_to_row_is_left_alone(rows):
    net = Layers(0)
    x = net.input("x", F32, 4, 12)
    h = net.relu(net.op("Gemm", [x, net.weight(12, 32), shifted(net, 32)]))
    module = net.done(net.op("Gemm", [h, net.weight(32, 5), net.const(net.draw(*rows), "c")]))
    pruned = Prune(ratio=0.5, multiple=1)(module, Context(data=data_of((4, 12)), runner=OrtRunner()))
    assert [s.why for s in pruned.history[-1].skipped] == ["cut, not fitted: its bias differs from row to row"]
    (last,) = [op for op in pruned.graph.ops if op.operand(2) is not None and op.operand(2).name == "c"]
    np.testing.assert_array_equal(last.operand(2).constant.array(), module.constants["c"].constant.array())


def test_a_computed_bias_is_left_alone():
    net = Layers(0)
    x, computed = net.input("x", F32, 4, 12), net.input("c", F32, 5)
    h = net.relu(net.op("Gemm", [x, net.weight(12, 32), shifted(net, 32)]))
    module = net.done(net.op("Gemm", [h, net.weight(32, 5), net.relu(computed)]))
    drawn = np.random.default_rng(0).standard_normal((25, 5)).astype(np.float32)
    data = Samples({**data_of((4, 12)).arrays, "c": drawn}, whole=True)
    report = Prune(ratio=0.5, multiple=1)(module, Context(data=data, runner=OrtRunner())).history[-1]
    assert [(s.code, s.why) for s in report.skipped] == [
        (SkipCode.NOT_CONSTANT, "cut, not fitted: its bias is computed"),
    ]  # fmt: skip


def normed(shared: bool, dead: bool) -> Module:
    """Two convolutions with batch norms. `shared`: another norm reads the variance; `dead`: a filter yields zero."""
    net = Layers(6)
    x = net.input("x", F32, 2, 3, 8, 8)
    h = net.relu(net.conv(x, 3, 32))
    weight = net.draw(8, 32, 3, 3)
    weight[0] = 0 if dead else weight[0]
    attrs = {"kernel_shape": Ints((3, 3)), "pads": Ints((1, 1, 1, 1))}
    y = net.op("Conv", [h, net.const(weight, "w")], attrs=attrs)
    variance, zeros = net.const(np.linspace(0.5, 2, 8).astype(np.float32), "var"), np.zeros(8, np.float32)
    norm = [net.const(zeros + 1, "scale"), net.const(zeros, "shift"), net.const(zeros, "mean"), variance]
    y = net.op("BatchNormalization", [y, *norm])
    return net.done(net.op("BatchNormalization", [net.relu(y), *norm]) if shared else net.relu(y))


@pytest.mark.parametrize("shared", [False, True])
def test_a_variance_that_another_norm_reads_stays(shared):
    module = normed(shared, dead=False)
    pruned = Prune(ratio=0.5, multiple=1)(module, Context(data=data_of((2, 3, 8, 8)), runner=OrtRunner()))
    before, after = (m.constants["var"].constant.array() for m in (module, pruned))
    assert len(before) == len(after)
    assert (after == before).all() if shared else (after < before).all()


def test_a_result_that_never_varies_keeps_its_variance():
    module = normed(shared=False, dead=True)
    pruned = Prune(ratio=0.5, multiple=1)(module, Context(data=data_of((2, 3, 8, 8)), runner=OrtRunner()))
    assert pruned.constants["var"].constant.array()[0] == module.constants["var"].constant.array()[0]
