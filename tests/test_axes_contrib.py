"""Axis rules against ONNX Runtime itself: one op, permuted operands, and operands with units removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.one_op import Alone

from mlc.ir.core import Ints

MS = "com.microsoft::"
Array = np.ndarray[Any, Any]


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def f32(*shape: int) -> Array:
    return _rng().normal(size=shape).astype(np.float32)


def scales(*shape: int) -> Array:
    return _rng().uniform(0.02, 0.1, shape).astype(np.float32)


def u8(*shape: int) -> Array:
    return _rng().integers(0, 256, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    return _rng().integers(-128, 128, shape).astype(np.int8)


def i64(*values: Any) -> Array:
    return np.array(values, np.int64)


S, Z, Z8 = np.array(0.05, np.float32), np.array(128, np.uint8), np.array(0, np.int8)
HALF = {"hidden_size": 4}
WORDS, SEGMENTS = np.array([[1, 2, 0], [3, 3, 1]], np.int32), np.array([[0, 1, 0], [1, 1, 0]], np.int32)
GRID, GRIDS = (scales(1), np.zeros(1, np.int8)), (scales(2, 16), np.zeros((2, 16), np.int8))
STATES = (f32(2, 2, 4), f32(2, 2, 4))
#: kind, operands, attributes, results, sizes of the free classes; what is not listed is pinned.
ROWS: dict[str, tuple[str, list[Array | None], dict[str, Any], int, list[int]]] = {
    "fused_matmul": (MS + "FusedMatMul", [f32(2, 6, 3), f32(2, 5, 6)], {"transA": 1, "transB": 1}, 1, [6, 5, 3, 2]),
    "fused_matmul_batch": (MS + "FusedMatMul", [f32(4, 2, 6), f32(2, 6, 5)], {"transBatchA": 1}, 1, [6, 5, 4, 2]),
    "transpose_matmul": (MS + "TransposeMatMul", [f32(2, 6), f32(5, 6)], {"transB": 1, "alpha": 2.0}, 1, [6, 5, 2]),
    "fused_gemm": (MS + "FusedGemm", [f32(2, 6), f32(6, 5), f32(5)], {"activation": "Relu"}, 1, [6, 5, 2]),
    "fused_conv": (
        MS + "FusedConv",
        [f32(2, 4, 5, 5), f32(8, 4, 3, 3), f32(8), f32(2, 8, 3, 3)],
        {"activation": "Relu"},
        1,
        [8, 4, 2],
    ),
    "fused_conv_groups": (MS + "FusedConv", [f32(1, 6, 5, 5), f32(4, 3, 3, 3)], {"group": 2}, 1, [3, 2, 2]),
    "inverse": (MS + "Inverse", [f32(3, 4, 4)], {}, 1, [3]),
    "skip_norm": (MS + "SkipLayerNormalization", [f32(2, 3, 8), f32(2, 3, 8), f32(8), f32(8)], {}, 1, [8, 3, 2]),
    "skip_rms": (MS + "SkipSimplifiedLayerNormalization", [f32(2, 3, 8), f32(2, 3, 8), f32(8)], {}, 1, [8, 3, 2]),
    "bias_gelu": (MS + "BiasGelu", [f32(2, 6), f32(6)], {}, 1, [6, 2]),
    "fast_gelu": (MS + "FastGelu", [f32(2, 6), f32(6)], {}, 1, [6, 2]),
    "gelu": (MS + "Gelu", [f32(2, 6)], {}, 1, [6, 2]),
    "quick_gelu": (MS + "QuickGelu", [f32(2, 6)], {"alpha": 1.7}, 1, [6, 2]),
    "embed": (
        MS + "EmbedLayerNormalization",
        [WORDS, SEGMENTS, f32(5, 8), f32(4, 8), f32(2, 8), f32(8), f32(8)],
        {},
        2,
        [8, 2],
    ),
    "qlinear_add": (MS + "QLinearAdd", [u8(2, 6), S, Z, u8(6), S, Z, S, Z], {}, 1, [6, 2]),
    "qlinear_mul": (MS + "QLinearMul", [u8(2, 6), S, Z, u8(2, 1), S, Z, S, Z], {}, 1, [6, 2]),
    "qlinear_sigmoid": (MS + "QLinearSigmoid", [u8(2, 6), S, Z, S, Z], {}, 1, [6, 2]),
    "qlinear_leaky": (MS + "QLinearLeakyRelu", [u8(2, 6), S, Z, S, Z], {}, 1, [6, 2]),
    "qlinear_concat": (MS + "QLinearConcat", [S, Z, u8(2, 6), S, Z, u8(2, 3), S, Z], {"axis": 1}, 1, [6, 3, 2]),
    "qlinear_softmax": (
        MS + "QLinearSoftmax",
        [u8(2, 6), S, Z, np.array(1 / 256, np.float32), np.array(0, np.uint8)],
        {"opset": 13},
        1,
        [6, 2],
    ),
    "qlinear_where": (
        MS + "QLinearWhere",
        [_rng().integers(0, 2, (2, 6)).astype(bool), u8(2, 6), S, Z, u8(2, 6), S, Z, S, Z],
        {},
        1,
        [6, 2],
    ),
    "qlinear_pool": (
        MS + "QLinearAveragePool",
        [u8(2, 3, 5, 5), S, Z, S, Z],
        {"kernel_shape": Ints((3, 3))},
        1,
        [3, 2],
    ),
    "qlinear_global_pool": (MS + "QLinearGlobalAveragePool", [u8(2, 3, 4, 4), S, Z, S, Z], {}, 1, [4, 4, 3, 2]),
    "qlinear_global_pool_last": (
        MS + "QLinearGlobalAveragePool",
        [u8(2, 4, 4, 3), S, Z, S, Z],
        {"channels_last": 1},
        1,
        [4, 4, 3, 2],
    ),
    "qgemm": (
        MS + "QGemm",
        [u8(2, 6), S, Z, i8(5, 6), scales(5), np.zeros(5, np.int8), None, S, Z],
        {"transB": 1},
        1,
        [6, 5, 2],
    ),
    "dynamic_matmul": (
        MS + "DynamicQuantizeMatMul",
        [f32(2, 6), i8(6, 5), scales(5), i8(5), f32(5)],
        {},
        1,
        [6, 5, 2],
    ),
    "integer_to_float": (
        MS + "MatMulIntegerToFloat",
        [u8(2, 6), u8(6, 5), S, scales(5), Z, u8(5), f32(5)],
        {},
        1,
        [6, 5, 2],
    ),
    "integer_stack": ("MatMulInteger", [u8(3, 2, 6), u8(3, 6, 5), Z, u8(3, 1, 5)], {}, 1, [6, 5, 3, 2]),
    "quantize": (MS + "QuantizeLinear", [f32(2, 6), scales(6), u8(6)], {"axis": 1}, 1, [6, 2]),
    "dequantize": (MS + "DequantizeLinear", [u8(2, 6), scales(2), u8(2)], {"axis": 0}, 1, [6, 2]),
    "nbits": (
        MS + "MatMulNBits",
        [f32(2, 64), u8(5, 4, 8), scales(5, 4), None, None, f32(5)],
        {"K": 64, "N": 5, "bits": 4, "block_size": 16},
        1,
        [5, 4, 2],
    ),
    "nbits_flat": (
        MS + "MatMulNBits",
        [f32(2, 96), u8(5, 3, 32), scales(15), u8(15)],
        {"K": 96, "N": 5, "bits": 8, "block_size": 32},
        1,
        [5, 3, 2],
    ),
    "nbits_packed_zeros": (
        MS + "MatMulNBits",
        [f32(2, 64), u8(5, 4, 8), scales(20), u8(10)],
        {"K": 64, "N": 5, "bits": 4, "block_size": 16},
        1,
        [5, 2],
    ),
    "nbits_part_of_a_block": (
        MS + "MatMulNBits",
        [f32(2, 40), u8(5, 3, 8), scales(15)],
        {"K": 40, "N": 5, "bits": 4, "block_size": 16},
        1,
        [5, 2],
    ),
    "gather_blocks": (
        MS + "GatherBlockQuantized",
        [u8(9, 32), i64([1, 8, 0]), scales(9, 4)],
        {"block_size": 16, "bits": 4},
        1,
        [4, 3],
    ),
    "gather_blocks_zeros": (
        MS + "GatherBlockQuantized",
        [u8(9, 32), i64(1, 8), scales(9, 4), u8(9, 2)],
        {"block_size": 16, "bits": 4},
        1,
        [2],
    ),
    "dynamic_lstm": (
        MS + "DynamicQuantizeLSTM",
        [f32(5, 2, 3), i8(1, 3, 16), i8(1, 4, 16), f32(1, 32), None, None, None, None, *GRID, *GRID],
        HALF,
        3,
        [4, 3, 2],
    ),
    "dynamic_lstm_per_row": (
        MS + "DynamicQuantizeLSTM",
        [f32(5, 2, 3), i8(2, 3, 16), i8(2, 4, 16), f32(2, 32), None, *STATES, f32(2, 12), *GRIDS, *GRIDS],
        {**HALF, "direction": "bidirectional"},
        3,
        [4, 3, 2],
    ),
    "lstm": ("LSTM", [f32(5, 2, 3), f32(1, 16, 3), f32(1, 16, 4), f32(1, 32)], HALF, 3, [4, 3, 2]),
    "gru_lengths": (
        "GRU",
        [f32(5, 2, 3), f32(1, 12, 3), f32(1, 12, 4), f32(1, 24), i64(3, 5).astype(np.int32)],
        HALF,
        2,
        [4, 3, 2],
    ),
    "einsum": ("Einsum", [f32(2, 3, 4), f32(2, 4, 5)], {"equation": "...ij,...jk->...ik"}, 1, [5, 4, 3, 2]),
    "grouped_conv": ("Conv", [f32(1, 6, 5, 5), f32(4, 3, 3, 3), f32(4)], {"group": 2}, 1, [3, 2, 2]),
    "group_norm": ("GroupNormalization", [f32(2, 6, 4), f32(6), f32(6)], {"num_groups": 3}, 1, [4, 3, 2, 2]),
    "pick_experts": ("GatherElements", [f32(4, 6), i64([0, 1, 1, 2, 3, 0])], {"axis": 0}, 1, [6]),
    "scatter": ("ScatterElements", [f32(4, 6), i64([0] * 6, [2] * 6), f32(2, 6)], {"axis": 0}, 1, [6]),
    "scatter_nd": ("ScatterND", [f32(4, 6), i64([0], [2]), f32(2, 6)], {}, 1, [6]),
    "gather_nd": ("GatherND", [f32(4, 6, 5), i64([0, 1], [2, 2])], {}, 1, [5, 2]),
    "one_hot": ("OneHot", [i64(1, 0, 3), i64(4), f32(2)], {}, 1, [3]),
    "regions": (
        "RoiAlign",
        [f32(2, 3, 8, 8), np.abs(f32(2, 4)) * 2, i64(0, 1)],
        {"output_height": 2, "output_width": 2},
        1,
        [3, 2],
    ),
    "grid_sample": ("GridSample", [f32(2, 3, 8, 8), np.tanh(f32(2, 4, 5, 2))], {}, 1, [5, 4, 3, 2]),
    "roi_pool": (
        "MaxRoiPool",
        [f32(1, 3, 8, 8), np.array([[0, 1, 1, 5, 5], [0, 0, 2, 7, 7]], np.float32)],
        {"pooled_shape": Ints((2, 2))},
        1,
        [3, 2],
    ),
    "resize": (
        "Resize",
        [f32(2, 3, 4, 4), None, np.array([1, 1, 2, 1], np.float32)],
        {"mode": "linear"},
        1,
        [4, 3, 2],
    ),
    "resize_sizes": ("Resize", [f32(2, 3, 4, 4), None, None, i64(2, 3, 7, 4)], {"mode": "nearest"}, 1, [4, 3, 2]),
    "stft": ("STFT", [f32(3, 16, 1), i64(4)[0], f32(8)], {}, 1, [3]),
    "reverse_sequence": ("ReverseSequence", [f32(4, 3, 5), i64(2, 4, 1)], {}, 1, [5]),
    "global_lp_pool": ("GlobalLpPool", [f32(2, 3, 4, 5)], {"p": 2}, 1, [5, 4, 3, 2]),
    "qlinear_conv": (
        "QLinearConv",
        [u8(2, 4, 5, 5), S, Z, i8(6, 2, 3, 3), scales(6), np.zeros(6, np.int8), S, Z, np.arange(6, dtype=np.int32)],
        {"group": 2},
        1,
        [3, 2, 2, 2],
    ),
    "mean_variance": ("MeanVarianceNormalization", [f32(2, 3, 4, 5)], {}, 1, [5, 4, 3, 2]),
}


#: Every number depends on all units: through the state that is fed back, or the range of a dynamic grid.
MIXED = {"lstm", "gru_lengths", "dynamic_lstm", "dynamic_lstm_per_row", "dynamic_matmul"}


def _alone(name: str) -> tuple[Alone, list[int]]:
    kind, operands, attrs, results, sizes = ROWS[name]
    return Alone(kind, operands, attrs, results), sizes


@pytest.mark.parametrize("name", ROWS)
def test_permuted_operands_give_the_permuted_result(name: str) -> None:
    alone, sizes = _alone(name)
    assert alone.sizes == sizes
    for seed in range(3):
        assert alone.permuted(seed) == (len(sizes), "")


@pytest.mark.parametrize("name", ROWS)
def test_units_can_be_removed(name: str) -> None:
    """One class at a time, then all: sizes follow, and the numbers where the class does not matter for them."""
    alone, sizes = _alone(name)
    for c in alone.axes.free:
        for seed in range(2):
            assert alone.removed(seed, only=[c.id], shapes=name in MIXED) == (1 if c.size > 1 else 0, "")
    assert alone.removed(shapes=name in MIXED) == (len(sizes), "")


@pytest.mark.parametrize(
    ("name", "code"),
    [("nbits_part_of_a_block", "block-size"), ("nbits_packed_zeros", "packed"), ("lstm", "gate"), ("stft", "time")],
)
def test_pins_say_why(name: str, code: str) -> None:
    alone, _ = _alone(name)
    assert code in {c.pin.code for c in alone.axes.pinned if c.pin is not None}
