"""The operator table: consistent rows, and the page generated from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from kit.single import make

import mlc
from mlc.ir.errors import MlcError
from mlc.ir.evaluate import evaluate_op
from mlc.ir.ops.coverage import OPSET, render
from mlc.ir.ops.opdef import OpDef, Trait
from mlc.ir.ops.table import known, lookup

PAGE = Path(mlc.__file__).parent / "docs" / "operators.md"
ROWS = list(known())
#: Operators that ONNX Runtime registers in ONNX's domain although no opset has them.
RUNTIME_ONLY = {"SimplifiedLayerNormalization"}


def test_the_page_is_up_to_date() -> None:
    """If this fails: python -m mlc.ir.ops.coverage > docs/operators.md"""
    assert PAGE.read_text() == render()


def test_kinds_are_unique() -> None:
    kinds = [row.kind for row in ROWS]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind)
def test_row_is_consistent(row: OpDef) -> None:
    domain, _, name = row.kind.rpartition("::")
    if domain == "" and name not in RUNTIME_ONLY:
        schema = onnx.defs.get_schema(name, OPSET, "")
        assert all(slot < schema.max_input for slot in row.weights)
        if row.has(Trait.COMMUTATIVE):
            assert schema.max_input >= 2
    if domain or name in RUNTIME_ONLY:
        assert row.infer is not None, "ONNX cannot infer it"
    assert not (row.has(Trait.RANDOM) and row.reference)
    if row.macs is not None:
        assert row.weights or row.kind.endswith(("Attention",)), "arithmetic without parameters or attention"
    assert list(row.weights) == sorted(set(row.weights))


@pytest.mark.parametrize("row", [r for r in ROWS if r.has(Trait.COMMUTATIVE)], ids=lambda row: row.kind)
def test_commutative_operators_commute(row: OpDef) -> None:
    rng = np.random.default_rng(0)
    kinds = {"And": np.bool_, "Or": np.bool_, "Xor": np.bool_}
    kind = kinds.get(row.kind, np.int64 if row.kind.startswith("Bitwise") else np.float32)
    a, b = ((rng.standard_normal((3, 4)) * 3).astype(kind) for _ in range(2))
    op = make(row.kind, [a, b])
    np.testing.assert_array_equal(evaluate_op(op, [a, b])[0], evaluate_op(op, [b, a])[0])


ELEMENTWISE = [r for r in ROWS if r.has(Trait.ELEMENTWISE) and "::" not in r.kind]


@pytest.mark.parametrize("row", ELEMENTWISE, ids=lambda row: row.kind)
def test_elementwise_operators_work_element_by_element(row: OpDef) -> None:
    """Permuting the elements of all operands permutes the result."""
    schema = onnx.defs.get_schema(row.kind, OPSET, "")
    kind, count = _sample_kind(row.kind), max(1, schema.min_input)
    rng = np.random.default_rng(1)
    arrays = [rng.uniform(0.1, 0.9, 24).astype(np.float32) for _ in range(count)]
    arrays = [(a * 10).astype(kind) if kind != np.float32 else a for a in arrays]
    if row.kind == "Where":
        arrays[0] = arrays[0] > 5
    attrs = {"Cast": {"to": 7}, "BitCast": {"to": 6}, "BitShift": {"direction": "LEFT"}}.get(row.kind, {})
    op = make(row.kind, arrays, attrs)
    order = rng.permutation(24)
    if row.kind == "Dropout":
        arrays = arrays[:1]
    (plain, *_), (moved, *_) = evaluate_op(op, arrays), evaluate_op(op, [a[order] for a in arrays])
    np.testing.assert_array_equal(plain[order], moved)


def _sample_kind(kind: str) -> type[np.generic]:
    if kind in ("And", "Or", "Xor", "Not"):
        return np.bool_
    whole = kind.startswith("Bit") and kind != "BitCast"
    return np.uint32 if whole else np.int64 if kind in ("Where", "Mod") else np.float32


def test_unknown_operators_have_a_row_of_defaults() -> None:
    row = lookup("com.acme::Mystery")
    assert row == OpDef("com.acme::Mystery")


def test_operators_of_real_models_have_own_rules() -> None:
    """The thirty operators that make up nine tenths of the nodes of real models keep symbolic sizes."""
    common = [
        "Add", "Concat", "Reshape", "Mul", "Transpose", "Unsqueeze", "Shape", "Relu", "Sigmoid", "Cast", "MatMul",
        "Div", "ConstantOfShape", "Squeeze", "Sqrt", "Pow", "ReduceMean", "Softmax", "Sub", "Gemm", "Equal", "Identity",
        "Expand", "Slice", "Conv", "Gather", "MaxPool", "Pad", "Clip", "BatchNormalization", "Where", "LSTM", "GRU",
    ]  # fmt: skip
    assert [kind for kind in common if lookup(kind).infer is None] == []


@pytest.mark.parametrize("row", [r for r in ROWS if r.has(Trait.RANDOM)], ids=lambda row: row.kind)
def test_random_operators_are_not_evaluated(row: OpDef) -> None:
    with pytest.raises(MlcError, match="draws random numbers"):
        evaluate_op(make(row.kind, [("N",)]), [np.ones(3, np.float32)])
