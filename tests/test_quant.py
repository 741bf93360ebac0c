"""Grids, the integer reference and block quantization: laws that hold for every tensor."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlc.ir.constants import Constant, FilePayload, PackedPayload, pack
from mlc.ir.dtypes import DType
from mlc.ir.quant import QSpec, dequantize, grid, min_max, quantize, settle_scale
from mlc.ir.quant_blocks import Quantized, fitting_scale_type, largest, packed, quantize_constant, search, write_codes
from mlc.ir.types import TensorType

ASYMMETRIC, SYMMETRIC = QSpec(4, False, False, 0, 32), QSpec(4, True, True, 0, 32)


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def widened(made: Quantized, spec: QSpec) -> np.ndarray:
    zero = made.zero.array() if made.zero is not None else None
    return dequantize(made.codes.array(), made.scale.array().astype(np.float32), zero, spec)


specs = st.builds(
    lambda bits, symmetric, axis, block: QSpec(bits, symmetric, symmetric, axis, block),
    st.sampled_from([2, 3, 4, 6, 8]),
    st.booleans(),
    st.integers(-2, 1),
    st.sampled_from([0, 2, 16, 32]),
)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=70), elements=st.floats(-100, 100, width=32)
) | hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=3, max_dims=4, max_side=9), elements=st.floats(-100, 100, width=32)
)


@settings(max_examples=60, deadline=None)
@given(matrices, specs)
def test_streaming_equals_the_reference(x: np.ndarray, spec: QSpec) -> None:
    made = quantize_constant(Constant.of(x), spec)
    zero = made.zero.array() if made.zero is not None else None
    scale = made.scale.array().astype(np.float32)
    assert made.scale.shape == spec.scale_shape(x.shape)
    assert np.array_equal(made.codes.array().astype(int), quantize(x, scale, zero, spec).astype(int))
    assert made.error == pytest.approx(float(np.square(widened(made, spec) - x).sum()), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "axis"), [((1501, 701), 1), ((65, 20001), 0), ((3, 65, 7001), 1), ((1, 1 << 21), 1), ((300, 70, 9, 9), 1)]
)
@pytest.mark.parametrize("block", [32, 0])
def test_tensors_of_several_pieces(shape: tuple[int, ...], axis: int, block: int) -> None:
    x, spec = weights(0, *shape), QSpec(4, False, False, axis, block)
    made = quantize_constant(Constant.of(x), spec)
    assert made.zero is not None
    expected = quantize(x, made.scale.array().astype(np.float32), made.zero.array(), spec)
    assert np.array_equal(made.codes.array().view(np.uint8), expected.view(np.uint8))


@settings(max_examples=60, deadline=None)
@given(matrices, specs)
def test_codes_are_a_fixed_point(x: np.ndarray, spec: QSpec) -> None:
    made = quantize_constant(Constant.of(x), spec, scale_type=DType.F32)
    zero = made.zero.array() if made.zero is not None else None
    again = quantize(widened(made, spec), made.scale.array(), zero, spec)
    assert np.array_equal(again.astype(int), made.codes.array().astype(int))


@settings(max_examples=60, deadline=None)
@given(matrices, specs, st.integers(0, 99))
def test_zeros_stay_zero(x: np.ndarray, spec: QSpec, seed: int) -> None:
    holes = np.random.default_rng(seed).random(x.shape) < 0.5
    x = np.where(holes, np.float32(0), x)
    assert not widened(quantize_constant(Constant.of(x), spec), spec)[holes].any()


@pytest.mark.parametrize("spec", [ASYMMETRIC, SYMMETRIC])
@pytest.mark.parametrize("scale_type", [DType.F16, DType.F32])
def test_the_search_is_never_worse_than_min_max(spec: QSpec, scale_type: DType) -> None:
    gains = []
    for seed in range(20):
        x = weights(seed, 32, 64) * np.float32(10.0 ** (seed % 7 - 3))
        plain = search(x, spec, scale_type, clips=(1.0,))[2]
        best = search(x, spec, scale_type)[2]
        assert (best <= plain * (1 + 1e-6)).all()
        gains.append(best.sum() / plain.sum())
    assert np.mean(gains) < 0.97  # a grid that finds nothing is broken


def test_the_error_of_the_search_is_the_error_of_the_codes() -> None:
    x = weights(0, 32, 500)
    scale, zero, found = search(x, ASYMMETRIC, DType.F16)
    assert np.array_equal(scale, scale.astype(np.float16).astype(np.float32))
    codes = np.clip(np.rint(x / scale) + zero, 0, 15)
    assert np.allclose(np.square((codes - zero) * scale - x).sum(0), found, rtol=1e-4)


def test_min_max_covers_the_range() -> None:
    x = np.array([[-1.0, 0.5, 3.0, 0.0], [2.0, 1.0, 5.0, 0.0]], np.float32)
    scale, zero = min_max(x, ASYMMETRIC)
    assert np.allclose(scale, [3 / 15, 1 / 15, 5 / 15, 1])
    assert np.array_equal(zero, [5, 0, 0, 0])
    scale, zero = min_max(x, SYMMETRIC)
    assert np.allclose(scale, [2 / 7, 1 / 7, 5 / 7, 1])
    assert not zero.any()


def test_rounds_half_to_even() -> None:
    spec = QSpec(8, True, True)
    found = quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), np.float32(1), None, spec)
    assert found.astype(int).tolist() == [0, 2, 2, 0, -2]


def test_per_tensor_and_per_channel() -> None:
    x = weights(1, 6, 4)
    for spec in (QSpec(8, False, False), QSpec(8, True, True, axis=1), QSpec(8, False, False, axis=0)):
        reduced = None if spec.axis is None else 1 - spec.axis
        low, high = np.minimum(x.min(reduced), 0), np.maximum(x.max(reduced), 0)
        scale, zero = grid(low, high, spec)
        assert scale.shape == spec.scale_shape(x.shape)
        found = dequantize(quantize(x, scale, zero, spec), scale, zero, spec)
        assert np.abs(found - x).max() <= scale.max() * 0.51


@pytest.mark.parametrize("scale_type", [DType.F16, DType.F32])
@pytest.mark.parametrize("symmetric", [False, True])
def test_blocks_of_zeros_stay_finite(scale_type: DType, symmetric: bool) -> None:
    x = weights(3, 96, 8)
    x[32:64] = 0
    x[64:, 3] = 1e-38
    spec = QSpec(4, symmetric, symmetric, 0, 32)
    made = quantize_constant(Constant.of(x), spec, scale_type=scale_type)
    assert (made.scale.array() > 0).all()
    found = widened(made, spec)
    assert np.isfinite(found).all()
    assert not found[32:64].any()
    assert np.abs(found - x).max() < 0.5


def test_scales_that_underflow_are_clamped() -> None:
    tiny = np.array([0.0, 1e-12, 1.0, 1e9], np.float32)
    settled = settle_scale(tiny, DType.F16)
    assert (settled > 0).all()
    assert np.isfinite(settled).all()
    assert np.array_equal(settled, settled.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("factor", "expected"), [(1.0, DType.F16), (1e-7, DType.F32), (1e7, DType.F32)])
def test_scales_are_float32_where_float16_is_too_narrow(factor: float, expected: DType) -> None:
    x = Constant.of(weights(2, 64, 16) * np.float32(factor))
    chosen = fitting_scale_type(largest(x), ASYMMETRIC, DType.F16)
    assert chosen is expected
    assert quantize_constant(x, ASYMMETRIC, scale_type=chosen).relative_error < 0.02


def test_largest_keeps_nan_and_inf() -> None:
    x = weights(0, 2000, 1100)  # more than one piece
    assert largest(Constant.of(x)) == np.abs(x).max()
    for at, value in (((0, 0), np.nan), ((1999, 5), np.nan), ((3, 3), -np.inf)):
        y = x.copy()
        y[at] = value
        assert not np.isfinite(largest(Constant.of(y)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 15), max_size=20), st.lists(st.integers(0, 15), min_size=1, max_size=20))
def test_packed_codes_are_written_in_stretches(first: list[int], second: list[int]) -> None:
    codes = np.array([*first, *second], np.uint8)
    raw = np.zeros(DType.U4.nbytes(codes.size), np.uint8)
    write_codes(raw, 0, np.array(first, np.uint8), 4)
    write_codes(raw, len(first), np.array(second, np.uint8), 4)
    assert raw.tobytes() == pack(codes, DType.U4)


def test_a_packed_constant_is_the_same_constant() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (7, 9)).astype(np.uint8)
    thin, plain = packed(codes, DType.U4), Constant.of(codes, DType.U4)
    assert isinstance(thin.payload, PackedPayload)
    assert np.array_equal(thin.array().astype(int), codes)
    assert thin.tobytes() == plain.tobytes()
    assert thin.same(plain)
    assert np.array_equal(thin.flat(10, 20).astype(int), codes.reshape(-1)[10:20])


def test_a_big_file_is_quantized_in_bounded_memory(tmp_path: Path) -> None:
    shape = (2048, 3072)  # 24 MiB in float32, and 1 MiB a piece
    np.save(tmp_path / "w.npy", weights(0, *shape))
    size = (tmp_path / "w.npy").stat().st_size
    payload = FilePayload(tmp_path / "w.npy", size - 4 * shape[0] * shape[1], DType.F32, shape)
    constant = Constant(TensorType(DType.F32, shape), payload)
    tracemalloc.start()
    try:
        for axis in (0, 1):
            tracemalloc.reset_peak()
            made = quantize_constant(constant, QSpec(4, False, False, axis, 32))
            assert tracemalloc.get_traced_memory()[1] < made.nbytes + (20 << 20)
            assert made.relative_error < 0.01
            del made
    finally:
        tracemalloc.stop()
