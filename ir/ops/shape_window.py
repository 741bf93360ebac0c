"""Types of sliding-window operators: convolutions and pools of any number of spatial axes."""

from __future__ import annotations

from .. import dims as _dims
from ..core import Op
from ..dims import Dim
from ..dtypes import DType
from ..types import Shape, TensorType
from .access import (
    Unranked,
    attr_int,
    attr_ints,
    attr_text,
    broken,
    dtype,
    elements,
    operand,
    same,
    shape,
    shape_or_unknown,
    unknown_sizes,
    vector,
)
from .opdef import Inferred

_NO_SHAPE = "the kernel covers {} axes, but the input has {}"


def conv(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op), convolved(op, 1)))]


def conv_integer(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(DType.I32, convolved(op, 1)))]


def qlinear_conv(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op, 7), convolved(op, 3)))]


def convolved(op: Op, slot: int) -> Shape:
    """The shape of a convolution with the weight in `slot`: N, output channels, one size per spatial axis."""
    weight = shape(op, slot)
    return _convolved(op, shape_or_unknown(op, 0, len(weight)), weight)


def nhwc_conv(op: Op) -> list[Inferred]:
    """com.microsoft: channels last in the input, in the weight [O, kernel.., C / group] and in the result."""
    weight = shape(op, 1)
    source = shape_or_unknown(op, 0, len(weight))
    first, *rest = _convolved(op, *((s[0], s[-1], *s[1:-1]) for s in (source, weight)))
    return [Inferred(TensorType(dtype(op), (first, *rest[1:], rest[0])))]


def _convolved(op: Op, source: Shape, weight: Shape) -> Shape:
    if len(source) < 2 or len(weight) != len(source):
        raise broken(op, f"the input has rank {len(source)} and the weight {len(weight)}")
    groups = attr_int(op, "group", 1)
    same(op, source[1], _dims.mul(weight[1], groups), "the channels of the input and of the weight")
    kernel = attr_ints(op, "kernel_shape") or weight[2:]
    return (source[0], weight[0], *_windows(op, source[2:], kernel, ceil=False))


