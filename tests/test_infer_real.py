"""Inference on real models against ONNX Runtime, which runs them with every value exposed at two bindings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from kit.exposed import Exposed, binding_of, wrong_shapes
from kit.real import RealModel, all_models, real_models

from mlc.frontends.onnx import load
from mlc.ir import dims
from mlc.ir.core import Module, Op, Value
from mlc.ir.dims import Dim, Sym
from mlc.ir.dtypes import DType
from mlc.ir.ops.table import lookup
from mlc.ir.types import TensorType

#: Sizes of the second run by symbol; a model without an entry grows every free size by one.
SECOND: Mapping[str, Mapping[str, int]] = {
    "ppocrv4_det": {"p2o.DynamicDimension.0": 2, "p2o.DynamicDimension.1": 64, "p2o.DynamicDimension.2": 96},
    "ppocrv4_rec": {"p2o.DynamicDimension.0": 2, "p2o.DynamicDimension.1": 160},
    "silero_vad_op15": {"batch": 2, "sequence": 584},
    "silero_vad_half": {"batch": 2, "sequence": 584},
    "khmersm": {"batch": 1, "seq": 24},
    "silero_vad_ifless": {"batch": 2, "sequence": 576},
    **{name: {"batch_size": 1, "frames": 80} for name in ("plcmos", "aecmos_1", "aecmos_2", "aecmos_3")},
    "ddddocr_ocr": {"image_width": 208},
    "ddddocr_ocr_old": {"image_width": 208},
}
#: Axes whose size the models fix in another way than by their declared inputs.
FIXED = {"ppocr_cls", "silero_vad", "silero_vad_512", "silero_vad_600"}


@all_models()
def test_shapes_and_elements_at_two_bindings(model: RealModel) -> None:
    module = load(model.path)
    exposed = Exposed(module)
    first = model.feeds(seed=0)
    bound = binding_of(module, first)
    assert wrong_shapes(exposed.run(first), bound) == []
    if bound and model.name not in FIXED:
        second = {**{name: size + 1 for name, size in bound.items()}, **SECOND.get(model.name, {})}
        feeds = _resized(module, first, second)
        assert wrong_shapes(exposed.run(feeds), second) == []


def _resized(module: Module, feeds: Mapping[str, np.ndarray], bound: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The feeds with every axis brought to its size under another binding, by repeating what is there."""
    made = dict(feeds)
    for value in module.graph.inputs:
        if value.name in feeds and isinstance(value.type, TensorType):
            shape = tuple(dims.evaluate(d, bound) or 0 for d in value.type.shape)
            made[value.name] = np.resize(feeds[value.name], shape)
    return made


@all_models()
def test_weighted_operators_know_their_channels(model: RealModel) -> None:
    """No operator with constant parameters has an unknown size where the parameters meet the activation."""
    blind = [repr(op) for op in load(model.path).walk() for v in op.results if _is_weighted(op) and _is_blind(op, v)]
    assert blind == []


# fmt: off
WEIGHTED = frozenset((
    "Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "MatMulInteger", "ConvInteger", "BatchNormalization",
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "com.microsoft::DynamicQuantizeLSTM",
))
# fmt: on
#: The axis of the result that the parameters make.
CHANNEL = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "BatchNormalization": 1, "InstanceNormalization": 1}


def _is_weighted(op: Op) -> bool:
    return op.kind in WEIGHTED and any(_is_parameter(op.operand(slot)) for slot in lookup(op.kind).weights)


def _is_parameter(value: Value | None) -> bool:
    """A constant, perhaps behind a DequantizeLinear, that is more than one number."""
    if value is not None and value.op is not None and value.op.kind == "DequantizeLinear":
        value = value.op.operand(0)
    return value is not None and value.constant is not None and value.constant.type.rank > 0


def _is_blind(op: Op, value: Value) -> bool:
    kind = value.type
    return not isinstance(kind, TensorType) or _unknown(kind.shape[CHANNEL.get(op.kind, -1)])


def _unknown(dim: Dim) -> bool:
    return not isinstance(dim, int)


@real_models("minilm", "mobilenet_v2", "ppocrv4_rec", "khmersm", "opennsfw_unfolded", "smart_turn")
def test_nothing_is_unknown(model: RealModel) -> None:
    """Every size of these is a number or an expression in the names of the inputs."""
    module = load(model.path)
    inputs = {
        s for v in module.graph.inputs if isinstance(v.type, TensorType) for d in v.type.shape for s in _symbols(d)
    }
    for value in module.values():
        assert isinstance(value.type, TensorType), value
        assert {s for d in value.type.shape for s in _symbols(d)} <= inputs, value


def _symbols(dim: Dim) -> frozenset[Sym]:
    return dims.symbols(dim)


@real_models("minilm")
def test_the_heads_of_minilm(model: RealModel) -> None:
    """12 heads of 32: what ONNX's own inference leaves unknown."""
    heads = [v.type for v in load(model.path).values() if isinstance(v.type, TensorType) and v.type.rank == 4]
    assert any(t.shape[-2:] == (12, 32) for t in heads)
    assert all(isinstance(t.shape[1], int) or isinstance(t.shape[2], int) for t in heads if t.dtype is DType.F32)


@real_models("silero_vad_op15", "silero_vad")
def test_bodies_are_typed(model: RealModel) -> None:
    """An LSTM in a branch knows its hidden size although what flows into it has no rank."""
    module = load(model.path)
    nested = [op for op in module.walk() if op.kind == "LSTM" and op.parent is not module.graph]
    assert nested
    for op in nested:
        assert isinstance(op.results[0].type, TensorType)
        assert op.results[0].type.shape[-1] == 128
