"""Laws of the published methods that hold across steps: what they promise for outputs, on data they did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kit.layers import F32, Layers
from kit.samples import Samples

from mlc.backends.onnx import to_proto
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module
from mlc.ir.quant import QSpec, min_max
from mlc.ir.rewrite import Rewriter
from mlc.passes.base import Context, Skipped
from mlc.passes.quantize import smooth_search
from mlc.passes.quantize.refine import bias as bias_module
from mlc.passes.quantize.refine.adaround import Rows, Training, adaround
from mlc.passes.quantize.refine.awq import ALPHAS, RoundedReader, magnitudes, scales
from mlc.passes.quantize.refine.bias import correct_biases
from mlc.passes.quantize.refine.gptq import Settings, gptq, hessian_error
from mlc.passes.quantize.refine.refine import refine
from mlc.passes.quantize.refine.solvers import GptqSolver, Outcome
from mlc.passes.quantize.scaling import axes_of, scaling_sites
from mlc.passes.quantize.smooth import Smooth
from mlc.passes.quantize.smooth_samples import watch
from mlc.passes.quantize.weight_only import Weights

Array = np.ndarray[Any, Any]


def correlated(rng: np.random.Generator, count: int, depth: int) -> Array:
    """Rows as trained layers see them: few directions carry most, and the mean is not zero."""
    mix = rng.standard_normal((depth, depth)) * np.exp(-np.arange(depth) / 12)[:, None]
    return (rng.standard_normal((count, depth)) @ mix + rng.standard_normal(depth)).astype(np.float32)


# -- GPTQ (Frantar et al., 2023) ---------------------------------------------------------------------------------------


def test_in_eight_bits_second_order_rounding_is_about_to_nearest() -> None:
    """On the same grid: hardly a code moves by more than a few steps, and the outputs are no worse."""
    rng, spec, ratios = np.random.default_rng(0), QSpec(8, True, True), []
    for _ in range(10):
        weights = rng.standard_normal((1, 16, 64)).astype(np.float32)
        x = correlated(rng, 500, 64)
        moments = (x.T @ x / len(x))[None].astype(np.float64)
        scale = min_max(weights[0].T, spec)[0][None, :, None]
        grids = scale, np.zeros_like(scale)
        found = gptq(weights, moments, Settings(spec), grids)
        nearest = np.clip(np.rint(weights / scale), spec.qmin, spec.qmax)
        assert np.mean(np.abs(found.codes.astype(np.int32) - nearest) <= 2) > 0.95
        off = [hessian_error(codes * scale - weights, moments) for codes in (found.codes, nearest)]
        assert off[1] < 1e-3 * hessian_error(weights, moments)
        ratios.append(off[0] / off[1])
    assert np.mean(ratios) < 1
    assert max(ratios) < 1.1


def test_codes_that_would_be_worse_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a method finds: what is stored never has more error than before."""
    module, rounded, ctx = layer()
    plain = GptqSolver.solve

    def worse(self: GptqSolver, progress: object = None) -> Outcome:
        found = plain(self)
        codes = np.zeros_like(found.rounded.codes)
        return replace(found, rounded=replace(found.rounded, codes=codes), after=2 * found.before)

    before = to_proto(rounded).SerializeToString(deterministic=True)
    monkeypatch.setattr(GptqSolver, "solve", worse)
    (told,) = refine(Rewriter(rounded), module, ctx)
    assert isinstance(told, Skipped)
    assert told.why.startswith("gptq leaves error")
    assert to_proto(rounded).SerializeToString(deterministic=True) == before


# -- AdaRound (Nagel et al., 2020) -------------------------------------------------------------------------------------


def test_learned_rounding_starts_from_the_weights_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """h begins at the fraction of W / s: the first product of the training is that of the floats."""
    rng, spec = np.random.default_rng(1), QSpec(4, True, True)
    weights = rng.standard_normal((1, 8, 32)).astype(np.float32)
    x = correlated(rng, 64, 32)[None]
    rows = Rows(x, x @ np.swapaxes(weights, 1, 2), np.zeros((1, 8), np.float32))
    seen: list[float] = []
    plain = Rows.residual

    def watched(self: Rows, made: Array, wanted: Array) -> tuple[Array, Array]:
        seen.append(float(np.square(made - wanted).sum() / np.square(wanted).sum()))
        return plain(self, made, wanted)

    monkeypatch.setattr(Rows, "residual", watched)
    scale = np.abs(weights).max(axis=2, keepdims=True) / 7
    adaround(weights, rows, spec, (scale, np.zeros_like(scale)), Training(1), np.random.default_rng(0))
    assert seen[0] < 1e-6 < 1e-3 < seen[-1]


def test_learned_rounding_keeps_a_point_of_accuracy_more() -> None:
    """A classifier whose weights have 3 bits, on samples that it was not calibrated on."""
    rng, spec = np.random.default_rng(2), QSpec(3, True, True)
    x = correlated(rng, 4000, 48)
    middle, spread = x.mean(axis=0), x.std(axis=0)
    x = (x - middle) / spread
    weights = rng.standard_normal((1, 10, 48)).astype(np.float32)
    logits = x @ weights[0].T
    rows = Rows(x[None, :800], logits[None, :800], np.zeros((1, 10), np.float32))
    scale = np.abs(weights).max(axis=2, keepdims=True) / 3
    grids = scale, np.zeros_like(scale)
    learned = adaround(weights, rows, spec, grids, Training(), np.random.default_rng(0)).matrix
    nearest = np.clip(np.rint(weights / scale), spec.qmin, spec.qmax) * scale
    classes = logits[800:].argmax(axis=1)
    kept = [float(np.mean((x[800:] @ m[0].T).argmax(axis=1) == classes)) for m in (learned, nearest)]
    assert kept[0] > kept[1] + 0.01


