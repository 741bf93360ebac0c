"""Learned rounding: up or down only, settled at the end, better than to nearest, and the activation counts."""

from __future__ import annotations

import numpy as np
import pytest

from mlc.ir.quant import QSpec
from mlc.passes.quantize.refine import adaround as module
from mlc.passes.quantize.refine.adaround import Rows, Training, adaround
from mlc.passes.quantize.refine.gptq import Settings, expanded, importance_of, searched

SPECS = {
    "4 bits": QSpec(4, True, True),
    "3 bits in blocks": QSpec(3, False, False, None, 16),
    "8 bits": QSpec(8, True, True),
}


def problem(seed=0, shape=(1, 16, 48), low=-np.inf, high=np.inf):
    """(weights, rows to learn from, other rows of the same kind)."""
    rng = np.random.default_rng(seed)
    groups, outputs, depth = shape
    weights = (rng.standard_normal(shape) / np.sqrt(depth)).astype(np.float32)
    mix = rng.standard_normal((groups, depth, depth)) * np.exp(-np.arange(depth) / 12)[:, None]
    x = (rng.standard_normal((groups, 1200, depth)) @ mix).astype(np.float32)
    bias = rng.standard_normal((groups, outputs)).astype(np.float32)
    t = x @ np.swapaxes(weights, 1, 2)
    return weights, *(Rows(x[:, part], t[:, part], bias, low, high) for part in (slice(800), slice(800, None)))


def grids(weights, rows, spec):
    moments = np.swapaxes(rows.x, 1, 2) @ rows.x / rows.x.shape[1]
    found = searched(weights, importance_of(moments), Settings(spec))
    return tuple(expanded(p, spec.block, weights.shape[2]) for p in found)


def nearest(weights, spec, found):
    scale, zero = found
    return (np.clip(np.rint(weights / scale) + zero, spec.qmin, spec.qmax) - zero) * scale


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("shape", [(1, 16, 48), (6, 1, 9)])
def test_weights_go_up_or_down_only(name: str, shape: tuple[int, int, int]) -> None:
    spec = SPECS[name]
    weights, rows, _ = problem(shape=shape)
    found = grids(weights, rows, spec)
    made = adaround(weights, rows, spec, found, Training(100), np.random.default_rng(0))
    scale, zero = (np.broadcast_to(p, weights.shape) for p in found)
    reachable = (weights / scale > spec.qmin - zero) & (weights / scale < spec.qmax - zero)
    assert np.all(np.abs(made.matrix - weights)[reachable] < scale[reachable] * (1 + 1e-5))
    assert np.all(made.codes == np.rint(made.codes))
    assert made.codes.min() >= spec.qmin
    assert made.codes.max() <= spec.qmax


@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0)])
@pytest.mark.parametrize("name", SPECS)
def test_the_error_is_clearly_less_than_to_nearest(name: str, limits: tuple[float, float]) -> None:
    spec = SPECS[name]
    weights, rows, others = problem(low=limits[0], high=limits[1])
    found = grids(weights, rows, spec)
    made = adaround(weights, rows, spec, found, Training(), np.random.default_rng(0))
    plain = nearest(weights, spec, found)
    assert rows.error(made.matrix) < 0.5 * rows.error(plain)
    assert others.error(made.matrix) < 0.6 * others.error(plain)


def test_the_choice_settles() -> None:
    """More than 99.9 % of the h are 0 or 1 at the end."""
    weights, rows, _ = problem()
    spec = SPECS["4 bits"]
    settled: list[float] = []
    original = module._push

    def watched(h, beta):
        settled.append(float(np.mean((h <= 0.01) | (h >= 0.99))))
        return original(h, beta)

    module._push = watched
    try:
        adaround(weights, rows, spec, grids(weights, rows, spec), Training(), np.random.default_rng(0))
    finally:
        module._push = original
    assert settled[0] < 0.5
    assert settled[-1] > 0.999


def test_nothing_learned_is_to_nearest() -> None:
    weights, rows, _ = problem()
    spec = SPECS["4 bits"]
    found = grids(weights, rows, spec)
    made = adaround(weights, rows, spec, found, Training(0), np.random.default_rng(0))
    np.testing.assert_array_equal(made.matrix, nearest(weights, spec, found))


def test_worse_than_to_nearest_is_to_nearest() -> None:
    weights, rows, _ = problem()
    spec = SPECS["4 bits"]
    found = grids(weights, rows, spec)
    wild = Training(3, rate=1000.0)
    made = adaround(weights, rows, spec, found, wild, np.random.default_rng(0))
    np.testing.assert_array_equal(made.matrix, nearest(weights, spec, found))


def test_an_activation_that_hides_an_output_hides_its_errors() -> None:
    weights, rows, _ = problem()
    dead = Rows(rows.x, rows.t, np.full_like(rows.bias, -1e6), 0.0)
    assert dead.error(weights + 1) == 0
    assert Rows(rows.x, rows.t, rows.bias).error(weights + 1) > 0
    half = Rows(rows.x, rows.t, np.zeros_like(rows.bias), 0.0)
    assert 0 < half.error(weights * 0.9) < 2 * Rows(rows.x, rows.t, rows.bias).error(weights * 0.9)


@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (0.0, np.inf), (0.0, 1.0)])
def test_slopes_are_derivatives(limits: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    made, wanted = rng.standard_normal((2, 1, 40, 3))
    rows = Rows(made, wanted, rng.standard_normal((1, 3)), *limits)
    step = 1e-6
    ahead, behind = (np.square(rows.residual(made + s, wanted)) / 2 for s in (step, -step))
    np.testing.assert_allclose(rows.slope(made, wanted), (ahead - behind) / (2 * step), atol=1e-5)
    assert limits[0] == -np.inf or not rows.slope(made, wanted).all()


def test_the_same_seed_gives_the_same_codes() -> None:
    weights, rows, _ = problem()
    spec = SPECS["4 bits"]
    made = [
        adaround(weights, rows, spec, grids(weights, rows, spec), Training(50), np.random.default_rng(1)).codes
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*made)
