"""Which choices in an artifact make it smaller and nothing else: what a report must say before anyone hopes for speed.

Weights stored as codes or in 16 bits compute as the floats that they were. Products with weights in blocks win where
weights are read more than they are used; with many rows the cost table may say that floats would be faster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..ir.core import Module, Op
from ..ir.dtypes import DType
from ..ir.ops.opdef import Trait
from ..ir.ops.table import lookup
from .costs import Key
from .costs_of_ops import rows_of
from .legalize import Lowered
from .legalize_stored import KERNEL as STORED
from .targets import OrtTarget

_NBITS = "com.microsoft::MatMulNBits"
_NOT_FASTER = 1.05  # by so much a form must win before it counts as faster


def size_only(module: Module, lowered: Lowered, target: OrtTarget, dims: Mapping[str, int]) -> tuple[str, ...]:
    """One line for each kind of choice that costs no time and saves none.

    `module` is what the steps made and `lowered` what became of it; `dims` are the sizes that the model will see.
    """
    found = (_stored(lowered), _half(module), _blocks(lowered.module, target, dims))
    return tuple(line for line in found if line)


def _stored(lowered: Lowered) -> str:
    kinds = Counter(site.kind for site in lowered.sites if site.kernel == STORED)
    return f"{_counted(kinds)} read codes that are widened when the model is loaded" if kinds else ""


def _half(module: Module) -> str:
    """Weights in 16 bits behind a Cast; scales of quantized weights are none."""
    readers = (user for op in module.walk() if _widens_half(op) for user in op.result.users if not user.is_terminator)
    kinds = Counter(user.kind for user in readers if not lookup(user.kind).has(Trait.QUANTIZED))
    return f"{_counted(kinds)} read weights in 16 bits that are widened when the model is loaded" if kinds else ""


def _widens_half(op: Op) -> bool:
    source = op.operand(0) if op.kind == "Cast" else None
    return source is not None and source.constant is not None and source.constant.dtype in (DType.F16, DType.BF16)


def _blocks(module: Module, target: OrtTarget, dims: Mapping[str, int]) -> str:
    """Products with weights in blocks that the cost table holds for no faster than products of floats."""
    found: list[tuple[int, float]] = []
    for op in module.walk():
        if op.kind == _NBITS:
            rows = rows_of(op.operand(0), dims)
            gain = None if rows is None else _gain(op, rows, target)
            if rows is not None and gain is not None and gain < _NOT_FASTER:
                found.append((rows, gain))
    if not found:
        return ""
    rows, gain = min(found, key=lambda f: f[1])
    return (
        f"{len(found)} MatMulNBits are no faster than MatMul, down to {gain:.2f}x at {rows} rows "
        f"(by {target.costs.origin} costs)"
    )


def _gain(op: Op, rows: int, target: OrtTarget) -> float | None:
    depth, width, bits, block = (op.attrs[name] for name in ("K", "N", "bits", "block_size"))
    assert isinstance(depth, int)
    assert isinstance(width, int)
    assert isinstance(bits, int)
    assert isinstance(block, int)
    sizes = {"M": rows, "K": depth, "N": width}
    floats = target.costs.seconds(Key("MatMul", "float"), sizes)
    blocks = target.costs.seconds(Key("MatMul", "blocks", bits, block), sizes)
    return floats / blocks if floats is not None and blocks is not None else None


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
