"""One op on its own: typed from symbolic shapes, inferred, and run on arrays of a binding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlc.ir import dims
from mlc.ir.constants import Constant
from mlc.ir.core import Graph, Module, Op, Value
from mlc.ir.dtypes import DType
from mlc.ir.evaluate import evaluate_op
from mlc.ir.infer import constant_dims, infer_op
from mlc.ir.ops.opdef import Inferred
from mlc.ir.types import TensorType, Type, UnrankedTensor, tensor

Operand = Any  # a shape (tuple of sizes and names), an array (a constant), a Type, or None


def make(kind: str, operands: Sequence[Operand], attrs: Mapping[str, Any] | None = None, results: int = 1) -> Op:
    """An op in no graph. Tuples are f32 inputs of that symbolic shape, arrays are constants."""
    values = [_value(x, f"x{i}") for i, x in enumerate(operands)]
    return Op(kind, values, attrs or {}, [Value(UnrankedTensor(DType.F32)) for _ in range(results)], name=kind)


def _value(operand: Operand, name: str) -> Value | None:
    if operand is None or isinstance(operand, Value):
        return operand
    if isinstance(operand, Type):
        return Value(operand, name)
    if isinstance(operand, tuple):
        return Value(tensor(DType.F32, *operand), name)
    constant = Constant.of(np.asarray(operand))
    value = Value(constant.type, name)
    value.constant, value.dims = constant, constant_dims(constant)
    return value


def infer(op: Op, *, opset: int = 21, require: bool = True, opsets: Mapping[str, int] | None = None) -> list[Inferred]:
    return infer_op(op, Module(Graph(), opset=opset, opsets=opsets), require=require)


def real_results(op: Op, binding: Mapping[str, int], rng: np.random.Generator) -> list[np.ndarray]:
    """The results of the reference on random inputs whose symbols are bound."""
    arrays = [None if v is None else _array(v, binding, rng) for v in op.operands]
    return evaluate_op(op, arrays)


def _array(value: Value, binding: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    if value.constant is not None:
        return value.constant.array()
    assert isinstance(value.type, TensorType)
    shape = tuple(dims.evaluate(d, binding) for d in value.type.shape)
    if value.dims is not None:
        return np.array([dims.evaluate(d, binding) for d in value.dims], value.type.dtype.numpy).reshape(shape)
    if value.type.dtype.is_integer or value.type.dtype is DType.BOOL:
        return rng.integers(0, 2, shape).astype(value.type.dtype.numpy)
    return rng.uniform(0.5, 1.5, shape).astype(value.type.dtype.numpy)


def shape_at(found: Inferred, binding: Mapping[str, int]) -> tuple[int | None, ...]:
    assert isinstance(found.type, TensorType)
    return tuple(dims.evaluate(d, binding) for d in found.type.shape)
