"""Elements of small integer tensors: what is computed on symbols is, at every binding, what the reference computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kit.single import infer, make, real_results

from mlc.ir import dims
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Op, Value
from mlc.ir.dims import Dim, Sym
from mlc.ir.dtypes import DType
from mlc.ir.infer import constant_dims
from mlc.ir.ops.bounds import lower
from mlc.ir.types import TensorType, UnrankedTensor, tensor

N, H, W = Sym("N"), Sym("H"), Sym("W")
sizes = st.integers(0, 40)
bindings = st.fixed_dictionaries({"N": sizes, "H": sizes, "W": sizes})


def expressions() -> st.SearchStrategy[Dim]:
    leaves = st.one_of(st.sampled_from([N, H, W]), st.integers(0, 9))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda t: dims.add(*t)),
            st.tuples(inner, inner).map(lambda t: dims.mul(*t)),
            st.tuples(inner, st.integers(1, 4)).map(lambda t: dims.floordiv(*t)),
            st.tuples(inner, st.integers(1, 3)).map(lambda t: dims.add(t[0], -t[1])),
        ),
        max_leaves=4,
    )


def vector(*items: Dim, dtype: DType = DType.I64) -> Value:
    value = Value(tensor(dtype, len(items)), "v")
    value.dims = items
    return value


def scalar(item: Dim, dtype: DType = DType.I64) -> Value:
    value = Value(tensor(dtype), "s")
    value.dims = (item,)
    return value


BINARY = ["Add", "Sub", "Mul", "Min", "Max", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"]


def _held(op: Op, binding: dict[str, int]) -> None:
    """What inference says of the elements is what comes out; it may say nothing."""
    (found,) = infer(op)
    if found.dims is not None:
        (real,) = real_results(op, binding, np.random.default_rng(0))
        assert [dims.evaluate(d, binding) for d in found.dims] == real.reshape(-1).tolist()


@pytest.mark.parametrize("kind", BINARY)
@given(items=st.lists(st.tuples(expressions(), expressions()), min_size=1, max_size=3), binding=bindings)
def test_binary(kind: str, items: list[tuple[Dim, Dim]], binding: dict[str, int]) -> None:
    left, right = zip(*items)
    _held(make(kind, [vector(*left), vector(*right)]), binding)


@pytest.mark.parametrize("kind", ["Div", "Mod"])
@given(a=expressions(), b=st.one_of(st.integers(1, 5), st.just(N)), binding=bindings)
def test_division(kind: str, a: Dim, b: Dim, binding: dict[str, int]) -> None:
    assume(isinstance(b, int) or binding["N"] > 0)
    assume((dims.evaluate(a, binding) or 0) >= 0)  # shape values are sizes
    _held(make(kind, [scalar(a), scalar(b)]), binding)


def test_division_of_what_is_visibly_negative() -> None:
    (found,) = infer(make("Div", [scalar(-1 * H), scalar(2)]))
    assert found.dims == (-1 * dims.floordiv(H, 2),)


@given(a=st.integers(-20, 20), b=st.integers(-5, 5).filter(bool))
def test_integer_division_cuts_towards_zero(a: int, b: int) -> None:
    (found,) = infer(make("Div", [scalar(a), scalar(b)]))
    assert found.dims == (int(a / b),)
    (found,) = infer(make("Mod", [scalar(a), scalar(b)], {"fmod": 1}))
    assert found.dims == (int(np.fmod(a, b)),)


@pytest.mark.parametrize(
    "kind", ["Neg", "Abs", "Sign", "Identity", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin"]
)
@given(items=st.lists(expressions(), min_size=1, max_size=3), binding=bindings)
def test_unary(kind: str, items: list[Dim], binding: dict[str, int]) -> None:
    _held(make(kind, [vector(*items)], {"keepdims": 0} if kind.startswith("Reduce") else {}), binding)


@given(
    items=st.lists(expressions(), min_size=3, max_size=3), binding=bindings, flags=st.lists(st.booleans(), min_size=3)
)
def test_where(items: list[Dim], binding: dict[str, int], flags: list[bool]) -> None:
    _held(make("Where", [np.array(flags[:3]), vector(*items), vector(N, N, N)]), binding)


@given(dim=expressions(), binding=bindings)
def test_lower_bound_is_one(dim: Dim, binding: dict[str, int]) -> None:
    least = lower(dim)
    value = dims.evaluate(dim, binding)
    assert least is None or (value is not None and value >= least)


MOVED: list[tuple[str, list[Any], dict[str, Any], tuple[Dim, ...]]] = [
    ("Gather", [vector(N, H, W), np.array(-1)], {}, (W,)),
    ("Gather", [vector(N, H, W), np.array([2, 0])], {}, (W, N)),
    ("Concat", [vector(N), vector(H, 3)], {"axis": 0}, (N, H, 3)),
    ("Slice", [vector(N, H, W), np.array([1]), np.array([2**63 - 1])], {}, (H, W)),
    ("Slice", [vector(N, H, W), np.array([-1]), np.array([-(2**63)]), np.array([0]), np.array([-1])], {}, (W, H, N)),
    ("Unsqueeze", [scalar(N), np.array([0])], {}, (N,)),
    ("Squeeze", [vector(N), np.array([0])], {}, (N,)),
    ("Reshape", [vector(N, H), np.array([-1])], {}, (N, H)),
    ("Cast", [vector(N, H)], {"to": 1}, (N, H)),
    ("Tile", [vector(N, H), np.array([2])], {}, (N, H, N, H)),
    ("Expand", [scalar(N), np.array([3])], {}, (N, N, N)),
    ("ScatterElements", [vector(N, H, W), np.array([1]), vector(7)], {}, (N, 7, W)),
    ("ScatterND", [vector(N, H, W), np.array([[2]]), vector(7)], {}, (N, H, 7)),
    ("Shape", [("N", 3, "H")], {"start": -2}, (3, H)),
    ("Size", [("N", 3, "H")], {}, (3 * N * H,)),
    ("Range", [np.array(1), np.array(8), np.array(3)], {}, (1, 4, 7)),
    ("ConstantOfShape", [np.array([2])], {"value": Constant.of(np.array([5]))}, (5, 5)),
    ("Not", [np.array([True, False])], {}, (0, 1)),
    ("And", [np.array([True, False]), np.array([True, True])], {}, (1, 0)),
]


@pytest.mark.parametrize("row", MOVED, ids=lambda row: row[0])
def test_movement(row: tuple[str, list[Any], dict[str, Any], tuple[Dim, ...]]) -> None:
    kind, operands, attrs, wanted = row
    (found,) = infer(make(kind, operands, attrs))
    assert found.dims == wanted


def _then(kind: str, source: Value, *more: Any, **attrs: Any) -> Value:
    """Applies an op and types its result."""
    op = make(kind, [source, *more], attrs)
    (found,) = infer(op)
    op.result.type, op.result.dims = found.type, found.dims
    return op.result


def test_split_parts_carry_their_elements() -> None:
    found = infer(make("Split", [vector(N, H, W), np.array([1, 2])], results=2))
    assert [f.dims for f in found] == [(N,), (H, W)]
    found = infer(make("Split", [vector(N, H, W)], {"num_outputs": 2}, results=2))
    assert [f.dims for f in found] == [(N, H), (W,)]


def test_pads_reversed_as_a_matrix_of_pairs() -> None:
    """torch writes the pads of the last axis first and reverses them through a matrix."""
    pads = _then("Concat", vector(0, 1, 2, N), vector(0, 0, 0, 0), axis=0)
    pairs = _then("Reshape", pads, np.array([-1, 2]))
    turned = _then("Slice", pairs, np.array([-1]), np.array([-(2**63)]), np.array([0]), np.array([-1]))
    back = _then("Reshape", _then("Transpose", turned, perm=Ints((1, 0))), np.array([-1]))
    assert back.dims == (0, 0, 2, 0, 0, 0, N, 1)


@pytest.mark.parametrize(("rounding", "wanted"), [("Floor", dims.floordiv(3 * H, 4)), ("Ceil", dims.ceildiv(3 * H, 4))])
def test_quotients_through_floats(rounding: str, wanted: Dim) -> None:
    real = _then("Cast", scalar(H), to=DType.F32.onnx)
    scaled = _then("Mul", real, np.array(0.75, np.float32))
    assert scaled.dims is None
    assert _then("Cast", _then(rounding, scaled), to=DType.I64.onnx).dims == (wanted,)
    halved = _then("Div", real, np.array(2.0, np.float32))
    assert _then("Cast", halved, to=DType.I64.onnx).dims == (dims.floordiv(H, 2),)


def test_float_constants_stay_out() -> None:
    """Elements are tracked on paths from shapes, not wherever two float constants meet."""
    assert _then("Mul", _constant(np.array(2.0, np.float32)), np.array(3.0, np.float32)).dims is None


def _constant(array: np.ndarray) -> Value:
    constant = Constant.of(array)
    value = Value(constant.type, "c")
    value.constant, value.dims = constant, constant_dims(constant)
    return value


def test_expand_idiom_is_decided() -> None:
    """Where(Equal(shape, -1), ones, shape): a size is never -1."""
    shape = vector(N, -1, 4)
    chosen = make("Where", [_then("Equal", shape, np.array([-1, -1, -1])), np.array([1, 1, 1]), shape])
    assert infer(chosen)[0].dims == (N, 1, 4)


def test_head_split_cancels() -> None:
    """What leaves attention heads unknown without elements: Shape -> Gather -> Concat(-1) -> Reshape."""
    source = Value(tensor(DType.F32, "N", "H", 384), "x")
    shape = _then("Shape", source)
    batch = _then("Unsqueeze", _then("Gather", shape, np.array(0)), np.array([0]))
    rows = _then("Unsqueeze", _then("Gather", shape, np.array(1)), np.array([0]))
    wanted = make("Concat", [batch, rows, np.array([12]), np.array([-1])], {"axis": 0})
    wanted.result.type, wanted.result.dims = infer(wanted)[0].type, infer(wanted)[0].dims
    assert _then("Reshape", source, wanted.result).type == tensor(DType.F32, "N", "H", 12, 32)


def test_consumers_of_elements() -> None:
    assert _then("ConstantOfShape", vector(N, 3)).type == tensor(DType.F32, "N", 3)
    assert _then("Expand", Value(tensor(DType.F32, 1, 3), "x"), vector(N, 1)).type == tensor(DType.F32, "N", 3)
    assert _then("Tile", Value(tensor(DType.F32, "H", 3), "x"), vector(2, N)).type == TensorType(
        DType.F32, (2 * H, 3 * N)
    )
    grown = _then("Pad", Value(tensor(DType.F32, "H", 3), "x"), vector(0, 1, N, 1)).type
    assert grown == TensorType(DType.F32, (H + N, 5))
    assert _then("Range", scalar(0), scalar(H), scalar(1)).type == tensor(DType.I64, "H")
    assert _then("TopK", Value(tensor(DType.F32, "H"), "x"), vector(N)).type == tensor(DType.F32, "N")
    cut = _then("Slice", Value(tensor(DType.F32, 1, 512, 384), "x"), vector(0), vector(H), np.array([1]))
    assert cut.type == tensor(DType.F32, 1, "H", 384)
    tail = _then("Slice", Value(tensor(DType.F32, "H", 3), "x"), vector(-1 * H), np.array([2**63 - 1]), np.array([0]))
    assert tail.type == tensor(DType.F32, "H", 3)
    doubled = _then("Resize", Value(tensor(DType.F32, 1, 2, "H", "W"), "x"), None, None, vector(1, 2, 2 * H, W))
    assert doubled.type == TensorType(DType.F32, (1, 2, 2 * H, W))


def test_long_or_deep_tensors_carry_no_elements() -> None:
    assert constant_dims(Constant.of(np.zeros(65, np.int64))) is None
    assert constant_dims(Constant.of(np.zeros((1, 1), np.int64))) is None
    assert constant_dims(Constant.of(np.zeros(2, np.float32))) is None
    assert constant_dims(Constant.of(np.array([True, False]))) == (1, 0)
    assert _then("ConstantOfShape", vector(65), value=Constant.of(np.array([1]))).dims is None


def test_reshape_solves_the_one_unknown_size() -> None:
    made = _then("Reshape", Value(tensor(DType.F32, "N", 12), "x"), vector(N, dims.fresh(), 4))
    assert made.type == tensor(DType.F32, "N", 3, 4)


def test_slice_that_may_reach_beyond_the_axis() -> None:
    """The first five of N elements are fewer than five when N is: nobody knows."""
    cut = _then("Slice", Value(tensor(DType.F32, "N"), "x"), np.array([0]), np.array([5])).type
    assert isinstance(cut, TensorType)
    assert dims.is_fresh(cut.shape[0])
    grown = Value(TensorType(DType.F32, (N + 5,)), "x")
    assert _then("Slice", grown, np.array([0]), np.array([5])).type == tensor(DType.F32, 5)


def test_reshape_of_a_tensor_without_rank() -> None:
    op = make("Reshape", [UnrankedTensor(DType.F32), vector(N, -1, 4)])
    found = infer(op)[0].type
    assert isinstance(found, TensorType)
    assert found.shape[0] is N
    assert found.shape[2] == 4
    assert dims.is_fresh(found.shape[1])
