"""AWQ: the function stays, alpha 0 is rounding to nearest, outlying inputs get finer weights, clips never hurt."""

from __future__ import annotations

import numpy as np
import pytest
from kit.layers import Layers
from kit.permute import relative, run
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.quant import QSpec
from mlc.ir.rewrite import Rewriter
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope, Skipped
from mlc.passes.quantize.refine import awq as module
from mlc.passes.quantize.refine.awq import RoundedReader, awq, magnitudes, scales, to_nearest
from mlc.passes.quantize.refine.clip import clipped
from mlc.passes.quantize.refine.gptq import Settings, hessian_error
from mlc.passes.quantize.scaling import axes_of, scaling_sites
from mlc.passes.quantize.smooth_samples import watch
from mlc.passes.quantize.weight_only import Weights

F32 = DType.F32
SPEC = QSpec(4, False, False, 0, 32)


def inputs(count=256, seed=5, folds=False):
    """Two channels that the product reads are 30 times as large as the others."""
    x = np.random.default_rng(seed).standard_normal((count, 64)).astype(np.float32)
    x[:, [3, 40]] *= 1 if folds else 30
    return {"x": x}


def context(seed=0, folds=False) -> Context:
    return Context(data=Samples(inputs(300, seed, folds)), runner=OrtRunner())


def net(folds: bool) -> Module:
    """A product behind a layer, which takes a division up, or behind the input, where only a Mul can."""
    made = Layers()
    x = made.input("x", F32, "N", 64)
    if folds:
        first = made.draw(64, 64) * np.where(np.isin(np.arange(64), [3, 40]), 30, 1)
        x = made.relu(made.op("MatMul", [x, made.const(first.astype(np.float32), "first")]))
    return made.done(made.op("MatMul", [x, made.weight(64, 48)]))


def specs(of: Module) -> dict[str, QSpec]:
    return {n: SPEC for n, v in of.constants.items() if v.constant.type.rank == 2 and n != "first"}


@pytest.mark.parametrize("folds", [True, False])
def test_the_function_stays_and_rounding_hurts_less(folds: bool) -> None:
    original = net(folds)
    scaled = original.clone()
    (told,) = awq(Rewriter(scaled), specs(original), context(folds=folds))
    assert told.after.startswith("error")
    assert told.after.endswith("folded" if folds else "by a Mul")
    verify(scaled)
    assert ("Mul" in [op.kind for op in scaled.walk()]) is not folds
    last = [op for op in original.graph.ops if op.kind == "MatMul"][-1]
    only = Context(scope=Scope(on=frozenset({last.name})))
    feeds = inputs(folds=folds)
    wanted = run(original, feeds)
    assert relative(wanted, run(scaled, feeds)) < 1e-5
    plain, better = (relative(wanted, run(Weights(bits=4, method="rtn")(m, only), feeds)) for m in (original, scaled))
    assert better < 0.7 * plain


def test_alpha_zero_is_rounding_to_nearest() -> None:
    original = net(False)
    (site,) = scaling_sites(axes_of(original))
    ((_, seen),) = watch(original, [site], context())
    numbers = scales(magnitudes(site, seen), 0.0)
    np.testing.assert_array_equal(numbers, np.ones(64))
    reader = RoundedReader.of(site, seen, site.readers[0], SPEC, F32)
    quantized = Weights(bits=4, method="rtn", scale="f32")(original)
    codes, scale, zero = (
        next(v.constant.array() for n, v in quantized.constants.items() if n.endswith(end))
        for end in ("_quantized", "_scale", "_zero_point")
    )
    wide = (codes.astype(np.float32) - np.repeat(zero.astype(np.float32), 32, 0)) * np.repeat(scale, 32, 0)
    np.testing.assert_allclose(to_nearest(reader.matrix, reader.settings)[0], wide.T, rtol=1e-6, atol=1e-7)
    feeds = seen.sample(site.readers[0])[0]
    matrix = site.readers[0].weight.constant.array()
    expected = np.square(feeds @ (wide - matrix)).sum() / np.square(feeds @ matrix).sum()
    assert reader.error(numbers) == pytest.approx(expected, rel=1e-4)


def test_numbers_are_normalised_and_positive() -> None:
    sizes = np.array([0.0, 1e-3, 1.0, 50.0])
    for alpha in module.ALPHAS:
        found = scales(sizes, alpha)
        assert found[0] == 1
        assert np.all(found > 0)
        assert found[1:].max() * found[1:].min() == pytest.approx(1)
        assert np.all(np.diff(found[1:]) >= 0)
    np.testing.assert_array_equal(scales(np.zeros(3), 0.5), np.ones(3))


def test_what_does_not_pay_is_left_alone() -> None:
    made = Layers()
    x = made.input("x", F32, "N", 64)
    original = made.done(made.op("MatMul", [x, made.weight(64, 48)]))
    even = {"x": np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)}
    scaled = original.clone()
    (told,) = awq(Rewriter(scaled), specs(original), Context(data=Samples(even), runner=OrtRunner()))
    assert isinstance(told, Skipped)
    assert told.why.startswith("no Mul is worth it")
    assert [op.kind for op in scaled.walk()] == [op.kind for op in original.walk()]


def test_only_what_is_rounded_is_scaled() -> None:
    original = net(True)
    assert awq(Rewriter(original.clone()), {}, context()) == []
    other = {n: QSpec(4, False, False, 1, 32) for n in specs(original)}  # blocks along the outputs
    assert awq(Rewriter(original.clone()), other, context()) == []


@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_clips_are_never_worse_than_the_range(symmetric: bool, block: int) -> None:
    rng = np.random.default_rng(0)
    settings = Settings(QSpec(3, symmetric, symmetric, None, block), clips=(1.0,))
    for _ in range(10):
        weights = rng.standard_t(3, (2, 6, 48)).astype(np.float32)
        x = rng.standard_normal((2, 200, 48)) @ rng.standard_normal((2, 48, 48))
        moments = np.swapaxes(x, 1, 2) @ x / 200
        found, plain = clipped(weights, moments, settings).matrix, to_nearest(weights, settings)
        step = block or 48
        for at in range(0, 48, step):
            part = slice(at, at + step)
            h = moments[:, part, part]
            better, worse = (hessian_error(m[:, :, part] - weights[:, :, part], h) for m in (found, plain))
            assert better <= worse * (1 + 1e-5)
    assert np.any(found != plain)
