"""Reads attributes of the text form: numbers, texts, lists, types and tensors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import numpy as np

from .constants import Constant, unpack
from .core import Attr, Constants, Floats, Ints, Strings, Types
from .dtypes import DType
from .parse_types import TypeParser
from .tokens import Scanner
from .types import OptionalType, SequenceType, TensorType, Type, UnrankedTensor

_EMPTY: dict[str, Attr] = {
    "ints[]": Ints(),
    "floats[]": Floats(),
    "strings[]": Strings(),
    "tensors[]": Constants(),
    "types[]": Types(),
}
_KINDS: tuple[tuple[tuple[type, ...], Any], ...] = (
    ((int,), Ints),
    ((float,), Floats),
    ((str, bytes), Strings),
    ((Constant,), Constants),
    ((TensorType, UnrankedTensor, SequenceType, OptionalType), Types),
)


class AttrParser:
    """Parses attributes from a scanner. `payload` finds a tensor that the text only names."""

    def __init__(self, scanner: Scanner, types: TypeParser, payload: Callable[[str, Type], Constant]) -> None:
        self._scan, self._types, self._payload = scanner, types, payload

    def attrs(self) -> dict[str, Attr]:
        """`{name = value, ...}`"""
        scan = self._scan
        scan.take("{")
        found: dict[str, Attr] = {}
        while not scan.accept("}"):
            if found:
                scan.take(",")
            if scan.text in found:
                scan.fail("this attribute is given twice")
            name = scan.word()
            scan.take("=")
            found[name] = self._value()
        return found

    def _value(self) -> Attr:
        scan = self._scan
        if scan.kind == "number":
            return self._number()
        if scan.is_mark("["):
            return self._list()
        if scan.kind in ("string", "blob"):
            return self._text()
        if scan.kind == "flat" and scan.text in _EMPTY:
            return _EMPTY[scan.step()]
        if scan.accept("type"):
            return self._types.type()
        if scan.accept("tensor"):
            return self.tensor()
        if scan.text in ("nan", "inf"):
            return float(scan.step())
        scan.fail("expected the value of an attribute", help='for example 1, 0.5, "text", [1, 2], ints[]')

    def _number(self) -> int | float:
        spelled = self._scan.step()
        return int(spelled) if spelled.lstrip("-").isdigit() else float(spelled)

    def _text(self) -> str | bytes:
        scan = self._scan
        if scan.kind == "string":
            return scan.string()
        if not scan.text.startswith("x"):
            scan.fail('expected a text, or bytes such as x"00ff"')
        try:
            found = bytes.fromhex(scan.text[2:-1])
        except ValueError:
            scan.fail("expected hexadecimal digits, two for each byte")
        scan.step()
        return found

    def _list(self) -> Attr:
        scan = self._scan
        start = scan.start
        scan.take("[")
        items: list[Attr] = []
        while not scan.is_mark("]"):
            if items:
                scan.take(",")
            items.append(self._value())
        end = scan.end
        scan.step()
        for members, make in _KINDS:
            if items and all(type(item) in members for item in items):
                made: Attr = make(items)
                return made
        message = "the items of a list are of one kind" if items else "an empty list needs its kind"
        raise scan.error(message, start, end, help="" if items else f"one of {', '.join(_EMPTY)}")

    def tensor(self) -> Constant:
        """A tensor by value or by name, behind the word `tensor`."""
        scan = self._scan
        start = scan.start
        type = self._types.type()
        if not isinstance(type, TensorType) or type.static_shape is None:
            raise scan.error("a tensor has a shape of integers", start, scan.end)
        if scan.accept("named"):
            return self._payload(scan.string(), type)
        array = self._binary(type) if scan.kind == "blob" else self._elements(type)
        return Constant.of(array.reshape(type.static_shape), type.dtype)

    def _binary(self, type: TensorType) -> np.ndarray:
        scan = self._scan
        try:
            data = base64.b64decode(scan.text[scan.text.index('"') + 1 : -1], validate=True)
        except binascii.Error:
            data = None
        size = _count(type)
        if data is None or not scan.text.startswith("b64") or len(data) != type.dtype.nbytes(size):
            scan.fail(f"expected {type.dtype.nbytes(size)} bytes in base64 for {type}")
        scan.step()
        raw = np.frombuffer(data, np.uint8)
        return unpack(raw, type.dtype, (size,)) if type.dtype.bits < 8 else raw.view(type.dtype.numpy)

    def _elements(self, type: TensorType) -> np.ndarray:
        scan = self._scan
        start, dtype = scan.start, type.dtype
        scan.take("[")
        items: list[int | float | str | bytes] = []
        while not scan.is_mark("]"):
            if items:
                scan.take(",")
            items.append(self._element(dtype))
        end = scan.end
        scan.step()
        if len(items) != _count(type):
            raise scan.error(f"{type} has {_count(type)} elements, not {len(items)}", start, end)
        if dtype.is_float:
            return np.array(items, np.float64).astype(dtype.numpy)
        made = np.empty(len(items), object)
        made[:] = items
        return made if dtype is DType.STR else made.astype(np.int64 if dtype is not DType.U64 else np.uint64)

    def _element(self, dtype: DType) -> int | float | str | bytes:
        scan = self._scan
        if dtype is DType.STR:
            return self._text()
        if dtype.is_float:
            if scan.kind != "number" and scan.text != "inf":
                scan.fail("expected a number")
            return float(scan.step())
        low = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
        high = 1 if dtype is DType.BOOL else (1 << (dtype.bits - (dtype.kind == "int"))) - 1
        if scan.kind == "number" and scan.text.lstrip("-").isdigit() and not low <= int(scan.text) <= high:
            scan.fail(f"{dtype.short} ranges from {low} to {high}")
        return scan.integer()


def _count(type: TensorType) -> int:
    total = 1
    for size in type.static_shape or ():
        total *= size
    return total
