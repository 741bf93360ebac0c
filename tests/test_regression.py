"""Least squares from streamed moments: equal to the direct solution, whatever the batches; laws of the ridge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.passes.regression import CrossMoments


def draw(seed, rows=400, depth=6, outputs=3, offset=0.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, rows, depth)) @ rng.standard_normal((depth, depth)) + offset
    t = x @ rng.standard_normal((depth, outputs)) + rng.standard_normal((1, rows, outputs)) + 2.0
    return x.astype(np.float32), t.astype(np.float32)


def collect(x, t, pieces=1):
    moments = CrossMoments()
    for a, b in zip(np.array_split(x, pieces, axis=1), np.array_split(t, pieces, axis=1)):
        moments.update(a, b)
    return moments


def objective(x, t, matrix, bias, start, penalty):
    x, t = x[0].astype(np.float64), t[0].astype(np.float64)
    damping = penalty * x.var(axis=0).mean()
    return ((t - x @ matrix.T - bias) ** 2).sum(axis=1).mean() + damping * ((matrix - start) ** 2).sum()


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_without_a_penalty_it_is_ordinary_least_squares(offset):
    x, t = draw(0, offset=offset)
    fit = collect(x, t, 7).solve(np.zeros((1, 3, 6)), 1e-9)
    wanted = np.linalg.lstsq(np.c_[x[0], np.ones(400)].astype(np.float64), t[0].astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(fit.matrix[0], wanted[:-1].T, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(x[0] @ fit.matrix[0].T + fit.bias, x[0] @ wanted[:-1] + wanted[-1], atol=5e-2)


@given(st.integers(0, 1000), st.sampled_from([1e-3, 1e-1, 10.0]), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_no_neighbour_is_better_and_batches_do_not_matter(seed, penalty, pieces):
    x, t = draw(seed)
    rng = np.random.default_rng(seed + 1)
    start = rng.standard_normal((1, 3, 6))
    fit = collect(x, t, pieces).solve(start, penalty)
    whole = collect(x, t).solve(start, penalty)
    best = objective(x, t, fit.matrix[0], fit.bias[0], start[0], penalty)
    assert best == pytest.approx(objective(x, t, whole.matrix[0], whole.bias[0], start[0], penalty), rel=1e-5)
    for _ in range(5):
        nudge, shift = rng.standard_normal((3, 6)) * 0.05, rng.standard_normal(3) * 0.05
        assert objective(x, t, fit.matrix[0] + nudge, fit.bias[0] + shift, start[0], penalty) >= best * (1 - 1e-5)


def test_errors_are_those_of_the_samples():
    x, t = draw(5)
    start, bias = np.full((1, 3, 6), 0.3), np.zeros((1, 3))
    fit = collect(x, t, 3).solve(start, 1e-2)
    total = t[0].astype(np.float64).var(axis=0).sum()
    for matrix, offset, error in ((start, bias, fit.before), (fit.matrix, fit.bias, fit.after)):
        wanted = ((t[0] - x[0] @ matrix[0].T - offset[0]) ** 2).mean(axis=0).sum() / total
        assert error == pytest.approx(wanted, rel=1e-4)
    assert fit.after < fit.before


def test_a_direction_without_data_stays_as_it_was():
    x, t = draw(6)
    x[:, :, 2] = 7.0
    start = np.random.default_rng(0).standard_normal((1, 3, 6))
    fit = collect(x, t).solve(start, 1e-2)
    np.testing.assert_allclose(fit.matrix[0, :, 2], start[0, :, 2], atol=1e-6)


def test_constant_data_only_moves_the_bias():
    x, t = np.full((1, 50, 4), 3.0, np.float32), np.full((1, 50, 2), 5.0, np.float32)
    start = np.ones((1, 2, 4))
    fit = collect(x, t).solve(start, 1e-2)
    np.testing.assert_array_equal(fit.matrix, start)
    np.testing.assert_allclose(fit.bias, 5.0 - 12.0)


def test_groups_are_independent():
    (xa, ta), (xb, tb) = draw(7), draw(8)
    both = collect(np.concatenate([xa, xb]), np.concatenate([ta, tb])).solve(np.zeros((2, 3, 6)), 1e-2)
    alone = collect(xb, tb).solve(np.zeros((1, 3, 6)), 1e-2)
    np.testing.assert_allclose(both.matrix[1], alone.matrix[0], rtol=1e-6)


def test_no_rows_change_nothing():
    x, t = draw(9)
    moments = collect(x[:, :0], t[:, :0])
    assert moments.count == 0
    for part in (slice(0), slice(0, 200), slice(0), slice(200, None)):
        moments.update(x[:, part], t[:, part])
    assert moments.count == 400
    np.testing.assert_allclose(moments.covariance[0], np.cov(x[0].T, bias=True), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_errors_are_never_negative(seed):
    """Targets that are met exactly: what is left is rounding."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((1, 100, 4)) * 100).astype(np.float32)
    weight = rng.standard_normal((3, 4))
    fit = collect(x, (x @ weight.T).astype(np.float32)).solve(weight[None], 1e-8)
    assert fit.before >= 0
    assert 0 <= fit.after < 1e-6
