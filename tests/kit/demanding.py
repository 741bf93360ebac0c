"""Small models that demand more of their inputs than types say: tables of tokens and positions, sizes that must fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WORDS, POSITIONS, WIDTH, CLASSES = 50, 16, 8, 4
Build = Callable[[], ModelProto]
_F, _I = TensorProto.FLOAT, TensorProto.INT64


def _rows(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _model(nodes: Sequence[NodeProto], x: tuple[str, int, Sequence[Any]], y: Sequence[Any], **more: Any) -> ModelProto:
    name, kind, shape = x
    graph = helper.make_graph(
        list(nodes),
        "demanding",
        [helper.make_tensor_value_info(name, kind, list(shape))],
        [helper.make_tensor_value_info("y", _F, list(y))],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in more.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _text(*positions: NodeProto, **more: Any) -> ModelProto:
    """Token ids through a table, plus rows of positions (value `places`), averaged, to classes."""
    node = helper.make_node
    nodes = [
        node("Gather", ["words", "input_ids"], ["tokens"]),
        *positions,
        node("Add", ["tokens", "places"], ["sum"]),
        node("ReduceMean", ["sum", "one"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "head"], ["y"]),
    ]
    tables = {
        "words": _rows(0, WORDS, WIDTH),
        "table": _rows(1, POSITIONS, WIDTH),
        "head": _rows(2, WIDTH, CLASSES),
        "zero": np.array([0]),
        "one": np.array([1]),
    }
    return _model(nodes, ("input_ids", _I, ("N", "S")), ("N", CLASSES), **tables, **more)


def _length() -> list[NodeProto]:
    return [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "two", "zero"], ["length"]),
    ]


def sliced() -> ModelProto:
    """Positions are the first rows of a table, as in BERT."""
    cut = helper.make_node("Slice", ["table", "zero", "length", "zero"], ["places"])
    return _text(*_length(), cut, two=np.array([2]))


def counted_by_length() -> ModelProto:
    """Positions are numbered by the length, and picked, as in GPT-2."""
    node = helper.make_node
    return _text(
        *_length(),
        node("Squeeze", ["length"], ["end"]),
        node("Range", ["start", "end", "step"], ["numbers"]),
        node("Gather", ["table", "numbers"], ["places"]),
        two=np.array([2]),
        start=np.array(0),
        step=np.array(1),
    )


def buffered() -> ModelProto:
    """Positions are read from a buffer of numbers, which is as long as the table."""
    node = helper.make_node
    return _text(
        *_length(),
        node("Squeeze", ["length"], ["end"]),
        node("Range", ["start", "end", "step"], ["order"]),
        node("Gather", ["buffer", "order"], ["numbers"]),
        node("Gather", ["table", "numbers"], ["places"]),
        two=np.array([2]),
        start=np.array(0),
        step=np.array(1),
        buffer=np.arange(POSITIONS),
    )


def counted_by_tokens() -> ModelProto:
    """Positions are the numbers of tokens that are no padding (id 1), from 2 on, as in RoBERTa."""
    node = helper.make_node
    return _text(
        node("Equal", ["input_ids", "padding"], ["empty"]),
        node("Not", ["empty"], ["real"]),
        node("Cast", ["real"], ["mask"], to=_I),
        node("CumSum", ["mask", "axis"], ["count"]),
        node("Mul", ["count", "mask"], ["counted"]),
        node("Add", ["counted", "padding"], ["numbers"]),
        node("Gather", ["table", "numbers"], ["places"]),
        padding=np.array(1),
        axis=np.array(1),
    )


def halved() -> ModelProto:
    """An image that is halved twice, made larger again and added: sides must be multiples of 4."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "down"], ["half"], strides=[2, 2], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Conv", ["half", "down"], ["quarter"], strides=[2, 2], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("ConvTranspose", ["quarter", "up"], ["large"], strides=[4, 4], kernel_shape=[4, 4]),
        node("Add", ["x", "large"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["pooled"]),
        node("Flatten", ["pooled"], ["y"]),
    ]
    weights = {"down": _rows(0, 3, 3, 3, 3), "up": _rows(1, 3, 3, 4, 4)}
    return _model(nodes, ("x", _F, ("N", 3, "H", "W")), ("N", 3), **weights)


def three() -> ModelProto:
    """Exactly three numbers of a row must not be 0: nothing that a graph says."""
    node = helper.make_node
    nodes = [
        node("NonZero", ["x"], ["places"]),
        node("Reshape", ["places", "shape"], ["six"]),
        node("Cast", ["six"], ["numbers"], to=_F),
        node("ReduceSum", ["numbers"], ["total"], keepdims=0),
        node("MatMul", ["x", "w"], ["wide"]),
        node("Add", ["wide", "total"], ["y"]),
    ]
    return _model(nodes, ("x", _F, ("N", WIDTH)), ("N", CLASSES), shape=np.array([2, 3]), w=_rows(0, WIDTH, CLASSES))


def unsized() -> ModelProto:
    """As many classes as numbers that are kept: no graph says how many."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["all"]),
        helper.make_node("Compress", ["all", "kept"], ["y"], axis=1),
    ]
    more = {"w": _rows(0, WIDTH, CLASSES), "kept": np.ones(CLASSES, bool)}
    return _model(nodes, ("x", _F, ("N", WIDTH)), ("N", "C"), **more)


def write(folder: Path, build: Build, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(build().SerializeToString())
    return path
