"""A small network of two dense layers as a file, and samples for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def two_layers(folder: Path, *, width: int = 64, seed: int = 0) -> Path:
    """x -> MatMul -> Add -> Relu -> MatMul -> y, `width` hidden units, half of them weak."""
    rng = np.random.default_rng(seed)
    strength = np.where(np.arange(width) % 2, 1.0, 0.02).astype(np.float32)
    tensors = {
        "fc1.weight": rng.standard_normal((64, width), dtype=np.float32) * strength / 8,
        "fc1.bias": rng.standard_normal(width, dtype=np.float32) * strength,
        "fc2.weight": rng.standard_normal((width, 10), dtype=np.float32) / 8,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "fc1.weight"], ["h"], name="fc1"),
        helper.make_node("Add", ["h", "fc1.bias"], ["b"], name="bias"),
        helper.make_node("Relu", ["b"], ["r"], name="act"),
        helper.make_node("MatMul", ["r", "fc2.weight"], ["y"], name="fc2"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["N", 64])],
        [value("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(a, n) for n, a in tensors.items()],
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def samples(folder: Path, count: int = 40) -> Path:
    path = folder / "data.npz"
    np.savez(path, x=np.random.default_rng(1).standard_normal((count, 64), dtype=np.float32))
    return path
