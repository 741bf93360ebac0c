"""Convolution and pooling: padding moves into the op, affine maps of channels into its weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ir.constants import Constant
from ...ir.core import Ints, Op, Value
from ...ir.dtypes import DType
from ...ir.ops.access import attr_float, attr_int, attr_ints, attr_text, ints
from ...ir.types import TensorType
from ..base import SkipCode
from .facts import array, dtype, permutation, rank, scalar, shape, static
from .pattern import anything, const, node
from .rule import Check, Refusal, Rule, Site, constant_bytes, grows

Array = np.ndarray[Any, Any]

# -- padding -----------------------------------------------------------------------------------------------------------


def padding(op: Op) -> tuple[int, ...] | None:
    """The amounts of a Pad, begins and then ends, for all axes; None if they are not constant."""
    axes, pads = rank(op.operand(0)), ints(op.operand(1))
    if axes is None or pads is None:
        return None
    named = tuple(range(axes)) if op.operand(3) is None else ints(op.operand(3))
    if named is None or len(pads) != 2 * len(named):
        return None
    found = [0] * (2 * axes)
    for position, axis in enumerate(named):
        found[axis % axes] = pads[position]
        found[axes + axis % axes] = pads[len(named) + position]
    return tuple(found)


def _pad_value(op: Op) -> float | None:
    """What a constant Pad pads with; None if that is not known, or the mode is another."""
    if attr_text(op, "mode", "constant") != "constant":
        return None
    value = op.operand(2)
    if value is None:
        return 0.0
    found = scalar(value)
    return None if found is None else float(found)


def _spatial(site: Site) -> tuple[int, ...] | None:
    """The amounts of the Pad on the spatial axes, if it pads only those and cuts nothing off."""
    amounts = padding(site.node("pad"))
    perm = permutation(site.node("turn")) if "turn" in site else None
    if amounts is None or ("turn" in site and perm is None):
        return None
    axes = len(amounts) // 2
    order = perm or tuple(range(axes))
    begins, ends = tuple(amounts[a] for a in order), tuple(amounts[axes + a] for a in order)
    if any(begins[:2]) or any(ends[:2]) or min(amounts) < 0:
        return None
    return (*begins[2:], *ends[2:])


def _window(site: Site) -> Refusal | None:
    """What Conv and pools have in common: where the Pad pads, and that the op pads explicitly."""
    spatial = _spatial(site)
    if spatial is None:
        return Refusal(SkipCode.NOT_CONSTANT, "the Pad is not constant, cuts off, or pads samples or channels")
    mode = attr_text(site.op, "auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID"):
        return Refusal(SkipCode.UNSUPPORTED, f"auto_pad={mode} depends on the padded size")
    return None


def _joined(site: Site) -> tuple[int, ...]:
    spatial = _spatial(site)
    assert spatial is not None
    own = attr_ints(site.op, "pads") if attr_text(site.op, "auto_pad", "NOTSET") == "NOTSET" else None
    return tuple(a + b for a, b in zip(spatial, own or (0,) * len(spatial)))


def _merge_pad(site: Site) -> None:
    pads = _joined(site)
    site.rw.set_attr(site.op, "auto_pad", None)
    site.rw.set_attr(site.op, "pads", Ints(pads))
    if site.op.kind == "AveragePool":
        site.rw.set_attr(site.op, "count_include_pad", 1)
    if "turn" in site:
        _unpad(site, site.node("turn"))
    else:
        site.rw.set_operand(site.op, 0, site["x"])


def _unpad(site: Site, turn: Op) -> None:
    """Let a Transpose between the Pad and the op read what was padded."""
    perm, source = permutation(turn), site["x"].type
    assert perm is not None
    assert isinstance(source, TensorType)
    site.rw.set_operand(turn, 0, site["x"])
    site.rw.retype(turn.result, TensorType(source.dtype, tuple(source.shape[a] for a in perm)))


def _pad_conv(site: Site) -> Refusal | None:
    if _pad_value(site.node("pad")) != 0:
        return Refusal(SkipCode.UNSUPPORTED, "a convolution pads with zeros only")
    return _window(site)


def _fits_kernel(site: Site) -> bool:
    """Whether every window holds at least one element that is not padding."""
    kernel = attr_ints(site.op, "kernel_shape") or ()
    pads = _joined(site)
    plain = set(attr_ints(site.op, "dilations") or (1,)) == {1}
    return plain and all(p < k for p, k in zip(pads, (*kernel, *kernel)))


_NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Exp", "Sqrt"})


def _not_negative(value: Value) -> bool:
    """Whether a value comes from an op that yields nothing below zero."""
    op = value.op
    if op is None:
        return False
    if op.kind == "Clip":
        low = scalar(op.operand(1))
        return low is not None and low >= 0
    if op.kind in ("Transpose", "MaxPool") and value.index == 0:
        source = op.operand(0)
        return source is not None and _not_negative(source)
    return op.kind in _NOT_NEGATIVE


def _pad_max(site: Site) -> Refusal | None:
    """Padding is invisible to a maximum if it repeats an element of the window, or is not above one."""
    pad = site.node("pad")
    refusal = _window(site)
    if refusal is not None:
        return refusal
    value = _pad_value(pad)
    hidden = value == -math.inf or (value == 0 and _not_negative(site["x"]))
    if not hidden and attr_text(pad, "mode", "constant") != "edge":
        return Refusal(SkipCode.UNSUPPORTED, "the padding may be the largest element of a window")
    if attr_int(site.op, "ceil_mode") or not _fits_kernel(site):
        return Refusal(SkipCode.UNSUPPORTED, "a window may hold nothing but padding")
    if len(site.op.results) > 1 and site.op.results[1].uses:
        return Refusal(SkipCode.SHARED, "the indices count the padding")
    return None


def _pad_average(site: Site) -> Refusal | None:
    refusal = _window(site)
    if refusal is not None:
        return refusal
    if _pad_value(site.node("pad")) != 0:
        return Refusal(SkipCode.UNSUPPORTED, "an average pads with zeros only")
    if any(attr_ints(site.op, "pads") or ()) and not attr_int(site.op, "count_include_pad"):
        return Refusal(SkipCode.UNSUPPORTED, "the op's own padding does not count, that of the Pad does")
    if attr_int(site.op, "ceil_mode") or not _fits_kernel(site):
        return Refusal(SkipCode.UNSUPPORTED, "a window may hold nothing but padding")
    return None


def _pads(kind: str, check: Check, doc: str) -> list[Rule]:
    """Directly, and with a Transpose in between."""
    pad = node("Pad", anything("x"), name="pad")
    patterns = node(kind, pad), node(kind, node("Transpose", pad, name="turn"))
    return [Rule(f"pad-{kind.lower()}", doc, pattern, _merge_pad, check) for pattern in patterns]


# -- affine maps of channels -------------------------------------------------------------------------------------------


def _per_channel(value: Value, channels: int, axes: int, axis: int) -> Array | None:
    """A constant operand as one number per channel, in float64; None if it varies along another axis."""
    sizes = static(value)
    if value.constant is None or sizes is None or len(sizes) > axes:
        return None
    full = (1,) * (axes - len(sizes)) + sizes
    if any(size != 1 for a, size in enumerate(full) if a != axis) or full[axis] not in (1, channels):
        return None
    return np.broadcast_to(array(value).astype(np.float64).reshape(-1), (channels,))


def _batch_norm(op: Op) -> tuple[Array, Array] | None:
    if attr_int(op, "training_mode") or any(v.uses for v in op.results[1:]):
        return None
    parameters = [v for v in op.operands[1:5] if v is not None and v.constant is not None]
    if len(parameters) != 4:
        return None
    gamma, beta, mean, variance = (array(v).astype(np.float64) for v in parameters)
    scale = gamma / np.sqrt(variance + attr_float(op, "epsilon", 1e-5))
    return scale, beta - mean * scale


def affine(op: Op, source: Value, channels: int, axis: int) -> tuple[Array, Array] | None:
    """Scale and shift per channel if `op` is such a map of `source` (BatchNormalization, or + - * / by constants)."""
    if op.kind == "BatchNormalization":
        return _batch_norm(op) if axis == 1 and op.operand(0) is source else None
    axes, left = rank(source), op.operand(0) is source
    other = op.operand(1 if left else 0)
    if axes is None or other is None or shape(op.results[0]) != shape(source):
        return None
    number = _per_channel(other, channels, axes, axis)
    if number is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if op.kind == "Mul":
        return number, zero
    if op.kind == "Add":
        return one, number
    if op.kind == "Sub":
        return (one, -number) if left else (-one, number)
    if op.kind == "Div" and left and bool(np.all(number != 0)):
        return 1 / number, zero
    return None


AFFINE = frozenset({"BatchNormalization", "Mul", "Add", "Sub", "Div"})


def _channels(op: Op) -> int | None:
    """Output channels of a Conv or ConvTranspose with constant weights."""
    sizes = static(op.operand(1))
    if sizes is None:
        return None
    return sizes[0] if op.kind == "Conv" else sizes[1] * attr_int(op, "group", 1)


def _map(site: Site) -> tuple[Array, Array] | None:
    conv = site.node("conv")
    channels = _channels(conv)
    return None if channels is None else affine(site.op, conv.result, channels, 1)


def _conv_affine_check(site: Site) -> Refusal | None:
    conv, found = site.node("conv"), _map(site)
    weight, bias = conv.operand(1), conv.operand(2)
    if found is None or weight is None or weight.constant is None or (bias is not None and bias.constant is None):
        return Refusal(SkipCode.NOT_CONSTANT, "weights and map must be constant, the map one number per channel")
    if dtype(weight) not in (DType.F32, DType.F64, DType.F16) or dtype(weight) is not dtype(site.op.result):
        return Refusal(SkipCode.DTYPE, f"weights of {dtype(weight)!r} are not scaled")
    weights, shift = _folded(conv, *found)
    scaled = bool(np.any(found[0] != 1))
    if not (np.isfinite(weights).all() and np.isfinite(shift).all()):
        return Refusal(SkipCode.HURTS, "a folded weight would not be finite")
    new = {1: weights if scaled else None, 2: shift if bias is not None or np.any(shift) else None}
    site.scratch["folded"] = new
    nbytes = sum(constant_bytes(a.nbytes, a.ndim, _base(conv, slot)) for slot, a in new.items() if a is not None)
    return grows(nbytes, [site.op], [conv] if scaled else [], allowance=site.saved)


def _folded(conv: Op, scale: Array, shift: Array) -> tuple[Array, Array]:
    weight, bias = conv.operands[1], conv.operand(2)
    assert weight is not None
    values = array(weight)
    rows = (-1, *(1,) * (values.ndim - 1))
    with np.errstate(all="ignore"):
        if conv.kind == "Conv":
            scaled = values * scale.reshape(rows)
        else:  # [in, out / group, ...]: the weights of a group are consecutive rows
            groups = attr_int(conv, "group", 1)
            split = values.reshape(groups, values.shape[0] // groups, values.shape[1], *values.shape[2:])
            scaled = split * scale.reshape(groups, 1, values.shape[1], *(1,) * (values.ndim - 2))
            scaled = scaled.reshape(values.shape)
        old = np.zeros(len(scale)) if bias is None else array(bias).astype(np.float64)
        return scaled.astype(values.dtype), (old * scale + shift).astype(values.dtype)


def _fold_into_conv(site: Site) -> list[Value | None]:
    conv = site.node("conv")
    for slot, values in site.scratch["folded"].items():
        if values is not None:
            site.rw.set_operand(conv, slot, site.const(Constant.of(values), _base(conv, slot)))
    return [conv.result, *(None for _ in site.op.results[1:])]


def _base(conv: Op, slot: int) -> str:
    """The name of a folded constant: that of the one it replaces, marked."""
    value = conv.operand(slot)
    return f"{value.name}_folded" if value is not None else f"{conv.name or conv.results[0].name}_bias"


_CONV = node({"Conv", "ConvTranspose"}, anything("x"), const(), name="conv")

RULES: tuple[Rule, ...] = (
    *_pads("Conv", _pad_conv, "Pad with zeros before a Conv becomes its padding."),
    *_pads("MaxPool", _pad_max, "Pad before a MaxPool becomes its padding, if no window's maximum can be padding: "
          "-inf, an edge that repeats, or zeros behind an op without negative results."),
    *_pads("AveragePool", _pad_average, "Pad with zeros before an AveragePool becomes padding that counts."),
    Rule(
        "fold-affine", "BatchNormalization, Mul, Div, Add, Sub by one number per channel after a Conv or ConvTranspose "
        "go into its weights and bias.",
        node(AFFINE, _CONV, commutative=True), _fold_into_conv, _conv_affine_check, asks="fold_affine", exact=False,
    ),
)  # fmt: skip
