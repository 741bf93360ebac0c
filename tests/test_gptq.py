"""Laws of second-order rounding: codes are those of the published form, or to nearest where inputs do not mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.ir.dtypes import DType
from mlc.ir.quant import QSpec
from mlc.passes.quantize.refine import gptq as module
from mlc.passes.quantize.refine.gptq import Settings, expanded, gptq, hessian_error, importance_of, searched
from mlc.passes.quantize.refine.grids import best_grids

FORMS = {
    "blocks": QSpec(4, False, False, None, 32),
    "symmetric blocks": QSpec(4, True, True, None, 16),
    "outputs": QSpec(4, False, False),
    "3 bits": QSpec(3, False, False, None, 64),
    "8 bits": QSpec(8, True, True),
}
SHAPES = {"one": (1, 24, 200), "depthwise": (12, 1, 9), "groups": (3, 10, 70)}


def layer(rng, shape, dtype=np.float64):
    """(weights, second moments of correlated inputs)."""
    groups, _, depth = shape
    weights = rng.standard_normal(shape)
    inputs = rng.standard_normal((groups, 3 * depth, depth)) @ rng.standard_normal((groups, depth, depth))
    moments = np.swapaxes(inputs, 1, 2) @ inputs / inputs.shape[1]
    return weights.astype(dtype), moments.astype(np.float64)


def to_nearest(weights, scale, zero, spec):
    return np.clip(np.rint(weights / scale) + zero, spec.qmin, spec.qmax)


def published(weights, moments, scale, zero, spec, damping=0.01):
    """Frantar et al., column by column, by the inverse."""
    codes = np.empty_like(weights)
    scale, zero = (np.broadcast_to(p, weights.shape) for p in (scale, zero))
    for g, matrix in enumerate(weights):
        h = moments[g] + damping * np.trace(moments[g]) / len(moments[g]) * np.eye(len(moments[g]))
        upper = np.linalg.cholesky(np.linalg.inv(h)).T
        left = matrix.copy()
        for j in range(left.shape[1]):
            codes[g, :, j] = to_nearest(left[:, j], scale[g, :, j], zero[g, :, j], spec)
            error = (left[:, j] - (codes[g, :, j] - zero[g, :, j]) * scale[g, :, j]) / upper[j, j]
            left[:, j:] -= np.outer(error, upper[j, j:])
    return codes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_codes_are_those_of_the_published_form(form: str, shape: str) -> None:
    spec = FORMS[form]
    weights, moments = layer(np.random.default_rng(0), SHAPES[shape])
    found = gptq(weights, moments, Settings(spec, block=64))
    grids = (expanded(p, found.block, weights.shape[2]) for p in (found.scale, found.zero))
    np.testing.assert_array_equal(found.codes, published(weights, moments, *grids, spec))


def test_grids_of_a_block_come_from_the_weights_as_they_are_when_it_comes_up() -> None:
    spec = FORMS["blocks"]
    weights, moments = layer(np.random.default_rng(1), (1, 6, 96))
    found = gptq(weights, moments, Settings(spec))
    at = 64
    h = moments[0] + 0.01 * np.trace(moments[0]) / 96 * np.eye(96)
    done = found.matrix[0, :, :at] - weights[0, :, :at]
    # the inputs to come, chosen by least squares for what was done to the ones before
    now = weights[0, :, at:] - done @ h[:at, at:] @ np.linalg.inv(h[at:, at:])
    scale, zero = best_grids(now.T[None], importance_of(moments)[:, at:], spec)
    np.testing.assert_allclose(found.scale[:, :, 2], scale, rtol=1e-6)
    np.testing.assert_array_equal(found.zero[:, :, 2], zero)


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("form", ["blocks", "symmetric blocks", "outputs", "3 bits"])
def test_the_error_is_less_than_to_nearest(form: str, order: bool) -> None:
    spec, rng = FORMS[form], np.random.default_rng(2)
    ratios = []
    for _ in range(50):
        weights, moments = layer(rng, (1, 8, 64))
        block = spec.block
        scale, zero = (expanded(p, block, 64) for p in searched(weights, importance_of(moments), Settings(spec)))
        nearest = (to_nearest(weights, scale, zero, spec) - zero) * scale
        found = gptq(weights, moments, Settings(spec, order=order))
        ratios.append(hessian_error(found.matrix - weights, moments) / hessian_error(nearest - weights, moments))
    assert np.mean(ratios) < 0.8
    assert np.mean(np.array(ratios) <= 1) > 0.9


@pytest.mark.parametrize("form", FORMS)
def test_inputs_that_do_not_mix_are_rounded_to_nearest(form: str) -> None:
    spec = FORMS[form]
    weights, _ = layer(np.random.default_rng(3), (2, 10, 70), np.float32)
    moments = np.broadcast_to(3.0 * np.eye(70), (2, 70, 70))
    settings = Settings(spec)
    scale, zero = (expanded(p, spec.block, 70) for p in searched(weights, importance_of(moments), settings))
    np.testing.assert_array_equal(gptq(weights, moments, settings).codes, to_nearest(weights, scale, zero, spec))


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_blocks_change_nothing(form: str, order: bool) -> None:
    weights, moments = layer(np.random.default_rng(4), (1, 12, 200))
    whole, *others = (gptq(weights, moments, Settings(FORMS[form], block=n, order=order)) for n in (1000, 128, 32, 1))
    for other in others:
        np.testing.assert_allclose(other.matrix, whole.matrix, atol=1e-4)


def test_outputs_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, moments = layer(np.random.default_rng(5), (1, 12, 64))
    for form in FORMS.values():
        whole = gptq(weights, moments, Settings(form))
        with monkeypatch.context() as patch:
            patch.setattr(module, "_PIECE", 5 * 64)
            pieces = gptq(weights, moments, Settings(form))
        np.testing.assert_array_equal(pieces.matrix, whole.matrix)


def test_eight_bits_are_about_to_nearest() -> None:
    weights, moments = layer(np.random.default_rng(6), (1, 32, 64), np.float32)
    found = gptq(weights, moments, Settings(FORMS["8 bits"]))
    assert np.abs(found.matrix - weights).max() < 6 * found.scale.max()
    assert hessian_error(found.matrix - weights, moments) < 1e-3 * hessian_error(weights, moments)


def test_grids_that_are_given_are_kept() -> None:
    weights, moments = layer(np.random.default_rng(7), (2, 5, 40))
    scale = np.random.default_rng(0).uniform(0.1, 0.3, (2, 5, 40))
    zero = np.full_like(scale, 7)
    spec = QSpec(4, False, False)
    for order in (False, True):
        found = gptq(weights, moments, Settings(spec, order=order), (scale, zero))
        np.testing.assert_array_equal(found.scale, scale)
        if not order:
            np.testing.assert_array_equal(found.codes, published(weights, moments, scale, zero, spec))


def test_inputs_that_are_always_zero_are_rounded_to_nearest() -> None:
    weights, moments = layer(np.random.default_rng(8), (1, 6, 40))
    dead = [3, 17]
    moments[:, dead] = moments[:, :, dead] = 0
    settings = Settings(QSpec(8, True, True))
    found = gptq(weights, moments, settings)
    np.testing.assert_array_equal(
        found.codes[:, :, dead], to_nearest(weights, found.scale, 0, settings.spec)[:, :, dead]
    )
    nothing = gptq(weights, np.zeros_like(moments), settings)
    np.testing.assert_array_equal(nothing.codes, to_nearest(weights, nothing.scale, 0, settings.spec))


def test_float32_falls_back_to_float64_where_moments_are_nearly_singular() -> None:
    rng = np.random.default_rng(9)
    one = rng.standard_normal((2000, 1)) @ np.full((1, 128), 1000.0) + rng.standard_normal((2000, 128)) * 1e-3
    moments = (one.T @ one / 2000)[None]
    found = gptq(
        rng.standard_normal((1, 4, 128)).astype(np.float32), moments, Settings(QSpec(4, True, True), damping=1e-9)
    )
    assert np.isfinite(found.matrix).all()


def test_what_is_not_finite_is_refused() -> None:
    weights, moments = layer(np.random.default_rng(10), (1, 4, 8))
    with pytest.raises(ValueError, match="finite"):
        gptq(np.where(weights > 1, np.nan, weights), moments, Settings(QSpec(4, True, True)))
    with pytest.raises(ValueError, match="finite"):
        gptq(weights, moments + np.inf, Settings(QSpec(4, True, True)))


def test_arguments_are_left_alone() -> None:
    weights, moments = layer(np.random.default_rng(11), (4, 1, 9))
    kept = weights.copy(), moments.copy()
    gptq(weights, moments, Settings(QSpec(8, True, True)))
    np.testing.assert_array_equal(weights, kept[0])
    np.testing.assert_array_equal(moments, kept[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(FORMS.values())), st.sampled_from([DType.F32, DType.F16]))
def test_grids_are_never_worse_than_the_range(seed: int, spec: QSpec, scale_type: DType) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_t(3, (2, 32, 7)).astype(np.float32) * rng.uniform(0.01, 10)
    importance = rng.uniform(0, 5, (2, 32)).astype(np.float32)

    def error(clips):
        scale, zero = best_grids(weights, importance, spec, scale_type, clips)
        np.testing.assert_array_equal(scale, scale.astype(scale_type.numpy).astype(np.float32))
        codes = to_nearest(weights, scale[:, None], zero[:, None], spec)
        return (importance[:, :, None] * ((codes - zero[:, None]) * scale[:, None] - weights) ** 2).sum(axis=1)

    assert np.all(error((1.0, 0.8, 0.6)) <= error((1.0,)) * (1 + 1e-4))
