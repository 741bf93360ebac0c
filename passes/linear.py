"""Operators with a constant weight, seen as the linear maps that they are: every row of the result is W x + b.

`linear_of(op)` views a MatMul, Gemm or Conv as `groups` independent maps. With G groups, O outputs and D inputs of a
group (for a convolution: channels x kernel positions), n rows:

    matrix   [G, O, D]   the weight
    rows     [G, n, D]   what it is applied to; for a convolution the patches, zero padding included
    targets  [G, n, O]   its result, own bias included

What fits or rounds weights against data (least squares, second-order rounding) is written once, on these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..ir.core import Op, Value
from ..ir.ops.access import attr_float, attr_int, attr_ints, attr_text
from ..ir.types import TensorType

Array = np.ndarray[Any, Any]
Picked = np.ndarray[Any, np.dtype[np.intp]] | None  # which rows; None for all


@dataclass(frozen=True, eq=False)
class Linear(ABC):
    """One operator as a linear map from `data` through the constant `weight`."""

    op: Op
    data: Value
    weight: Value

    @property
    def groups(self) -> int:
        return 1

    @property
    @abstractmethod
    def input_axis(self) -> int:
        """The axis of the weight that is contracted (for convolutions: with the kernel)."""

    @property
    @abstractmethod
    def output_axis(self) -> int:
        """The axis of the weight along which the outputs lie."""

    @property
    def result_axis(self) -> int:
        """The axis of the result along which the outputs lie."""
        assert isinstance(self.op.result.type, TensorType)
        return self.op.result.type.rank - 1

    @property
    def taps(self) -> int:
        """Kernel positions per input channel; the columns of a matrix are channel by channel."""
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, outputs, depth) of the matrix."""
        assert self.weight.constant is not None
        sizes = self.weight.constant.shape
        outputs = sizes[self.output_axis] // self.groups
        return self.groups, outputs, sizes[self.input_axis] * self.taps

    @property
    def bias_slot(self) -> int | None:
        """The operand that is added, where the operator has one."""
        return 2

    @abstractmethod
    def matrix(self, weight: Array) -> Array:
        """The weight [as stored] as [groups, outputs, depth]."""

    @abstractmethod
    def stored(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""

    @abstractmethod
    def count(self, data: Array) -> int:
        """How many rows the data makes."""

    @abstractmethod
    def rows(self, data: Array, picked: Picked = None) -> Array: ...

    @abstractmethod
    def targets(self, result: Array, picked: Picked = None) -> Array: ...


class Product(Linear):
    """MatMul with a constant matrix on the right, and Gemm."""

    @property
    def transposed(self) -> bool:
        return self.op.kind == "Gemm" and bool(attr_int(self.op, "transB"))

    @property
    def input_axis(self) -> int:
        return 1 if self.transposed else 0

    @property
    def output_axis(self) -> int:
        return 0 if self.transposed else 1

    @property
    def bias_slot(self) -> int | None:
        return 2 if self.op.kind == "Gemm" else None

    def matrix(self, weight: Array) -> Array:
        return (weight if self.transposed else weight.T)[None]

    def stored(self, matrix: Array) -> Array:
        return np.ascontiguousarray(matrix[0] if self.transposed else matrix[0].T)

    def count(self, data: Array) -> int:
        return int(data.size) // int(data.shape[-1])

    def rows(self, data: Array, picked: Picked = None) -> Array:
        flat = data.reshape(-1, data.shape[-1])
        return (flat if picked is None else flat[picked])[None]

    def targets(self, result: Array, picked: Picked = None) -> Array:
        flat = result.reshape(-1, result.shape[-1])
        return (flat if picked is None else flat[picked])[None]


class Convolution(Linear):
    """Conv of any number of spatial axes, with strides, dilations, padding and groups."""

    @property
    def groups(self) -> int:
        return attr_int(self.op, "group", 1)

    @property
    def input_axis(self) -> int:
        return 1

    @property
    def output_axis(self) -> int:
        return 0

    @property
    def result_axis(self) -> int:
        return 1

    @property
    def kernel(self) -> tuple[int, ...]:
        assert self.weight.constant is not None
        return self.weight.constant.shape[2:]

    @property
    def taps(self) -> int:
        return int(np.prod(self.kernel))

    def matrix(self, weight: Array) -> Array:
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def stored(self, matrix: Array) -> Array:
        groups, outputs, _ = matrix.shape
        return np.ascontiguousarray(matrix.reshape(groups * outputs, -1, *self.kernel))

    def count(self, data: Array) -> int:
        return int(np.prod(self._places(self._windows(data))))

    def _places(self, windows: Array) -> tuple[int, ...]:
        return (windows.shape[0], *windows.shape[2 : 2 + len(self.kernel)])

    def rows(self, data: Array, picked: Picked = None) -> Array:
        windows = self._windows(data)
        places = self._places(windows)
        spots = np.arange(int(np.prod(places))) if picked is None else picked
        sample, *at = np.unravel_index(spots, places)
        chosen: tuple[Any, ...] = (sample, slice(None), *at)
        patches = windows[chosen]  # [n, channels, kernel...]
        return np.moveaxis(patches.reshape(len(spots), self.groups, -1), 0, 1)

    def targets(self, result: Array, picked: Picked = None) -> Array:
        flat = np.moveaxis(result, 1, -1).reshape(-1, result.shape[1])
        flat = flat if picked is None else flat[picked]
        return np.moveaxis(flat.reshape(len(flat), self.groups, -1), 0, 1)

    def _windows(self, data: Array) -> Array:
        """[batch, channels, positions..., kernel...], a view of the padded data."""
        rank = len(self.kernel)
        strides, dilations = (attr_ints(self.op, name) or (1,) * rank for name in ("strides", "dilations"))
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, dilations))
        before, after = self._pads(data.shape[2:], reach, strides)
        padded = np.pad(data, [(0, 0), (0, 0), *zip(before, after)])
        view = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
        steps = (slice(None), slice(None), *(slice(None, None, s) for s in (*strides, *dilations)))
        return np.asarray(view[steps])

    def _pads(
        self, space: tuple[int, ...], reach: tuple[int, ...], strides: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        mode, rank = attr_text(self.op, "auto_pad", "NOTSET"), len(space)
        if mode == "NOTSET":
            pads = attr_ints(self.op, "pads") or (0,) * (2 * rank)
            return pads[:rank], pads[rank:]
        if mode == "VALID":
            return (0,) * rank, (0,) * rank
        total = [max(0, (-(-n // s) - 1) * s + r - n) for n, r, s in zip(space, reach, strides)]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        return (small, large) if mode == "SAME_UPPER" else (large, small)


_VIEWS: Mapping[str, type[Linear]] = {"MatMul": Product, "Gemm": Product, "Conv": Convolution}


def linear_of(op: Op) -> Linear | None:
    """The op as a linear map of its first operand; None if it is none, or its weight is computed."""
    view = _VIEWS.get(op.kind)
    if view is None:
        return None
    data, weight = op.operand(0), op.operand(1)
    if data is None or weight is None or data.constant is not None or weight.constant is None:
        return None
    constant = weight.constant
    if not constant.dtype.is_float or constant.elements == 0 or not isinstance(op.result.type, TensorType):
        return None
    if view is Product and (constant.type.rank != 2 or _scaled(op)):
        return None
    return view(op, data, weight)


def _scaled(op: Op) -> bool:
    factors = (attr_float(op, "alpha", 1.0), attr_float(op, "beta", 1.0))
    return bool(attr_int(op, "transA")) or factors != (1.0, 1.0)