def _windows(op: Op, space: Shape, kernel: Shape, *, ceil: bool) -> Shape:
    rank = len(space)
    if len(kernel) != rank:
        raise broken(op, _NO_SHAPE.format(len(kernel), rank))
    strides, dilations = attr_ints(op, "strides") or (1,) * rank, attr_ints(op, "dilations") or (1,) * rank
    pads = attr_ints(op, "pads") or (0,) * (2 * rank)
    if len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank:
        raise broken(op, f"strides, dilations or pads do not have {rank} spatial axes")
    mode = attr_text(op, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return tuple(_dims.ceildiv(s, t) for s, t in zip(space, strides))
    made = []
    for i, (size, width) in enumerate(zip(space, kernel)):
        reach = _dims.add(_dims.mul(_dims.add(width, -1), dilations[i]), 1)
        total = (0, 0) if mode == "VALID" else (pads[i], pads[i + rank])
        made.append(_window(op, size, reach, strides[i], total, ceil=ceil))
    return tuple(made)


def _window(op: Op, size: Dim, reach: Dim, stride: int, pads: tuple[int, int], *, ceil: bool) -> Dim:
    span = _dims.add(_dims.add(size, sum(pads)), _dims.mul(reach, -1))
    if isinstance(span, int) and span < 0:
        if span == -1 and ceil:
            return 0
        raise broken(op, f"a window of {reach!r} does not fit into {size!r} padded by {sum(pads)}")
    count = _dims.add((_dims.ceildiv if ceil else _dims.floordiv)(span, stride), 1)
    if ceil and isinstance(count, int) and isinstance(size, int) and (count - 1) * stride >= size + pads[0]:
        return count - 1  # the last window would start in the padding at the end
    return count


def pool(op: Op) -> list[Inferred]:
    """MaxPool, AveragePool and LpPool; MaxPool has the indices as its second result."""
    source = shape(op)
    kernel = attr_ints(op, "kernel_shape")
    if kernel is None:
        raise broken(op, "attribute 'kernel_shape' is missing")
    space = _windows(op, source[2:], kernel, ceil=bool(attr_int(op, "ceil_mode")))
    result = (*source[:2], *space)
    return [Inferred(TensorType(dtype(op), result)), Inferred(TensorType(DType.I64, result))]


def global_pool(op: Op) -> list[Inferred]:
    source = shape(op)
    return [Inferred(TensorType(dtype(op), (*source[:2], *(1,) * (len(source) - 2))))]


def conv_transpose(op: Op) -> list[Inferred]:
    weight = shape(op, 1)
    source = shape_or_unknown(op, 0, len(weight))
    rank = len(source) - 2
    if rank < 0 or len(weight) != len(source):
        raise broken(op, f"the input has rank {len(source)} and the weight {len(weight)}")
    same(op, source[1], weight[0], "the channels of the input and of the weight")
    channels = _dims.mul(weight[1], attr_int(op, "group", 1))
    given = attr_ints(op, "output_shape")
    if given is not None:
        return [Inferred(TensorType(dtype(op), (source[0], channels, *given[-rank:])))]
    kernel = attr_ints(op, "kernel_shape") or weight[2:]
    strides, dilations = attr_ints(op, "strides") or (1,) * rank, attr_ints(op, "dilations") or (1,) * rank
    extra, pads = attr_ints(op, "output_padding") or (0,) * rank, attr_ints(op, "pads") or (0,) * (2 * rank)
    made: list[Dim] = []
    for i in range(rank):
        if attr_text(op, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
            made.append(_dims.mul(source[2 + i], strides[i]))
            continue
        spread = _dims.mul(_dims.add(source[2 + i], -1), strides[i])
        reach = _dims.add(_dims.mul(_dims.add(kernel[i], -1), dilations[i]), 1)
        cut = extra[i] - (0 if attr_text(op, "auto_pad", "NOTSET") == "VALID" else pads[i] + pads[i + rank])
        made.append(_dims.add(_dims.add(spread, reach), cut))
    return [Inferred(TensorType(dtype(op), (source[0], channels, *made)))]


def col2im(op: Op) -> list[Inferred]:
    source, image, block = shape(op), elements(operand(op, 1)), elements(operand(op, 2))
    if image is None or block is None:
        (axes,) = vector(op, 1)
        if not isinstance(axes, int):
            raise Unranked
        return [Inferred(TensorType(dtype(op), (source[0], *unknown_sizes(op, axes + 1))))]
    return [Inferred(TensorType(dtype(op), (source[0], _dims.floordiv(source[1], _dims.product(block)), *image)))]


def max_roi_pool(op: Op) -> list[Inferred]:
    height, width = attr_ints(op, "pooled_shape") or (1, 1)
    return [Inferred(TensorType(dtype(op), (shape(op, 1)[0], shape(op)[1], height, width)))]


def roi_align(op: Op) -> list[Inferred]:
    height, width = attr_int(op, "output_height", 1), attr_int(op, "output_width", 1)
    return [Inferred(TensorType(dtype(op), (shape(op, 1)[0], shape(op)[1], height, width)))]


def stft(op: Op) -> list[Inferred]:
    """[batch, frames, bins, 2]; bins is half the frame and one, or the whole frame."""
    batch, length = shape(op)[0], shape(op)[1]
    step = elements(operand(op, 1))
    given = elements(op.operand(3)) if op.operand(3) is not None else None
    frame = given[0] if given is not None else shape(op, 2)[0] if op.operand(2) is not None else _dims.fresh()
    frames: Dim = _dims.fresh()
    if step is not None:
        frames = _dims.add(_dims.floordiv(_dims.add(length, _dims.mul(frame, -1)), step[0]), 1)
    bins = _dims.add(_dims.floordiv(frame, 2), 1) if attr_int(op, "onesided", 1) else frame
    return [Inferred(TensorType(dtype(op), (batch, frames, bins, 2)))]
