"""Half-quadratic quantization: laws of the loop."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.ir.constants import Constant
from mlc.ir.dtypes import DType
from mlc.ir.quant import QSpec, min_max, settle_scale
from mlc.ir.quant_blocks import quantize_constant
from mlc.passes.quantize import hqq as hqq_module
from mlc.passes.quantize.hqq import NORM, hqq, lp_error, step

F16, F32 = DType.F16, DType.F32
SPECS = [QSpec(4, False, False, 0, 64), QSpec(4, True, True, 0, 64), QSpec(2, False, False, 0, 64)]


def blocks(seed: int, columns: int = 200) -> np.ndarray:
    """Weights with heavy tails: what the norm is for."""
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, (64, columns)) * np.float32(10.0 ** (seed % 5 - 3))).astype(np.float32)


def errors(x: np.ndarray, spec: QSpec, scale_type: DType = F16) -> tuple[np.ndarray, np.ndarray]:
    """l_p errors of min-max and of the loop."""
    scale, zero = min_max(x, spec, scale_type=scale_type)
    found, zeros, _ = hqq(x, spec, scale_type)
    return lp_error(x, scale, zero, spec, scale), lp_error(x, found, zeros, spec, scale)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("scale_type", [F16, F32])
def test_better_than_min_max_in_its_norm(spec: QSpec, scale_type: DType) -> None:
    plain, best = errors(blocks(0), spec, scale_type)
    assert (best <= plain).all()
    assert best.sum() < 0.97 * plain.sum()  # a loop that finds nothing is broken


@pytest.mark.parametrize("spec", SPECS)
def test_the_error_falls_until_it_stops(spec: QSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    x, path = blocks(1), []
    for iterations in range(8):
        monkeypatch.setattr(hqq_module, "ITERATIONS", iterations)
        path.append(hqq(x, spec, F32)[2])
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(path))
    assert (path[-1] < path[0]).mean() > 0.5


def test_the_error_that_is_told_is_that_of_the_grid() -> None:
    x, spec = blocks(2), SPECS[0]
    scale, zero, told = hqq(x, spec, F16)
    unit, _ = min_max(x, spec, scale_type=F16)
    codes = np.clip(np.rint(x / scale) + zero, 0, 15)
    assert np.allclose(((np.abs(x - (codes - zero) * scale) / unit) ** NORM).sum(0), told, rtol=1e-3)


def test_shrinking_leaves_small_errors_to_the_fit() -> None:
    """With beta so small that nothing is split off, a round is the plain least-squares scale."""
    x, spec = blocks(3), SPECS[1]
    scale, zero = min_max(x, spec, scale_type=F32)
    codes = np.clip(np.rint(x / scale), -8, 7)
    fitted, _ = step(x, scale, zero, spec, F32, beta=1e-9)
    assert np.allclose(fitted, (x * codes).sum(0) / (codes * codes).sum(0), rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(SPECS), st.sampled_from([1e-4, 1.0, 300.0]))
def test_scales_with_the_weights(seed: int, spec: QSpec, factor: float) -> None:
    x = blocks(seed % 7 * 5, 16)  # exponents near 0, whatever the seed
    power = np.float32(2.0 ** np.round(np.log2(factor)))
    scale, zero, told = hqq(x, spec, F32)
    scaled, zeros, same = hqq(x * power, spec, F32)
    assert np.array_equal(scaled, scale * power)
    assert np.array_equal(zeros, zero)
    assert np.array_equal(told, same)


def test_zeros_and_flat_blocks_stay_finite() -> None:
    x = blocks(0, 4)
    x[:, 0] = 0
    x[:, 1] = 3
    x[1:, 2] = 0
    for spec in SPECS:
        scale, zero, told = hqq(x, spec, F16)
        assert np.isfinite(told).all()
        assert (scale > 0).all()
        assert np.array_equal(scale, settle_scale(scale, F16))
        assert ((zero >= spec.qmin) & (zero <= spec.qmax)).all()
        assert told[0] == 0


def test_zero_points_stay_codes() -> None:
    """A grid that lies wholly beside the weights pulls its zero point toward them, no further than the last code."""
    x = np.full((64, 3), -9, np.float32)
    _, zero = step(x, np.full(3, 0.1, np.float32), np.zeros(3, np.float32), SPECS[0], F32, beta=1e-9)
    assert (zero == 15).all()


def test_takes_seconds() -> None:
    """22 M weights in about three seconds; here a tenth of them, with much to spare."""
    start = time.process_time()
    x = np.random.default_rng(0).normal(size=(1024, 2048)).astype(np.float32)
    made = quantize_constant(Constant.of(x), QSpec(4, False, False, 0, 64), search=hqq)
    assert time.process_time() - start < 5
    assert made.relative_error < 0.02
