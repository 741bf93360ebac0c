"""Constants: a type and a lazy payload. Payloads are immutable, memory-mapped where they come from a file,
and shared by all clones of a module.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from . import dtypes
from .dtypes import DType
from .errors import Code, MlcError, error
from .types import TensorType

_CHUNK_BYTES = 32 << 20


class Payload(Protocol):
    """What holds the elements. `array()` yields them unpacked, in `dtype.numpy`, and must not be written to."""

    def array(self) -> np.ndarray[Any, Any]: ...


@runtime_checkable
class RawPayload(Protocol):
    """A payload that holds the file form: any stretch of its bytes can be had without touching the rest."""

    def array(self) -> np.ndarray[Any, Any]: ...

    def raw(self, start: int, stop: int) -> np.ndarray[Any, Any]: ...


class ArrayPayload:
    """Elements in memory: unpacked, shared, never copied; handed out read-only."""

    __slots__ = ("_array",)

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array.view()
        self._array.flags.writeable = False

    def array(self) -> np.ndarray[Any, Any]:
        return self._array


class PackedPayload:
    """Elements in memory in the file form: sub-byte types take as little as they will in the file."""

    __slots__ = ("_raw", "dtype", "shape")

    def __init__(self, raw: np.ndarray[Any, Any], dtype: DType, shape: tuple[int, ...]) -> None:
        assert raw.dtype == np.uint8
        assert raw.size == dtype.nbytes(_count(shape))
        self._raw, self.dtype, self.shape = raw, dtype, shape

    def array(self) -> np.ndarray[Any, Any]:
        if self.dtype.bits < 8:
            return unpack(self._raw, self.dtype, self.shape)
        return _aligned(self._raw.view(self.dtype.numpy)).reshape(self.shape)

    def raw(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return self._raw[start:stop]


class ConvertedPayload:
    """The elements of another constant in another element type, converted whenever they are read."""

    __slots__ = ("dtype", "source")

    def __init__(self, source: Constant, dtype: DType) -> None:
        assert dtype.bits >= 8
        assert source.dtype.bits >= 8
        self.source, self.dtype = source, dtype

    def array(self) -> np.ndarray[Any, Any]:
        with np.errstate(over="ignore", under="ignore"):
            return self.source.array().astype(self.dtype.numpy)

    def raw(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        width = self.dtype.bits // 8
        first, last = start // width, -(-stop // width)
        with np.errstate(over="ignore", under="ignore"):
            converted = self.source.flat(first, last).astype(self.dtype.numpy)
        return np.ascontiguousarray(converted).view(np.uint8)[start - first * width : stop - first * width]


class FilePayload:
    """Elements in a file: little-endian, row-major, packed if narrower than a byte.

    The map is opened per access and closed when the last view of it dies, so that pages read once do not
    stay in the resident set of the process. A file that was changed or replaced since is refused: its bytes would be
    read as weights that they are not.
    """

    __slots__ = ("_stamp", "dtype", "nbytes", "offset", "path", "shape")

    def __init__(self, path: Path, offset: int, dtype: DType, shape: tuple[int, ...]) -> None:
        self.path, self.offset, self.dtype, self.shape = path, offset, dtype, shape
        self.nbytes = dtype.nbytes(_count(shape))
        self._stamp = self._stat()

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _check_same(self) -> None:
        if self._stat() != self._stamp:
            raise self._lost()

    def array(self) -> np.ndarray[Any, Any]:
        if self.nbytes == 0:
            return np.zeros(self.shape, self.dtype.numpy)
        if self.dtype.bits < 8:
            return unpack(self._map(np.dtype(np.uint8), (self.nbytes,)), self.dtype, self.shape)
        return self._map(self.dtype.numpy.newbyteorder("<"), self.shape)

    def _map(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        self._check_same()
        try:
            return _aligned(np.asarray(np.memmap(self.path, dtype, "r", self.offset, shape)))
        except (OSError, ValueError) as problem:
            raise self._lost() from problem

    def _lost(self) -> MlcError:
        wanted = f"{self.nbytes} bytes at {self.offset} of {self.path}"
        return error(
            Code.EXTERNAL_DATA,
            f"cannot read {wanted}: the file is gone or was changed",
            help="keep the model's files in place while it is used",
        )

    def raw(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Read, not mapped: the pages of a big tensor that is streamed never count as resident."""
        self._check_same()
        try:
            found = np.fromfile(self.path, np.uint8, stop - start, offset=self.offset + start)
        except OSError as problem:
            raise self._lost() from problem
        if found.size != stop - start:  # numpy returns what there is
            raise self._lost()
        return found


