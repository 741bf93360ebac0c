"""What a model costs: multiply-accumulates, bytes moved, bit operations, parameters. Sizes may be symbolic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from . import dims as _dims
from .core import Module, Op, Use, Value
from .dims import Dim
from .errors import Code, error
from .ops.access import Unranked, attr_int
from .ops.bounds import at_least
from .ops.opdef import Cost, OpDef, Trait
from .ops.table import lookup
from .types import TensorType

#: Operators that read only the elements they yield, not all of their first operand.
_PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "com.microsoft::GatherBlockQuantized"})


@dataclass(frozen=True)
class ModuleCost:
    """The cost of one run. `unknown` lists ops whose cost holds a size that nobody knows (a Loop's trip count, a
    tensor without a rank): totals then contain a symbol of that unknown."""

    macs: Dim = 0
    bytes_read: Dim = 0
    bytes_written: Dim = 0
    bit_ops: Dim = 0
    parameters: int = 0  # trained numbers, however they are stored
    weight_bytes: int = 0  # of all constants that are used
    ops: Mapping[Op, Cost] = field(default_factory=dict)  # one execution of each op, bodies included
    unknown: tuple[Op, ...] = ()


def bind(dim: Dim, dims: Mapping[str, int]) -> int:
    """A symbolic amount as a number. Errors: BAD_DIMS names the sizes that `dims` lacks."""
    found = _dims.evaluate(dim, dims)
    if found is not None:
        return found
    missing = sorted((s for s in _dims.symbols(dim) if s.name not in dims), key=lambda s: s.name)
    named = [s.name for s in missing if not _dims.is_fresh(s)]
    if named:
        example = ",".join(f"{name}=1" for name in named)
        raise error(Code.BAD_DIMS, f"no size is given for {', '.join(named)}", help=f"give sizes: --dims {example}")
    raise error(
        Code.BAD_DIMS,
        "the amount depends on a size that is only known when the model runs",
        note=f"unknown sizes: {', '.join(s.name for s in missing)}",
        help="fix the sizes of the model's inputs, or measure instead",
    )


def cost_of(op: Op) -> Cost:
    """The cost of one execution of an op, what its bodies do included."""
    if op.regions:
        return _cost_of_regions(op)
    row = lookup(op.kind)
    macs = _macs(op, row)
    written = _dims.add(0, _total(_bytes(v) for v in op.results))
    read = _total(_bytes(v) for v in dict.fromkeys(op.operands) if v is not None)
    if op.kind in _PICKS:
        read = _dims.add(written, _total(_bytes(v) for v in op.operands[1:] if v is not None))
    return Cost(macs, read, written, _dims.mul(macs, _bits_per_mac(op, row)))


def module_cost(module: Module) -> ModuleCost:
    """The cost of one run of a module."""
    ops = {op: cost_of(op) for op in module.walk()}
    total = _sum(ops[op] for op in module.graph.ops)
    used = [v for v in module.constants.values() if v.uses]
    return ModuleCost(
        total.macs,
        total.bytes_read,
        total.bytes_written,
        total.bit_ops,
        sum(_parameters(v) for v in used),
        sum(v.constant.nbytes for v in used if v.constant is not None),
        ops,
        tuple(op for op, cost in ops.items() if _dims.is_fresh(cost.macs)),
    )


def _macs(op: Op, row: OpDef) -> Dim:
    if row.macs is None:
        return 0
    try:
        return row.macs(op)
    except Unranked:
        return _dims.fresh("macs")


def _bits_per_mac(op: Op, row: OpDef) -> int:
    """Bits of the activation times bits of the weight, as they are stored in front of a DequantizeLinear."""
    weight = next((slot for slot in row.weights if slot), 1)
    if row.has(Trait.QUANTIZED) and "bits" in op.attrs:
        return _stored_bits(op.operand(0)) * attr_int(op, "bits")
    return _stored_bits(op.operand(0)) * _stored_bits(op.operand(weight))


def _stored_bits(value: Value | None) -> int:
    if value is None:
        return 0
    maker = value.op
    if maker is not None and maker.op_type == "DequantizeLinear":
        return _stored_bits(maker.operand(0))
    return value.type.dtype.bits if isinstance(value.type, TensorType) else 32


def _bytes(value: Value) -> Dim:
    if value.constant is not None:
        return value.constant.nbytes
    if not isinstance(value.type, TensorType):
        return _dims.fresh("bytes")
    bits = _dims.mul(value.type.elements, value.type.dtype.bits)
    return _dims.ceildiv(bits, 8)


def _parameters(value: Value) -> int:
    """Trained numbers a constant holds: what sits in a weight slot, and float tensors that operators combine with
    activations (a bias in an Add); scales and zero points are storage."""
    constant = value.constant
    assert constant is not None
    counts = [_elements(use.op, use.slot, constant.elements, constant.dtype.is_float) for use in _readers(value)]
    return max(counts, default=0)


def _readers(value: Value) -> Iterator[Use]:
    """Uses of a value, those behind a Cast included: how a number is stored does not change what it is."""
    for use in value.uses:
        if use.op.kind == "Cast":
            yield from _readers(use.op.result)
        else:
            yield use


def _elements(op: Op, slot: int, elements: int, is_float: bool) -> int:
    row = lookup(op.kind)
    if slot in row.weights:
        packed = op.attrs.get("K"), op.attrs.get("N")
        if slot == row.weights[0] and isinstance(packed[0], int) and isinstance(packed[1], int):
            return packed[0] * packed[1]
        return elements
    return elements if is_float and elements > 1 and not row.has(Trait.QUANTIZED) else 0


def runs_of(op: Op) -> dict[str, Dim]:
    """How often each body of an op runs in one execution of it. Of two branches the one that is certainly dearer;
    if neither is, both, which is an upper bound."""
    if op.kind != "If":
        rounds = _rounds(op) if op.regions else 0
        return dict.fromkeys(op.regions, rounds)
    macs = {name: _total(cost_of(inner).macs for inner in region.ops) for name, region in op.regions.items()}
    dearer = [name for name, a in macs.items() if all(at_least(a, b) for b in macs.values())]
    return {name: int(not dearer or name == dearer[0]) for name in op.regions}


def _cost_of_regions(op: Op) -> Cost:
    bodies = {name: _sum(cost_of(inner) for inner in region.ops) for name, region in op.regions.items()}
    runs = runs_of(op)
    scaled = (Cost(*(_dims.mul(runs[name], part) for part in _parts(body))) for name, body in bodies.items())
    return _sum(scaled)


def _rounds(op: Op) -> Dim:
    body = op.regions["body"]
    if op.kind == "Scan":
        states = len(op.operands) - attr_int(op, "num_scan_inputs")
        scanned = op.operand(states)
        axes = op.attrs.get("scan_input_axes")
        axis = axes[0] if isinstance(axes, tuple) and isinstance(axes[0], int) else 0
        if scanned is not None and isinstance(scanned.type, TensorType):
            return scanned.type.shape[axis]
        return _dims.fresh("rounds")
    trip, going = op.operand(0), body.outputs[0].dims
    endless = going == (1,) and (op.operand(1) is None or (op.operands[1] is not None and op.operands[1].dims == (1,)))
    if endless and trip is not None and trip.dims:
        return trip.dims[0]
    return _dims.fresh("rounds")


def _parts(cost: Cost) -> tuple[Dim, Dim, Dim, Dim]:
    return cost.macs, cost.bytes_read, cost.bytes_written, cost.bit_ops


def _sum(costs: Iterable[Cost]) -> Cost:
    columns = list(zip(*(_parts(c) for c in costs)))
    return Cost(*(_total(column) for column in columns)) if columns else Cost()


def _total(dims: Iterable[Dim]) -> Dim:
    total: Dim = 0
    for dim in dims:
        total = _dims.add(total, dim)
    return total
