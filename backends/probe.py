"""Synthetic samples for a model nobody gave data for: seeded, typed from its inputs, tried until they run.

Ids stay within the embedding table they index, masks are ones, floats are N(0, 1), in every second sample at a tenth of
that amplitude: what saturates on the one must answer to the other. An integer that the graph compares with constants
takes these in turn (a sample rate, a mode), so that every branch is judged. Symbolic sizes: what the caller says, batch
1, and for the others the first of a few common sizes with which the model runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir import errors
from ..ir.core import Module, Op, Value
from ..ir.dims import evaluate, symbols
from ..ir.errors import Code, MlcError, ResourceError
from ..ir.types import TensorType

Feeds = dict[str, Any]
SAMPLES = 4
_SIZES = (64, 128, 32, 224, 16, 256, 320, 512, 48, 80, 1, 1024)  # tried in this order for unknown axes
_AMPLITUDES = (1.0, 0.1)
_FEW_SIZES = (1, 16, 64, 256)  # in every combination, where axes need different sizes
_VIEWS = frozenset({"Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Slice", "Concat"})


@dataclass(frozen=True)
class Probes:
    """Feeds that run, and the sizes that were bound to get there."""

    feeds: tuple[Feeds, ...]
    binding: dict[str, int]


def synthetic(
    module: Module,
    run: Callable[[Feeds], object],
    *,
    dims: Mapping[str, int],
    rng: np.random.Generator,
    samples: int = SAMPLES,
) -> Probes:
    """Samples with which `run` (which raises MlcError otherwise) succeeds.

    Errors: BAD_DIMS when `dims` names a size the model does not have, or no binding runs.
    """
    check_dims(module, dims)
    names = _symbol_names(module)
    refusal: MlcError | None = None
    for binding in _bindings(module, dims):
        first = _sample(module, binding, rng, 0)
        try:
            run(first)
        except MlcError as reason:
            refusal = refusal or reason
            continue
        more = (_runnable(module, binding, rng, run, nth) for nth in range(1, samples))
        return Probes((first, *more), binding)
    if isinstance(refusal, ResourceError):
        raise refusal
    sizes = f", or sizes: --dims {','.join(f'{n}=...' for n in names)}" if names else ""
    raise errors.error(
        Code.BAD_DIMS,
        "no synthetic input runs through the model",
        help=f"give --eval samples.npz{sizes}",
        note=refusal.diagnostics[0].message if refusal is not None else "",
    )


def guessed_dims(module: Module, dims: Mapping[str, int]) -> dict[str, int]:
    """The sizes that samples are tried with first: what costs are weighed by where no model is run."""
    return next(_bindings(module, dims))


def _runnable(
    module: Module, binding: Mapping[str, int], rng: np.random.Generator, run: Callable[[Feeds], object], nth: int
) -> Feeds:
    """Sample `nth`; of the first kind if the model does not run with it (a mode that wants other sizes)."""
    sample = _sample(module, binding, rng, nth)
    try:
        run(sample)
    except MlcError:
        return _sample(module, binding, rng, 0)
    return sample


def check_dims(module: Module, dims: Mapping[str, int]) -> None:
    """Refuse a size for a dimension that the inputs do not have."""
    names = _symbol_names(module)
    unknown = [d for d in dims if d not in names]
    if unknown:
        has = f"its symbolic dimensions are {', '.join(names)}" if names else "all its dimensions are fixed"
        raise errors.error(Code.BAD_DIMS, f"the inputs have no dimension {unknown[0]!r}", where="--dims", help=has)


def _symbol_names(module: Module) -> list[str]:
    found: dict[str, None] = {}
    for value in _fed(module):
        for dim in value.type.shape if isinstance(value.type, TensorType) else ():
            found.update(dict.fromkeys(sorted(s.name for s in symbols(dim))))
    return list(found)


def _fed(module: Module) -> Iterator[Value]:
    """Arguments that must be fed: those without a default."""
    return (v for v in module.graph.inputs if v.name not in module.defaults)


def _bindings(module: Module, dims: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Candidate sizes: given ones fixed, batch axes 1, all others one common size at a time."""
    batch = _batch_names(module, dims)
    others = [n for n in _symbol_names(module) if n not in dims and n not in batch]
    fixed = {**dict.fromkeys(batch, 1), **dims}
    if not others:
        yield fixed
        return
    for size in _SIZES:
        yield {**fixed, **dict.fromkeys(others, size)}
    tried = _SIZES if len(others) == 2 else _FEW_SIZES
    for sizes in itertools.product(tried, repeat=len(others)) if 1 < len(others) <= 3 else ():
        yield {**fixed, **dict(zip(others, sizes))}
    for size in (2, 4, 8):  # an axis taken for the batch may not be one
        yield {**fixed, **dict.fromkeys(batch, size), **dict.fromkeys(others, 64), **dims}


