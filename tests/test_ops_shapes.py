"""Shape rules: at every binding of the symbols an inferred shape is the shape the reference yields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.single import infer, make, real_results, shape_at

from mlc.ir import dims
from mlc.ir.core import Ints
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.ops.shape_index import sliced
from mlc.ir.types import TensorType, tensor

I64 = np.int64
BINDINGS = ({"N": 2, "H": 17, "W": 24, "C": 6}, {"N": 5, "H": 32, "W": 9, "C": 4})


def ints(*items: int) -> np.ndarray:
    return np.array(items, I64)


X4 = ("N", 6, "H", "W")
ROWS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Relu", [X4], {}),
    ("Add", [("N", 6, "H", 1), (6, 1, "W")], {}),
    ("Mul", [("N", "H"), ()], {}),
    ("Where", [tensor(DType.BOOL, "N", 1), ("H",), (1, "H")], {}),
    ("Equal", [tensor(DType.I64, "N", 3), tensor(DType.I64, 3)], {}),
    ("Cast", [X4], {"to": 7}),
    ("Reshape", [X4, ints(0, 3, -1)], {}),
    ("Reshape", [("N", "H", 12), ints(0, -1, 3, 4)], {}),
    ("Reshape", [(0, 3), ints(3, 0)], {"allowzero": 1}),
    ("Flatten", [X4], {"axis": 2}),
    ("Flatten", [X4], {"axis": -1}),
    ("Flatten", [X4], {"axis": 0}),
    ("Transpose", [X4], {}),
    ("Transpose", [X4], {"perm": Ints((0, 2, 3, 1))}),
    ("Squeeze", [("N", 1, "H", 1), ints(1, -1)], {}),
    ("Unsqueeze", [("N", "H"), ints(0, -1)], {}),
    ("Concat", [("N", "H", 3), ("N", "H", 4), ("N", "H", 5)], {"axis": -1}),
    ("Concat", [("N", 3), ("H", 3)], {"axis": 0}),
    ("Expand", [("N", 1, 3), ints(1, 4, 1)], {}),
    ("Expand", [("H",), ints(2, 3, 1)], {}),
    ("Tile", [("N", "H"), ints(3, 2)], {}),
    ("Pad", [X4, ints(0, 0, 1, 2, 0, 0, 3, 4)], {}),
    ("Pad", [X4, ints(1, -1), None, ints(2)], {}),
    ("DepthToSpace", [("N", 8, "H", "W")], {"blocksize": 2}),
    ("SpaceToDepth", [("N", 3, 16, 8)], {"blocksize": 4}),
    ("Slice", [X4, ints(1, 2), ints(3, 2**63 - 1), ints(1, 2)], {}),
    ("Slice", [X4, ints(-3), ints(2**63 - 1), ints(-1), ints(2)], {}),
    ("Slice", [X4, ints(1), ints(-1), ints(2), ints(3)], {}),
    ("Slice", [X4, ints(-1), ints(-(2**63)), ints(1), ints(-1)], {}),
    ("Slice", [X4, ints(-1), ints(-(2**63)), ints(3), ints(-2)], {}),
    ("Gather", [X4, np.array(1)], {"axis": 1}),
    ("Gather", [X4, np.array([[0, 1], [2, 3]])], {"axis": -3}),
    ("GatherElements", [X4, tensor(DType.I64, "N", 2, "H", "W")], {"axis": 1}),
    ("GatherND", [(3, "H", 4), tensor(DType.I64, "N", 2)], {}),
    ("GatherND", [("N", "H", 4), tensor(DType.I64, "N", 3, 1)], {"batch_dims": 1}),
    ("TopK", [X4, ints(3)], {"axis": 1}),
    ("OneHot", [tensor(DType.I64, "N", "H"), np.array(5), np.array([0.0, 1.0], np.float32)], {"axis": 1}),
    ("CumSum", [X4, np.array(2)], {}),
    ("Trilu", [("N", "H", "W")], {}),
    ("ArgMax", [X4], {"axis": 2, "keepdims": 0}),
    ("ReduceMean", [X4, ints(-1, -2)], {"keepdims": 0}),
    ("ReduceSum", [X4], {"noop_with_empty_axes": 1}),
    ("ReduceMax", [X4], {}),
    ("Softmax", [X4], {"axis": 1}),
    ("LayerNormalization", [("N", "H", 8), (8,), (8,)], {}),
    ("LayerNormalization", [("N", "H", 8), ("H", 8), ("H", 8)], {"axis": 1}),
    ("BatchNormalization", [X4, (6,), (6,), (6,), (6,)], {}),
    ("InstanceNormalization", [X4, (6,), (6,)], {}),
    ("GroupNormalization", [X4, (6,), (6,)], {"num_groups": 3}),
    ("Conv", [X4, (8, 6, 3, 3), (8,)], {"pads": Ints((1, 1, 1, 1)), "strides": Ints((2, 2))}),
    ("Conv", [X4, (12, 2, 3, 5)], {"group": 3, "dilations": Ints((2, 1))}),
    ("Conv", [X4, (8, 6, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": Ints((2, 3))}),
    ("Conv", [X4, (8, 6, 3, 3)], {"auto_pad": "VALID", "strides": Ints((2, 1))}),
    ("Conv", [("N", 2, "W"), (4, 2, 5)], {"pads": Ints((4, 0))}),
    ("ConvTranspose", [X4, (6, 4, 3, 3)], {"strides": Ints((2, 2)), "pads": Ints((1, 1, 1, 1))}),
    ("ConvTranspose", [X4, (6, 4, 3, 3)], {"strides": Ints((2, 3)), "output_padding": Ints((1, 1))}),
    ("ConvTranspose", [X4, (6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": Ints((2, 2))}),
    ("ConvTranspose", [(1, 3, 3, 3), (3, 2, 3, 3)], {"strides": Ints((3, 2)), "output_shape": Ints((10, 8))}),
    ("MaxPool", [X4], {"kernel_shape": Ints((3, 3)), "strides": Ints((2, 2)), "pads": Ints((1, 1, 1, 1))}),
    ("MaxPool", [X4], {"kernel_shape": Ints((2, 2)), "strides": Ints((2, 2)), "ceil_mode": 1}),
    ("MaxPool", [(1, 1, 4, 4)], {"kernel_shape": Ints((1, 1)), "strides": Ints((2, 2)), "ceil_mode": 1}),
    ("AveragePool", [X4], {"kernel_shape": Ints((3, 3)), "auto_pad": "SAME_LOWER", "strides": Ints((2, 2))}),
    ("GlobalAveragePool", [X4], {}),
    ("MatMul", [("N", "H", 5), (5, 7)], {}),
    ("MatMul", [("N", 1, "H", 5), (4, 5, "W")], {}),
    ("MatMul", [(5,), ("N", 5, "W")], {}),
    ("MatMul", [("N", "H", 5), (5,)], {}),
    ("Gemm", [("N", 5), (7, 5), (7,)], {"transB": 1}),
    ("Gemm", [(5, "N"), (5, 7)], {"transA": 1}),
    ("Einsum", [("N", "H", 5), (5, 7)], {"equation": "bhi,io->bho"}),
    ("Einsum", [("N", 3, "H", 5), ("N", 3, "W", 5)], {"equation": "...id,...jd->...ij"}),
    ("Einsum", [("H", "H")], {"equation": "ii"}),
    ("Einsum", [("N", "H"), ("H", "W")], {"equation": "ij , jk"}),
    ("LSTM", [("H", "N", 5), (1, 16, 5), (1, 16, 4)], {"hidden_size": 4}),
    ("GRU", [("H", "N", 5), (1, 12, 5), (1, 12, 4)], {"hidden_size": 4}),
    ("RNN", [("H", "N", 5), (1, 4, 5), (1, 4, 4)], {"hidden_size": 4}),
    ("Resize", [X4, None, np.array([1, 1, 2, 0.5], np.float32)], {"mode": "nearest"}),
    ("Resize", [X4, None, np.array([1.5, 2], np.float32)], {"mode": "nearest", "axes": Ints((2, 3))}),
    ("Resize", [(1, 1, 5, 7), None, np.array([1, 1, 1.5, 0.3], np.float32)], {"mode": "nearest"}),
    ("Resize", [("N", 2, 4, 4), None, None, ints(3, 8)], {"mode": "linear", "axes": Ints((2, 3))}),
    ("Shape", [X4], {"start": 1, "end": -1}),
    ("Size", [X4], {}),
    ("NonZero", [X4], {}),
    ("EyeLike", [("H", "W")], {}),
    ("Range", [np.array(2), np.array(17), np.array(4)], {}),
    ("Range", [np.array(9.0, np.float32), np.array(0.5, np.float32), np.array(-2.0, np.float32)], {}),
    ("ConstantOfShape", [ints(2, 0, 3)], {}),
    ("DynamicQuantizeLinear", [X4], {}),
    ("QuantizeLinear", [X4, (), np.array(3, np.uint8)], {}),
    ("DequantizeLinear", [tensor(DType.I8, "N", "H"), ()], {}),
    ("MatMulInteger", [tensor(DType.U8, "N", "H", 5), tensor(DType.I8, 5, 7)], {}),
    ("ConvInteger", [tensor(DType.U8, "N", 6, 9, 9), tensor(DType.U8, 8, 6, 3, 3)], {}),
    ("GridSample", [X4, ("N", 5, 7, 2)], {}),
    ("AffineGrid", [("N", 2, 3), ints(5, 3, 4, 6)], {}),
    ("STFT", [("N", "H", 1), np.array(4), None, np.array(8)], {}),
    ("CenterCropPad", [X4, ints(4, 30)], {"axes": Ints((2, 3))}),
    ("Col2Im", [("N", 6, 25), ints(5, 5), ints(1, 1)], {}),
    ("ReverseSequence", [("H", "N", 4), tensor(DType.I64, "N")], {}),
    ("ScatterElements", [X4, tensor(DType.I64, "N", 2, "H", "W"), ("N", 2, "H", "W")], {"axis": 1}),
    ("Dropout", [X4], {}),
    ("BitCast", [X4], {"to": 6}),
    ("Det", [("N", 3, 3)], {}),
    ("PRelu", [X4, (6, 1, 1)], {}),
    ("Clip", [X4], {}),
]
#: Rows that hold at one of the bindings only: the other has other sizes where the operator wants fixed ones.
UNKNOWN_BY_NATURE = {"NonZero"}


def _id(row: tuple[str, list[Any], dict[str, Any]]) -> str:
    return row[0]


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_symbolic_shape_is_the_real_one(row: tuple[str, list[Any], dict[str, Any]]) -> None:
    kind, operands, attrs = row
    op = make(kind, operands, attrs, results=2 if kind in ("TopK", "Dropout") else 1)
    found = infer(op, opset=26 if kind == "BitCast" else 21)
    for binding in BINDINGS:
        if kind == "AffineGrid":
            binding = {**binding, "N": 5}
        for said, real in zip(found, real_results(op, binding, np.random.default_rng(0)), strict=True):
            assert isinstance(said.type, TensorType)
            wanted = tuple(
                r if s is None and kind in UNKNOWN_BY_NATURE else s for s, r in zip(shape_at(said, binding), real.shape)
            )
            assert wanted == real.shape, f"{said.type} at {binding}"
            assert said.type.dtype.numpy == real.dtype


WRONG: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Add", [("N", 3), (4,)], {}),
    ("MatMul", [("N", 3), (4, 5)], {}),
    ("MatMul", [(), (4, 5)], {}),
    ("Gemm", [("N", 3), (4, 5)], {}),
    ("Concat", [("N", 3), (4, 4)], {"axis": 0}),
    ("Concat", [("N", 3), (3,)], {"axis": 0}),
    ("Reshape", [(2, 3), ints(4, 2)], {}),
    ("Reshape", [(2, 3), ints(-1, 4)], {}),
    ("Reshape", [(2, 3), ints(-1, -1)], {}),
    ("Reshape", [(2, 3), ints(-2, 3)], {}),
    ("Reshape", [(2, 3), ints(2, 3, 0)], {}),
    ("Transpose", [(2, 3)], {"perm": Ints((0, 0))}),
    ("Squeeze", [(2, 3), ints(0)], {}),
    ("Unsqueeze", [(2, 3), ints(0, 0)], {}),
    ("Split", [(7, 3), ints(3, 3)], {}),
    ("Gather", [(7, 3), ints(0)], {"axis": 2}),
    ("Conv", [("N", 6, 8, 8), (8, 5, 3, 3)], {}),
    ("Conv", [("N", 6, 8, 8), (8, 6, 9, 9)], {}),
    ("Conv", [("N", 6, 8), (8, 6, 3, 3)], {}),
    ("Conv", [("N", 6, 8, 8), (8, 6, 3, 3)], {"strides": Ints((1,))}),
    ("ConvTranspose", [("N", 6, 8, 8), (5, 8, 3, 3)], {}),
    ("MaxPool", [("N", 6, 8, 8)], {}),
    ("LSTM", [("H", "N", 5), (1, 16, 6), (1, 16, 4)], {"hidden_size": 4}),
    ("LSTM", [("H", "N", 5), (1, 16, 5), (1, 16, 4)], {"hidden_size": 3}),
    ("LSTM", [("H", "N", 5), (1, 16, 5), (1, 16, 4)], {"direction": "bidirectional"}),
    ("Einsum", [("N", 3), (3, 4)], {"equation": "ijk,jk->i"}),
    ("Tile", [("N", 3), ints(2)], {}),
    ("Pad", [("N", 3), ints(0, 1, 2)], {}),
    ("Resize", [("N", 3)], {}),
    ("Relu", [None], {}),
    ("Cast", [("N",)], {"to": 99}),
]


@pytest.mark.parametrize("row", WRONG, ids=_id)
def test_contradictions_are_refused(row: tuple[str, list[Any], dict[str, Any]]) -> None:
    with pytest.raises(MlcError) as caught:
        infer(make(*row))
    (problem,) = caught.value.diagnostics
    assert problem.code is Code.BROKEN_MODEL
    assert row[0] in problem.where + problem.message


@given(
    size=st.integers(0, 9),
    start=st.integers(-12, 12),
    end=st.integers(-12, 12),
    step=st.integers(-4, 4).filter(bool),
)
def test_sliced_is_onnx_slice(size: int, start: int, end: int, step: int) -> None:
    op = make("Slice", [(size,), ints(start), ints(end), ints(0), ints(step)])
    (real,) = real_results(op, {}, np.random.default_rng(0))
    if step > 0 or (start >= -size and end >= -size):  # numpy and ONNX clamp other starts and ends differently
        assert sliced(size, start, end, step) == real.shape[0]


@given(size=st.integers(12, 40), start=st.integers(-10, 10), end=st.integers(-10, 1), step=st.integers(1, 4))
def test_symbolic_slice_is_the_slice_of_a_long_axis(size: int, start: int, end: int, step: int) -> None:
    said = sliced(dims.Sym("n"), start, end, step)
    if not dims.is_fresh(said):
        assert max(0, dims.evaluate(said, {"n": size}) or 0) == len(range(*slice(start, end, step).indices(size)))


def test_unknown_and_named_size_join_to_the_name() -> None:
    unknown = dims.fresh()
    (found,) = infer(make("Add", [(unknown, 3), ("N", 3)]))
    assert found.type == tensor(DType.F32, "N", 3)
    (found,) = infer(make("Add", [("M",), ("N",)]))
    assert isinstance(found.type, TensorType)
    assert dims.is_fresh(found.type.shape[0])


def test_rank_follows_from_the_weight() -> None:
    from mlc.ir.types import UnrankedTensor

    (found,) = infer(make("Conv", [UnrankedTensor(DType.F32), (8, 6, 3, 3)]))
    assert isinstance(found.type, TensorType)
    assert found.type.shape[1] == 8
    assert found.type.rank == 4


def test_without_a_rule_onnx_infers_and_expressions_survive() -> None:
    heads = [("N", 4, "H", 8), ("N", 4, "W", 8), ("N", 4, "W", 16)]
    (found,) = infer(make("Attention", heads), opset=23)
    assert found.type == tensor(DType.F32, "N", 4, "H", 16)
    (found,) = infer(make("HannWindow", [np.array(7)]))  # reads a constant
    assert found.type == tensor(DType.F32, 7)