# -- AWQ (Lin et al., 2024) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_best_scaling_is_never_worse_than_none(seed: int) -> None:
    """alpha 0, which changes nothing, is among the candidates; on outlying inputs others win."""
    rng = np.random.default_rng(seed)
    net = Layers(seed)
    x = net.input("x", F32, "N", 64)
    module = net.done(net.op("MatMul", [x, net.weight(64, 32)]))
    rows = rng.standard_normal((200, 64)).astype(np.float32)
    rows[:, rng.permutation(64)[: 3 * seed]] *= 25
    (site,) = scaling_sites(axes_of(module))
    ((_, seen),) = watch(module, [site], Context(data=Samples({"x": rows}), runner=OrtRunner()))
    reader = RoundedReader.of(site, seen, site.readers[0], QSpec(4, False, False, 0, 32), F32)
    sizes = magnitudes(site, seen)
    errors = {alpha: reader.error(scales(sizes, alpha)) for alpha in ALPHAS}
    assert ALPHAS[0] == 0
    assert min(errors.values()) <= errors[0.0] == reader.error(np.ones(64))
    if seed:
        assert min(errors.values()) < 0.5 * errors[0.0]


# -- bias correction (Nagel et al., 2019) ------------------------------------------------------------------------------


def layer(bits: int = 3) -> tuple[Module, Module, Context]:
    """A product with a bias, the same in few bits, and samples with a mean."""
    net = Layers()
    x = net.input("x", F32, "N", 48)
    module = net.done(net.linear(x, 48, 24))
    data = Samples({"x": correlated(np.random.default_rng(3), 400, 48)})
    rounded = Weights(bits=bits, stored=bits, method="rtn", accuracy_level=0)(module)
    return module, rounded, Context(data=data, runner=OrtRunner(), source=module)


def results(module: Module, ctx: Context) -> Array:
    assert ctx.data is not None
    executable = OrtRunner().prepare(module)
    return np.concatenate([next(iter(executable.run(dict(b.inputs)).values())) for b in ctx.data.batches(100)])


def test_no_channel_keeps_a_mean_error() -> None:
    """Less than a thousandth of its deviation, where there was more than noise."""
    module, rounded, ctx = layer()
    wanted, before = results(module, ctx), results(rounded, ctx)
    correct_biases(Rewriter(rounded), module, ctx)
    left = [np.abs((y - wanted).mean(axis=0)) / wanted.std(axis=0) for y in (before, results(rounded, ctx))]
    above = left[0] > 0.02
    assert above.sum() > 10
    assert left[1][above].max() < 1e-3
    assert np.all(left[1] <= left[0] + 1e-6)


def test_a_mean_within_its_standard_error_is_left_alone() -> None:
    """Whatever it is, other samples need not confirm it; ten standard errors they do."""
    rng = np.random.default_rng(4)
    sure = {True: 0, False: 0}
    for _ in range(200):
        errors = bias_module._Errors()
        for mean in 0.1 * rng.standard_normal(16):
            y = rng.standard_normal((50, 2))
            errors.update(y + mean + np.array([0.0, 0.25]), y)
        for real, corrected in zip((False, True), errors.correction() != 0):
            sure[real] += int(corrected)
    assert sure[True] == 200
    assert sure[False] < 0.3 * 200  # a mean above sqrt(2) standard errors is seen by chance in 16 %


# -- SmoothQuant (Xiao et al., 2023) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
def test_weights_of_all_readers_decide(first: int) -> None:
    """max|W_j| is that of every operator that shares the input, in whichever order they come."""
    rng = np.random.default_rng(5)
    rows = (rng.standard_normal((64, 6)) * [1, 30, 1, 2, 0.1, 1]).astype(np.float32)
    sizes = [1.0, 1, 1, 1, 1, 9], [5, 0.1, 1, 1, 20, 1]
    matrices = [rng.standard_normal((6, 4)) * np.array(size)[:, None] for size in sizes]
    net = Layers()
    x = net.input("x", F32, "N", 6)
    read = [net.op("MatMul", [x, net.const(matrices[i].astype(np.float32), f"w{i}")]) for i in (first, 1 - first)]
    ctx = Context(data=Samples({"x": rows}), runner=OrtRunner())
    (site,) = Smooth(alpha=0.3, mul="always").plan(net.done(*read), ctx).sites
    wanted = np.abs(rows).max(0) ** 0.3 / np.maximum(*(np.abs(m).max(1) for m in matrices)) ** 0.7
    np.testing.assert_allclose(site.numbers, wanted / np.exp(np.log(wanted).mean()), rtol=1e-5)


def test_one_massive_token_does_not_decide() -> None:
    """Errors are relative token by token: were one a million times as large, that would take away its own part only."""
    rng = np.random.default_rng(6)
    net = Layers()
    x = net.input("x", F32, "N", 32)
    module = net.done(net.op("MatMul", [x, net.weight(32, 16)]))
    (site,) = scaling_sites(axes_of(module))
    rows = {"x": rng.standard_normal((100, 32)).astype(np.float32)}
    ((_, seen),) = watch(module, [site], Context(data=Samples(rows), runner=OrtRunner()))
    reader = smooth_search._RoundedReader.of(site, seen, site.readers[0], 8)
    plain = reader.error(np.ones(32))
    energy = reader.energy.copy()
    energy[0] *= 1e6
    assert 0.9 * plain < replace(reader, energy=energy).error(np.ones(32)) < plain
