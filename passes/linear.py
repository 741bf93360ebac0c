"""Operators with a constant weight, seen as the linear maps that they are: every row of the result is W x + b.

`linear_of(op)` views a MatMul, Gemm, Conv or ConvTranspose as `groups` independent maps. With G groups, O outputs and D
inputs of a group (for a convolution: channels x kernel positions), n rows:

    matrix   [G, O, D]   the weight
    rows     [G, n, D]   what it is applied to; for a convolution the patches, zero padding included

LSTM, GRU and RNN are the map of their input to the gates of all directions; it ends inside the operator.
What fits or rounds weights against data (least squares, second-order rounding) is written once, on these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..ir.core import Op, Value
from ..ir.ops.access import attr_float, attr_int, attr_ints, attr_text
from ..ir.types import TensorType

Array = np.ndarray[Any, Any]
RECURRENT = ("LSTM", "GRU", "RNN")
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
    def exposed(self) -> bool:
        """Whether the result of the operator is that of the map."""
        return True

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

    def outputs(self, positions: Array) -> Array:
        """Positions along the output axis of the weight as rows of all matrices, one below the other."""
        return positions

    def count(self, data: Array) -> int:
        """How many rows the data makes."""
        return int(data.size) // int(data.shape[-1])

    def rows(self, data: Array, picked: Picked = None) -> Array:
        flat = data.reshape(-1, data.shape[-1])
        return (flat if picked is None else flat[picked])[None]


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


class Recurrent(Linear):
    """What LSTM, GRU and RNN make of their input: weight [directions, gates x hidden, inputs], one map for it all."""

    @property
    def exposed(self) -> bool:
        return False

    @property
    def input_axis(self) -> int:
        return 2

    @property
    def output_axis(self) -> int:
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        assert self.weight.constant is not None
        directions, outputs, depth = self.weight.constant.shape
        return 1, directions * outputs, depth

    @property
    def bias_slot(self) -> int | None:
        return 3

    def matrix(self, weight: Array) -> Array:
        return weight.reshape(1, -1, weight.shape[2])

    def stored(self, matrix: Array) -> Array:
        assert self.weight.constant is not None
        directions, outputs, _ = self.weight.constant.shape
        return np.ascontiguousarray(matrix.reshape(directions, outputs, -1))

    def outputs(self, positions: Array) -> Array:
        assert self.weight.constant is not None
        directions, outputs, _ = self.weight.constant.shape
        return (np.arange(directions)[:, None] * outputs + positions).reshape(-1)


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


class TransposedConvolution(Convolution):
    """ConvTranspose without groups: a convolution of its input with zeros in between, by the kernel turned around."""

    @property
    def input_axis(self) -> int:
        return 0

    @property
    def output_axis(self) -> int:
        return 1

    @property
    def _space(self) -> tuple[int, ...]:
        return tuple(range(2, 2 + len(self.kernel)))

    def matrix(self, weight: Array) -> Array:
        turned = np.flip(np.swapaxes(weight, 0, 1), self._space)
        return turned.reshape(1, turned.shape[0], -1)

    def stored(self, matrix: Array) -> Array:
        turned = matrix[0].reshape(matrix.shape[1], -1, *self.kernel)
        return np.ascontiguousarray(np.swapaxes(np.flip(turned, self._space), 0, 1))

    def _windows(self, data: Array) -> Array:
        rank = len(self.kernel)
        strides, dilations = (attr_ints(self.op, name) or (1,) * rank for name in ("strides", "dilations"))
        valid = attr_text(self.op, "auto_pad", "NOTSET") == "VALID"
        pads = (None if valid else attr_ints(self.op, "pads")) or (0,) * (2 * rank)
        extra = attr_ints(self.op, "output_padding")
        spread = np.zeros((*data.shape[:2], *((n - 1) * s + 1 for n, s in zip(data.shape[2:], strides))), data.dtype)
        at: tuple[Any, ...] = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
        spread[at] = data
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, dilations))
        border = [(r - 1 - lo, r - 1 - hi + e) for r, lo, hi, e in zip(reach, pads, pads[rank:], extra or (0,) * rank)]
        padded = np.pad(spread, [(0, 0), (0, 0), *((max(lo, 0), max(hi, 0)) for lo, hi in border)])
        inside: tuple[Any, ...] = tuple(
            slice(max(-lo, 0), n - max(-hi, 0)) for (lo, hi), n in zip(border, padded.shape[2:])
        )
        view = sliding_window_view(padded[(slice(None), slice(None), *inside)], reach, axis=self._space)
        steps: tuple[Any, ...] = (slice(None),) * (2 + rank) + tuple(slice(None, None, d) for d in dilations)
        return np.asarray(view[steps])


_VIEWS: dict[str, type[Linear]] = {
    "ConvTranspose": TransposedConvolution,
    "MatMul": Product,
    "Gemm": Product,
    "Conv": Convolution,
}
_VIEWS |= dict.fromkeys(RECURRENT, Recurrent)


def linear_of(op: Op) -> Linear | None:
    """The op as a linear map of its first operand; None if it is none, or its weight is computed."""
    weight = op.operand(1) if op.kind in _VIEWS else None
    if weight is None or weight.constant is None or not weight.constant.dtype.is_float:
        return None
    return linear_with(op, weight)


def linear_with(op: Op, weight: Value) -> Linear | None:
    """The op as a linear map through `weight`, a constant that its second operand stands for element by element.

    The constant may hold codes that a DequantizeLinear widens: `matrix` and `stored` only move elements.
    """
    view, data, constant = _VIEWS.get(op.kind), op.operand(0), weight.constant
    if view is None or data is None or data.constant is not None or constant is None:
        return None
    if constant.elements == 0 or not isinstance(op.results[0].type, TensorType):
        return None
    if view is Product and (constant.type.rank != 2 or _scaled(op)):
        return None
    if view is TransposedConvolution and (attr_int(op, "group", 1) != 1 or _sized(op)):
        return None
    return view(op, data, weight)


def _scaled(op: Op) -> bool:
    factors = (attr_float(op, "alpha", 1.0), attr_float(op, "beta", 1.0))
    return bool(attr_int(op, "transA")) or factors != (1.0, 1.0)


def _sized(op: Op) -> bool:
    """Whether the padding of a transposed convolution follows from the size of its result."""
    return "output_shape" in op.attrs or attr_text(op, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
