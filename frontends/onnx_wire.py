"""Reads a serialized model without its weights: the bytes of large tensors stay where they are.

Protobuf has no lazy fields: parsing an ONNX file copies every weight, and so do the version converter and the
inliner. So the wire format is scanned first, and each tensor with a large run of raw data is replaced by a stub that
says where in the file the run lies (as external data of the file itself). What is parsed afterwards is small.
Only messages larger than the threshold are entered, so the cost does not grow with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.protowire import length_delimited, varint

#: `external_data` location of a run of bytes in the model file itself. No file can be called that.
SELF = "\0self"
_KEEP_BYTES = 1024  # smaller tensors stay inline: converters read axes, shapes and the like
_MAX_DEPTH = 100  # of messages; protobuf's own limit

_MODEL, _GRAPH, _NODE, _FUNCTION, _ATTRIBUTE, _SPARSE, _TENSOR = [
    "model",
    "graph",
    "node",
    "function",
    "attribute",
    "sparse",
    "tensor",
]

#: Which fields of a message lead to tensors, and what kind of message they hold.
_PATHS: Mapping[str, Mapping[int, str]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}

# Fields of TensorProto.
_DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA, _EXTERNAL_DATA, _LOCATION = 2, 4, 9, 10, 13, 14
_PAYLOADS = frozenset((_FLOAT_DATA, 5, 6, 7, _RAW_DATA, _DOUBLE_DATA, 11, _EXTERNAL_DATA))
#: Packed fields whose bytes are the raw data of tensors of this type.
_PACKED_AS_RAW = {_FLOAT_DATA: 1, _DOUBLE_DATA: 11}


class WireError(ValueError):
    """The bytes are not a protobuf message (or end too early)."""


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    wire_type: int
    start: int  # of the tag
    body: int  # of the content
    end: int


def lighten(data: memoryview) -> bytes:
    """A serialized ModelProto equal to `data` but for stubs in place of large tensor data. Raises WireError."""
    return _message(data, _MODEL, 0, len(data), 0)


def _message(data: memoryview, kind: str, start: int, end: int, depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise WireError("messages are nested too deeply")
    if kind == _TENSOR:
        return _tensor(data, start, end)
    paths = _PATHS[kind]
    parts: list[bytes | memoryview] = []
    kept = start  # everything from here on is copied as it is
    for field in _fields(data, start, end):
        inner = paths.get(field.number)
        if inner is None or field.wire_type != 2 or field.end - field.body <= _KEEP_BYTES:
            continue
        content = _message(data, inner, field.body, field.end, depth + 1)
        parts += (data[kept : field.start], length_delimited(field.number, len(content)), content)
        kept = field.end
    parts.append(data[kept:end])
    return b"".join(parts)


def _tensor(data: memoryview, start: int, end: int) -> bytes:
    fields = list(_fields(data, start, end))
    payloads = [f for f in fields if f.number in _PAYLOADS]
    if len(payloads) != 1 or not _is_raw(data, payloads[0], fields):
        return bytes(data[start:end])
    run = payloads[0]
    rest = b"".join(data[f.start : f.end] for f in fields if f is not run and f.number != _LOCATION)
    return rest + external_fields(SELF, run.body, run.end - run.body)


def _is_raw(data: memoryview, run: _Field, fields: list[_Field]) -> bool:
    """Whether a field is a large run of bytes that are the tensor's elements as a file would hold them."""
    if run.wire_type != 2 or run.end - run.body <= _KEEP_BYTES:
        return False
    if run.number == _RAW_DATA:
        return True
    types = [_varint(data, f.body, f.end)[0] for f in fields if f.number == _DATA_TYPE and f.wire_type == 0]
    return run.number in _PACKED_AS_RAW and types == [_PACKED_AS_RAW[run.number]]


def _fields(data: memoryview, start: int, end: int) -> list[_Field]:
    found = []
    at = start
    while at < end:
        tag, body = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            stop = _varint(data, body, end)[1]
        elif wire_type == 1:
            stop = body + 8
        elif wire_type == 2:
            length, body = _varint(data, body, end)
            stop = body + length
        elif wire_type == 5:
            stop = body + 4
        else:
            raise WireError(f"wire type {wire_type} at byte {at}")
        if number == 0 or stop > end:
            raise WireError(f"a field at byte {at} reaches beyond the end of its message")
        found.append(_Field(number, wire_type, at, body, stop))
        at = stop
    return found


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The value of a varint and the position behind it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError(f"a number that does not end at byte {at}")


def external_fields(location: str, offset: int, length: int) -> bytes:
    """The fields of a TensorProto that say where its data lies."""
    out = b""
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = b"".join(length_delimited(n, len(s)) + s for n, s in ((1, key.encode()), (2, text.encode())))
        out += length_delimited(_EXTERNAL_DATA, len(entry)) + entry
    return out + varint(_LOCATION << 3) + b"\x01"
