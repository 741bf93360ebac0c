"""Which weights behind DequantizeLinear are refined with data, on which grids, in which order; which are not, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....ir.constants import Constant
from ....ir.core import Module, Op, Value
from ....ir.dtypes import DType
from ....ir.ops.access import attr_int
from ....ir.quant import QSpec, expand
from ....ir.types import TensorType
from ...base import SkipCode, Skipped
from ...bias import has_bias_place
from ...budget import allowed
from ...linear import Linear, linear_of, linear_with

Array = np.ndarray[Any, Any]
_QUANTIZED = "_quantized"


@dataclass(frozen=True, eq=False)
class Reader:
    """One operator that multiplies with the weight: as it is now, and in the float model."""

    linear: Linear
    whole: Linear


@dataclass(frozen=True, eq=False)
class Site:
    """Codes of a weight, their grids and readers. Sites of one level do not feed each other.

    `spec` describes the codes as DequantizeLinear reads them (axis and block of the stored tensor).
    """

    name: str
    readers: tuple[Reader, ...]
    codes: Value
    scale: Value  # the constant; a Cast may widen it
    zero: Value | None
    weight: Value  # in the float model
    spec: QSpec
    level: int
    fixed: bool  # whether other constants rely on the scales

    @property
    def linear(self) -> Linear:
        return self.readers[0].linear

    @property
    def memory(self) -> int:
        """Bytes of moments while data streams."""
        groups, outputs, depth = self.linear.shape
        return groups * depth * (2 * depth + outputs) * 8

    @property
    def depth_blocks(self) -> int | None:
        """How many consecutive inputs share a scale, 0 for all of them; None where grids lie in another way."""
        axis = None if self.spec.axis is None else self.spec.axis % _constant(self.codes).type.rank
        if self.spec.block:
            return self.spec.block if axis == self.linear.input_axis and self.linear.taps == 1 else None
        several = self.linear.shape[0] * self.linear.shape[1] != _constant(self.scale).elements
        return 0 if axis == self.linear.output_axis and not several else None

    @property
    def movable(self) -> bool:
        """Whether other scales and zero points may take the place of these."""
        return not self.fixed and self.depth_blocks is not None

    @property
    def has_bias(self) -> bool:
        """Whether numbers can be added to the result at no cost when the model runs."""
        return len(self.readers) == 1 and has_bias_place(self.linear.op)

    def float_matrix(self) -> Array:
        """The weight of the float model [groups, outputs, depth], in float32."""
        found = self.readers[0].whole.matrix(_constant(self.weight).array())
        return np.ascontiguousarray(found, np.float32)

    def stored_codes(self) -> Array:
        return _constant(self.codes).array()

    def current(self) -> Array:
        """What the codes stand for now [groups, outputs, depth], in float32."""
        scale, zero = self.grids()
        return np.asarray((self.linear.matrix(self.stored_codes()).astype(np.float32) - zero) * scale)

    def grids(self) -> tuple[Array, Array]:
        """Scales and zero points now, broadcastable to [groups, outputs, depth]."""
        return self._spread(self.stored_scale()), self._spread(self.stored_zero())

    def stored_scale(self) -> Array:
        return _constant(self.scale).array().astype(np.float32)

    def stored_zero(self) -> Array:
        if self.zero is None:
            return np.full(_constant(self.scale).shape, self.spec.middle, np.float32)
        return _constant(self.zero).array().astype(np.float32)

    def _spread(self, parameter: Array) -> Array:
        shape = _constant(self.codes).shape
        full = self.linear.matrix(np.broadcast_to(expand(parameter, shape, self.spec), shape))
        return full[:, :, :1] if self.depth_blocks == 0 else full


def refinable(
    module: Module, source: Module, specs: Mapping[str, QSpec] | None, memory: int | None
) -> tuple[list[Site], list[Skipped]]:
    """The weights of a quantized module that can be refined against `source`, front to back, and those that cannot.

    Codes are called `{base}_quantized`, the weight in `source` `base`. `specs` are the grids of the weights to refine
    by `base` (None: all, with as many bits as their type has).
    """
    walk = _Walk(module, source, specs, memory)
    for op in module.graph.ops:
        walk.visit(op)
    for base in specs or ():
        if base not in walk.seen:
            walk.skip(base, SkipCode.NOT_FOLLOWED, "no operator of the main graph reads its codes")
    return sorted(walk.sites, key=lambda s: s.level), walk.skipped


@dataclass
class _Walk:
    """Program order: a value's level is the number of refined weights in a row that it depends on."""

    module: Module
    source: Module
    specs: Mapping[str, QSpec] | None
    memory: int | None
    level: dict[Value, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    sites: list[Site] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def visit(self, op: Op) -> None:
        behind = max((self.level.get(v, 0) for v in _read_by(op)), default=0)
        for base, dequantize in self._weights(op):
            found = self._site(base, op, dequantize)
            if found is not None:
                self.sites.append(found)
                behind = found.level
        self.level.update(dict.fromkeys(op.results, behind))

    def skip(self, site: str, code: SkipCode, why: str, what_to_do: str = "") -> None:
        self.skipped.append(Skipped(site, code, why, what_to_do))

    def _weights(self, op: Op) -> Iterator[tuple[str, Op]]:
        """Weights in codes that an operator computes with, at their first reader."""
        if op.kind in ("DequantizeLinear", "Cast", "Transpose", "Identity"):
            return
        for operand in op.operands:
            made = operand.op if operand is not None else None
            codes = made.operand(0) if made is not None and made.kind == "DequantizeLinear" else None
            if made is None or codes is None or codes.constant is None or not codes.name.endswith(_QUANTIZED):
                continue
            base = codes.name.removesuffix(_QUANTIZED)
            asked = base in self.specs if self.specs is not None else codes.constant.type.rank > 1
            if asked and base not in self.seen:
                self.seen.add(base)
                yield base, made

    def _site(self, base: str, op: Op, dequantize: Op) -> Site | None:
        codes = dequantize.operand(0)
        assert codes is not None
        readers = self._readers(base, codes)
        if isinstance(readers, Skipped):
            self.skipped.append(readers)
            return None
        scale, zero = _behind_cast(dequantize.operand(1)), dequantize.operand(2)
        if scale is None or (zero is not None and zero.constant is None):
            self.skip(base, SkipCode.NOT_CONSTANT, "its grid is computed")
            return None
        level = 1 + max(self.level.get(r.linear.data, 0) for r in readers)
        spec = self._spec(base, codes, dequantize, zero)
        site = Site(
            base, readers, codes, scale, zero, self.source.constants[base], spec, level, _relied_on(readers, scale)
        )
        most = allowed(self.memory)
        if site.memory > most:
            why = f"its moments take {site.memory / 2**20:.2g} MiB, more than {most / 2**20:.2g} MiB"
            self.skip(base, SkipCode.NOT_FOLLOWED, why, "raise --max-memory")
            return None
        return site

    def _readers(self, base: str, codes: Value) -> tuple[Reader, ...] | Skipped:
        float_value = self.source.constants.get(base)
        if float_value is None or _constant(float_value).shape != _constant(codes).shape:
            return Skipped(base, SkipCode.NOT_FOLLOWED, "the float model has no weight of this name and shape")
        ops = [reader for dequantize in codes.users for reader in dequantize.result.users]
        others = {op.name: op for op in float_value.users}
        if len(others) != len(ops):
            return Skipped(base, SkipCode.NOT_FOLLOWED, "the float model reads it in another way")
        found = []
        for op, by_order in zip(ops, float_value.users):
            linear, whole = linear_with(op, codes), linear_of(others.get(op.name, by_order))
            slot = linear is not None and op.operand(1) is not None and _codes_of(op.operand(1)) is codes
            if op.parent is not self.module.graph:
                return Skipped(base, SkipCode.CONTROL_FLOW, f"{op.kind} is in a body, which is not watched")
            if linear is None or whole is None or not slot or type(whole) is not type(linear):
                return Skipped(base, SkipCode.NOT_FOLLOWED, f"{op.kind} does not multiply with it, or not as a matrix")
            if isinstance(linear.data.type, TensorType) and not linear.data.type.dtype.is_float:
                return Skipped(base, SkipCode.DTYPE, f"{op.kind} reads integers")
            found.append(Reader(linear, whole))
        return tuple(found)

    def _spec(self, base: str, codes: Value, dequantize: Op, zero: Value | None) -> QSpec:
        rank = _constant(codes).type.rank
        scalar = _behind_cast(dequantize.operand(1))
        per_tensor = scalar is not None and _constant(scalar).elements == 1 and _constant(scalar).type.rank == 0
        axis = None if per_tensor else attr_int(dequantize, "axis", 1) % rank
        block = attr_int(dequantize, "block_size")
        if self.specs is not None:
            asked = self.specs[base]
            return QSpec(asked.bits, asked.signed, asked.symmetric, axis, block)
        dtype = _constant(codes).dtype
        signed = dtype in (DType.I2, DType.I4, DType.I8)
        plain = QSpec(dtype.bits, signed, True, axis, block)
        symmetric = zero is None or bool((_constant(zero).array().astype(np.int32) == plain.middle).all())
        return QSpec(dtype.bits, signed, symmetric, axis, block)


def _relied_on(readers: Sequence[Reader], scale: Value) -> bool:
    """Whether scales must stay: they are shared, or the bias of a product of codes is in steps of them."""
    made = [r.linear.data.op for r in readers]
    return len(scale.uses) > 1 or any(op is not None and op.kind == "DequantizeLinear" for op in made)


def _codes_of(value: Value | None) -> Value | None:
    return value.op.operand(0) if value is not None and value.op is not None else None


def _behind_cast(value: Value | None) -> Value | None:
    if value is not None and value.op is not None and value.op.kind == "Cast":
        value = value.op.operand(0)
    return value if value is not None and value.constant is not None else None


def _read_by(op: Op) -> Iterator[Value]:
    for inner in (op, *(o for region in op.regions.values() for o in region.walk())):
        yield from (v for v in inner.operands if v is not None)


def _constant(value: Value) -> Constant:
    assert value.constant is not None
    return value.constant
