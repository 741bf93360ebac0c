"""Channels of static convolutions padded to what the runtime's fast kernel takes.

ONNX Runtime convolves u8 with s8 codes directly where a convolution of one group has inputs in multiples of 4, and
outputs in multiples of 4, at least 16; otherwise it gathers patches first, which takes up to twice as long. The inputs
of a model mostly have 1 or 3 channels. Here they get more, which zeros in the weight ignore:

    sum over c < C of w[o, c] x[c]  =  the same over c < 4 ceil(C / 4),  where w is 0 beyond C

The result is equal bit for bit. Images that come with their channels last are left as they are: the runtime works in
that layout itself, takes the transposition in front away, and padding the innermost axis then costs more than it saves.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from ..ir.constants import Constant
from ..ir.core import Ints, Op, Value
from ..ir.dtypes import DType
from ..ir.ops.axes_rules import elementwise, rule_of
from ..ir.rewrite import Rewriter
from ..ir.types import TensorType
from .legalize_stored import fused_by_runtime

#: The fast kernel of depthwise convolutions takes channels in multiples of this.
FAST_CHANNELS = 16
_INPUTS = 4  # fast kernels take inputs in multiples of this
_OUTPUTS = 4
_LEAST_OUTPUTS = 16
_LEAST_POSITIONS = 16


class Work(Protocol):
    """What a rule needs of the lowering it belongs to (backends/legalize.py)."""

    @property
    def rw(self) -> Rewriter: ...

    def done(self, op: Op, kernel: str) -> None: ...


def aligned(inputs: int, outputs: int) -> bool:
    """Whether a convolution of one group over so many channels has the fast kernel."""
    return inputs % _INPUTS == 0 and outputs % _OUTPUTS == 0 and outputs >= _LEAST_OUTPUTS


def padded(inputs: int) -> int:
    """The least number of inputs, from `inputs` on, that the fast kernel takes."""
    return -(-inputs // _INPUTS) * _INPUTS


def align(work: Work, op: Op) -> bool:
    """Pad the inputs of a static convolution if that is what the fast kernel lacks."""
    data, weight = op.operand(0), op.operand(1)
    if op.attrs.get("group", 1) != 1 or not fused_by_runtime(op) or data is None or weight is None:
        return False
    codes = _weight_codes(weight)
    if codes is None or data.op is None:
        return False
    outputs, inputs = codes.shape[:2]
    if aligned(inputs, outputs) or not aligned(padded(inputs), outputs) or _is_small(op.result):
        return False
    rw, dequantize = work.rw, data.op
    source, scale = dequantize.operand(0), dequantize.operand(1)
    if source is None or scale is None or not isinstance(scale.type, TensorType) or scale.type.rank != 0:
        return False
    if _channels_were_last(source):
        return False
    pads = np.zeros((2, codes.type.rank), np.int64)
    pads[1, 1] = padded(inputs) - inputs
    ends = rw.constant(pads.reshape(-1), "pads")
    wider = rw.insert("Pad", [source, ends], before=op).result
    operands = [wider, *dequantize.operands[1:]]
    rw.set_operand(
        op, 0, rw.insert("DequantizeLinear", operands, dequantize.attrs, before=op, origin=dequantize).result
    )
    rw.set_operand(op, 1, _wider_weight(rw, op, weight, codes, padded(inputs)))
    work.done(op, f"Conv of {padded(inputs)} channels")
    return True


def _is_small(result: Value) -> bool:
    """Whether a convolution has so few positions (a pooled image has one) that padding costs what it saves."""
    if not isinstance(result.type, TensorType):
        return False
    sizes = [n for n in result.type.shape[2:] if isinstance(n, int)]
    return len(sizes) == result.type.rank - 2 and math.prod(sizes) < _LEAST_POSITIONS


def _channels_were_last(value: Value) -> bool:
    """Whether a Transpose has moved the channels from the last axis to axis 1, with only elementwise ops behind it."""
    op = value.op
    while op is not None and (op.kind == "QuantizeLinear" or rule_of(op) is elementwise):
        computed = [v for v in op.operands if v is not None and v.constant is None]
        op = computed[0].op if len(computed) == 1 else None
    if op is None or op.kind != "Transpose":
        return False
    order = op.attrs.get("perm")
    return isinstance(order, Ints) and len(order) > 2 and order[1] == len(order) - 1


def _weight_codes(weight: Value) -> Constant | None:
    """The codes of a weight that are symmetric around 0 and have no scale per input."""
    op = weight.op
    if op is None or op.kind != "DequantizeLinear" or op.attrs.get("block_size", 0):
        return None
    codes, scale, zero = (op.operand(i) for i in range(3))
    if codes is None or codes.constant is None or scale is None or not isinstance(scale.type, TensorType):
        return None
    if zero is not None and (zero.constant is None or zero.constant.array().any()):
        return None
    per_output = scale.type.rank == 0 or op.attrs.get("axis", 1) in (0, -codes.constant.type.rank)
    return codes.constant if codes.constant.dtype is DType.I8 and per_output else None


def _wider_weight(rw: Rewriter, op: Op, weight: Value, codes: Constant, inputs: int) -> Value:
    assert weight.op is not None
    source = weight.op.operand(0)
    assert source is not None
    payload = _Wider(codes, inputs)
    constant = rw.constant(Constant(payload.type, payload, codes.origin), f"{source.name}_padded")
    operands = [constant, *weight.op.operands[1:]]
    return rw.insert("DequantizeLinear", operands, weight.op.attrs, before=op, origin=weight.op).result


class _Wider:
    """A weight [outputs, inputs, ...] with zeros for further inputs; made when it is read."""

    def __init__(self, source: Constant, inputs: int) -> None:
        self._source = source
        self._shape = (source.shape[0], inputs, *source.shape[2:])
        self.type = TensorType(source.dtype, self._shape)

    def array(self) -> np.ndarray[Any, Any]:
        wide = np.zeros(self._shape, np.int8)
        wide[:, : self._source.shape[1]] = self._source.array()
        return wide
