"""What matrix products would take on a target in 8 and in 4 bits, by its cost table: nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..backends.costs_of_ops import job_of
from ..backends.probe import guessed_dims
from ..backends.targets import OrtTarget
from ..ir.core import Module, Op
from ..ir.dims import symbols
from ..ir.types import TensorType

_PRODUCTS = ("MatMul", "Gemm")
_BLOCKS = (32, 64, 128)  # what `int4` chooses from
_CACHED = ("Concat", "Attention")  # how what is kept of earlier tokens grows: ends of kinds


@dataclass(frozen=True)
class Products:
    """Times in 8 and in 4 bits relative to floats, each product in floats where that is faster; the rows of the product
    that takes longest, and why so many; and where the costs are from."""

    int8: float
    int4: float
    rows: str
    costs: str


def products(module: Module, target: OrtTarget) -> Products | None:
    """None for a model without products that the table knows."""
    dims = guessed_dims(module, {})
    one_by_one = _keeps_tokens(module)
    if one_by_one:
        dims = dict.fromkeys(dims, 1)
    times = dict(_times(module, target, dims))
    floats = sum(found[0] for found in times.values())
    if not times or not floats:
        return None
    heaviest = max(times, key=lambda op: times[op][0])
    return Products(
        int8=sum(found[1] for found in times.values()) / floats,
        int4=sum(found[2] for found in times.values()) / floats,
        rows=_rows(heaviest, dims, one_by_one=one_by_one),
        costs=target.costs.origin,
    )


def _times(
    module: Module, target: OrtTarget, dims: Mapping[str, int]
) -> Iterator[tuple[Op, tuple[float, float, float]]]:
    """Seconds of every product with a constant: in floats, with 8 and with 4 bits."""
    for op in module.walk():
        weight = op.operand(1) if op.kind in _PRODUCTS else None
        if weight is None or weight.constant is None:
            continue
        floats, int8 = (target.seconds(op, form, dims) for form in ("float", "dynamic"))
        blocks = [target.seconds(op, "blocks", dims, bits=4, block=block) for block in _BLOCKS]
        known = [seconds for seconds in blocks if seconds is not None]
        if floats is not None and int8 is not None and known:
            yield op, (floats, min(floats, int8), min(floats, *known))


def _rows(op: Op, dims: Mapping[str, int], *, one_by_one: bool) -> str:
    job = job_of(op, dims)
    rows = int(job.sizes["M"]) if job is not None else 0
    count = "1 row" if rows == 1 else f"{rows} rows"
    if one_by_one:
        return f"{count}: earlier tokens are an input, so every step brings one"
    x = op.operand(0)
    shape = x.type.shape if x is not None and isinstance(x.type, TensorType) else ()
    guessed = {symbol.name: None for dim in shape for symbol in symbols(dim) if dims.get(symbol.name, 1) != 1}
    told = ", ".join(f"{name}={dims[name]}" for name in guessed)
    return f"{count} if {told}" if told else count


def _keeps_tokens(module: Module) -> bool:
    """Whether an input grows and is given back: the cache of a decoder, which then sees one token in every step."""
    inputs, outputs = set(module.graph.inputs), set(module.graph.outputs)
    return any(
        op.kind.endswith(_CACHED)
        and inputs.intersection(v for v in op.operands if v)
        and outputs.intersection(op.results)
        for op in module.walk()
    )
