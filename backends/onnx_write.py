"""Writes a model whose large constants are stubs, streaming them: no weight is ever held in memory whole.

Protobuf messages may hold their fields in any order, so the bytes of the stubs' tensors are appended to the
serialized rest of the graph. External data goes to one file beside the model, at aligned offsets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from ..ir.constants import Constant
from ..ir.protowire import length_delimited
from ..ir.scratch import scratch
from ..ir.signals import shielded
from .onnx_graph import STUB, Stubs

_PAGE = 4096
_LARGE = 64 << 10  # tensors from this size on start at a page, so that runtimes can map them
_ALIGN = 64
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers


def fill(proto: ModelProto, stubs: Stubs) -> None:
    """Put the data of every stub into the message itself."""
    for tensor in _stub_tensors(proto.graph):
        _fill(tensor, stubs[tensor.name])


def write_inline(proto: ModelProto, stubs: Stubs, file: BinaryIO) -> None:
    """One file. The main graph's stubs are streamed; those in bodies are small and filled in place."""
    main = [t for t in proto.graph.initializer if _is_stub(t)]
    streamed = {t.name for t in main}
    for tensor in _stub_tensors(proto.graph):
        if tensor.name not in streamed:
            _fill(tensor, stubs[tensor.name])
    heads = [_tensor_head(t, stubs[t.name]) for t in main]
    rest = [t for t in proto.graph.initializer if t.name not in streamed]
    graph = GraphProto()
    graph.CopyFrom(proto.graph)
    del graph.initializer[:]
    graph.initializer.extend(rest)
    graph_bytes = graph.SerializeToString(deterministic=True)
    outer = ModelProto()
    outer.CopyFrom(proto)
    outer.ClearField("graph")
    length = len(graph_bytes) + sum(len(head) + stubs[t.name].nbytes for head, t in zip(heads, main))
    file.write(outer.SerializeToString(deterministic=True))
    file.write(length_delimited(_GRAPH, length))
    file.write(graph_bytes)
    for head, tensor in zip(heads, main):
        file.write(head)
        _stream(stubs[tensor.name], file)


def write_external(proto: ModelProto, stubs: Stubs, data: BinaryIO, location: str) -> None:
    """Large constants into `data`, which the model will know as `location`; the message is pointed at them."""
    offset = 0
    for tensor in _stub_tensors(proto.graph):
        constant = stubs[tensor.name]
        align = _PAGE if constant.nbytes >= _LARGE else _ALIGN
        start = -(-offset // align) * align
        data.write(bytes(start - offset))
        _stream(constant, data)
        offset = start + constant.nbytes
        del tensor.external_data[:]
        for key, text in (("location", location), ("offset", str(start)), ("length", str(constant.nbytes))):
            tensor.external_data.add(key=key, value=text)


def replace_files(writers: dict[Path, Callable[[BinaryIO], None]]) -> None:
    """Write neighbours beside their places, flush all to disk, then rename them in order; nothing is left on failure.

    Errors: OUTPUT.
    """
    first = next(iter(writers))
    with scratch(first.name, first.parent) as folder:
        for path, write in writers.items():
            with (folder / path.name).open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        with shielded():
            for path in writers:
                os.replace(folder / path.name, path)


def _stub_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stub of a graph and of the bodies below, in a fixed order."""
    yield from (t for t in graph.initializer if _is_stub(t))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _stub_tensors(attribute.g)


def _is_stub(tensor: TensorProto) -> bool:
    return len(tensor.external_data) > 0 and tensor.external_data[0].value == STUB


def _fill(tensor: TensorProto, constant: Constant) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = constant.tobytes()


def _tensor_head(tensor: TensorProto, constant: Constant) -> bytes:
    """Everything of the initializer's field but the data itself."""
    bare = TensorProto()
    bare.CopyFrom(tensor)
    bare.ClearField("external_data")
    bare.ClearField("data_location")
    body: bytes = bare.SerializeToString(deterministic=True) + length_delimited(_RAW_DATA, constant.nbytes)
    return length_delimited(_INITIALIZER, len(body) + constant.nbytes) + body


def _stream(constant: Constant, file: BinaryIO) -> None:
    for chunk in constant.chunks():
        file.write(chunk)