class Constant:
    """A tensor known at compile time. `origin` says where it came from (a file's tensor name, a pass)."""

    __slots__ = ("_digest", "origin", "payload", "type")

    def __init__(self, type: TensorType, payload: Payload, origin: str = "") -> None:
        assert type.static_shape is not None, "a constant has a static shape"
        self.type, self.payload, self.origin = type, payload, origin
        self._digest: str | None = None

    @classmethod
    def of(cls, array: Any, dtype: DType | None = None, origin: str = "") -> Constant:
        """A constant from an array or a Python number; `dtype` defaults to the array's."""
        values = np.asarray(array)
        if not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        if dtype is not None:
            values = values.astype(dtype.numpy, copy=False)
        kind = dtype or dtypes.of_numpy(values.dtype)
        if kind is DType.STR:
            values = values.astype(object)
        return cls(TensorType(kind, values.shape), ArrayPayload(values), origin)

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.type.static_shape
        assert shape is not None
        return shape

    @property
    def elements(self) -> int:
        return _count(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in a file (packed); text counts its UTF-8 bytes."""
        if self.dtype is DType.STR:
            return sum(len(x if isinstance(x, bytes) else str(x).encode()) for x in self.array().ravel())
        return self.dtype.nbytes(self.elements)

    def array(self) -> np.ndarray[Any, Any]:
        """All elements, unpacked. A view where possible: never write to it."""
        return self.payload.array()

    def flat(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Elements `start` to `stop` of the flattened tensor, unpacked; only they are read where the payload allows.

        `start` must lie on a byte. Never write to the result.
        """
        stop = min(stop, self.elements)
        if not isinstance(self.payload, RawPayload):
            return self.array().reshape(-1)[start:stop]
        bits = self.dtype.bits
        assert start * bits % 8 == 0, "the stretch starts within a byte"
        raw = self.payload.raw(start * bits // 8, -(-stop * bits // 8))
        if bits < 8:
            return unpack(raw, self.dtype, (stop - start,))
        return raw.view(self.dtype.numpy.newbyteorder("<") if bits > 8 else self.dtype.numpy)

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the file form, in pieces of bounded size (element-aligned rows of the flat tensor)."""
        assert self.dtype is not DType.STR, "text has no file form of fixed width"
        if isinstance(self.payload, RawPayload):
            for start in range(0, self.nbytes, _CHUNK_BYTES):
                yield self.payload.raw(start, min(start + _CHUNK_BYTES, self.nbytes)).tobytes()
            return
        flat = self.array().reshape(-1)
        step = max(8, _CHUNK_BYTES // max(1, flat.itemsize) // 8 * 8)
        for start in range(0, flat.size, step):
            yield pack(flat[start : start + step], self.dtype)

    def tobytes(self) -> bytes:
        return b"".join(self.chunks())

    def digest(self) -> str:
        """SHA-256 over type and elements; computed on demand and cached."""
        if self._digest is None:
            sha = hashlib.sha256(str(self.type).encode())
            if self.dtype is DType.STR:
                for item in self.array().ravel():
                    data = item if isinstance(item, bytes) else str(item).encode()
                    sha.update(len(data).to_bytes(8, "little") + data)
            else:
                for chunk in self.chunks():
                    sha.update(chunk)
            self._digest = sha.hexdigest()
        return self._digest

    def same(self, other: Constant) -> bool:
        """Whether two constants hold the same bits under the same type."""
        if self.type != other.type:
            return False
        return self is other or self.payload is other.payload or self.digest() == other.digest()

    def __repr__(self) -> str:
        return f"Constant({self.type})"


def _aligned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array, copied if its elements do not lie at multiples of their size (native code may rely on that)."""
    return array if array.flags.aligned else array.copy()


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def pack(flat: np.ndarray[Any, Any], dtype: DType) -> bytes:
    """The file form of a flat run of elements: little-endian; sub-byte elements packed, first in the low bits."""
    if dtype.bits >= 8:
        if flat.dtype.byteorder == ">":
            flat = flat.astype(flat.dtype.newbyteorder("<"))
        return np.ascontiguousarray(flat).tobytes()
    per_byte = 8 // dtype.bits
    codes = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    codes[: flat.size] = np.ascontiguousarray(flat).view(np.uint8) & ((1 << dtype.bits) - 1)
    lanes = codes.reshape(-1, per_byte)
    packed = np.zeros(lanes.shape[0], np.uint8)
    for lane in range(per_byte):
        packed |= lanes[:, lane] << (lane * dtype.bits)
    return packed.tobytes()


def unpack(raw: np.ndarray[Any, Any], dtype: DType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The inverse of `pack` for sub-byte types: one element a byte, in the numpy type of `dtype`."""
    per_byte = 8 // dtype.bits
    lanes = np.empty((raw.size, per_byte), np.uint8)
    mask = (1 << dtype.bits) - 1
    for lane in range(per_byte):
        lanes[:, lane] = (raw >> (lane * dtype.bits)) & mask
    codes = lanes.reshape(-1)[: _count(shape)]
    if dtype.kind == "int":
        sign = 1 << (dtype.bits - 1)
        signed = (codes.astype(np.int8) ^ np.int8(sign)) - np.int8(sign)
        return signed.astype(dtype.numpy).reshape(shape)
    if dtype.kind == "uint":
        return codes.astype(dtype.numpy).reshape(shape)
    return codes.view(dtype.numpy).reshape(shape)
