"""Redundant units planted into a network: unread, constant, duplicate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlc.ir.axes import Axes, AxisClass
from mlc.ir.constants import Constant
from mlc.ir.core import Module, Op, Value

Edit = Callable[[np.ndarray], None]

#: Where the zero point of integer codes stands, by operator and slot of the codes.
ZERO_POINTS = {
    ("DequantizeLinear", 0): 2, ("MatMulInteger", 1): 3, ("ConvInteger", 1): 3, ("QLinearConv", 3): 5,
    ("com.microsoft::DynamicQuantizeLSTM", 1): 9, ("com.microsoft::DynamicQuantizeLSTM", 2): 11,
}  # fmt: skip


def is_consumer(op: Op, slot: int, axis: int) -> bool:
    """Whether the units of a weight's axis are summed over by the op."""
    if op.kind == "Conv":
        return slot == 1 and axis == 1
    if op.kind == "ConvTranspose":
        return slot == 1 and axis == 0
    if op.kind == "Gemm":
        return slot == 1 and axis == (1 if op.attrs.get("transB") else 0)
    return op.kind == "MatMul" and slot == 1 and axis == 0


def edit(
    module: Module, axes: Axes, c: AxisClass, change: Edit, *, consumers: bool, matrices_only: bool = False
) -> None:
    """Apply `change` to every site of a class, unit by unit: arrays arrive as [units, everything else]."""
    for site in c.sites:
        value = module.constants[site.constant]
        use = value.uses[0]
        array = np.array(value.constant.array())
        if is_consumer(use.op, use.slot, site.axis) != consumers or (matrices_only and array.ndim < 2):
            continue
        units = axes.units(axes.of(axes.module.constants[site.constant])[site.axis], c)
        moved = np.moveaxis(array, site.axis, 0)
        order = np.argsort(units, kind="stable")[int((units < 0).sum()) :].reshape(c.size, -1)
        rows = moved[order.ravel()].reshape(c.size, -1)
        change(rows)
        moved[order.ravel()] = rows.reshape(order.size, *moved.shape[1:])
        value.constant = Constant.of(np.ascontiguousarray(np.moveaxis(moved, 0, site.axis)))


def unread(module: Module, axes: Axes, c: AxisClass, units: Sequence[int]) -> None:
    def clear(rows: np.ndarray) -> None:
        rows[list(units)] = 0

    edit(module, axes, c, clear, consumers=True)


def constant(module: Module, axes: Axes, c: AxisClass, units: Sequence[int]) -> None:
    """Weights zero; what remains are biases."""

    def clear(rows: np.ndarray) -> None:
        rows[list(units)] = 0

    edit(module, axes, c, clear, consumers=False, matrices_only=True)


def duplicate(module: Module, axes: Axes, c: AxisClass, units: Sequence[int], of: int = 0) -> None:
    def copy(rows: np.ndarray) -> None:
        rows[list(units)] = rows[of]

    edit(module, axes, c, copy, consumers=False)


def zero(module: Module, axes: Axes, c: AxisClass, units: Sequence[int]) -> None:
    """The units are zero at every site: nothing makes them, nobody reads them; codes become their zero point."""
    for site in c.sites:
        value = module.constants[site.constant]
        array = np.array(value.constant.array())
        stands_for_zero = zero_code(value) if array.dtype.kind in "iu" else 0
        if stands_for_zero is None:
            continue  # zero points themselves
        positions = np.isin(axes.units(axes.of(axes.module.constants[site.constant])[site.axis], c), list(units))
        array[(slice(None),) * site.axis + (positions,)] = stands_for_zero
        value.constant = Constant.of(array, value.constant.dtype)


def zero_code(value: Value) -> int | None:
    """The integer that stands for zero in a tensor of codes; None for zero points themselves."""
    use = value.uses[0]
    if use.slot in (point for (kind, _), point in ZERO_POINTS.items() if kind == use.op.kind):
        return None
    slot = ZERO_POINTS.get((use.op.kind, use.slot))
    point = use.op.operand(slot) if slot is not None else None
    codes = np.unique(point.constant.array()) if point is not None else np.zeros(1, np.int64)
    assert len(codes) == 1, "one zero point for all units"
    return int(codes[0])


KINDS = {"unread": unread, "constant": constant, "duplicate": duplicate}