def _batch_names(module: Module, dims: Mapping[str, int]) -> list[str]:
    found: dict[str, None] = {}
    for value in _fed(module):
        if isinstance(value.type, TensorType) and value.type.rank > 1:
            found.update((s.name, None) for s in symbols(value.type.shape[0]) if s.name not in dims)
    return list(found)


def _sample(module: Module, binding: Mapping[str, int], rng: np.random.Generator, nth: int) -> Feeds:
    return {value.name: _array(value, binding, rng, nth) for value in _fed(module)}


def _array(value: Value, binding: Mapping[str, int], rng: np.random.Generator, nth: int) -> Any:
    kind = value.type
    if not isinstance(kind, TensorType):
        raise errors.error(
            Code.NO_DATA, f"no synthetic samples exist for input {value.name!r} of type {kind}", help="give --eval data"
        )
    shape = tuple(evaluate(d, binding) or 0 for d in kind.shape)
    if kind.dtype.kind == "float":
        amplitude = _AMPLITUDES[nth % len(_AMPLITUDES)]
        return (amplitude * rng.standard_normal(shape)).astype(kind.dtype.numpy)
    if kind.dtype.kind == "bool":
        return np.ones(shape, np.bool_)
    if kind.dtype.kind == "str":
        return np.full(shape, "a", object)
    if kind.dtype.kind == "complex":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(kind.dtype.numpy)
    rows = _table_rows(value)
    if rows is not None:
        return rng.integers(0, max(1, rows), shape).astype(kind.dtype.numpy)
    modes = _compared_with(value) or [1]  # a mask is ones
    return np.full(shape, modes[nth // len(_AMPLITUDES) % len(modes)], kind.dtype.numpy)


def _table_rows(value: Value) -> int | None:
    """The number of rows of the smallest constant table that the value's elements index; None if none."""
    found = []
    for op, slot in _readers(value):
        table = op.operand(0)
        if (
            op.kind.endswith(("Gather", "GatherBlockQuantized"))
            and slot == 1
            and isinstance(getattr(table, "type", None), TensorType)
        ):
            assert table is not None
            assert isinstance(table.type, TensorType)
            axis = op.attrs.get("axis", op.attrs.get("gather_axis", 0))
            size = table.type.shape[axis] if isinstance(axis, int) and table.type.rank else None
            if isinstance(size, int):
                found.append(size)
    return min(found, default=None)


def _compared_with(value: Value) -> list[int]:
    """The constants the graph compares the value with, in program order."""
    found: dict[int, None] = {}
    for op, slot in _readers(value):
        other = op.operand(1 - slot) if op.kind == "Equal" else None
        if other is not None and other.constant is not None and other.constant.elements == 1:
            found[int(other.constant.array().reshape(-1)[0])] = None
    return list(found)


def _readers(value: Value) -> Iterator[tuple[Op, int]]:
    """Ops that read the value's elements, directly or through views and casts."""
    seen: set[Value] = set()
    pending = [value]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for op, slot in current.uses:
            yield op, slot
            if op.kind in _VIEWS:
                pending.extend(op.results)
