"""Types: unify keeps the most exact, join covers both, and both agree with each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc.ir import dims, dtypes, types
from mlc.ir.dims import Sym
from mlc.ir.dtypes import DType
from mlc.ir.types import OptionalType, SequenceType, TensorType, Type, UnrankedTensor, tensor

F32, I64 = DType.F32, DType.I64
N, UNKNOWN = Sym("N"), dims.fresh()
SIZES = st.sampled_from([0, 1, 2, N, N + 1, UNKNOWN])
TENSORS = st.one_of(
    st.builds(TensorType, st.sampled_from([F32, I64]), st.lists(SIZES, max_size=3).map(tuple)),
    st.builds(UnrankedTensor, st.sampled_from([F32, I64])),
)
TYPES = st.recursive(
    TENSORS, lambda inner: st.one_of(st.builds(SequenceType, inner), st.builds(OptionalType, inner)), max_leaves=3
)


@given(TYPES)
def test_a_type_agrees_with_itself(a: Type) -> None:
    assert types.unify(a, a) == a
    assert types.join(a, a) == a


@given(TYPES, TYPES)
def test_unify_is_the_same_in_either_order_as_far_as_it_says(a: Type, b: Type) -> None:
    assert types.compatible(a, b) == types.compatible(b, a)
    both = types.unify(a, b)
    if both is not None:
        assert types.compatible(both, a)
        assert types.compatible(both, b)
        assert types.unify(both, a) == both


@given(TYPES, TYPES)
def test_join_covers_both(a: Type, b: Type) -> None:
    covering = types.join(a, b)
    if covering is not None:
        assert types.compatible(covering, a)
        assert types.compatible(covering, b)
        assert types.unify(covering, a) == a or dims_hidden(a)


def dims_hidden(a: Type) -> bool:
    """A type with an unknown dimension: the unknown of the join may take its place."""
    return "?" in str(a)


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        (tensor(F32, 2, "N"), tensor(F32, UNKNOWN, 3), tensor(F32, 2, 3)),
        (tensor(F32, 2), tensor(F32, 3), None),
        (tensor(F32, 2), tensor(I64, 2), None),
        (tensor(F32, 2), tensor(F32, 2, 1), None),
        (tensor(F32, 2), UnrankedTensor(F32), tensor(F32, 2)),
        (UnrankedTensor(I64), UnrankedTensor(F32), None),
        (SequenceType(UnrankedTensor(F32)), SequenceType(tensor(F32)), SequenceType(tensor(F32))),
        (SequenceType(tensor(F32)), tensor(F32), None),
        (OptionalType(tensor(F32)), SequenceType(tensor(F32)), None),
    ],
)
def test_unify(a: Type, b: Type, both: Type | None) -> None:
    assert types.unify(a, b) == both


def test_join_of_branches() -> None:
    joined = types.join(tensor(F32, 2, "N"), tensor(F32, 3, "N"))
    assert isinstance(joined, TensorType)
    assert dims.is_fresh(joined.shape[0])
    assert joined.shape[1] is N
    assert types.join(tensor(F32, 2), tensor(F32, 2, 2)) == UnrankedTensor(F32)
    assert types.join(tensor(F32, 2), tensor(I64, 2)) is None


def test_facts_of_a_tensor_type() -> None:
    assert tensor(F32, "N", 3).elements == 3 * N
    assert tensor(F32, 2, 3).static_shape == (2, 3)
    assert tensor(F32).static_shape == ()
    assert tensor(F32, "N").static_shape is None
    assert str(tensor(F32, "N", 2 * N + 1, "a b")) == 'f32[N, 2*N + 1, "a b"]'
    assert str(SequenceType(UnrankedTensor(DType.BF16))) == "seq<bf16[*]>"


def test_the_table_of_element_types() -> None:
    import onnx

    newer = {"UNDEFINED", "FLOAT6E2M3", "FLOAT6E3M2"}  # the last two came with IR 14
    assert {d.onnx for d in DType} == {n for name, n in onnx.TensorProto.DataType.items() if name not in newer}
    for dtype in DType:
        if dtype is not DType.STR:
            assert dtypes.of_numpy(dtype.numpy) is dtype
            assert dtype.numpy.itemsize * 8 >= dtype.bits
        assert onnx.helper.tensor_dtype_to_np_dtype(dtype.onnx) == dtype.numpy
