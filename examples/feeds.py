"""Synthetic inputs for a model, typed from its ONNX inputs: ids within their table, masks of ones, floats N(0, 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

# The extent of a dimension that neither the model nor a hint fixes: one sample, short sequences.
FIRST, OTHER = 1, 16
IDS_WITHOUT_TABLE = 2
# What passes ids on unchanged on their way from an input to the table that they index.
THROUGH = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def synthetic(
    model: Path,
    seed: int = 0,
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, float] | None = None,
) -> dict[str, np.ndarray]:
    """One feed for the model: `dims` fixes symbols, `shapes` whole inputs, `values` fills an input with a constant."""
    graph = onnx.load(str(model), load_external_data=False).graph
    rng = np.random.default_rng(seed)
    initialized = {tensor.name for tensor in graph.initializer}
    bound = dict(dims or {})
    feed: dict[str, np.ndarray] = {}
    for value in graph.input:
        if value.name in initialized:
            continue
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        fixed = (shapes or {}).get(value.name)
        shape = tuple(fixed) if fixed is not None else _shape(tensor.shape.dim, bound)
        if values and value.name in values:
            feed[value.name] = np.full(shape, values[value.name], dtype)
        else:
            feed[value.name] = _fill(value.name, shape, dtype, graph, rng)
    return feed


def _shape(dims: Sequence[onnx.TensorShapeProto.Dimension], bound: dict[str, int]) -> tuple[int, ...]:
    def extent(axis: int, dim: onnx.TensorShapeProto.Dimension) -> int:
        free = OTHER if axis else FIRST
        if dim.dim_value > 0:
            return dim.dim_value
        return bound.setdefault(dim.dim_param, free) if dim.dim_param else free

    return tuple(extent(axis, dim) for axis, dim in enumerate(dims))


def _fill(
    name: str, shape: tuple[int, ...], dtype: np.dtype, graph: onnx.GraphProto, rng: np.random.Generator
) -> np.ndarray:
    if dtype == np.bool_ or "mask" in name.lower():
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, _rows_of_table(name, graph), shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _rows_of_table(name: str, graph: onnx.GraphProto) -> int:
    """The least extent of the constant tables that the input indexes."""
    tables = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    reached, rows = {name}, []
    for node in graph.node:  # ONNX nodes are sorted: one sweep follows the ids
        if node.op_type in THROUGH and node.input[0] in reached:
            reached.add(node.output[0])
        # A quantized table stays a table behind its DequantizeLinear.
        if node.op_type == "DequantizeLinear" and node.input[0] in tables:
            tables[node.output[0]] = tables[node.input[0]]
        if node.op_type == "Gather" and node.input[1] in reached and node.input[0] in tables:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            rows.append(tables[node.input[0]][axis])
    return min(rows, default=IDS_WITHOUT_TABLE)
