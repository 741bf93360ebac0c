"""TensorProto messages as constants: lazy, memory-mapped, and checked before anything reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import SparseTensorProto, TensorProto

from ..ir.constants import ArrayPayload, Constant, FilePayload, PackedPayload, Payload
from ..ir.dtypes import BY_ONNX, DType
from ..ir.errors import Code, MlcError, error
from ..ir.types import TensorType
from .onnx_wire import SELF

_MAX_DENSE_BYTES = 256 << 20  # a sparse tensor is made dense up to this size
_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


class TensorReader:
    """Turns the tensors of one model into constants. `path` is its file; `data` its bytes if there is no file."""

    def __init__(self, path: Path | None, data: memoryview | None) -> None:
        self.path, self.data = path, data
        self.root = path.parent.resolve() if path is not None else None
        self.external_files: dict[Path, int] = {}  # the files read from, and their sizes

    def constant(self, proto: TensorProto, where: str) -> Constant:
        """A constant with the elements of a tensor. `where` names it in errors."""
        dtype, shape = self._type(proto, where)
        return Constant(TensorType(dtype, shape), self._payload(proto, dtype, shape, where), proto.name)

    def sparse(self, proto: SparseTensorProto, where: str) -> Constant:
        """A sparse tensor, made dense."""
        values = self.constant(proto.values, f"the values of {where}").array().reshape(-1)
        indices = self.constant(proto.indices, f"the indices of {where}").array()
        shape = _shape(proto.dims, where)
        total = math.prod(shape)
        if total * values.itemsize > _MAX_DENSE_BYTES:
            raise error(
                Code.UNSUPPORTED_MODEL,
                f"a sparse tensor of shape {list(shape)} is too large to be made dense",
                where=where,
                help="store it as an ordinary tensor",
            )
        try:
            flat = indices.reshape(-1) if indices.ndim < 2 else np.ravel_multi_index(tuple(indices.T), shape)
            dense = np.zeros(total, values.dtype)
            if flat.size != values.size or (flat.size and flat.min() < 0):
                raise ValueError(f"{flat.size} indices for {values.size} values")
            dense[flat] = values
        except (ValueError, IndexError, TypeError) as reason:
            raise broken(f"the sparse tensor does not fit its shape {list(shape)}: {reason}", where) from reason
        return Constant.of(dense.reshape(shape), origin=proto.values.name)

    def _type(self, proto: TensorProto, where: str) -> tuple[DType, tuple[int, ...]]:
        dtype = BY_ONNX.get(proto.data_type)
        if dtype is None:
            raise error(
                Code.UNSUPPORTED_MODEL,
                f"the tensor has the unknown element type {proto.data_type}",
                where=where,
                help="re-export the model with element types that ONNX 1.20 knows",
            )
        if proto.HasField("segment"):
            raise error(Code.UNSUPPORTED_MODEL, "the tensor is stored in segments", where=where, help="store it whole")
        return dtype, _shape(proto.dims, where)

    def _payload(self, proto: TensorProto, dtype: DType, shape: tuple[int, ...], where: str) -> Payload:
        fields = [name for name in _DATA_FIELDS if len(getattr(proto, name))]
        stored = len(fields) + proto.HasField("raw_data") + (proto.data_location == TensorProto.EXTERNAL)
        if stored > 1:
            raise broken("the tensor's data is stored twice", where)
        wanted = dtype.nbytes(math.prod(shape))
        if proto.data_location == TensorProto.EXTERNAL:
            if dtype is DType.STR:
                raise broken("a tensor of strings cannot be external data", where)
            return self._external(proto, dtype, shape, wanted, where)
        if proto.HasField("raw_data") and dtype is not DType.STR:
            raw = proto.raw_data
            if len(raw) != wanted:
                raise broken(_size_text(shape, dtype, wanted, len(raw)), where)
            return PackedPayload(np.frombuffer(raw, np.uint8), dtype, shape)
        return _typed_fields(proto, dtype, shape, where)

    def _external(self, proto: TensorProto, dtype: DType, shape: tuple[int, ...], wanted: int, where: str) -> Payload:
        entries = {e.key: e.value for e in proto.external_data}
        location = entries.get("location", "")
        offset, length = (_integer(entries.get(key), key, where) for key in ("offset", "length"))
        offset = offset or 0
        if length is not None and length != wanted:
            code = broken if location == SELF else external
            raise code(_size_text(shape, dtype, wanted, length), where)
        if location == SELF and self.data is not None:
            return PackedPayload(np.frombuffer(self.data[offset : offset + wanted], np.uint8), dtype, shape)
        path, size = self._file(location, where)
        if offset + wanted > size:
            raise external(f"bytes {offset} to {offset + wanted} of {path.name} are needed, but it has {size}", where)
        return FilePayload(path, offset, dtype, shape)

    def _file(self, location: str, where: str) -> tuple[Path, int]:
        if self.path is None or self.root is None:
            raise external("the model has external data but was not loaded from a file", where, "give the path instead")
        if location == SELF:
            return self.path, self.path.stat().st_size
        given = Path(location)
        if not location or given.is_absolute() or ".." in given.parts or "\\" in location or "\0" in location:
            raise external(f"the location {location!r} is not a file name below the model's folder", where)
        path = (self.root / given).resolve()
        if not path.is_relative_to(self.root):
            raise external(f"{location!r} leads outside the model's folder (a link)", where)
        if path not in self.external_files:
            if not path.is_file():
                raise external(f"the file {location!r} is missing", where, "put it next to the model")
            self.external_files[path] = path.stat().st_size
        return path, self.external_files[path]


def _typed_fields(proto: TensorProto, dtype: DType, shape: tuple[int, ...], where: str) -> Payload:
    """Elements in the typed repeated fields (`float_data`, ...): small tensors and old files."""
    if dtype is DType.STR:
        texts = [_text(x) for x in proto.string_data]
        if len(texts) != math.prod(shape):
            raise broken(f"shape {list(shape)} needs {math.prod(shape)} strings, but there are {len(texts)}", where)
        cells = np.empty(len(texts), object)
        cells[:] = texts
        return ArrayPayload(cells.reshape(shape))
    stored = sum(len(getattr(proto, name)) for name in _DATA_FIELDS)
    try:
        if stored == 0 and math.prod(shape) > 0:
            raise ValueError("it holds no data")
        array = onnx.numpy_helper.to_array(proto)
    except (ValueError, TypeError, OverflowError) as reason:
        raise broken(f"the data does not fit {dtype.short}{list(shape)}: {reason}", where) from reason
    return ArrayPayload(array.astype(dtype.numpy, copy=False).reshape(shape))


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _shape(dims: Iterable[int], where: str) -> tuple[int, ...]:
    shape = tuple(int(d) for d in dims)
    if any(d < 0 for d in shape):
        raise broken(f"the tensor has a negative dimension: {list(shape)}", where)
    if math.prod(d for d in shape if d) >= 1 << 62:
        raise broken(f"the tensor's shape {list(shape)} is beyond what memory can hold", where)
    return shape


def _integer(text: str | None, key: str, where: str) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise external(f"the {key} {text!r} is not a number of bytes", where)
    return int(text)


def _size_text(shape: tuple[int, ...], dtype: DType, wanted: int, found: int) -> str:
    return f"{dtype.short}{list(shape)} takes {wanted} bytes, but {found} are stored"


def broken(message: str, where: str) -> MlcError:
    return error(Code.BROKEN_MODEL, message, where=where, help="export the model again; this file is damaged")


def external(message: str, where: str, help: str = "restore the file that was exported with the model") -> MlcError:
    return error(Code.EXTERNAL_DATA, message, where=where, help=help)
